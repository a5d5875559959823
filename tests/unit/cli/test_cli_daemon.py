"""Starting in the background next to somebody who answers like a gateway."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from enginewright_api.errors import DeterministicError
from enginewright_cli.local import daemon
from enginewright_cli.local.control_plane import Options
from enginewright_cli.state import StateDirectory


class _Healthy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def stranger() -> Iterator[int]:
    """The port of another folder's gateway."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Healthy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_a_port_of_another_gateway_is_not_taken_for_ours(tmp_path: Path, stranger: int) -> None:
    state = StateDirectory(tmp_path / "state")
    assert daemon.answers(stranger)
    with pytest.raises(DeterministicError, match=rf"port {stranger} is in use .* --http-port"):
        daemon.start(state, Options(http_port=stranger, grpc_port=stranger + 1, scale_down_seconds=1.0))
    assert daemon.running(state) is None


def test_what_stops_it_can_be_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ENGINEWRIGHT_HOME", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.argv", [".venv/bin/enginewright", "demo"])
    of_user, own = StateDirectory.default(), StateDirectory(tmp_path / "my state")
    assert of_user.down_command == ".venv/bin/enginewright down"
    program = tmp_path / "enginewright"
    program.touch(0o755)
    assert of_user.down_command == "enginewright down"
    assert own.down_command == f"enginewright down --state-dir '{tmp_path}/my state'"
    monkeypatch.setenv("ENGINEWRIGHT_HOME", str(own.root))
    assert StateDirectory.default().down_command == own.down_command, "another shell need not have the variable"
