"""How much faster than the baseline, on this machine, through the server."""
