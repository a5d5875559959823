"""Operator processes as the cluster sees them: their calls take turns with others', go wrong, and end when they die."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from enginewright_cluster.fake import FakeCluster
from enginewright_cluster.faults import READS, Call, Fault
from enginewright_cluster.port import Kind, WatchEvent
from enginewright_operator.shell.operator import Operator
from tests.scenarios.interruptions import WRITES
from tests.scenarios.world import World

Check = Callable[[str, Any], None]
"""Called with the verb and the body or reference of a write of the operator."""


@dataclass
class Network:
    """What goes wrong between the operator and the cluster: every n-th call, every n-th event."""

    call_fault: Fault | None = None
    every_call: int = 3
    event_fault: Fault | None = None
    every_event: int = 2
    by_operator: bool = False
    injected: dict[Fault, int] = field(default_factory=dict)
    _calls: int = 0
    _events: int = 0

    def __call__(self, call: Call) -> Fault | None:
        """A fault source; users, controllers and kubelet have a good network."""
        if call.verb == "watch":
            self._events += 1
            return self._struck(self.event_fault) if self._events % self.every_event == 0 else None
        if not self.by_operator or (call.verb in READS and self.call_fault is not Fault.UNAVAILABLE):
            return None
        self._calls += 1
        return self._struck(self.call_fault) if self._calls % self.every_call == 0 else None

    def _struck(self, fault: Fault | None) -> Fault | None:
        if fault is not None:
            self.injected[fault] = self.injected.get(fault, 0) + 1
        return fault

    def heal(self) -> None:
        """All is well."""
        self.call_fault = self.event_fault = None


class Process:
    """One operator process: watches, queue, workers, as in production. Its calls are counted and checked."""

    def __init__(
        self, world: World, network: Network, before: Check, after: Check, *, seed: int, die_after: int | None = None
    ) -> None:
        """`die_after`: the process is killed right after its n-th write."""
        assert isinstance(world.cluster, FakeCluster)
        self._cluster = world.cluster
        self._network = network
        self._before, self._after = before, after
        self._turns = random.Random(seed)  # noqa: S311 - order, not a secret
        self._left = die_after
        self.dead = False
        self.writes = 0
        operator = Operator(self, world.store, world.settings, world.clock)  # type: ignore[arg-type]  # see __getattr__
        operator.queue._random.seed(seed)
        self._operator = operator
        self._task = asyncio.get_event_loop().create_task(operator.run(), name="operator")

    def __getattr__(self, verb: str) -> Any:
        """Every method of the port."""
        method = getattr(self._cluster, verb)

        async def call(*given: Any, **named: Any) -> Any:
            await self._wait_a_turn()
            if verb in WRITES:
                self._before(verb, given[0])
            self._network.by_operator = True
            try:
                return await method(*given, **named)  # the Fake never suspends: nobody else runs meanwhile
            finally:
                self._network.by_operator = False
                if verb in WRITES:
                    self._wrote(verb, given[0])

        return call

    async def watch(
        self,
        kind: Kind,
        *,
        namespace: str | None = None,
        labels: dict[str, str] | None = None,
        present: Callable[[], None] | None = None,
    ) -> AsyncIterator[WatchEvent]:
        """Events in the cluster's order, a little late."""
        async for event in self._cluster.watch(kind, namespace=namespace, labels=labels, present=present):
            await self._wait_a_turn()
            yield event

    def kill(self) -> None:
        """SIGKILL: nothing of it runs any more."""
        self.dead = True
        self._task.cancel()

    @property
    def failure(self) -> BaseException | None:
        """What ended it although nobody killed it."""
        if self.dead or not self._task.done():
            return None
        return AssertionError("the operator ended") if self._task.cancelled() else self._task.exception()

    async def _wait_a_turn(self) -> None:
        for _ in range(self._turns.randint(0, 3)):
            await asyncio.sleep(0)
        if self.dead:
            raise asyncio.CancelledError

    def _wrote(self, verb: str, what: Any) -> None:
        self._after(verb, what)
        self.writes += 1
        if self._left is not None and self.writes >= self._left:
            self.kill()
            raise asyncio.CancelledError


@dataclass
class Surroundings:
    """Controllers and kubelet, once a second while anything changes."""

    world: World
    changed: bool = True

    async def run(self) -> None:
        """Until cancelled. Where nothing happens they look less and less often."""
        seen, pause = -1, 1
        while True:
            await asyncio.sleep(pause)
            version = len(self._cluster.writes)
            pause = min(2 * pause, 64)
            if version != seen or self.changed:
                seen, self.changed, pause = version, False, 1
                await self.world.step()

    @property
    def _cluster(self) -> FakeCluster:
        assert isinstance(self.world.cluster, FakeCluster)
        return self.world.cluster
