"""What does not fit into the memory of its class: told by a builder once, and by the operator from then on."""

from __future__ import annotations

from typing import Any

from enginewright_api.errors import DeterministicError, FailureClass
from enginewright_api.footprint import check_will_fit, footprint
from enginewright_api.geometry import CheckpointSizes
from enginewright_api.outcome import BuildOutcome
from enginewright_cluster.port import CONFIG_MAP, DEPLOYMENT, ENGINE_BUILD
from tests.scenarios.evidence import failure
from tests.scenarios.kubelet import Attempt, Builder
from tests.scenarios.models import accelerator_class
from tests.scenarios.world import World

SIZES = CheckpointSizes(
    layers=24, width=1024, heads=16, key_value_heads=16, head_width=64, neurons=4096, vocabulary=30522, positions=8192,
    gated=False, tied=True,
)  # fmt: skip
"""BERT-large's shape, with room for long inputs."""


def limits(batch: int, tokens: int) -> dict[str, Any]:
    """A spec with these limits: activations grow with their product."""
    return {"engine": {"limits": {"maxBatchSize": batch, "maxInputTokens": tokens}}}


def looking(world: World, otherwise: Builder) -> Builder:
    """Builders that read the checkpoint, and hold the engine against the class, as the real one does."""

    def build(attempt: Attempt) -> Any:
        recipe, accelerator = attempt.request.recipe, attempt.request.accelerator
        draft = SIZES if recipe.draft_source is not None else None
        try:
            check_will_fit(footprint(SIZES.geometry, recipe, draft.geometry if draft else None), accelerator)
            outcome = otherwise(attempt)
        except DeterministicError as error:
            outcome = failure(attempt.key, FailureClass.DETERMINISTIC, error.reason, error.message, stage="")
        assert isinstance(outcome, BuildOutcome)
        return outcome.model_copy(update={"checkpoint": SIZES, "draft_checkpoint": draft})

    return build


async def test_what_cannot_fit_is_refused_and_no_second_builder_asks(world: World) -> None:
    world.kubelet.builder = looking(world, world.published())
    await world.apply(**limits(64, 8192))
    await world.settle()
    status, reason, message = await world.condition("Accepted")
    assert (status, reason) == ("False", "WillNotFit")
    assert "serving needs about 32.6 GiB" in message
    assert "class cpu has 16 GiB; lower engine.limits" in message
    assert (await world.condition("Stalled"))[:2] == ("True", "WillNotFit")
    assert (await world.condition("Reconciling"))[0] == "False"
    assert len(world.kubelet.attempts) == 1, "nobody knew before"

    await world.apply(**limits(24, 8192))
    await world.settle()
    assert (await world.condition("Accepted"))[:2] == ("True", "Valid"), "13.1 GiB"
    assert (await world.condition("Ready"))[0] == "True"
    assert len(world.kubelet.attempts) == 2
    served = await world.names(DEPLOYMENT)

    await world.apply(**limits(48, 8192))
    await world.settle()
    assert (await world.condition("Accepted"))[:2] == ("False", "WillNotFit")
    assert (await world.model())["status"]["observedGeneration"] == (await world.model())["metadata"]["generation"]
    assert len(world.kubelet.attempts) == 2, "no builder had to be asked"
    assert len(await world.names(ENGINE_BUILD)) == 1
    assert await world.names(DEPLOYMENT) == served, "what serves goes on"
    assert (await world.condition("Servable"))[0] == "True"

    before = await world.steady_versions()
    await world.wait_for(3600)
    assert await world.steady_versions() == before


async def test_a_class_with_more_memory_lets_it_in(fake_world: World) -> None:
    fake_world.kubelet.builder = looking(fake_world, fake_world.published())
    await fake_world.apply(**limits(64, 8192))
    await fake_world.settle()
    assert (await fake_world.condition("Accepted"))[1] == "WillNotFit"
    await fake_world.cluster.apply(accelerator_class(memoryGiB=40))
    await fake_world.settle()
    assert (await fake_world.condition("Ready"))[0] == "True"


async def test_a_rung_that_does_not_fit_is_passed_over_without_a_build(fake_world: World) -> None:
    """FP16 keeps a copy of its matrices in float32, INT8 does not."""
    fake_world.kubelet.builder = looking(fake_world, fake_world.published())
    await fake_world.apply()
    await fake_world.settle()
    await fake_world.cluster.apply(accelerator_class(memoryGiB=1.8))
    rungs = {"quantization": {"format": "FP16"}, "fallbacks": [{"quantization": {"format": "INT8"}}]}
    await fake_world.apply(optimization=rungs, **limits(8, 512))
    await fake_world.settle()
    status = (await fake_world.model())["status"]
    assert status["target"]["format"] == "INT8"
    assert status["rungs"][0]["message"].startswith("will not fit: serving needs about 2.")
    assert [attempt.format for attempt in fake_world.kubelet.attempts] == ["INT8", "INT8"]
    assert await fake_world.names(CONFIG_MAP)


async def test_a_draft_counts_once_a_builder_has_told_its_sizes(fake_world: World) -> None:
    fake_world.kubelet.builder = looking(fake_world, fake_world.published())
    draft = {"method": "DraftModel", "draft": {"source": {"objectStore": {"uri": "s3://models/draft"}}}}
    await fake_world.cluster.apply(accelerator_class(memoryGiB=5))
    said = []
    for batch in (8, 6, 4):
        await fake_world.apply(task="TextGeneration", runtime={"speculativeDecoding": draft}, **limits(batch, 2048))
        await fake_world.settle()
        said.append((*(await fake_world.condition("Accepted"))[:2], len(fake_world.kubelet.attempts)))
    assert said == [
        ("False", "WillNotFit", 1),
        ("False", "WillNotFit", 1),  # the model alone would fit
        ("True", "Valid", 2),
    ]
    found = [await fake_world.one(ENGINE_BUILD, name) for name in await fake_world.names(ENGINE_BUILD)]
    assert [build["status"]["draftCheckpoint"] for build in found if build is not None] == [SIZES.wire()] * len(found)
