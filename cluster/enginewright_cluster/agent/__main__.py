"""`python -m enginewright_cluster.agent --state-dir DIR`: the node agent alone."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path

from enginewright_api.errors import EnginewrightError

from ..local import LocalCluster
from .agent import Agent


async def run_agent(state_dir: Path) -> None:
    """Run until SIGTERM or SIGINT; then everything that it started is ended before this returns."""
    cluster = LocalCluster(state_dir)
    task = asyncio.ensure_future(Agent(cluster).run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        logging.getLogger("enginewright.agent").info("stopped")
    finally:
        await cluster.close()


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m enginewright_cluster.agent", description=__doc__)
    parser.add_argument("--state-dir", type=Path, required=True, help="folder with the objects and everything else")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        asyncio.run(run_agent(arguments.state_dir))
    except EnginewrightError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
