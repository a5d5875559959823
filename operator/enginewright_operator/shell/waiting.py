"""Keys that wait for a visit: each once, from its time on, and namespaces take turns.

A namespace with thousands of due models holds one other up by a single visit for each of its own. Adding a key costs
the logarithm of those that wait; taking one no more, however many namespaces there are.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import NamedTuple


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """One object that is reconciled."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


class Taken(NamedTuple):
    """A key whose turn it is."""

    key: Key
    late_seconds: float


_OVERTAKEN = 1_000
"""Entries that an earlier visit has made void, beyond which they go before their time: a look at the end of a progress
deadline would lie there for a quarter of an hour after each rollout."""

_Entry = tuple[float, Key]


@dataclass(slots=True)
class Waiting:
    """Times are of whatever clock the caller has; it may not run backwards."""

    _due: dict[Key, float] = field(default_factory=dict)
    _later: list[_Entry] = field(default_factory=list)
    """A heap of those whose time has yet to come."""
    _ready: OrderedDict[str, deque[_Entry]] = field(default_factory=OrderedDict)
    """Those whose time has come, by namespace; none is empty. The first namespace is the next."""
    _came: deque[_Entry] = field(default_factory=deque)
    """The same in the order in which they came, those that were taken since included."""
    _busy: set[Key] = field(default_factory=set)
    _again: dict[Key, float] = field(default_factory=dict)
    """Those that came while they were visited."""

    def __len__(self) -> int:
        return len(self._due)

    def add(self, key: Key, due: float) -> bool:
        """Ask for a visit; the earliest request counts. Answers whether this one does."""
        if key in self._due and self._due[key] <= due:
            return False
        self._due[key] = due
        heapq.heappush(self._later, (due, key))
        if len(self._later) > 2 * len(self._due) + _OVERTAKEN:
            self._later = [entry for entry in self._later if self._holds(entry)]
            heapq.heapify(self._later)
        return True

    def take(self, now: float) -> Taken | float | None:
        """A key that may be visited now, or seconds until the next one is due (None: nothing waits)."""
        while self._later and (self._later[0][0] <= now or not self._holds(self._later[0])):
            self._come(heapq.heappop(self._later))
        while self._ready:
            namespace, entries = self._ready.popitem(last=False)
            due, key = entry = entries.popleft()
            if entries:
                self._ready[namespace] = entries
            if not self._holds(entry):
                continue
            if key in self._busy:
                self._again[key] = due
                continue
            del self._due[key]
            self._busy.add(key)
            self._forget_taken()
            return Taken(key, now - due)
        return self._later[0][0] - now if self._later else None

    def done(self, key: Key) -> None:
        """The visit of a key that was taken is over; it may be taken again."""
        self._busy.discard(key)
        due = self._again.pop(key, None)
        if due is not None:
            self._queue((due, key))

    def due(self, key: Key) -> float | None:
        """When a key is due; None when it does not wait."""
        return self._due.get(key)

    @property
    def busy(self) -> bool:
        """Whether a key that was taken is not done."""
        return bool(self._busy)

    @property
    def first_due(self) -> float | None:
        """Since when the key waits that is due for longest, or when the first one will be."""
        self._forget_taken()
        heads = [entries[0][0] for entries in (self._came, self._later) if entries]
        return min(heads, default=None)

    def _forget_taken(self) -> None:
        while self._came and not self._holds(self._came[0]):
            self._came.popleft()
        if len(self._came) > 2 * len(self._due) + _OVERTAKEN:
            self._came = deque(entry for entry in self._came if self._holds(entry))

    def _come(self, entry: _Entry) -> None:
        if self._holds(entry):
            self._came.append(entry)
            self._queue(entry)

    def _queue(self, entry: _Entry) -> None:
        self._ready.setdefault(entry[1].namespace, deque()).append(entry)

    def _holds(self, entry: _Entry) -> bool:
        """Whether it was neither overtaken by an earlier request nor taken."""
        return self._due.get(entry[1]) == entry[0]
