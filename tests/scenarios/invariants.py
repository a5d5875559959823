"""The invariants of the architecture, checked at each single write of the operator."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

from enginewright_api.errors import FailureClass
from enginewright_api.outcome import BuildOutcome
from enginewright_cluster.fake import FakeCluster
from enginewright_cluster.port import (
    CONFIG_MAP,
    DEPLOYMENT,
    ENGINE_BUILD,
    JOB,
    OPTIMIZED_MODEL,
    POD,
    POD_DISRUPTION_BUDGET,
    SERVICE,
    Object,
    Ref,
)
from tests.scenarios.evidence import artifact
from tests.scenarios.kubelet import Attempt, Builder

OPERATORS_KINDS = frozenset(
    {
        "OptimizedModel", "EngineBuild", "AcceleratorClass", "Job", "Deployment", "PodDisruptionBudget", "Service",
        "ConfigMap", "Event",
    }
)  # fmt: skip
"""What the operator writes at all; pods and nodes are others'."""
OWNED = (ENGINE_BUILD, JOB, DEPLOYMENT, POD_DISRUPTION_BUDGET, SERVICE, CONFIG_MAP, POD)
"""What there is because of a model, and goes with it."""


class Invariants:
    """Knows what builders reported and what was served, and looks at each write."""

    def __init__(self, cluster: FakeCluster) -> None:
        self._cluster = cluster
        self._ready: dict[str, tuple[int, int]] = {}
        self._bounds: defaultdict[str, list[float]] = defaultdict(list)
        """Upper bounds of the drop that builders measured, by artifact digest."""
        self._allowed: defaultdict[str, set[float]] = defaultdict(set)
        self._hopeless: set[tuple[str, str]] = set()
        """EngineBuild uid and evidence request of deterministic failures."""
        self.seen: Counter[str] = Counter()
        self.violations: list[AssertionError] = []
        """What the operator did wrong; its queue would take an error of ours for one of its visit."""

    def reported(self, builder: Builder) -> Builder:
        """The builder, with what it reports remembered."""

        def build(attempt: Attempt) -> Any:
            result = builder(attempt)
            if isinstance(result, BuildOutcome):
                self._remember(attempt, result)
            return result

        return build

    def allowed(self, name: str, max_drop: float) -> None:
        """A user says what drop a model may have."""
        self._allowed[name].add(max_drop)

    def forget_failures(self) -> None:
        """Somebody deleted a Job, and with it what is known of its failure."""
        self._hopeless.clear()

    def before(self, verb: str, what: Any) -> None:
        """As the cluster is right before a write."""
        self._ready = self._capacity()
        if _kind(what) == "Job" and verb in ("apply", "create"):
            self._note(self._job_may_start, what)

    def after(self, verb: str, what: Any) -> None:
        """And right after it."""
        self.seen[f"{verb} {_kind(what)}"] += 1
        self._note(self._written, verb, what)

    def _note(self, check: Callable[..., None], *given: Any) -> None:
        try:
            check(*given)
        except AssertionError as violation:
            self.violations.append(violation)

    def _written(self, verb: str, what: Any) -> None:
        assert _kind(what) in OPERATORS_KINDS, f"{verb} {what}"
        if _kind(what) == "OptimizedModel":
            assert verb == "patch_status", "5: users own the spec, autoscalers the replicas"
        self._nothing_taken_away()
        if _kind(what) in ("Service", "Deployment"):
            self._served_engines_passed()

    def _remember(self, attempt: Attempt, outcome: BuildOutcome) -> None:
        if outcome.evidence is not None and outcome.evidence.quality is not None:
            self._bounds[artifact(attempt.key).digest].append(outcome.evidence.quality.drop_upper_bound)
        failed = outcome.failure is not None and outcome.failure.failure_class is FailureClass.DETERMINISTIC
        for build in self._all(ENGINE_BUILD):
            if failed and build["spec"]["key"] == attempt.key:
                self._hopeless.add((build["metadata"]["uid"], attempt.request_digest[:32]))

    def _job_may_start(self, job: Object) -> None:
        """3, and no two builders of one build at a time."""
        metadata = job["metadata"]
        if any(item["metadata"]["name"] == metadata["name"] for item in self._all(JOB)):
            return
        owner = metadata["ownerReferences"][0]["uid"]
        asked = metadata["labels"]["enginewright.io/evidence"]
        assert (owner, asked) not in self._hopeless, f"3: {metadata['name']} retries what cannot succeed"
        at_work = [
            item["metadata"]["name"]
            for item in self._all(JOB)
            if item["metadata"]["ownerReferences"][0]["uid"] == owner and not item.get("status", {}).get("conditions")
        ]
        assert not at_work, f"{metadata['name']} beside {at_work}"

    def _nothing_taken_away(self) -> None:
        """2: no write takes ready replicas that get requests below what is wanted."""
        after = self._capacity()
        for name, (ready, wanted) in self._ready.items():
            if name in after:
                assert after[name][0] >= min(ready, wanted), f"2: {name}: {ready} of {wanted} -> {after[name]}"

    def _served_engines_passed(self) -> None:
        """1: whatever a Service selects passed the gate of a spec that the model had."""
        for service in self._all(SERVICE):
            selector = service["spec"].get("selector") or {}
            wanted, name = selector.get("enginewright.io/artifact"), selector.get("enginewright.io/model")
            if wanted is None or name is None:
                continue
            bounds = [bound for digest, found in self._bounds.items() if digest.startswith(wanted) for bound in found]
            most = max(self._allowed[name], default=0.01)
            assert bounds and min(bounds) <= most, f"1: {name} serves {wanted}, measured {bounds}, allowed {most}"

    def _capacity(self) -> dict[str, tuple[int, int]]:
        """Per model: ready replicas that get requests, and wanted replicas."""
        found: dict[str, tuple[int, int]] = {}
        services = {item["metadata"]["name"]: item["spec"].get("selector") or {} for item in self._all(SERVICE)}
        deployments = self._all(DEPLOYMENT)
        for model in self._all(OPTIMIZED_MODEL):
            name = model["metadata"]["name"]
            selector = services.get(name, {"none": "none"})
            ready = sum(
                min(item["spec"]["replicas"], item.get("status", {}).get("readyReplicas", 0))
                for item in deployments
                if _selects(selector, item["spec"]["template"]["metadata"]["labels"])
            )
            # In place, because the user allows no surge: one replica fewer for a while.
            in_place = model["spec"].get("rollout", {}).get("maxSurge") == 0
            found[name] = (ready, model["spec"]["replicas"] - in_place)
        return found

    def conditions(self) -> dict[str, dict[str, str]]:
        """Condition states by model; checks that they do not contradict one another."""
        found = {}
        for item in self._all(OPTIMIZED_MODEL):
            states = {entry["type"]: entry["status"] for entry in item.get("status", {}).get("conditions", [])}
            assert (states.get("Reconciling"), states.get("Stalled")) != ("True", "True")
            if states.get("Ready") == "True":
                assert {states[name] for name in ("Accepted", "Built", "RolledOut", "Servable")} == {"True"}
            found[item["metadata"]["name"]] = states
        return found

    def shares(self) -> int:
        """Models of whose requests a canary gets a share."""
        rollouts = [item.get("status", {}).get("rollout") or {} for item in self._all(OPTIMIZED_MODEL)]
        return sum(1 for rollout in rollouts if rollout.get("weight"))

    def at_rest(self) -> None:
        """7: nothing lives on whose owner is gone; the status is about the spec that stands."""
        alive = {item["metadata"]["uid"] for kind in (OPTIMIZED_MODEL, *OWNED) for item in self._all(kind)}
        for kind in OWNED:
            for item in self._all(kind):
                owners = [owner["uid"] for owner in item["metadata"].get("ownerReferences", [])]
                assert alive.intersection(owners), f"7: {kind.kind} {item['metadata']['name']} was left behind"
        for model in self._all(OPTIMIZED_MODEL):
            assert model["status"]["observedGeneration"] == model["metadata"]["generation"], model["metadata"]["name"]

    def _all(self, kind: Any) -> list[Object]:
        return list(self._cluster._rows.select(kind, None))


def _selects(selector: Object, labels: Object) -> bool:
    return all(labels.get(key) == value for key, value in selector.items())


def _kind(what: Any) -> str:
    return what.kind.kind if isinstance(what, Ref) else str(what["kind"])
