"""The two servers of a build, started when first needed and kept until the end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from enginewright_builder.places import Places
from enginewright_builder.processes import Children
from enginewright_builder.servers.asking import Client
from enginewright_builder.servers.server import Server


class Pair:
    """Engine and baseline, same threads. Start-up overlaps with whatever the build does meanwhile."""

    def __init__(self, places: Places, threads: int, children: Children) -> None:
        self._places = places
        self._threads = threads
        self._children = children
        self._servers: dict[str, Server] = {}
        self._lock = threading.Lock()

    @contextmanager
    def alone(self, name: str, engine: Path, output: str) -> Iterator[Client]:
        """A server of its own that runs beside other work, with half of the threads, until the context ends.

        Fewer threads are faster there: every parallel loop waits for its slowest thread, and with other work on all
        processors one of them is always late.
        """
        server = Server.start(
            engine,
            name=name,
            scratch=self._places.scratch,
            threads=max(1, self._threads // 2),
            children=self._children,
        )
        try:
            server.wait_ready()
            with Client(server, output) as client:
                yield client
        finally:
            server.stop()

    def start(self, name: str, engine: Path) -> None:
        """Start one of them now (`engine` or `baseline`), to be ready later; a second call changes nothing."""
        with self._lock:
            if name not in self._servers:
                self._servers[name] = Server.start(
                    engine, name=name, scratch=self._places.scratch, threads=self._threads, children=self._children
                )

    def engine(self, output: str) -> Client:
        """A connection to the engine, once it is ready."""
        return self._connect("engine", output)

    def baseline(self, output: str) -> Client:
        """A connection to the baseline, once it is ready."""
        return self._connect("baseline", output)

    def engine_resident_bytes(self) -> int:
        """Memory of the engine's server."""
        return self._servers["engine"].resident_bytes()

    def stop(self) -> None:
        """End both."""
        with self._lock:
            servers, self._servers = list(self._servers.values()), {}
        for server in servers:
            server.stop()

    def _connect(self, name: str, output: str) -> Client:
        with self._lock:
            server = self._servers[name]
        server.wait_ready()
        return Client(server, output)
