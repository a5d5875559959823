"""A connection to a server that goes away."""

from __future__ import annotations

import socket
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from enginewright_api.errors import TransientError
from enginewright_builder.servers.asking import Client


def test_a_server_that_ends_while_it_is_asked_may_be_tried_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:

        def end() -> None:
            caller, _ = door.accept()
            with caller:
                caller.recv(1024)

        threading.Thread(target=end, daemon=True).start()
        server: Any = SimpleNamespace(name="engine", ports=SimpleNamespace(http=door.getsockname()[1]))
        with Client(server, "embedding") as client, pytest.raises(TransientError, match="connection lost") as caught:
            client.ask(["hello"])
        assert caught.value.reason == "ServerGone"
