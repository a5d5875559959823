"""Where the local node agent keeps what containers write, and how it is read."""

from __future__ import annotations

from pathlib import Path

CURRENT, PREVIOUS = ".log", ".log.1"


def log_path(state_dir: Path, namespace: str, pod: str, container: str) -> Path:
    """The file a container's output goes to."""
    return state_dir / "logs" / namespace / pod / f"{container}{CURRENT}"


def read_log(state_dir: Path, namespace: str, pod: str, container: str | None, *, tail_lines: int | None) -> str | None:
    """The rotated file and the current one as one text, its last lines if asked; None when there is neither.

    Without a container, the one that wrote last.
    """
    folder = state_dir / "logs" / namespace / pod
    if container is None:
        files = sorted(folder.glob(f"*{CURRENT}"), key=lambda path: path.stat().st_mtime)
        if not files:
            return None
        container = files[-1].name.removesuffix(CURRENT)
    parts = [folder / f"{container}{suffix}" for suffix in (PREVIOUS, CURRENT)]
    found = [path.read_text(errors="replace") for path in parts if path.exists()]
    if not found:
        return None
    lines = "".join(found).splitlines(keepends=True)
    return "".join(lines if tail_lines is None else lines[max(0, len(lines) - tail_lines) :])
