"""A hub over HTTP, as far as its clients need one."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """Enough of a hub: repository listing, files with their headers, tokens, faults."""

    files: dict[str, bytes]
    kind: str = "models"
    token: str = ""
    fault: int = 0
    fault_at: str = ""
    """End of the paths that the fault is of; empty: of all."""
    echoes: bool = False
    """Tells everybody what it was sent as credentials: in headers that its clients log, and in the body of errors."""
    asked: list[str] = field(default_factory=list)

    @property
    def root(self) -> str:
        """Where files of this kind of repository are."""
        return "" if self.kind == "models" else f"/{self.kind}"

    def answer(self, handler: BaseHTTPRequestHandler, *, body: bool) -> None:
        path = unquote(urlsplit(handler.path).path)
        self.asked.append(path)
        if self.fault and path.endswith(self.fault_at):
            return self._send(handler, self.fault, b"{}")
        if self.token and handler.headers.get("Authorization") != f"Bearer {self.token}":
            return self._send(handler, 401, b"{}")
        if path == f"/api/{self.kind}/org/name/revision/{COMMIT}":
            siblings = [{"rfilename": name} for name in self.files]
            return self._send(
                handler, 200, json.dumps({"id": "org/name", "sha": COMMIT, "siblings": siblings}).encode()
            )
        if path == f"/api/{self.kind}/org/name/tree/{COMMIT}":
            entries = [
                {"type": "file", "path": name, "size": len(content), "oid": f"{len(content):040x}"}
                for name, content in self.files.items()
            ]
            return self._send(handler, 200, json.dumps(entries).encode())
        prefix = f"{self.root}/org/name/resolve/{COMMIT}/"
        content = self.files.get(path.removeprefix(prefix)) if path.startswith(prefix) else None
        if content is None:
            return self._send(handler, 404, b"{}", {"X-Error-Code": "RepoNotFound"})
        tags = {"ETag": f'"{len(content):040x}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        return self._send(handler, 200, content, tags, body=body)

    def _send(
        self,
        handler: BaseHTTPRequestHandler,
        status: int,
        content: bytes,
        headers: dict[str, str] | None = None,
        *,
        body: bool = True,
    ) -> None:
        if self.echoes:
            said = f"credentials: {handler.headers.get('Authorization')}"
            headers = {"X-HF-Warning": said, "X-Error-Message": said, "X-Said": said} | (headers or {})
            content = json.dumps({"error": said}).encode() if status >= 400 else content
        handler.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | (headers or {})).items():
            handler.send_header(name, value)
        handler.end_headers()
        if body:
            handler.wfile.write(content)


@contextmanager
def running_hub(served: Hub, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The hub, and the environment that leads clients to it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.answer(self, body=True)

        def do_HEAD(self) -> None:
            served.answer(self, body=False)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    yield served
    server.shutdown()
    server.server_close()
    thread.join()
