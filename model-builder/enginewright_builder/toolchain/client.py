"""The builder's end of the toolchain processes."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

from pydantic import TypeAdapter

from enginewright_api.errors import ERROR_BY_CLASS, DeterministicError, EnginewrightError, FailureClass
from enginewright_builder.failures import OutOfMemoryError
from enginewright_builder.processes import Children
from enginewright_builder.resources import MemoryWatch
from enginewright_builder.toolchain.environments import DEFAULT, import_path, python_of
from enginewright_builder.toolchain.tasks import AnyTask, Progress, Reply

_MEMORY_MARGIN = 1.5
_ANSWER: TypeAdapter[Progress | Reply] = TypeAdapter(Progress | Reply)

Told = Callable[[float, str], None]


def _nobody(fraction: float, message: str) -> None:
    return


class Toolchain:
    """One process, started early (imports take seconds), given one task at a time."""

    def __init__(
        self,
        children: Children,
        environment: Mapping[str, str],
        memory: MemoryWatch,
        log: IO[bytes],
        python: Path = Path(sys.executable),
    ) -> None:
        self._memory = memory
        self._turn = threading.Lock()
        self._process = children.start(
            [str(python), "-m", "enginewright_builder.toolchain.process"],
            environment=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
        )

    def perform(self, task: AnyTask, told: Told = _nobody) -> dict[str, object]:
        """Result of a task. Raises what the task raised, OutOfMemoryError when the kernel killed the process."""
        line = task.model_dump_json(by_alias=True) + "\n"
        with self._turn:
            stdin, stdout = self._process.stdin, self._process.stdout
            if stdin is None or stdout is None:
                raise DeterministicError("InternalError", "the toolchain process has no pipes")
            try:
                stdin.write(line.encode())
                stdin.flush()
                reply = _reply(stdout, told)
            except BrokenPipeError:
                reply = None
        if reply is None:
            raise self._died()
        if reply.error_class is not None:
            raise self._error_of(reply, FailureClass(reply.error_class))
        return reply.result

    def _error_of(self, reply: Reply, failure_class: FailureClass) -> EnginewrightError:
        if reply.reason == "OutOfMemory":
            return OutOfMemoryError(reply.message, needs_memory_bytes=self._needs())
        return ERROR_BY_CLASS[failure_class](reply.reason, reply.message)

    def _died(self) -> EnginewrightError:
        code = self._process.wait(timeout=10)
        if code == -signal.SIGKILL:
            needs = self._needs()
            return OutOfMemoryError(
                f"the toolchain process was killed for memory at {needs / _MEMORY_MARGIN / 2**20:.0f} MiB;"
                f" give the build {needs / 2**20:.0f} MiB",
                needs_memory_bytes=needs,
            )
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return DeterministicError("ToolchainCrashed", f"the toolchain process ended with {name}; its log says more")

    def _needs(self) -> int:
        return int(self._memory.peak_bytes * _MEMORY_MARGIN)


class Toolchains:
    """The processes of a build by toolchain name; each starts when it is first asked for."""

    def __init__(
        self, children: Children, environment: Mapping[str, str], memory: MemoryWatch, log: IO[bytes], scratch: Path
    ) -> None:
        self._children = children
        self._environment = environment
        self._memory = memory
        self._log = log
        self._scratch = scratch
        self._started: dict[str, Toolchain] = {}
        self._lock = threading.Lock()

    def of(self, name: str = DEFAULT, told: Told = _nobody) -> Toolchain:
        """Raises DeterministicError ToolchainMissing, TransientError ToolchainUnavailable."""
        with self._lock:
            if name not in self._started:
                self._started[name] = self._start(name, told)
            return self._started[name]

    def _start(self, name: str, told: Told) -> Toolchain:
        python = python_of(name, self._children, told)
        environment = dict(self._environment)
        if name != DEFAULT:
            environment["PYTHONPATH"] = str(import_path(self._scratch / f"toolchain-{name}"))
        return Toolchain(self._children, environment, self._memory, self._log, python)


def _reply(stdout: IO[bytes], told: Told) -> Reply | None:
    """The reply after any number of progress lines; None when the process ended instead."""
    while answer := stdout.readline():
        found = _ANSWER.validate_json(answer)
        if isinstance(found, Reply):
            return found
        told(found.progress, found.message)
    return None
