"""Child processes that never outlive the builder."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import psutil

from enginewright_builder.failures import InterruptedBuildError

_PR_SET_PDEATHSIG = 1
_TERM_SECONDS = 4.0


class Children:
    """Starts processes, each in a session of its own, and ends them with everything below them.

    The kernel also ends a child when the builder dies without a word (kill -9): PR_SET_PDEATHSIG.
    """

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []
        self._lock = threading.Lock()
        self._closed = False
        self._library = ctypes.CDLL(None, use_errno=True)
        # The kernel's "parent" is the thread that forked, so that thread has to live as long as the children.
        self._spawner = ThreadPoolExecutor(1, thread_name_prefix="spawner")

    def start(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: int | None = subprocess.DEVNULL,
        stdout: int | IO[bytes] | None = None,
        stderr: int | IO[bytes] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a process. Raises InterruptedBuildError once `close` was called."""
        with self._lock:
            if self._closed:
                raise InterruptedBuildError
            process = self._spawner.submit(
                subprocess.Popen,
                list(command),
                env={**os.environ, **(environment or {})},
                cwd=cwd,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
                preexec_fn=self._die_with_parent,
            ).result()
            self._processes.append(process)
        return process

    def stop(self, *processes: subprocess.Popen[bytes]) -> None:
        """SIGTERM to all at once, SIGKILL to what is left after some seconds, and reap."""
        _end(processes)
        with self._lock:
            self._processes = [process for process in self._processes if process not in processes]

    def close(self) -> None:
        """End everything; nothing can be started afterwards."""
        with self._lock:
            self._closed = True
            processes, self._processes = self._processes, []
        _end(processes)
        self._spawner.shutdown()

    def _die_with_parent(self) -> None:
        self._library.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End processes and all below them, at once rather than one after the other."""
    # Descendants are noted first: servers start sessions of their own, and whoever loses its parent is hard to find.
    families = [member for process in processes for member in _descendants(process)]
    for process in processes:
        _signal(process, signal.SIGTERM)
    deadline = time.monotonic() + _TERM_SECONDS
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=max(deadline - time.monotonic(), 0.01))
    families += [member for process in processes for member in _descendants(process)]
    for process in processes:
        _signal(process, signal.SIGKILL)
        process.wait()
    for member in families:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()


def _descendants(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        return list(psutil.Process(process.pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    # The session outlives its leader when that crashed: what is left of it is still ended.
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        pass
    except PermissionError:
        process.send_signal(number)
