"""Local mode before anything runs: ports and what a command says of a control plane that is not up."""

from __future__ import annotations

import socket

import pytest

from enginewright_api.errors import DeterministicError
from enginewright_cli.local.doors import check_ports


@pytest.fixture
def taken() -> socket.socket:
    """A port that somebody listens on."""
    return socket.create_server(("127.0.0.1", 0))


@pytest.mark.parametrize("option", ["--http-port", "--grpc-port"])
def test_a_port_in_use_is_named_with_the_option_that_changes_it(taken: socket.socket, option: str) -> None:
    with taken, socket.create_server(("127.0.0.1", 0)) as other:
        used, free = taken.getsockname()[1], other.getsockname()[1]
        other.close()
        ports = (used, free) if option == "--http-port" else (free, used)
        with pytest.raises(DeterministicError, match=f"port {used} is in use by another process; .* {option}"):
            check_ports(http_port=ports[0], grpc_port=ports[1], patience_seconds=0.0)


def test_one_port_cannot_be_both() -> None:
    with pytest.raises(DeterministicError, match="both 8300"):
        check_ports(http_port=8300, grpc_port=8300)
