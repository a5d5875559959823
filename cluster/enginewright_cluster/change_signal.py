"""Wakes watchers when any process has written to the SQLite file."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from pathlib import Path

from .port import UnavailableError
from .sqlite_rows import open_file

POLL_SECONDS = 0.04
_RETRY_SECONDS = 1.0

logger = logging.getLogger("enginewright.cluster.local")


class Wake:
    """Set by the signal's thread, waited for in an event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    async def wait(self) -> None:
        """Return once something was written since the last return."""
        await self._event.wait()
        self._event.clear()

    def set(self) -> None:
        """From any thread; a closed loop has nobody to wake."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._event.set)


class ChangeSignal:
    """One thread that looks at `PRAGMA data_version`, a read of shared memory, about 25 times a second."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._wakes: set[Wake] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def subscribe(self) -> Wake:
        """Begin to wake; the thread starts with the first subscriber."""
        wake = Wake()
        with self._lock:
            self._wakes.add(wake)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="enginewright-change-signal", daemon=True)
                self._thread.start()
        return wake

    def unsubscribe(self, wake: Wake) -> None:
        """Wake no more."""
        with self._lock:
            self._wakes.discard(wake)

    def notify(self) -> None:
        """Wake everyone now: this process has written."""
        with self._lock:
            wakes = list(self._wakes)
        for wake in wakes:
            wake.set()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._poll()
            except (UnavailableError, sqlite3.Error) as error:
                logger.warning("cannot look for changes, trying again: %s", error)
                self._stop.wait(_RETRY_SECONDS)

    def _poll(self) -> None:
        connection = open_file(self._path)
        try:
            self.notify()
            seen = None
            while not self._stop.wait(POLL_SECONDS):
                (version,) = connection.execute("PRAGMA data_version").fetchone()
                if version != seen:
                    seen = version
                    self.notify()
        finally:
            connection.close()
