"""Local mode: a control plane on this machine, no cluster."""
