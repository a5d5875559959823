"""Processes of containers: a session of their own, output to a bounded log, and never outliving the agent."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from enginewright_api.errors import DeterministicError

from ..log_files import PREVIOUS

NODE_MARK, RUN_MARK = "ENGINEWRIGHT_NODE", "ENGINEWRIGHT_NODE_RUN"
"""In the environment of everything that the agent starts (state folder, this run): finds what a killed one left."""
LOG_BYTES = 5 * 1024 * 1024
_TAIL_BYTES = 2048  # of the log, as termination message: as the kubelet does
_CHUNK_BYTES = 64 * 1024
_DRAIN_SECONDS = 1.0


class LogFile:
    """What a container writes; rotated once at `LOG_BYTES`, so that at most twice that is kept."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._file = path.open("ab", buffering=0)
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0

    def write(self, chunk: bytes) -> None:
        """Append; a full disk loses log lines, not the process."""
        with contextlib.suppress(OSError):
            self._file.write(chunk)
            if self._file.tell() > LOG_BYTES:
                self._file.close()
                self._path.rename(self._path.parent / (self._path.stem + PREVIOUS))
                self._file = self._path.open("ab", buffering=0)
        self._tail.append(chunk)
        self._tail_bytes += len(chunk)
        while self._tail_bytes - len(self._tail[0]) > _TAIL_BYTES:
            self._tail_bytes -= len(self._tail.popleft())

    def tail(self) -> str:
        """The last of it, for a termination message."""
        return b"".join(self._tail)[-_TAIL_BYTES:].decode(errors="replace")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Process:
    """A running process and its descendants in the same group."""

    def __init__(self, inner: asyncio.subprocess.Process, output: int, log: LogFile) -> None:
        self._inner = inner
        self._log = log
        self._copying = asyncio.create_task(self._copy(output), name=f"log-{inner.pid}")

    @property
    def pid(self) -> int:
        """Of the leader; the group has the same number."""
        return self._inner.pid

    @property
    def running(self) -> bool:
        """Whether the leader lives."""
        return self._inner.returncode is None

    async def wait(self) -> int:
        """Exit code as a shell gives it (128 + signal). What is left of the group is killed, the log completed."""
        try:
            code = await self._inner.wait()
        finally:
            self.signal(signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                await self._copying
        return code if code >= 0 else 128 - code

    def signal(self, number: signal.Signals) -> None:
        """To the whole group; nothing if it is gone."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._inner.pid, number)

    async def terminate(self, grace_seconds: float) -> bool:
        """SIGTERM, then SIGKILL after the grace time. False when it had to be killed."""
        if not self.running:
            return True
        self.signal(signal.SIGTERM)
        try:
            # Not wait_for: in Python 3.11 it loses a cancellation that comes together with the end.
            async with asyncio.timeout(grace_seconds):
                await self._inner.wait()
        except TimeoutError:
            self.signal(signal.SIGKILL)
            await self._inner.wait()
            return False
        return True

    async def _copy(self, output: int) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(output, "rb", buffering=0)
        )
        try:
            while chunk := await reader.read(_CHUNK_BYTES):
                self._log.write(chunk)
        finally:
            transport.close()


async def start(arguments: Sequence[str], *, variables: Mapping[str, str], folder: Path, log: LogFile) -> Process:
    """Start a process. DeterministicError `RunContainerError` when it cannot be."""
    program = resolve(arguments[0], variables.get("PATH"))
    command = [*_death_wish(), program, *arguments[1:]]
    # A pipe of our own: asyncio's would keep `wait` waiting for grandchildren that still hold it.
    output, target = os.pipe()
    try:
        inner = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=target,
            stderr=asyncio.subprocess.STDOUT,
            cwd=folder,
            env=dict(variables),
            start_new_session=True,
        )
    except BaseException as error:
        os.close(output)
        if isinstance(error, OSError | ValueError):
            raise DeterministicError("RunContainerError", f"{arguments[0]}: cannot be started: {error}") from error
        raise
    finally:
        os.close(target)
    return Process(inner, output, log)


def resolve(program: str, path: str | None) -> str:
    """The program's file: beside this interpreter first (our console scripts), then on PATH."""
    if "/" in program:
        found: str | None = program if Path(program).exists() else None
    else:
        beside = Path(sys.executable).parent / program
        found = str(beside) if beside.exists() else shutil.which(program, path=path)
    if found is None:
        raise DeterministicError(
            "RunContainerError", f"command {program!r} is neither beside {sys.executable} nor on PATH: install it"
        )
    return found


def _death_wish() -> list[str]:
    """The kernel kills the child when the agent dies, where util-linux's setpriv is there; else the reaper does."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
