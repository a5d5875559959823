"""`serve`: run tritonserver on one model, watch it by real inferences, end when it does, drain on SIGTERM."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from enginewright_api.errors import DeterministicError, TransientError
from enginewright_api.recipe import Task
from enginewright_serving import activity, tritonserver
from enginewright_serving.events import log
from enginewright_serving.model_config import input_names
from enginewright_serving.ranks import Group, launched
from enginewright_serving.repository import engine_folder, read_description
from enginewright_serving.server_process import ServerProcess
from enginewright_serving.shared_memory import region_prefix, remove_abandoned_regions, remove_regions

if TYPE_CHECKING:
    from enginewright_serving.health import Health
    from enginewright_serving.probe import Probe

LOOK_EVERY_SECONDS = 1.0
"""Of a server that has answered: how soon a failure is noticed."""
_LOOK_EVERY_SECONDS_AT_START = 0.05
_SETTLE_SECONDS = 1.0
"""After readiness is withdrawn, requests keep being taken this long: clients learn of it with a delay."""

_EXIT_SECONDS = 1
"""The server is asked to stop when nothing is in flight, yet waits this long for clients' idle connections."""


@dataclass(frozen=True, slots=True)
class Serve:
    """One run, as the command line gives it."""

    repository: Path
    model: str
    listen: tritonserver.Listen
    health_port: int
    threads: int
    drain_seconds: float
    start_seconds: float
    look_seconds: float = LOOK_EVERY_SECONDS
    """Pause between two looks at a server that has answered."""
    group: Group | None = None
    """Other hosts that run ranks of the engine; None when this one has them all."""


def serve(run: Serve) -> None:
    """Returns after an orderly stop. Raises DeterministicError (cannot start) or TransientError (died; restart it)."""
    tritonserver.check_numpy()
    remove_abandoned_regions()
    if not (run.repository / run.model / "config.pbtxt").is_file():
        raise DeterministicError(
            "EngineMissing", f"{run.repository}: no model {run.model} in it; run admit or stage before serve"
        )
    with tempfile.TemporaryDirectory(prefix="enginewright-backends-") as folder:
        working = activity.create(Path(folder, "working"))
        command = tritonserver.command(
            run.repository.resolve(),
            run.model,
            run.listen,
            backends=tritonserver.link_backends(Path(folder, "backends")),
            memory_prefix=region_prefix(os.getpid()),
            exit_timeout_seconds=_EXIT_SECONDS,
        )
        server = ServerProcess(
            command if run.group is None else launched(command, run.group, Path(folder)),
            tritonserver.environment(os.environ, threads=run.threads, activity_file=working),
        )
        log("server-started", pid=server.pid, model=run.model, threads=run.threads)
        try:
            asyncio.run(_watch(run, server, working))
        finally:
            code = server.stop(_EXIT_SECONDS + 3)
            remove_regions(os.getpid())
            log("server-stopped", exit_code=code)


async def _watch(run: Serve, server: ServerProcess, working: Path) -> None:
    # Imported while the server loads the engine: start-up time is what a cold start costs.
    from enginewright_serving.health import Health, listen
    from enginewright_serving.probe import Probe
    from enginewright_serving.vitality import READY_FOR_SECONDS

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    # One look may come late or fail: an answer counts until a second one after it is due.
    health = Health(ready_for_seconds=READY_FOR_SECONDS + 2 * (run.look_seconds - LOOK_EVERY_SECONDS))
    door = await listen(health, run.listen.address, run.health_port)
    host = "127.0.0.1" if run.listen.address in ("0.0.0.0", "::") else run.listen.address  # noqa: S104 - comparison
    try:
        metrics_url = f"http://{host}:{run.listen.metrics_port}/metrics"
        task = read_description(engine_folder(run.repository, run.model)).task
        progress_url = metrics_url if task is Task.TEXT_GENERATION else ""
        url = f"http://{host}:{run.listen.http_port}"
        async with Probe(url, run.model, inputs=input_names(task), progress_url=progress_url) as probe:
            await _until_stopped(run, server, health, probe, stop, working=working)
        await _drain(run, server, health, metrics_url, working)
    finally:
        await door.cleanup()


async def _until_stopped(
    run: Serve, server: ServerProcess, health: Health, probe: Probe, stop: asyncio.Event, *, working: Path
) -> None:
    while not stop.is_set():
        seen = replace(await probe.look(), working=activity.busy(working))
        was_ready, was_started = health.ready(), health.vitality.started
        health.vitality = health.vitality.after(seen)
        health.server_exit_code = server.exit_code
        if health.server_exit_code is not None:
            raise _died(run, server, started=was_started)
        if health.vitality.dead:
            server.stop(0.0)  # nothing in it can still be answered, and an orderly stop would wait for its engine
            raise TransientError(
                "EngineDead", f"{run.model}: stopped answering ({health.reason()}); restart the container"
            )
        if not was_started and health.vitality.started:
            log("ready", model=run.model, seconds=round(time.monotonic() - server.started_at, 2))
        elif was_ready != health.ready():
            log("readiness-changed", ready=health.ready(), reason=health.reason())
        if not health.vitality.started and time.monotonic() - server.started_at > run.start_seconds:
            raise TransientError(
                "StartTimeout",
                f"{run.model}: no answer within {run.start_seconds:g} s ({health.reason()}); restart the container",
            )
        pause = run.look_seconds if health.vitality.started else _LOOK_EVERY_SECONDS_AT_START
        await _pause(stop, server, pause)


async def _drain(run: Serve, server: ServerProcess, health: Health, metrics_url: str, working: Path) -> None:
    from enginewright_serving.draining import wait_idle, waiting_requests

    health.draining = True
    log("draining", longest_seconds=run.drain_seconds)
    await asyncio.sleep(min(_SETTLE_SECONDS, run.drain_seconds))

    async def in_flight() -> bool:
        if server.exit_code is not None:
            return False
        # A server too busy to give its metrics is taken to have requests.
        return activity.busy(working) or await waiting_requests(metrics_url, run.model) != 0

    idle = await wait_idle(in_flight, run.drain_seconds)
    log("drained", idle=idle)
    await asyncio.to_thread(server.stop, _EXIT_SECONDS + 3)


async def _pause(stop: asyncio.Event, server: ServerProcess, seconds: float) -> None:
    """Until then, or `stop`, or a second after the server's end at most."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0 and server.exit_code is None:
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), min(left, LOOK_EVERY_SECONDS))
            return


def _died(run: Serve, server: ServerProcess, *, started: bool) -> DeterministicError | TransientError:
    tail = server.log_tail()
    telling = [line for line in tail if line.startswith(("E", "error:"))] or tail
    where = f"tritonserver exited with code {server.exit_code}: " + " | ".join(telling[-3:])[:1500]
    if started:
        return TransientError("ServerDied", f"{run.model}: {where}")
    return DeterministicError("EngineLoadFailed", f"{run.model}: {where}")
