"""Child processes that never outlive the builder."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import psutil

from enginewright_builder.failures import InterruptedBuildError

_PR_SET_PDEATHSIG = 1
_TERM_SECONDS = 4.0
_FAMILY = "ENGINEWRIGHT_CHILD"
_LOOKS = 5


class Children:
    """Starts processes, each in a session of its own, and ends them with everything below them.

    The kernel also ends a child when the builder dies without a word (kill -9): PR_SET_PDEATHSIG.
    """

    def __init__(self) -> None:
        self._processes: dict[subprocess.Popen[bytes], str] = {}
        """Each with the mark that is in its environment and in that of everything below it."""
        self._lock = threading.Lock()
        self._ending = threading.Lock()
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
            family = uuid.uuid4().hex
            process = self._spawner.submit(
                subprocess.Popen,
                list(command),
                env={**os.environ, **(environment or {}), _FAMILY: family},
                cwd=cwd,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
                preexec_fn=self._die_with_parent,
            ).result()
            self._processes[process] = family
        return process

    def stop(self, *processes: subprocess.Popen[bytes]) -> None:
        """SIGTERM to all at once, SIGKILL to what is left after some seconds, and reap."""
        with self._lock:
            ending = {process: self._processes.pop(process) for process in processes if process in self._processes}
        _end(ending)

    def close(self) -> None:
        """End everything; nothing can be started afterwards. Whoever calls while another ends them waits, too.

        Otherwise the program could be over before what it started is.
        """
        with self._ending:
            with self._lock:
                self._closed = True
                ending, self._processes = self._processes, {}
            _end(ending)
        self._spawner.shutdown()

    def _die_with_parent(self) -> None:
        self._library.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _end(processes: Mapping[subprocess.Popen[bytes], str]) -> None:
    """End processes and all below them, at once rather than one after the other."""
    for process in processes:
        _signal(process, signal.SIGTERM)
    deadline = time.monotonic() + _TERM_SECONDS
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=max(deadline - time.monotonic(), 0.01))
    for process in processes:
        _signal(process, signal.SIGKILL)
        process.wait()
    # Whoever lost its parent is found by its mark; what was started while one looked, by another look.
    for _ in range(_LOOKS):
        left = _marked(set(processes.values()))
        if not left:
            break
        for member in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(left, timeout=_TERM_SECONDS)


def _marked(families: Collection[str]) -> list[psutil.Process]:
    """Processes that live and whose environment says that they belong to these; others' environments are not ours."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(_FAMILY) in families and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    # The session outlives its leader when that crashed: what is left of it is still ended.
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        pass
    except PermissionError:
        process.send_signal(number)
