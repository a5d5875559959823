"""Lists and watches on an API server: pages, and an endless stream that survives whatever the connection does."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass

from enginewright_api.errors import DeterministicError

from .kubernetes_connection import Connection, decoded
from .kubernetes_errors import GoneError, Target
from .objects.following import Following
from .objects.labels import selector_text
from .port import EventType, Kind, Object, UnavailableError, WatchEvent

PAGE_SIZE = 500
WATCH_SECONDS = 290
"""About how long one watch request lasts; the server ends it, and the next goes on from there."""

_GRACE_SECONDS = 15.0
_SHORTEST_STREAM_SECONDS = 1.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 30.0
_FAILURES_BEFORE_RELIST = 3
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Selection:
    """What to list or watch; every namespace when it is None."""

    kind: Kind
    namespace: str | None
    labels: Mapping[str, str] | None

    def target(self, verb: str) -> Target:
        """The collection, as calls name it."""
        return Target(verb, self.kind, self.namespace if self.kind.namespaced else None)

    def query(self, **more: str) -> dict[str, str]:
        """Query parameters that select by labels, and `more`."""
        return more | ({"labelSelector": selector_text(self.labels)} if self.labels else {})


def cleaned(item: Object) -> Object:
    """An object without `managedFields`: often half of its bytes, read by nobody here, refused when applied again."""
    item.get("metadata", {}).pop("managedFields", None)
    return item


async def listed(connection: Connection, selection: Selection) -> tuple[list[Object], str]:
    """All objects and the resource version they are of, page by page.

    When the pages' snapshot expires half-way (410), everything is asked for again at once: that cannot expire.
    """
    try:
        return await _pages(connection, selection, str(PAGE_SIZE))
    except GoneError:
        return await _pages(connection, selection, "0")


async def _pages(connection: Connection, selection: Selection, limit: str) -> tuple[list[Object], str]:
    target, kind = selection.target("list"), selection.kind
    items: list[Object] = []
    more: dict[str, str] = {}
    while True:
        query = selection.query(limit=limit, **more)
        page = decoded(target, await connection.request(target, "GET", query=query))
        # Items of a list come without the type that the list itself says.
        typed = {"apiVersion": kind.api_version, "kind": kind.kind}
        items += (typed | cleaned(item) for item in page.get("items") or ())
        if not page["metadata"].get("continue"):
            return items, page["metadata"]["resourceVersion"]
        more = {"continue": page["metadata"]["continue"]}


async def watched(connection: Connection, selection: Selection) -> AsyncGenerator[WatchEvent, None]:
    """The present, then every change. See `Cluster.watch`.

    What waiting cannot mend (no such kind, not allowed) is raised by the first list only; later it is waited for as an
    outage is, because a starting API server refuses what it allows a second later.
    """
    clock = asyncio.get_running_loop().time
    following = Following(selection.labels)
    version: str | None = None
    begun = False
    failures = 0
    while True:
        try:
            if version is None:
                items, version = await listed(connection, selection)
                begun = True
                for event in following.relisted(items):
                    yield event
            opened = clock()
            async with contextlib.aclosing(_stream(connection, selection, version)) as stream:
                async for kind, item in stream:
                    failures, version = 0, item["metadata"]["resourceVersion"]
                    if change := _change(following, kind, item):
                        yield change
            # Streams end when their time is up; one that ends at once must not make us ask without pause.
            failures = 0 if clock() - opened >= _SHORTEST_STREAM_SECONDS else failures + 1
        except GoneError as error:
            version, failures = None, failures + 1
            _log.info("%s; listing again", error)
        except (UnavailableError, DeterministicError) as error:
            if not begun and isinstance(error, DeterministicError):
                raise
            failures += 1
            _log.warning("watch of %s failed %d times in a row: %s", selection.kind.plural, failures, error)
        if failures >= _FAILURES_BEFORE_RELIST:
            version = None  # it may be the version that cannot be served, as after a restored backup
        if failures:
            await asyncio.sleep(_pause_seconds(failures))


async def _stream(
    connection: Connection, selection: Selection, version: str
) -> AsyncGenerator[tuple[str, Object], None]:
    """Events from `version` on until the server ends the stream. Raises GoneError when they cannot be had."""
    seconds = round(WATCH_SECONDS * random.uniform(0.9, 1.1))  # noqa: S311 - spreads load, guards nothing
    query = selection.query(
        watch="true", allowWatchBookmarks="true", resourceVersion=version, timeoutSeconds=str(seconds)
    )
    target = selection.target("watch")
    lines = connection.lines(target, query, seconds=seconds + _GRACE_SECONDS)
    async with contextlib.aclosing(lines):
        async for line in lines:
            event = decoded(target, line)
            if event["type"] == "ERROR":  # mostly 410; whatever it is, a new list is the way on
                status = event["object"]
                raise GoneError(status.get("reason") or "Gone", f"{target}: {status.get('message')}")
            yield event["type"], cleaned(event["object"])


def _change(following: Following, kind: str, item: Object) -> WatchEvent | None:
    """What a line of the stream means to the watcher; nothing when it is a bookmark or known."""
    match kind:
        case EventType.DELETED:
            return following.deleted(item)
        case EventType.ADDED | EventType.MODIFIED:
            return following.changed(item)
        case _:
            return None


def _pause_seconds(failures: int) -> float:
    """Doubling, with jitter so that many clients do not come back together."""
    longest = min(_FIRST_PAUSE_SECONDS * 2.0 ** min(failures - 1, 10), _LONGEST_PAUSE_SECONDS)
    return longest * random.uniform(0.5, 1.0)  # noqa: S311
