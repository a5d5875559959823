"""Logs of all programs: one JSON object a line, which says of each visit what it is about.

Whoever visits an object opens `about(...)`; until it is left, every line of that task and of those it starts has these
fields, whoever writes it.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import IO, Any

from enginewright_api.names import BUILD_PREFIX

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_VISIT: ContextVar[dict[str, object] | None] = ContextVar("enginewright_visit", default=None)
_PROCESS: dict[str, object] = {}


class JsonFormatter(logging.Formatter):
    """Time, level, logger and message; what the visit is about; whatever fields the call gave."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_PROCESS,
            **(_VISIT.get() or {}),
        }
        line |= {name: value for name, value in record.__dict__.items() if name not in _STANDARD}
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def log_as_json(level: int | str, stream: IO[str] | None = None) -> None:
    """Send all logs to a stream (stderr by default) as JSON lines."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper() if isinstance(level, str) else level, handlers=[handler], force=True)


def tell_settings(logger: logging.Logger, settings: object) -> None:
    """The line by which a program shows its settings at start, whatever the level is."""
    fields = {"settings": settings}
    logger.handle(logger.makeRecord(logger.name, logging.INFO, __file__, 0, "settings", (), None, extra=fields))


@contextlib.contextmanager
def about(**fields: object) -> Iterator[None]:
    """Until it is left, lines have these fields beside those of the block around it."""
    token = _VISIT.set({**(_VISIT.get() or {}), **fields})
    try:
        yield
    finally:
        _VISIT.reset(token)


def learnt(fields: Mapping[str, object]) -> None:
    """More is known of what the visit is about; outside of `about` there is nobody to tell it of."""
    visit = _VISIT.get()
    if visit is not None:
        visit.update(fields)


def throughout(**fields: object) -> None:
    """Every line of this process has these fields from now on, in all threads: a builder builds one thing."""
    _PROCESS.update(fields)


def facts(manifest: Mapping[str, Any]) -> dict[str, object]:
    """What lines about an object say of it: model (`namespace/name`), generation, build key where there is one.

    Nothing is parsed: a malformed object is what one wants to read of. An EngineBuild may have several models.
    """
    metadata = _mapping(manifest, "metadata")
    namespace = metadata.get("namespace", "")
    spec, status = _mapping(manifest, "spec"), _mapping(manifest, "status")
    found: dict[str, object] = {"generation": metadata.get("generation", 1)}
    if manifest.get("kind") == "OptimizedModel":
        found["model"] = f"{namespace}/{metadata.get('name', '')}"
        engine = _mapping(status, "target") or _mapping(status, "active")
        build = engine.get("engineBuild")
        if isinstance(build, str) and build.startswith(BUILD_PREFIX):
            found["buildKey"] = build.removeprefix(BUILD_PREFIX)
    elif manifest.get("kind") == "EngineBuild":
        owners = [each for each in metadata.get("ownerReferences", ()) if each.get("kind") == "OptimizedModel"]
        if owners:
            found["model"] = ", ".join(f"{namespace}/{each.get('name', '')}" for each in owners)
        found["buildKey"] = str(spec.get("key", ""))[:16]
    return found


def _mapping(of: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = of.get(name)
    return found if isinstance(found, Mapping) else {}
