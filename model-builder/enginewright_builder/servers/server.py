"""One engine behind `enginewright-serving`, as it will be served: staged, started, asked, stopped."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from enginewright_api.errors import DeterministicError, TransientError
from enginewright_builder.processes import Children
from enginewright_builder.resources import resident_bytes

_READY_SECONDS = 300.0
_POLL_SECONDS = 0.05
_LOG_TAIL_BYTES = 4000


@dataclass(frozen=True, slots=True)
class Ports:
    """All on 127.0.0.1."""

    http: int
    grpc: int
    metrics: int
    health: int

    @classmethod
    def free(cls) -> Ports:
        """Ports that nobody listens on now; held together so that they differ."""
        sockets = [socket.socket() for _ in range(4)]
        try:
            for held in sockets:
                held.bind(("127.0.0.1", 0))
            return cls(*(int(held.getsockname()[1]) for held in sockets))
        finally:
            for held in sockets:
                held.close()


class Server:
    """A running server. Stop it, or let `Children.close` do so."""

    def __init__(
        self, name: str, process: subprocess.Popen[bytes], ports: Ports, log: Path, children: Children
    ) -> None:
        self.name = name
        self.ports = ports
        self._process = process
        self._log = log
        self._children = children

    @classmethod
    def start(cls, engine: Path, *, name: str, scratch: Path, threads: int, children: Children) -> Server:
        """Stage an engine folder and start serving it. Returns before it is ready."""
        folder = scratch / f"server-{name}-{time.monotonic_ns()}"
        folder.mkdir(parents=True)
        repository, log = folder / "repository", folder / "server.log"
        ports = Ports.free()
        with log.open("wb") as stream:
            staging = children.start(
                _program("stage", "--engine", str(engine), "--dest", str(repository), "--model-name", name),
                stdout=stream,
                stderr=stream,
            )
            if staging.wait() != 0:
                raise DeterministicError("EngineLoadFailed", f"engine {name} cannot be staged: {_tail(log)}")
            process = children.start(
                _program(
                    "serve", "--repository", str(repository), "--model", name,
                    "--http-port", str(ports.http), "--grpc-port", str(ports.grpc),
                    "--metrics-port", str(ports.metrics), "--health-port", str(ports.health),
                    "--threads", str(threads), "--drain-seconds", "0",
                ),
                environment={"OMP_NUM_THREADS": str(threads), "ENGINE_THREADS": str(threads)},
                stdout=stream,
                stderr=stream,
            )  # fmt: skip
        return cls(name, process, ports, log, children)

    def wait_ready(self) -> None:
        """Until it answers a real inference. Raises DeterministicError when it ends, TransientError when it hangs."""
        deadline = time.monotonic() + _READY_SECONDS
        while not self._is_ready():
            code = self._process.poll()
            if code is not None:
                raise DeterministicError(
                    "EngineLoadFailed",
                    f"the server ended with exit code {code} on engine {self.name}: {_tail(self._log)}",
                )
            if time.monotonic() > deadline:
                raise TransientError(
                    "ServerNotReady",
                    f"engine {self.name} did not answer within {_READY_SECONDS:.0f} s: {_tail(self._log)}",
                )
            time.sleep(_POLL_SECONDS)

    def resident_bytes(self) -> int:
        """Memory of the server and its children now."""
        try:
            return resident_bytes(psutil.Process(self._process.pid))
        except psutil.NoSuchProcess:
            return 0

    def stop(self) -> None:
        """End it and what it started."""
        self._children.stop(self._process)

    def _is_ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.ports.health, timeout=2)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == http.HTTPStatus.OK
        except OSError:
            return False
        finally:
            connection.close()


def _program(*arguments: str) -> list[str]:
    # The console script beside this interpreter: the same environment, whatever PATH says.
    script = Path(sys.executable).with_name("enginewright-serving")
    return [str(script) if os.access(script, os.X_OK) else "enginewright-serving", *arguments]


def _tail(log: Path) -> str:
    text = log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace")
    return " | ".join(line.strip() for line in text.splitlines()[-4:])[:600]
