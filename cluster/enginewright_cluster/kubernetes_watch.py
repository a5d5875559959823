"""Lists and watches on an API server: pages, and an endless stream that survives whatever the connection does."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass

from enginewright_api.errors import DeterministicError

from .kubernetes_connection import Connection, decoded
from .kubernetes_errors import GoneError, Target
from .objects.following import Following
from .objects.labels import selector_text
from .port import EventType, Kind, Object, UnavailableError, WatchEvent

PAGE_SIZE = 100
"""Objects of a page: as Python objects, with `managedFields`, they take megabytes, and ten kinds begin at once."""
WATCH_SECONDS = 290
"""About how long one watch request lasts; the server ends it, and the next goes on from there."""

_ALL = 0
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
    name: str | None = None
    """Of the one object that is meant."""

    def target(self, verb: str) -> Target:
        """The collection, as calls name it."""
        return Target(verb, self.kind, self.namespace if self.kind.namespaced else None)

    def query(self, **more: str) -> dict[str, str]:
        """Query parameters that select by labels and name, and `more`."""
        if self.labels:
            more["labelSelector"] = selector_text(self.labels)
        if self.name is not None:
            more["fieldSelector"] = f"metadata.name={self.name}"
        return more


def cleaned(item: Object) -> Object:
    """An object without `managedFields`: often half of its bytes, read by nobody here, refused when applied again."""
    item.get("metadata", {}).pop("managedFields", None)
    return item


@dataclass(slots=True)
class _Listing:
    """Everything selected, in pages of `limit` objects."""

    connection: Connection
    selection: Selection
    limit: int = PAGE_SIZE
    version: str = ""
    """What is listed is of this resource version, on every page."""

    async def pages(self) -> AsyncGenerator[list[Object], None]:
        """Raises GoneError when the pages' snapshot expires half-way."""
        target, kind = self.selection.target("list"), self.selection.kind
        more: dict[str, str] = {}
        while True:
            query = self.selection.query(limit=str(self.limit), **more)
            page = decoded(target, await self.connection.request(target, "GET", query=query))
            # Items of a list come without the type that the list itself says.
            typed = {"apiVersion": kind.api_version, "kind": kind.kind}
            metadata = page["metadata"]
            self.version = metadata["resourceVersion"]
            yield [typed | cleaned(item) for item in page.pop("items", None) or ()]
            if not metadata.get("continue"):
                return
            more = {"continue": metadata["continue"]}

    async def objects(self) -> list[Object]:
        """All of them."""
        async with contextlib.aclosing(self.pages()) as pages:
            return [item async for page in pages for item in page]

    async def news(self, following: Following) -> AsyncGenerator[WatchEvent, None]:
        """Events that bring a watcher from what it knew to this list."""
        relist = following.relist()
        async with contextlib.aclosing(self.pages()) as pages:
            async for page in pages:
                for event in relist.page(page):
                    yield event
        for event in relist.end():
            yield event


async def listed(connection: Connection, selection: Selection) -> list[Object]:
    """All objects. When their pages expire half-way everything is asked for again at once: that cannot expire."""
    try:
        return await _Listing(connection, selection).objects()
    except GoneError:
        return await _Listing(connection, selection, _ALL).objects()


async def watched(
    connection: Connection, selection: Selection, present: Callable[[], None] | None
) -> AsyncGenerator[WatchEvent, None]:
    """The present, page by page, then every change. See `Cluster.watch`.

    What waiting cannot mend (no such kind, not allowed) is raised by the first list only; later it is waited for as an
    outage is, because a starting API server refuses what it allows a second later.
    """
    clock = asyncio.get_running_loop().time
    following = Following(selection.labels)
    version: str | None = None
    begun = False
    failures, limit = 0, PAGE_SIZE
    while True:
        try:
            if version is None:
                listing = _Listing(connection, selection, limit)
                async with contextlib.aclosing(listing.news(following)) as news:
                    async for event in news:
                        yield event
                begun, version, limit = True, listing.version, PAGE_SIZE
                if present is not None:
                    present()
                    present = None
            opened = clock()
            async with contextlib.aclosing(_stream(connection, selection, version)) as stream:
                async for kind, item in stream:
                    failures, version = 0, item["metadata"]["resourceVersion"]
                    if change := _change(following, kind, item):
                        yield change
            # Streams end when their time is up; one that ends at once must not make us ask without pause.
            failures = 0 if clock() - opened >= _SHORTEST_STREAM_SECONDS else failures + 1
        except GoneError as error:
            limit = _ALL if version is None else PAGE_SIZE  # a list that expired between its pages is had at once
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
