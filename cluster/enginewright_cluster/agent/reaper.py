"""Outlives a killed agent by moments, to end what it left: `python reaper.py MARK VALUE`, agent's pipe on stdin.

The kernel kills the agent's children with it, but not their children. This process waits for the end of its input,
which comes with the agent's death however it dies, and then kills everything that carries the agent's mark.
"""

from __future__ import annotations

import os
import signal
import sys

from enginewright_cluster.agent.leftovers import end_marked


def main() -> None:
    """Wait for the agent's end, then clean up."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    mark, value = sys.argv[1:3]
    while os.read(0, 1024):
        pass
    end_marked(mark, value)


if __name__ == "__main__":
    main()
