"""The gateway as a process over the local cluster's state: `python -m tests.gateway.local_gateway STATE HTTP GRPC`."""

import sys
from pathlib import Path

import uvloop

from enginewright_cluster.local import LocalCluster
from enginewright_gateway.app import serve
from enginewright_gateway.exchange import log_to_stdout
from enginewright_gateway.settings import GatewaySettings


async def main(state_dir: Path, http_port: int, grpc_port: int) -> None:
    """Serve until SIGTERM."""
    cluster = LocalCluster(state_dir)
    settings = GatewaySettings(http_port=http_port, grpc_port=grpc_port, allow_anonymous=True, drain_seconds=5)
    try:
        await serve(cluster, settings)
    finally:
        await cluster.close()


if __name__ == "__main__":
    log_to_stdout()
    uvloop.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
