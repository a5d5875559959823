"""The gateway's two ports: checked before anything starts, since a gateway without its port never gets ready."""

from __future__ import annotations

import socket
import time

from enginewright_api.errors import DeterministicError

_PATIENCE_SECONDS = 3.0
"""A control plane that was killed leaves its gateway for a moment."""


def check_ports(*, http_port: int, grpc_port: int, patience_seconds: float = _PATIENCE_SECONDS) -> None:
    """DeterministicError naming the port that another process has, and the option that chooses another one."""
    if http_port == grpc_port:
        raise DeterministicError("Usage", f"--http-port and --grpc-port are both {http_port}; choose two ports")
    end = time.monotonic() + patience_seconds
    for option, port in (("--http-port", http_port), ("--grpc-port", grpc_port)):
        while not _is_free(port):
            if time.monotonic() > end:
                raise DeterministicError(
                    "PortTaken", f"port {port} is in use by another process; stop that, or choose another with {option}"
                )
            time.sleep(0.1)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
