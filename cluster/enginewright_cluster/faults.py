"""Faults of the Fake cluster, scripted or drawn call by call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from .port import Kind, Ref, WatchEvent

READS = frozenset({"get", "list", "logs"})


class Fault(StrEnum):
    """What goes wrong with one call, or with one event of a watch."""

    CONFLICT = "Conflict"
    """409; nothing happened."""
    UNAVAILABLE = "Unavailable"
    """5xx or no connection; nothing happened."""
    LOST_REPLY = "LostReply"
    """The write happened, the answer did not arrive."""
    DUPLICATE_EVENT = "DuplicateEvent"
    """The event comes twice."""
    DELAYED_EVENT = "DelayedEvent"
    """The event comes after the next one."""
    STALE_EVENT = "StaleEvent"
    """The state before this one is reported (again) after it."""
    EXPIRED_WATCH = "ExpiredWatch"
    """410: the event is lost and the watch lists afresh."""


CALL_FAULTS = (Fault.CONFLICT, Fault.UNAVAILABLE, Fault.LOST_REPLY)
EVENT_FAULTS = (Fault.DUPLICATE_EVENT, Fault.DELAYED_EVENT, Fault.STALE_EVENT, Fault.EXPIRED_WATCH)


@dataclass(frozen=True, slots=True)
class Call:
    """A call about to be made: its verb (the port's method), and its object if it has one."""

    verb: str
    kind: Kind
    ref: Ref | None = None
    body: Mapping[str, Any] | None = None
    event: WatchEvent | None = None
    """For verb `watch`: the event about to be delivered."""


FaultSource = Callable[[Call], Fault | None]
"""Asked before every call and every event; None lets it through."""


@dataclass(slots=True)
class Rule:
    """A fault for the next `times` calls that fit."""

    fault: Fault
    verb: str | None = None
    kind: Kind | None = None
    name: str | None = None
    times: int = 1
    after: int = 0
    """Let this many fitting calls through first."""

    def strikes(self, call: Call) -> bool:
        """Whether this call fails; counts it."""
        is_event = call.verb == "watch"
        fits = (
            (self.fault in EVENT_FAULTS) == is_event
            and self.verb in (None, call.verb)
            and self.kind in (None, call.kind)
            and (self.name is None or (call.ref is not None and call.ref.name == self.name))
            and (self.fault is Fault.UNAVAILABLE or is_event or call.verb not in READS)
        )
        if not fits or self.times == 0:
            return False
        if self.after:
            self.after -= 1
            return False
        self.times -= 1
        return True


class Script:
    """Rules, tried in order; a fault source."""

    def __init__(self, *rules: Rule) -> None:
        self.rules = list(rules)

    def __call__(self, call: Call) -> Fault | None:
        """The fault of the first rule that strikes."""
        return next((rule.fault for rule in self.rules if rule.strikes(call)), None)
