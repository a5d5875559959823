"""What the operator does, as pure functions: snapshots in, effects out. No clock, network or randomness."""
