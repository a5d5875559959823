"""Progress: one JSON line a stage event, or a live table when a person watches."""

from __future__ import annotations

import sys
import threading
from typing import IO, Protocol

from rich.console import Console
from rich.live import Live
from rich.table import Table

from enginewright_api.identity import canonical_json
from enginewright_api.outcome import StageReport, StageState


class Progress(Protocol):
    """Told what happens."""

    def tell(self, report: StageReport) -> None:
        """A stage began, moved on, or ended."""

    def close(self) -> None:
        """Nothing more will come."""


class JsonLines:
    """For programs."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def tell(self, report: StageReport) -> None:
        """Stages may run side by side: a line is written whole."""
        with self._lock:
            self._stream.write(canonical_json(report.wire()).decode() + "\n")
            self._stream.flush()

    def close(self) -> None:
        """Nothing to end."""


_SIGNS = {
    StageState.RUNNING: "[cyan]…[/]",
    StageState.SUCCEEDED: "[green]✓[/]",
    StageState.CACHED: "[blue]=[/]",
    StageState.FAILED: "[red]✗[/]",
}


class LiveTable:
    """For people."""

    def __init__(self, console: Console) -> None:
        self._reports: dict[str, StageReport] = {}
        self._lock = threading.Lock()
        self._live = Live(console=console, refresh_per_second=4)
        self._live.start()

    def tell(self, report: StageReport) -> None:
        """Update the stage's line."""
        with self._lock:
            self._reports[report.name] = report
            self._live.update(self._table())

    def close(self) -> None:
        """Leave the last state on the screen."""
        self._live.stop()

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for report in self._reports.values():
            share = f"{report.fraction:.0%}" if report.fraction is not None else f"{report.seconds:.1f} s"
            table.add_row(_SIGNS[report.state], report.name, share, report.message)
        return table


def progress_on(stream: IO[str] | None = None) -> Progress:
    """A live table on a terminal, JSON lines elsewhere."""
    stream = stream or sys.stdout
    return LiveTable(Console(file=stream)) if stream.isatty() else JsonLines(stream)
