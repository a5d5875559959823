"""The two servers of a build, started when first needed and kept until the end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from enginewright_api.engine_description import TOKEN_SCORES
from enginewright_builder.places import Places
from enginewright_builder.processes import Children
from enginewright_builder.servers.asking import Answering, Client
from enginewright_builder.servers.generating import GenerationClient
from enginewright_builder.servers.server import Server
from enginewright_builder.servers.tagging import TaggingClient

GENERATION_OUTPUT = "logits"
"""Output of engines that generate text."""


class Pair:
    """Engine and baseline, same threads. Start-up overlaps with whatever the build does meanwhile."""

    def __init__(self, places: Places, threads: int, children: Children) -> None:
        self._places = places
        self._threads = threads
        self._children = children
        self._servers: dict[str, Server] = {}
        self._lock = threading.Lock()

    @contextmanager
    def alone(self, name: str, engine: Path, output: str) -> Iterator[Answering]:
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
            with _client(server, output) as client:
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
        return _encoding_client(self._ready("engine"), output)

    def baseline(self, output: str) -> Client:
        """A connection to the baseline, once it is ready."""
        return _encoding_client(self._ready("baseline"), output)

    def answering(self, name: str, output: str) -> Answering:
        """A connection for the gate to `engine` or `baseline`, once it is ready."""
        return _client(self._ready(name), output)

    def generating(self, name: str) -> GenerationClient:
        """A connection to `engine` or `baseline` that generate text, once it is ready."""
        return GenerationClient(self._ready(name))

    def engine_resident_bytes(self) -> int:
        """Memory of the engine's server."""
        return self._servers["engine"].resident_bytes()

    def stop(self) -> None:
        """End both at once: each takes seconds to end in order."""
        with self._lock:
            servers, self._servers = list(self._servers.values()), {}
        self._children.stop(*(server.process for server in servers))

    def _ready(self, name: str) -> Server:
        with self._lock:
            server = self._servers[name]
        server.wait_ready()
        return server


def _client(server: Server, output: str) -> Answering:
    return GenerationClient(server) if output == GENERATION_OUTPUT else _encoding_client(server, output)


def _encoding_client(server: Server, output: str) -> Client:
    return TaggingClient(server) if output == TOKEN_SCORES else Client(server, output)
