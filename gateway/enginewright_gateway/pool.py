"""Admission of one model: bounded queue, held requests, least outstanding work among its endpoints.

Beside a canary the share comes first: of 100 requests as many as its weight says are for the canary, spread evenly.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from enginewright_api.recipe import Task

from .comparison import Comparison, Tally
from .drain_rate import DrainRate, retry_after_seconds
from .errors import NotNowError
from .routes import Endpoint, ServedModel

_FIRST_REST_SECONDS = 0.25
_LONGEST_REST_SECONDS = 8.0


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """Bounds that hold for every model."""

    inflight_batches: int
    hold_seconds: float
    max_held: int


@dataclass(slots=True)
class _Rest:
    """An endpoint that could not be reached is left alone for a while, longer each time."""

    until: float
    seconds: float


class Lease:
    """The right to have one request at `endpoint`; leaving the block gives it back."""

    def __init__(self, pool: ModelPool, endpoint: Endpoint) -> None:
        self._pool = pool
        self._answered = False
        self.endpoint = endpoint
        self.tally = pool.tally(endpoint)
        """Where this request counts while there is a canary; of the window in which it was sent."""

    def answered(self) -> None:
        """The server has answered: it can be reached, and the request counts for the drain rate."""
        self._answered = True
        self._pool.reached(self.endpoint)

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._pool.give_back(self.endpoint, answered=self._answered)


class ModelPool:
    """Who may send what where, for one model. Lives in one event loop; needs no lock."""

    def __init__(self, model: ServedModel, limits: PoolLimits, clock: Callable[[], float]) -> None:
        self._model = model
        self._limits = limits
        self._clock = clock
        self._outstanding: dict[Endpoint, int] = {}
        self._rests: dict[Endpoint, _Rest] = {}
        self._waiting: deque[tuple[asyncio.Future[Endpoint], frozenset[Endpoint]]] = deque()
        self._drained = DrainRate()
        self._credit = 0.0
        self.comparison = _comparison(model, None)
        """What stable engine and canary answered; None without a canary."""

    @property
    def inflight(self) -> int:
        """Requests sent to an endpoint and not answered."""
        return sum(self._outstanding.values())

    @property
    def waiting(self) -> int:
        """Requests in the queue, held ones included."""
        return len(self._waiting)

    @property
    def held(self) -> int:
        """Requests that wait because there is no endpoint."""
        return 0 if self._reachable() else len(self._waiting)

    def update(self, model: ServedModel) -> None:
        """The model or its endpoints changed."""
        self._model = model
        self.comparison = _comparison(model, self.comparison)
        if model.canary is None:
            self._credit = 0.0
        listed = set(model.all_endpoints)
        self._rests = {endpoint: rest for endpoint, rest in self._rests.items() if endpoint in listed}
        self._pump()

    def close(self) -> None:
        """The model is gone: nobody needs to wait any longer."""
        while self._waiting:
            future, _ = self._waiting.popleft()
            if not future.done():
                future.set_exception(
                    NotNowError(503, "ModelDeleted", f"model {self._model.id} was deleted while the request waited")
                )

    def others(self, tried: frozenset[Endpoint]) -> bool:
        """Whether there is a reachable endpoint that was not tried yet."""
        return any(endpoint not in tried for endpoint in self._reachable())

    def unreachable(self, endpoint: Endpoint) -> None:
        """A connection to it failed: leave it alone for a while."""
        last = self._rests.get(endpoint)
        seconds = min(_LONGEST_REST_SECONDS, last.seconds * 2) if last else _FIRST_REST_SECONDS
        if last is not None and last.until > self._clock():
            return  # several requests fail at the same moment; that is one failure
        self._rests[endpoint] = _Rest(self._clock() + seconds, seconds)
        asyncio.get_running_loop().call_later(seconds, self._pump)

    def tally(self, endpoint: Endpoint) -> Tally | None:
        """Where a request to it counts; None without a canary."""
        canary = self._model.canary
        if canary is None or self.comparison is None:
            return None
        return self.comparison.canary if endpoint in canary.endpoints else self.comparison.stable

    def is_suspect(self, endpoint: Endpoint) -> bool:
        """Whether it could not be reached and has not answered since."""
        return endpoint in self._rests

    def reached(self, endpoint: Endpoint) -> None:
        """It answered: forget earlier failures."""
        self._rests.pop(endpoint, None)

    def retry_after(self) -> float:
        """Seconds until the present queue is gone, from the measured drain rate."""
        return retry_after_seconds(len(self._waiting), self._drained.per_second(self._clock()))

    async def acquire(self, *, within_seconds: float | None = None, tried: frozenset[Endpoint] = frozenset()) -> Lease:
        """Wait for room at an endpoint that is not in `tried`, at most `within_seconds` (the client's patience).

        Raises NotNowError: 429 when the queue is full or the wait too long, 503 when no endpoint came, 504 when the
        client's own time was up.
        """
        if not self._waiting:
            endpoint = self._pick(tried)
            if endpoint is not None:
                return self._lease(endpoint)
        patience = self._check_room()
        future: asyncio.Future[Endpoint] = asyncio.get_running_loop().create_future()
        entry = (future, tried)
        self._waiting.append(entry)
        timeout = patience if within_seconds is None else min(patience, within_seconds)
        try:
            async with asyncio.timeout(timeout):
                return Lease(self, await future)
        except TimeoutError:
            if self._granted(future):
                return Lease(self, future.result())
            raise self._too_late(timeout, impatient=within_seconds is not None and within_seconds < patience) from None
        except asyncio.CancelledError:
            if self._granted(future):
                self.give_back(future.result(), answered=False)
            raise
        finally:
            if entry in self._waiting:
                self._waiting.remove(entry)

    @staticmethod
    def _granted(future: asyncio.Future[Endpoint]) -> bool:
        return future.done() and not future.cancelled() and future.exception() is None

    def give_back(self, endpoint: Endpoint, *, answered: bool) -> None:
        """End of a lease."""
        left = self._outstanding.get(endpoint, 0) - 1
        if left > 0:
            self._outstanding[endpoint] = left
        else:
            self._outstanding.pop(endpoint, None)
        if answered:
            self._drained.note(self._clock())
        self._pump()

    def _check_room(self) -> float:
        """Longest wait in the state of now; raises when the queue is full."""
        reachable = self._reachable()
        if not reachable:
            if len(self._waiting) >= self._limits.max_held:
                raise self._not_servable(f"{self._limits.max_held} requests wait for it already")
            return self._limits.hold_seconds
        bound = self._model.max_queue_size * len(reachable)
        if len(self._waiting) >= bound:
            raise NotNowError(
                429,
                "QueueFull",
                f"model {self._model.id} has {len(self._waiting)} requests waiting, its limit; "
                f"try again in {self.retry_after():.0f} s",
                retry_after_seconds=self.retry_after(),
            )
        return self._model.queue_timeout_seconds

    def _too_late(self, waited_seconds: float, *, impatient: bool) -> NotNowError:
        if not self._reachable():
            return self._not_servable(f"waited {waited_seconds:.1f} s")
        if impatient:
            return NotNowError(
                504, "DeadlineExceeded", f"the request's own time was up after {waited_seconds:.1f} s in the queue"
            )
        return NotNowError(
            429,
            "QueueTimeout",
            f"model {self._model.id}: no room within batching.queueTimeoutMilliseconds ({waited_seconds:.1f} s); "
            f"try again in {self.retry_after():.0f} s",
            retry_after_seconds=self.retry_after(),
        )

    def _not_servable(self, how_long: str) -> NotNowError:
        why = self._model.condition or "its servers cannot be reached"
        return NotNowError(
            503,
            "ModelNotServable",
            f"model {self._model.id} has no ready endpoint ({how_long}): {why}",
            retry_after_seconds=self.retry_after(),
        )

    def _reachable(self) -> list[Endpoint]:
        now = self._clock()
        return [e for e in self._model.all_endpoints if e not in self._rests or self._rests[e].until <= now]

    def _pick(self, tried: frozenset[Endpoint]) -> Endpoint | None:
        # Continuous batching takes a request in at the next step, so none needs to wait at the engine; those that wait
        # do so here, where the autoscaler sees them.
        batches = 1 if self._model.task is Task.TEXT_GENERATION else self._limits.inflight_batches
        room = batches * self._model.max_batch_size
        reachable = [endpoint for endpoint in self._reachable() if endpoint not in tried]
        canary = self._model.canary
        if canary is None:
            return self._idlest(reachable, room)
        own = [endpoint for endpoint in reachable if endpoint in canary.endpoints]
        rest = [endpoint for endpoint in reachable if endpoint not in canary.endpoints]
        return self._by_share(own, rest, canary.weight / 100, room)

    def _by_share(self, own: list[Endpoint], rest: list[Endpoint], share: float, room: int) -> Endpoint | None:
        """The canary when it is its turn and it has room, else the stable engine.

        A weight bounds what the canary gets: a busy stable engine has its requests wait. Only one without any server
        that can be reached leaves everything to the canary.
        """
        turn = self._credit + share >= 1 - 1e-9
        chosen = self._idlest(own, room) if turn or not rest else None
        credit = self._credit + share - (chosen is not None)
        if chosen is None:
            chosen = self._idlest(rest, room)
        if chosen is not None:
            # A turn that was missed is made up for once, not with a burst.
            self._credit = min(max(credit, 0.0), 1.0)
        return chosen

    def _idlest(self, endpoints: list[Endpoint], room: int) -> Endpoint | None:
        """The one with the least outstanding requests, if fewer than `room`."""
        best: Endpoint | None = None
        fewest = room
        for endpoint in endpoints:
            outstanding = self._outstanding.get(endpoint, 0)
            if outstanding < fewest:
                best, fewest = endpoint, outstanding
        return best

    def _lease(self, endpoint: Endpoint) -> Lease:
        self._outstanding[endpoint] = self._outstanding.get(endpoint, 0) + 1
        return Lease(self, endpoint)

    def _pump(self) -> None:
        """Hand free room to those who wait, in order."""
        for entry in list(self._waiting):
            future, tried = entry
            if future.done():
                self._waiting.remove(entry)
                continue
            endpoint = self._pick(tried)
            if endpoint is None:
                if not tried:
                    return  # nobody behind can be served either
                continue
            self._waiting.remove(entry)
            self._outstanding[endpoint] = self._outstanding.get(endpoint, 0) + 1
            future.set_result(endpoint)


def _comparison(model: ServedModel, present: Comparison | None) -> Comparison | None:
    """The same one as long as the window is the same."""
    if model.canary is None:
        return None
    window = model.canary.window
    return present if present is not None and present.window == window else Comparison(window)
