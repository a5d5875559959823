"""Whatever users, builders, servers, the network and the kernel do: the invariants hold at each write of the operator,
and when they stop, everything comes to rest without a further write.

The operator runs whole: watches, queue, back-off, eight workers whose calls take turns with everybody else's. Time is
virtual, so a thousand seconds of timers cost milliseconds. The invariants are those of the architecture's list, by
number.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from enginewright_api.errors import FailureClass
from enginewright_cluster.fake import FakeCluster
from enginewright_cluster.faults import CALL_FAULTS, EVENT_FAULTS, Fault
from enginewright_cluster.port import (
    DEPLOYMENT,
    ENGINE_BUILD,
    JOB,
    NODE,
    OPTIMIZED_MODEL,
    POD,
    SERVICE,
    NotFoundError,
    Ref,
)
from enginewright_operator.core import build
from enginewright_operator.shell import operator
from tests.scenarios.evidence import evidence, failure, success
from tests.scenarios.invariants import OWNED, Invariants
from tests.scenarios.kubelet import crashing_server, evicted, ready_server, unschedulable
from tests.scenarios.models import accelerator_class
from tests.scenarios.processes import Network, Process, Surroundings
from tests.scenarios.test_canaries import answers
from tests.scenarios.virtual_time import LoopClock, VirtualTimeLoop
from tests.scenarios.world import World

LEAST_STEPS = 2000
FUZZING = settings().max_examples > 1000  # `make fuzz`
A: dict[str, Any] = {}
B: dict[str, Any] = {"engine": {"limits": {"maxInputTokens": 128}}}
CANARY: dict[str, Any] = {
    "strategy": "Canary",
    "canary": {"steps": [{"weight": 10, "seconds": 60}, {"weight": 50, "seconds": 300}]},
    "guard": {"maxLatencyRatio": 1.2, "maxErrorRate": 0.01},
    "maxSurge": 2,
}
SPECS: list[dict[str, Any]] = [
    A,
    B,
    {"optimization": {"quantization": {"format": "INT8"}, "fallbacks": [{"quantization": {"format": "FP16"}}]}},
    {"batching": {"maxQueueDelayMicroseconds": 500}},
    {"quality": {"maxDrop": 0.5}},
    {"quality": {"samples": 64}},
    {"hardware": {"acceleratorClasses": ["missing"]}},
    {"hardware": {"acceleratorClasses": ["other", "cpu"]}},
    {"rollout": {"maxSurge": 0}},
    {"rollout": {"maxSurge": 3}},
    {"rollout": CANARY},
    {**B, "rollout": CANARY},
]
NAMES = ["one", "two"]
OTHERS: dict[str, Any] = {"nodeSelector": {"pool": "other"}}
PACE = build.WATCH_SECONDS, operator.COUNT_SECONDS, operator.RESYNC_SECONDS
LONGEST_PAUSE_SECONDS = 1300
"""Longer than any pause of the operator."""


class Life(RuleBasedStateMachine):
    """Two models that share what they can."""

    steps: ClassVar[int] = 0
    writes: ClassVar[int] = 0
    deaths: ClassVar[int] = 0
    shares: ClassVar[int] = 0
    """Steps after which a canary had a share, counted for each model."""
    faults: ClassVar[dict[str, int]] = {}

    @initialize(
        seed=st.integers(0, 2**16),
        call_fault=st.sampled_from([None, *CALL_FAULTS]),
        event_fault=st.sampled_from([None, *EVENT_FAULTS]),
    )
    def begin(self, seed: int, call_fault: Fault | None, event_fault: Fault | None) -> None:
        """An empty cluster with the class `cpu` and its node, and the class `other` without one."""
        self.loop = VirtualTimeLoop()
        asyncio.set_event_loop(self.loop)
        self.seed = seed
        # Progress shows rarely, accelerators do not change: looking at them would be most of the work. And what only
        # a resync would find is to be found without.
        build.WATCH_SECONDS, operator.COUNT_SECONDS, operator.RESYNC_SECONDS = 60.0, 1200.0, 1e6
        self.network = Network()
        self.network.call_fault, self.network.every_call = call_fault, 7
        self.network.event_fault, self.network.every_event = event_fault, 3
        clock = LoopClock(self.loop)
        self.cluster = FakeCluster(now=clock, faults=self.network)
        self.world = World(self.cluster, clock=clock)
        self.law = Invariants(self.cluster)
        self.good = self.law.reported(self.world.published())
        self.world.kubelet.builder = self.good
        self.loop.run(self.world.give_class())
        self.loop.run(self.cluster.apply(accelerator_class("other", architecture="other", scheduling=OTHERS)))
        self.loop.run(self.world.give_node("home"))
        self.surroundings = Surroundings(self.world)
        self.background = self.loop.create_task(self.surroundings.run())
        self.start()

    def start(self, die_after: int | None = None) -> None:
        """A new operator process; the former one is dead."""
        self.seed += 1
        law = self.law
        self.process = Process(self.world, self.network, law.before, law.after, seed=self.seed, die_after=die_after)

    def wait(self, seconds: float) -> None:
        """Everybody works for so long."""
        self.surroundings.changed = True
        self.loop.run(asyncio.sleep(seconds))
        if self.law.violations:
            raise self.law.violations[0]
        for task in (self.process, self.background):
            error = task.failure if isinstance(task, Process) else task.exception() if task.done() else None
            if error is not None:
                raise error

    @rule(name=st.sampled_from(NAMES), spec=st.sampled_from(SPECS), seconds=st.sampled_from([0, 1, 5, 700]))
    def user_applies(self, name: str, spec: dict[str, Any], seconds: float) -> None:
        """Another spec, often in mid-build."""
        self.law.allowed(name, spec.get("quality", {}).get("maxDrop", 0.01))
        self.loop.run(self.world.apply(name, **spec))
        self.wait(seconds)

    @rule(name=st.sampled_from(NAMES), seconds=st.sampled_from([0, 2, 700]))
    def user_goes_there_and_back(self, name: str, seconds: float) -> None:
        """A→B→A: the first engine is not built again."""
        for spec in (A, B, A):
            self.user_applies(name, spec, seconds)

    @rule(name=st.sampled_from(NAMES))
    def user_deletes(self, name: str) -> None:
        """The model goes, in mid-build or not."""
        self.loop.run(self.cluster.delete(Ref(OPTIMIZED_MODEL, name, "default")))

    @rule(name=st.sampled_from(NAMES), replicas=st.integers(0, 4))
    def autoscaler_scales(self, name: str, replicas: int) -> None:
        """Another number of replicas; of two in one instant the operator may act on the first, so not that fast."""
        try:
            self.loop.run(self.cluster.scale(Ref(OPTIMIZED_MODEL, name, "default"), replicas))
        except NotFoundError:
            return
        self.wait(1)

    @rule(seconds=st.sampled_from([0, 1300, 2600]))
    def nodes_come_and_go(self, seconds: float) -> None:
        """That of class `other`, as its autoscaler or its power supply likes."""
        there = [item["metadata"]["name"] for item in self.loop.run(self.cluster.list(NODE))]
        if "other" in there:
            self.loop.run(self.cluster.delete(Ref(NODE, "other")))
        else:
            self.loop.run(self.world.give_node("other"))
        self.wait(seconds)

    @rule(kind=st.sampled_from([SERVICE, DEPLOYMENT, JOB, POD, ENGINE_BUILD]))
    def somebody_deletes_a_child(self, kind: Any) -> None:
        """What is missing is made again."""
        self.law.forget_failures()
        for item in self.loop.run(self.cluster.list(kind))[:1]:
            self.loop.run(self.cluster.delete(Ref(kind, item["metadata"]["name"], "default")))

    @rule(how=st.sampled_from(["good", "gate", "deterministic", "transient", "evicted", "silent"]))
    def builders_change(self, how: str) -> None:
        """Builders behave otherwise from now on."""
        behaviours: dict[str, Any] = {
            "good": self.good,
            "gate": lambda attempt: success(attempt.key, evidence(attempt.request_digest, drop=0.2, bound=0.3)),
            "deterministic": lambda attempt: failure(attempt.key, FailureClass.DETERMINISTIC, "UnsupportedOperator"),
            "transient": lambda attempt: failure(attempt.key, FailureClass.TRANSIENT, "StoreUnavailable"),
            "evicted": lambda attempt: evicted(),
            "silent": lambda attempt: None,
        }
        self.world.kubelet.builder = self.law.reported(behaviours[how])

    @rule(how=st.sampled_from([ready_server, crashing_server, unschedulable]))
    def servers_change(self, how: Any) -> None:
        """Pods that are not ready yet behave otherwise from now on; ready ones stay."""

        def server(pod: Any) -> Any:
            conditions = pod.get("status", {}).get("conditions", [])
            ready = any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)
            return ready_server(pod) if ready else how(pod)

        self.world.kubelet.server = server

    @rule(how=st.sampled_from(["as good", "slower", "failing", "silent"]))
    def gateways_count(self, how: str) -> None:
        """What they tell of a canary beside the stable version, from now on."""
        self.world.gateways.answer = how != "silent"
        self.world.gateways.stable = answers(1000)
        self.world.gateways.canary = {
            "as good": answers(1000), "slower": answers(1000, seconds=0.5), "failing": answers(1000, failures=100),
            "silent": answers(0),
        }[how]  # fmt: skip

    @rule(fault=st.sampled_from([None, *CALL_FAULTS]), every=st.sampled_from([1, 2, 3, 7]))
    def network_changes(self, fault: Fault | None, every: int) -> None:
        """Each call goes wrong, or some, or none: storms of conflicts, outages, replies that are lost."""
        self.network.call_fault, self.network.every_call = fault, every

    @rule(fault=st.sampled_from([None, *EVENT_FAULTS]), every=st.sampled_from([1, 2, 3]))
    def events_change(self, fault: Fault | None, every: int) -> None:
        """They come twice, late, out of order, outdated, or not at all, and the watch lists afresh."""
        self.network.event_fault, self.network.every_event = fault, every

    @rule()
    def watches_break(self) -> None:
        """410."""
        self.cluster.break_watches()

    @rule(seconds=st.sampled_from([1, 11, 60, 1000]))
    def time_passes(self, seconds: float) -> None:
        """Everybody works; pauses and deadlines end."""
        self.wait(seconds)

    @rule(writes=st.integers(1, 12), seconds=st.sampled_from([1, 11, 60]))
    def operator_is_killed_after(self, writes: int, seconds: float) -> None:
        """After its n-th write, if it comes to that; then another one starts."""
        self.process.kill()
        self.start(writes)
        self.wait(seconds)
        Life.deaths += self.process.dead
        self.process.kill()
        self.start()

    @rule()
    def peace(self) -> None:
        """With nothing going wrong, everything comes to rest, and rest means that nothing is written."""
        self.rest()
        before = self.process.writes
        self.wait(LONGEST_PAUSE_SECONDS)
        assert self.process.writes == before, f"4: {self.cluster.writes[-1]}"
        self.law.at_rest()

    @rule()
    def all_is_well(self) -> None:
        """Builders and servers work again: each model is ready, or says for good why not."""
        self.world.kubelet.builder = self.good
        self.world.kubelet.server = ready_server
        self.rest()
        for item in self.loop.run(self.cluster.list(OPTIMIZED_MODEL)):
            states = {entry["type"]: entry for entry in item["status"]["conditions"]}
            at_zero = item["spec"]["replicas"] == 0 and states["Servable"].get("reason") == "ScaledToZero"
            ended = "True" in (states["Ready"]["status"], states["Stalled"]["status"])
            assert ended or at_zero, f"{item['metadata']['name']}: {states}"

    def rest(self) -> None:
        """Until nothing was written for longer than any pause; a lost event is made good by a relist at last."""
        self.network.heal()
        self.cluster.break_watches()
        for _ in range(12):
            before = len(self.cluster.writes)
            self.wait(LONGEST_PAUSE_SECONDS)
            if len(self.cluster.writes) == before:
                return
        raise AssertionError(f"4: still moving: {self.cluster.writes[-6:]}")

    @invariant()
    def conditions_never_contradict(self) -> None:
        """Reconciling and Stalled are never both True; Ready is True only when all else is."""
        Life.steps += 1
        Life.shares += self.law.shares()
        self.law.conditions()

    def teardown(self) -> None:
        """7: deleting every model leaves nothing behind."""
        if not hasattr(self, "process"):
            return
        try:
            for name in NAMES:
                self.loop.run(self.cluster.delete(Ref(OPTIMIZED_MODEL, name, "default")))
            self.rest()
            left = [self.loop.run(self.cluster.list(kind)) for kind in OWNED]
            assert not any(left), f"7: {left}"
        finally:
            Life.writes += sum(self.law.seen.values())
            for fault, times in self.network.injected.items():
                Life.faults[fault.value] = Life.faults.get(fault.value, 0) + times
            build.WATCH_SECONDS, operator.COUNT_SECONDS, operator.RESYNC_SECONDS = PACE
            self.process.kill()
            self.loop.end()
            asyncio.set_event_loop(None)


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=2000 if FUZZING else 54,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module", autouse=True)
def enough_was_tried() -> Iterator[None]:
    """It is only worth what it tries."""
    yield
    if Life.steps:
        told = f"{Life.steps} steps, {Life.writes} writes, {Life.deaths} kills"
        told += f", {Life.shares} with a canary, faults {Life.faults}"
        assert Life.steps >= LEAST_STEPS, told
        assert Life.shares > 0, told
        assert set(Life.faults) == {fault.value for fault in (*CALL_FAULTS, *EVENT_FAULTS)}, told
        sys.__stdout__ and print(f"\nstate machine: {told}", file=sys.__stdout__)
