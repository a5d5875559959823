"""The tritonserver process: started so that it never outlives us, its log passed on, its end noticed."""

from __future__ import annotations

import collections
import ctypes
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence

from enginewright_serving.events import log

_TAIL_LINES = 40
_PR_SET_PDEATHSIG = 1


class ServerProcess:
    """A running server. Start it from the main thread: the kernel ties it to the thread that forked it."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.started_at = time.monotonic()
        libc = ctypes.CDLL(None, use_errno=True)
        parent = os.getpid()

        def die_with_parent() -> None:
            # Between fork and exec: only what needs no lock. A parent that died before prctl is caught by the check.
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)

        self._process = subprocess.Popen(
            list(command),
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - no other thread runs yet
            start_new_session=True,
        )
        self._tail: collections.deque[str] = collections.deque(maxlen=_TAIL_LINES)
        self._reader = threading.Thread(target=self._pass_on, name="tritonserver-log", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def log_tail(self) -> list[str]:
        """Its last lines; complete once it has ended."""
        if self.exit_code is not None:
            self._reader.join(timeout=1)
        return list(self._tail)

    def terminate(self) -> None:
        """Ask it to finish what is in flight and stop."""
        if self.exit_code is None:
            self._process.terminate()

    def stop(self, grace_seconds: float) -> int:
        """Exit code; killed with its children when it does not end in time."""
        self.terminate()
        try:
            return self._process.wait(timeout=grace_seconds)
        except subprocess.TimeoutExpired:
            log("server-killed", grace_seconds=grace_seconds)
            os.killpg(self._process.pid, signal.SIGKILL)
            return self._process.wait()

    def _pass_on(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - PIPE above
        for line in self._process.stdout:
            text = line.decode(errors="replace").rstrip()
            if text:
                self._tail.append(text)
                log("tritonserver", line=text)
