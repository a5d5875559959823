"""One collection of a store at a time.

    garbage/locks/<n>   who collects, until when; the highest number counts

A collection that died is taken over when its time is up: by whoever writes the next number, which only one can. So no
lock is ever deleted to take it, and two that take it over together cannot both have it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import ValidationError

from enginewright_api.errors import TransientError
from enginewright_api.identity import canonical_json
from enginewright_api.model_base import ApiModel
from enginewright_store.medium import NotInStoreError
from enginewright_store.store import Store

LOCKS = "garbage/locks"
HELD = timedelta(hours=1)
MARGIN = timedelta(minutes=15)
"""No removal begins in the last minutes: clocks differ, and a slow store may take its time."""

Clock = Callable[[], datetime]


class Lease(ApiModel):
    """A lock's content."""

    holder: str
    until: datetime


@dataclass(frozen=True, slots=True)
class Held:
    """The lock, while it is ours."""

    until: datetime
    clock: Clock

    @property
    def in_time(self) -> bool:
        """Whether a removal may begin."""
        return self.clock() < self.until - MARGIN


@contextlib.contextmanager
def locked(store: Store, holder: str, clock: Clock) -> Iterator[Held]:
    """Hold the lock. Raises TransientError CollectionRunning."""
    numbers = sorted(int(name) for path in store.list(LOCKS) if (name := path.rpartition("/")[2]).isdigit())
    if numbers:
        _check_over(store, numbers[-1], clock())
    number = numbers[-1] + 1 if numbers else 1
    held = Held(clock() + HELD, clock)
    if not store.put(_path(number), _content(holder, held.until), if_absent=True):
        raise _running("another one began at this moment")
    for former in numbers:
        store.delete(_path(former))
    try:
        yield held
    finally:
        # Given back, not deleted: a number that was used once must never be free again for somebody who read it late.
        store.put(_path(number), _content(holder, clock()))


def _check_over(store: Store, number: int, now: datetime) -> None:
    try:
        lease = Lease.model_validate_json(store.read(_path(number)))
    except NotInStoreError as error:
        raise _running("another one began at this moment") from error
    except ValidationError as error:
        raise _running(f"{store.uri}/{_path(number)} is damaged; delete it if none runs") from error
    if lease.until > now:
        raise _running(f"{lease.holder} collects until {lease.until.isoformat(timespec='seconds')} at most")


def _running(what: str) -> TransientError:
    return TransientError("CollectionRunning", f"garbage collection: {what}; try again later")


def _path(number: int) -> str:
    return f"{LOCKS}/{number}"


def _content(holder: str, until: datetime) -> bytes:
    return canonical_json(Lease(holder=holder, until=until).wire())
