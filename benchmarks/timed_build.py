"""One real build with a clock on calls into libraries: `python -m benchmarks.timed_build RECIPE STORE WORKDIR THREADS`.

The build is the builder's own, in a process of its own as the builder's would be; only what it calls libraries through
(toolchain processes, servers) is given a clock. Result: one JSON object on standard output,

    {"wall": 41.2, "library": 38.9, "parts": {"toolchain": 20.1, ...}, "stages": [{"name": ..., "seconds": ...}, ...]}

`wall` counts from the start of the process, interpreter and imports included. `library` is how long at least one of
them was at work; `parts` overlap, since the baseline answers while the toolchain works.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from enginewright_api.outcome import StageReport
from enginewright_api.recipe import BuildRequest
from enginewright_builder.build import Build
from enginewright_builder.materials import Materials
from enginewright_builder.places import Places
from enginewright_builder.processes import Children
from enginewright_builder.progress import JsonLines
from enginewright_builder.resources import Capacity, MemoryWatch
from enginewright_builder.servers.asking import Answering, Answers
from enginewright_builder.servers.pair import Pair
from enginewright_builder.stages.cache import StageCache
from enginewright_builder.stages.stage import Output, Stage
from enginewright_builder.toolchain.client import Told, Toolchain, Toolchains
from enginewright_builder.toolchain.environments import DEFAULT
from enginewright_builder.toolchain.tasks import AnyTask
from enginewright_store import open_store


class Clock:
    """Intervals by what was at work."""

    def __init__(self) -> None:
        self._found: list[tuple[str, float, float]] = []
        self._lock = threading.Lock()

    @contextmanager
    def at(self, what: str) -> Iterator[None]:
        """Until the context ends."""
        begun = time.time()
        try:
            yield
        finally:
            self.add(what, begun, time.time())

    def add(self, what: str, begun: float, ended: float) -> None:
        """One interval, in seconds of any one clock."""
        with self._lock:
            self._found.append((what, begun, ended))

    def parts(self) -> dict[str, float]:
        """Seconds by what was at work."""
        found: dict[str, float] = {}
        for what, begun, ended in self._found:
            found[what] = found.get(what, 0.0) + ended - begun
        return {what: round(seconds, 2) for what, seconds in found.items()}

    def union(self) -> float:
        """Seconds in which at least one was."""
        total, until = 0.0, 0.0
        for _, begun, ended in sorted(self._found, key=lambda item: item[1]):
            total += max(0.0, ended - max(begun, until))
            until = max(until, ended)
        return total


class TimedToolchain:
    """`Toolchain` with a clock; the libraries' imports count where a task waits for them."""

    def __init__(self, inner: Toolchain, clock: Clock) -> None:
        self._inner = inner
        self._clock = clock

    def perform(self, task: AnyTask, told: Told = lambda fraction, message: None) -> dict[str, object]:
        """As the toolchain does."""
        with self._clock.at("toolchain"):
            return self._inner.perform(task, told)


class TimedToolchains(Toolchains):
    """Gives out toolchains with a clock."""

    clock: Clock

    def of(self, name: str = DEFAULT, told: Told = lambda fraction, message: None) -> Any:
        """As the builder's."""
        return TimedToolchain(super().of(name, told), self.clock)


class TimedAnswers:
    """A connection to a server with a clock."""

    def __init__(self, inner: Answering, clock: Clock) -> None:
        self._inner = inner
        self._clock = clock

    def __enter__(self) -> TimedAnswers:
        self._inner.__enter__()
        return self

    def __exit__(self, *given: Any) -> None:
        self._inner.__exit__(*given)

    def ask_all(self, texts: Any, *, batch: int) -> Answers:
        """As the connection does."""
        with self._clock.at("inference"):
            return self._inner.ask_all(texts, batch=batch)


class TimedPair(Pair):
    """Servers with a clock on loading an engine and on answering. Staging an engine's folder is ours and not timed."""

    clock: Clock

    @contextmanager
    def alone(self, name: str, engine: Path, output: str) -> Iterator[Any]:
        """As the builder's."""
        context = super().alone(name, engine, output)
        with self.clock.at("server"):
            client = context.__enter__()
        try:
            yield TimedAnswers(client, self.clock)
        finally:
            context.__exit__(None, None, None)

    def answering(self, name: str, output: str) -> Any:
        """As the builder's."""
        with self.clock.at("server"):
            return TimedAnswers(super().answering(name, output), self.clock)


class TimedCache(StageCache):
    """The benchmark takes the time that it is given: as if it were a library's."""

    clock: Clock

    def run(self, stage: Stage) -> Output:
        """As the builder's."""
        if stage.name != "benchmark":
            return super().run(stage)
        with self.clock.at("benchmark"):
            return super().run(stage)


def build(request: BuildRequest, store_uri: str, workdir: Path, threads: int) -> dict[str, Any]:
    """Run it as `enginewright_builder.running` does. Raises StageError."""
    clock, children, reports = Clock(), Children(), list[StageReport]()
    places, store = Places(workdir, workdir, workdir, workdir), open_store(store_uri)
    places.scratch.mkdir(parents=True, exist_ok=True)
    with MemoryWatch(os.getpid()) as memory, (workdir / "toolchain.log").open("wb") as log:
        environment = {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
        toolchains = TimedToolchains(children, environment, memory, log, places.scratch)
        servers = TimedPair(places, threads, children)
        cache = TimedCache(places, store, JsonLines(sys.stderr), reports)
        toolchains.clock = servers.clock = cache.clock = clock
        toolchains.of()
        try:
            Build(
                request=request,
                store=store,
                places=places,
                capacity=Capacity.of(workdir),
                cache=cache,
                materials=Materials(request, cache, places),
                toolchains=toolchains,
                servers=servers,
                threads=threads,
                signing_key=None,
            ).run()
        finally:
            children.close()
    wall = time.time() - psutil.Process().create_time()
    return {
        "wall": round(wall, 2),
        "library": round(clock.union(), 2),
        "parts": clock.parts(),
        "stages": [report.wire() for report in reports],
    }


def main() -> None:
    """One build, one JSON object."""
    recipe, store, workdir, threads = sys.argv[1:]
    request = BuildRequest.model_validate_json(Path(recipe).read_bytes())
    print(json.dumps(build(request, store, Path(workdir), int(threads))))


if __name__ == "__main__":
    main()
