"""Where models that benchmarks and tests make are kept: by what they follow from, made once."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from enginewright_api.identity import digest_of


@contextmanager
def model_folder(name: str, content: Mapping[str, object]) -> Iterator[tuple[Path, bool]]:
    """(folder, whether it is finished); one process at a time. An unfinished folder is kept, so that work can go on.

    The body makes the model when it is not finished; leaving it without an error finishes it.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "enginewright" / "models"
    folder = base / f"{name}-{digest_of(dict(content))[:16]}"
    finished = folder.with_name(f"{folder.name}.finished")
    folder.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("wb") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        yield folder, finished.exists()
        finished.touch()
