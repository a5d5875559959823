"""The builder's end of the toolchain process."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import IO

from enginewright_api.errors import ERROR_BY_CLASS, DeterministicError, EnginewrightError, FailureClass
from enginewright_builder.failures import OutOfMemoryError
from enginewright_builder.processes import Children
from enginewright_builder.resources import MemoryWatch
from enginewright_builder.toolchain.tasks import CompileTask, ExportTask, QuantizeTask, Reply

_MEMORY_MARGIN = 1.5


class Toolchain:
    """Starts the process early (imports take seconds), gives it one task at a time."""

    def __init__(self, children: Children, environment: Mapping[str, str], memory: MemoryWatch, log: IO[bytes]) -> None:
        self._memory = memory
        self._turn = threading.Lock()
        self._process = children.start(
            [sys.executable, "-m", "enginewright_builder.toolchain.process"],
            environment=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
        )

    def perform(self, task: ExportTask | QuantizeTask | CompileTask) -> dict[str, object]:
        """Result of a task. Raises what the task raised, OutOfMemoryError when the kernel killed the process."""
        line = task.model_dump_json(by_alias=True) + "\n"
        with self._turn:
            stdin, stdout = self._process.stdin, self._process.stdout
            if stdin is None or stdout is None:
                raise DeterministicError("InternalError", "the toolchain process has no pipes")
            try:
                stdin.write(line.encode())
                stdin.flush()
                answer = stdout.readline()
            except BrokenPipeError:
                answer = b""
        if not answer:
            raise self._died()
        reply = Reply.model_validate_json(answer)
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
