"""Whatever users, builders, servers and the network do: the invariants hold, and peace returns without a write."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from enginewright_api.errors import FailureClass
from enginewright_cluster.fake import FakeCluster
from enginewright_cluster.faults import Call, Fault
from enginewright_cluster.port import DEPLOYMENT, ENGINE_BUILD, JOB, OPTIMIZED_MODEL, SERVICE, NotFoundError, Ref
from tests.scenarios.evidence import evidence, failure, success
from tests.scenarios.kubelet import crashing_server, evicted, ready_server, unschedulable
from tests.scenarios.world import Moving, World

SPECS: list[dict[str, Any]] = [
    {},
    {"engine": {"limits": {"maxInputTokens": 128}}},
    {"optimization": {"quantization": {"format": "INT8"}, "fallbacks": [{"quantization": {"format": "FP16"}}]}},
    {"batching": {"maxQueueDelayMicroseconds": 500}},
    {"quality": {"maxDrop": 0.5}},
    {"quality": {"samples": 64}},
    {"hardware": {"acceleratorClasses": ["missing"]}},
    {"rollout": {"maxSurge": 0}},
    {"rollout": {"maxSurge": 3}},
]
NAMES = ["one", "two"]


class Life(RuleBasedStateMachine):
    """Two models that share what they can."""

    @initialize()
    def begin(self) -> None:
        """An empty cluster with the class `cpu`."""
        self.loop = asyncio.new_event_loop()
        self.clock = Moving()
        self.fault: Fault | None = None
        self.calls = 0
        self.cluster = FakeCluster(now=self.clock, faults=self._faults)
        self.world = World(self.cluster, clock=self.clock)
        self.good = self.world.published()
        self.do(self.world.give_class())

    def do(self, work: Any) -> Any:
        """Run to its end; only what the operator does goes wrong."""
        fault, self.fault = self.fault, None
        try:
            return self.loop.run_until_complete(work)
        finally:
            self.fault = fault

    def _faults(self, call: Call) -> Fault | None:
        """Every third write of the operator goes wrong while a fault is on."""
        self.calls += 1
        wrong = self.fault is not None and call.verb in ("apply", "create", "patch", "delete") and self.calls % 3 == 0
        return self.fault if wrong else None

    @rule(name=st.sampled_from(NAMES), spec=st.sampled_from(SPECS))
    def user_applies(self, name: str, spec: dict[str, Any]) -> None:
        """Another spec."""
        self.do(self.world.apply(name, **spec))

    @rule(name=st.sampled_from(NAMES))
    def user_deletes(self, name: str) -> None:
        """The model goes."""
        self.do(self.cluster.delete(Ref(OPTIMIZED_MODEL, name, "default")))

    @rule(name=st.sampled_from(NAMES), replicas=st.integers(0, 4))
    def autoscaler_scales(self, name: str, replicas: int) -> None:
        """Another number of replicas."""
        try:
            self.do(self.cluster.scale(Ref(OPTIMIZED_MODEL, name, "default"), replicas))
        except NotFoundError:
            return

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
        self.world.kubelet.builder = behaviours[how]

    @rule(how=st.sampled_from([ready_server, crashing_server, unschedulable]))
    def servers_change(self, how: Any) -> None:
        """Pods that are not ready yet behave otherwise from now on; ready ones stay."""

        def server(pod: Any) -> Any:
            conditions = pod.get("status", {}).get("conditions", [])
            ready = any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)
            return ready_server(pod) if ready else how(pod)

        self.world.kubelet.server = server

    @rule(fault=st.sampled_from([None, None, Fault.CONFLICT, Fault.LOST_REPLY, Fault.UNAVAILABLE]))
    def network_changes(self, fault: Fault | None) -> None:
        """Calls go wrong, or do not."""
        self.fault = fault

    @rule(seconds=st.sampled_from([1, 11, 1000]))
    def time_passes(self, seconds: float) -> None:
        """Pauses and deadlines end."""
        self.clock.forward(seconds)

    @rule(rounds=st.integers(1, 4))
    def operator_works(self, rounds: int) -> None:
        """Some rounds, with everything around the operator working as well."""
        for _ in range(rounds):
            before = self.do(self.capacity())
            self.loop.run_until_complete(self.world.round())
            self.check_capacity(before)
            self.do(self.world.step())

    @rule()
    def operator_restarts(self) -> None:
        """A new process."""
        self.world.restarted()

    @rule()
    def peace(self) -> None:
        """With nothing going wrong, everything comes to rest, and rest means that nothing is written."""
        self.fault = None
        self.do(self.world.settle(120))
        before = len(self.cluster.writes)
        self.do(self.world.round())
        assert self.cluster.writes[before:] == []

    async def capacity(self) -> dict[str, tuple[int, int]]:
        """Per model: ready replicas that get requests, and wanted replicas."""
        found = {}
        for item in await self.cluster.list(OPTIMIZED_MODEL):
            name = item["metadata"]["name"]
            service = await self.world.one(SERVICE, name)
            ready = 0
            for deployment in await self.cluster.list(DEPLOYMENT):
                labels = deployment["spec"]["template"]["metadata"]["labels"]
                selector = service["spec"]["selector"] if service is not None else {"none": "none"}
                if all(labels.get(key) == value for key, value in selector.items()):
                    sized = deployment["spec"]["replicas"]
                    ready += min(sized, deployment.get("status", {}).get("readyReplicas", 0))
            found[name] = (ready, item["spec"]["replicas"])
        return found

    def check_capacity(self, before: dict[str, tuple[int, int]]) -> None:
        """Invariant 2: what the operator does never takes ready replicas below what is wanted."""
        after = self.do(self.capacity())
        for name, (ready, wanted) in before.items():
            if name in after:
                assert after[name][0] >= min(ready, wanted), name

    @invariant()
    def nothing_is_retried_in_vain(self) -> None:
        """Invariant 3: one attempt for what cannot succeed, unless its EngineBuild was dropped in between."""
        jobs = Counter(job["metadata"]["labels"]["enginewright.io/build-key"] for job in self.do(self._jobs()))
        most = self.world.settings.builds.attempts + 1
        assert all(count <= 2 * most for count in jobs.values())

    async def _jobs(self) -> Any:
        return await self.cluster.list(JOB)

    @invariant()
    def conditions_never_contradict(self) -> None:
        """Reconciling and Stalled are never both True; Ready is True only when all else is."""
        for item in self.do(self._models()):
            states = {entry["type"]: entry["status"] for entry in item.get("status", {}).get("conditions", [])}
            assert (states.get("Reconciling"), states.get("Stalled")) != ("True", "True")
            if states.get("Ready") == "True":
                assert {states[name] for name in ("Accepted", "Built", "RolledOut", "Servable")} == {"True"}

    async def _models(self) -> Any:
        return await self.cluster.list(OPTIMIZED_MODEL)

    def teardown(self) -> None:
        """Deleting every model leaves nothing behind."""
        self.fault = None
        for name in NAMES:
            self.do(self.cluster.delete(Ref(OPTIMIZED_MODEL, name, "default")))
        self.do(self.world.settle())
        left = [self.do(self.cluster.list(kind)) for kind in (ENGINE_BUILD, JOB, DEPLOYMENT, SERVICE)]
        assert not any(left)
        self.loop.close()


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=30, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
