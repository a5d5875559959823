"""`enginewright-serving serve` as a process, for tests: ports, readiness, orderly end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

PROGRAM = str(Path(sys.executable).with_name("enginewright-serving"))
START_SECONDS = 90


def run_cli(*arguments: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """One command to its end."""
    return subprocess.run(
        [PROGRAM, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **(env or {})},
    )


@dataclass
class Server:
    """A running `serve`."""

    process: subprocess.Popen[bytes]
    model: str
    ports: dict[str, int]
    log: Path
    _stopped: bool = field(default=False)

    def events(self, name: str) -> list[dict[str, Any]]:
        """Log lines of one kind."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name]

    def health(self, path: str) -> int:
        """Status of the health port; 0 when nothing listens."""
        return _status(f"http://127.0.0.1:{self.ports['health']}{path}")

    def infer(self, texts: Sequence[str], *, timeout: float = 30.0) -> dict[str, Any]:
        """Outputs by name: {"embedding": [[...]], "tokens": [...]}."""
        body = {"inputs": [{"name": "text", "shape": [len(texts), 1], "datatype": "BYTES", "data": list(texts)}]}
        answer = httpx.post(self.url(f"/v2/models/{self.model}/infer"), json=body, timeout=timeout)
        answer.raise_for_status()
        return {output["name"]: output for output in answer.json()["outputs"]}

    def url(self, path: str) -> str:
        """Address on the server's own HTTP port."""
        return f"http://127.0.0.1:{self.ports['http']}{path}"

    def until(self, what: Callable[[], bool], *, seconds: float = START_SECONDS) -> None:
        """Wait for a condition; the server's log is shown when it does not come."""
        deadline = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < deadline, f"not within {seconds} s\n{self.log.read_text()[-3000:]}"
            time.sleep(0.05)

    def stub_pid(self) -> int:
        """The Python process that runs the model."""
        server = self.events("server-started")[0]["pid"]
        (stub,) = [pid for pid in children(server) if b"stub" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        return stub

    def stop(self) -> int:
        """SIGTERM and the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


@contextlib.contextmanager
def serving(repository: Path, model: str, scratch: Path, *options: str, ready: bool = True) -> Iterator[Server]:
    """Run `serve`; by default until it is ready."""
    ports = dict(zip(("http", "grpc", "metrics", "health"), free_ports(4), strict=True))
    command = [PROGRAM, "serve", "--repository", str(repository), "--model", model, "--threads", "2", *options]
    command += [part for name, port in ports.items() for part in (f"--{name}-port", str(port))]
    log = scratch / f"serve-{ports['http']}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stderr=output)
    server = Server(process, model, ports, log)
    try:
        if ready:
            server.until(lambda: process.poll() is not None or server.health("/readyz") == 200)
            assert process.poll() is None, log.read_text()[-3000:]
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def openvino_server(openvino_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of MiniLM for tests that do no harm to it."""
    scratch = tmp_path_factory.mktemp("openvino-server")
    done = run_cli("stage", "--engine", openvino_engine, "--dest", scratch / "models", "--model-name", "minilm")
    assert done.returncode == 0, done.stderr
    with serving(scratch / "models", "minilm", scratch) as server:
        yield server


def children(pid: int) -> list[int]:
    """All descendants."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *children(child)]
    return found


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def _status(url: str) -> int:
    try:
        return httpx.get(url, timeout=5).status_code
    except httpx.TransportError:
        return 0
