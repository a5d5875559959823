"""status.cost: accelerator time of the builds and the price of tokens; who built with which image."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from enginewright_api.accelerator_class import AcceleratorClass
from enginewright_api.engine_build import EngineBuild
from enginewright_api.names import LABEL_EVIDENCE
from enginewright_api.recipe import Toolchain
from enginewright_operator.core.acceptance import acceptance
from enginewright_operator.core.build import plan_build
from enginewright_operator.core.class_choice import class_choice
from enginewright_operator.core.cost import per_million_tokens
from enginewright_operator.core.effects import Create, Plan
from enginewright_operator.core.engine_builds import create_engine_build
from enginewright_operator.core.plan import plan_model
from enginewright_operator.core.snapshot import BuildSnapshot
from tests.scenarios.evidence import benchmark, evidence, success
from tests.scenarios.models import accelerator_class, settings
from tests.unit.operator.snapshots import NOW, drafted, snapshot

PRICED = accelerator_class(cost={"perHour": 3.6, "currency": "EUR"})


def engine_build() -> dict[str, Any]:
    """The EngineBuild of the model's first rung, as the API server has it."""
    found = snapshot()
    manifest = create_engine_build(found, drafted(found, acceptance, class_choice).rungs[0]).manifest
    return {**manifest, "metadata": {**manifest["metadata"], "uid": "uid-2", "generation": 1, "resourceVersion": "1"}}


def finished(build: EngineBuild, attempt: int, seconds: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """A Job that succeeded and its pod."""
    request = build.spec.evidence[0]
    outcome = success(build.spec.key, evidence(request.digest)).model_copy(update={"seconds": seconds})
    labels = {LABEL_EVIDENCE: request.digest[:32], "enginewright.io/attempt": str(attempt)}
    ended = {"type": "Complete", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    job = {"metadata": {"name": f"job-{attempt}", "labels": labels}, "status": {"conditions": [ended]}}
    terminated = {"exitCode": 0, "message": outcome.termination_message().decode()}
    pod = {
        "metadata": {"name": f"job-{attempt}-x", "labels": {"job-name": f"job-{attempt}"}},
        "status": {"phase": "Succeeded", "containerStatuses": [{"state": {"terminated": terminated}}]},
    }
    return job, pod


def status_of(plan: Plan) -> dict[str, Any]:
    """Status that a plan writes."""
    (patch,) = [effect.patch for effect in plan.effects if type(effect).__name__ == "PatchStatus"]
    return dict(patch)


def test_a_build_counts_the_time_of_all_its_attempts_and_keeps_it_when_jobs_are_gone() -> None:
    manifest = engine_build()
    build = EngineBuild.of(manifest)
    done = [finished(build, 1, 40.0), finished(build, 2, 20.5)]
    jobs, pods = tuple(job for job, _ in done), tuple(pod for _, pod in done)
    written = status_of(plan_build(BuildSnapshot(manifest, settings(), jobs=jobs, pods=pods), NOW))
    assert written["resources"] == {"peakMemoryBytes": 10**9, "acceleratorSeconds": 60.5}
    later = BuildSnapshot({**manifest, "status": written}, settings())
    assert not [effect for effect in plan_build(later, NOW).effects if "resources" in str(effect)]


def test_the_model_says_what_its_builds_took_and_what_tokens_will_cost() -> None:
    manifest = engine_build()
    build = EngineBuild.of(manifest)
    job, pod = finished(build, 1, 90.0)
    status = status_of(plan_build(BuildSnapshot(manifest, settings(), jobs=(job,), pods=(pod,)), NOW))
    name = manifest["metadata"]["name"]
    found = snapshot(classes=(PRICED,), builds={name: {**manifest, "status": status}})
    cost = status_of(plan_model(found, datetime(2026, 1, 1, tzinfo=UTC)))["cost"]
    best = max(row.throughput_per_second * row.tokens for row in benchmark().measurements)
    assert cost["buildAcceleratorSeconds"] == 90.0
    assert cost["currency"] == "EUR"
    assert cost["predictedPerMillionTokens"] == pytest.approx(3.6 / 3600 / best * 1e6, rel=1e-3)


def test_two_accelerators_cost_twice_as_much() -> None:
    priced = AcceleratorClass.of(PRICED)
    one, two = (per_million_tokens(benchmark(), priced, accelerators=count) for count in (1, 2))
    assert one is not None
    assert two == pytest.approx(2 * one, rel=1e-3)


@pytest.mark.parametrize("price", [None, {"perHour": 1.0}])
def test_without_a_price_or_a_measurement_nothing_is_predicted(price: dict[str, Any] | None) -> None:
    measured = benchmark() if price is None else benchmark().model_copy(update={"measurements": []})
    known = accelerator_class() if price is None else accelerator_class(cost=price)
    assert per_million_tokens(measured, AcceleratorClass.of(known), accelerators=1) is None


def test_a_build_runs_with_the_image_its_key_was_made_with() -> None:
    """After an upgrade the operator has another image; with it the key would name an engine it did not make."""
    upgraded = settings(toolchain=Toolchain(image="builder:2", digest="sha256:" + "b" * 64))
    plan = plan_build(BuildSnapshot(engine_build(), upgraded), NOW)
    (job,) = [effect.manifest for effect in plan.effects if isinstance(effect, Create)]
    assert job["spec"]["template"]["spec"]["containers"][0]["image"] == "builder:1"
