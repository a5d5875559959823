"""One engine behind `enginewright-serving`, as it will be served: staged, started, asked, stopped."""

from __future__ import annotations

import http.client
import os
import secrets
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, fields
from pathlib import Path

import psutil

from enginewright_api.errors import DeterministicError, TransientError
from enginewright_api.serving_spec import Batching
from enginewright_builder.processes import Children
from enginewright_builder.resources import resident_bytes

_READY_SECONDS = 300.0
_LOOK_SECONDS = 30
"""The answers themselves tell that a server lives. Looking at the idle one costs the one that is timed."""
_POLL_SECONDS = 0.05
_LOG_TAIL_BYTES = 4000
_MAX_STARTS = 3
_PORT_TAKEN = ("already in use", "address in use", "failed to bind")
_LOWEST_PORT = 15_000
_PORTS = 17_000


@dataclass(frozen=True, slots=True)
class Ports:
    """All on 127.0.0.1."""

    http: int
    grpc: int
    metrics: int
    health: int

    @classmethod
    def free(cls) -> Ports:
        """Ports that nobody listens on now; held together so that they differ.

        Below the range that the kernel hands out for connections: the server binds seconds later.
        """
        sockets: list[socket.socket] = []
        try:
            while len(sockets) < len(fields(cls)):
                held = socket.socket()
                try:
                    held.bind(("127.0.0.1", _LOWEST_PORT + secrets.randbelow(_PORTS)))
                except OSError:
                    held.close()
                    continue
                sockets.append(held)
            return cls(*(int(held.getsockname()[1]) for held in sockets))
        finally:
            for held in sockets:
                held.close()


class Server:
    """A running server. Stop it, or let `Children.close` do so."""

    def __init__(self, name: str, folder: Path, engine: Path, *, threads: int, children: Children) -> None:
        self.name = name
        self.engine = engine
        self._folder = folder
        self._threads = threads
        self._children = children
        self._starts = 0
        self.ports, self._process = self._launch()

    @classmethod
    def start(
        cls,
        engine: Path,
        *,
        name: str,
        scratch: Path,
        threads: int,
        children: Children,
        batching: Batching | None = None,
    ) -> Server:
        """Stage an engine folder and start serving it. Returns before it is ready."""
        folder = scratch / f"server-{name}-{time.monotonic_ns()}"
        folder.mkdir(parents=True)
        log = folder / "stage.log"
        settings = folder / "batching.json"
        settings.write_text((batching or Batching()).model_dump_json(by_alias=True, exclude_none=True))
        with log.open("wb") as stream:
            staging = children.start(
                _program(
                    "stage",
                    "--engine",
                    str(engine),
                    "--dest",
                    str(folder / "repository"),
                    "--model-name",
                    name,
                    "--batching",
                    str(settings),
                ),
                stdout=stream,
                stderr=stream,
            )
            if staging.wait() != 0:
                raise DeterministicError("EngineLoadFailed", f"engine {name} cannot be staged: {_tail(log)}")
        return cls(name, folder, engine, threads=threads, children=children)

    def wait_ready(self) -> None:
        """Until it answers a real inference.

        Raises DeterministicError when it cannot run the engine, TransientError when it dies otherwise or hangs.
        """
        deadline = time.monotonic() + _READY_SECONDS
        while True:
            code = self._process.poll()
            if code is not None:
                self._restart_or_raise(code)
            elif self._is_ready():
                return
            if time.monotonic() > deadline:
                raise TransientError(
                    "ServerNotReady",
                    f"engine {self.name} did not answer within {_READY_SECONDS:.0f} s: {_tail(self._log)}",
                )
            time.sleep(_POLL_SECONDS)

    def _launch(self) -> tuple[Ports, subprocess.Popen[bytes]]:
        self._starts += 1
        ports, threads = Ports.free(), str(self._threads)
        self._log = self._folder / f"server-{self._starts}.log"
        with self._log.open("wb") as stream:
            process = self._children.start(
                _program(
                    "serve", "--repository", str(self._folder / "repository"), "--model", self.name,
                    "--http-port", str(ports.http), "--grpc-port", str(ports.grpc),
                    "--metrics-port", str(ports.metrics), "--health-port", str(ports.health),
                    "--threads", threads, "--drain-seconds", "0", "--look-seconds", str(_LOOK_SECONDS),
                ),
                environment={"OMP_NUM_THREADS": threads, "ENGINE_THREADS": threads},
                stdout=stream,
                stderr=stream,
            )  # fmt: skip
        return ports, process

    def _restart_or_raise(self, code: int) -> None:
        """A port that was taken since we looked is no fault of the engine: try others."""
        log = self._log.read_bytes().decode(errors="replace").lower()
        if any(text in log for text in _PORT_TAKEN) and self._starts < _MAX_STARTS:
            self.ports, self._process = self._launch()
            return
        what = f"the server ended with exit code {code} on engine {self.name}: {_tail(self._log)}"
        if code == DeterministicError.exit_code:
            raise DeterministicError("EngineLoadFailed", what)
        raise TransientError("ServerDied", what)

    def resident_bytes(self) -> int:
        """Memory of the server and its children now."""
        try:
            return resident_bytes(psutil.Process(self._process.pid))
        except psutil.NoSuchProcess:
            return 0

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """As started last."""
        return self._process

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
