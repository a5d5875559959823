"""Fields of a spec that nothing acts on, yet or with the others as they are, and that do not reach a recipe.

They are refused, never ignored.
What a recipe or an evidence request may ask for is in `enginewright_api.support`, shared with the builder.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from enginewright_api.operation_spec import RolloutStrategy, Scaling, ScalingMode
from enginewright_api.optimization import (
    Calibration,
    Format,
    Granularity,
    KvCacheFormat,
    RungQuantization,
)
from enginewright_api.optimized_model import OptimizedModelSpec
from enginewright_api.recipe import Recipe, Task
from enginewright_api.serving_spec import Backend, BatchingMode
from enginewright_api.source import Dataset, Source
from enginewright_api.support import calibrates

Unavailable = tuple[str, str]
"""(field path below spec, one sentence)."""


def unavailable_fields(spec: OptimizedModelSpec) -> list[Unavailable]:
    """Every such field that is set, with what to do instead."""
    return [*_optimization(spec), *_runtime(spec), *_operation(spec), *_scaling(spec.scaling), *_credentials(spec)]


def unused_settings(spec: OptimizedModelSpec, recipes: Sequence[Recipe]) -> list[Unavailable]:
    """What none of these rungs, or not all of their backends, would act on."""
    found = _unused_calibration(spec, recipes)
    if spec.batching.stream_interval is not None and any(one.backend is Backend.TENSORRT_LLM for one in recipes):
        found.append(("batching.streamInterval", "is not available with TensorRTLLM yet; leave it out"))
    return found


def _unused_calibration(spec: OptimizedModelSpec, recipes: Iterable[Recipe]) -> list[Unavailable]:
    """Calibration that was asked for although no rung measures ranges."""
    quantization = spec.optimization.quantization
    if quantization is None or quantization.calibration == Calibration() or any(map(_calibrates, recipes)):
        return []
    return [("optimization.quantization.calibration", "has no effect: no rung measures ranges; leave it out")]


def _calibrates(recipe: Recipe) -> bool:
    return recipe.quantization is not None and calibrates(recipe.quantization)


def _optimization(spec: OptimizedModelSpec) -> list[Unavailable]:
    found: list[Unavailable] = []
    if spec.optimization.profile is not None and spec.optimization.fallbacks:
        found.append(("optimization.fallbacks", "have no effect with optimization.profile; leave one of them out"))
    blocks: list[tuple[str, RungQuantization | None]] = [("optimization.quantization", spec.optimization.quantization)]
    blocks += [
        (f"optimization.fallbacks[{number}].quantization", fallback.quantization)
        for number, fallback in enumerate(spec.optimization.fallbacks)
    ]
    for where, quantization in blocks:
        # Format None says the same as no block at all, so these would vanish from the recipe.
        if quantization is None or quantization.format is not Format.NONE:
            continue
        given = {
            "exclude": bool(quantization.exclude),
            "granularity": quantization.granularity is not Granularity.PER_CHANNEL,
            "kvCacheFormat": quantization.kv_cache_format is not KvCacheFormat.AUTO,
        }
        found += [
            (f"{where}.{name}", "has no effect with format None; leave it out") for name, set_ in given.items() if set_
        ]
    return found


def _runtime(spec: OptimizedModelSpec) -> list[Unavailable]:
    found: list[Unavailable] = []
    if spec.runtime.kv_cache is not None:
        found.append(("runtime.kvCache", "settings of the key-value cache are not available yet; leave it out"))
    if spec.runtime.cascade is not None:
        found.append(("runtime.cascade", "cascades are not available yet; leave it out"))
    return [*found, *_batching(spec)]


def _batching(spec: OptimizedModelSpec) -> list[Unavailable]:
    mode = spec.batching.mode
    generates = spec.task is Task.TEXT_GENERATION
    if generates and mode not in (BatchingMode.AUTO, BatchingMode.CONTINUOUS):
        return [("batching.mode", f"mode {mode.value} is for encoders; text generation has Auto and Continuous")]
    if not generates and mode is BatchingMode.CONTINUOUS:
        return [("batching.mode", "mode Continuous is for text generation; use Auto")]
    if not generates and mode is not BatchingMode.NONE:
        return []
    given = {
        "preferredBatchSizes": bool(spec.batching.preferred_batch_sizes),
        "maxQueueDelayMicroseconds": spec.batching.max_queue_delay_microseconds != 0,
    }
    why = "continuous batching" if generates else "batching.mode None"
    return [(f"batching.{name}", f"has no effect with {why}; leave it out") for name, set_ in given.items() if set_]


def _operation(spec: OptimizedModelSpec) -> list[Unavailable]:
    found: list[Unavailable] = []
    if spec.rollout.strategy is RolloutStrategy.CANARY and spec.rollout.max_surge == 0:
        found.append(("rollout.maxSurge", "0 leaves a canary no room beside the engine that serves; allow at least 1"))
    if spec.scaling.min_replicas == 0:
        found.append(("scaling.minReplicas", "scaling to zero is not available yet; use at least 1"))
    return found


def _scaling(scaling: Scaling) -> list[Unavailable]:
    """Bounds and promises that nobody would keep."""
    default, objectives = Scaling(), scaling.objectives
    if scaling.mode is ScalingMode.OBJECTIVES:
        latency = objectives is not None and any(
            (objectives.latency_milliseconds, objectives.time_to_first_token_milliseconds,
             objectives.inter_token_milliseconds)
        )  # fmt: skip
        if scaling.attainment == default.attainment or latency:
            return []
        return [("scaling.attainment", "has no effect without an objective in milliseconds; leave it out")]
    given = {
        # A minimum of 0 is refused whatever the mode is.
        "minReplicas": scaling.min_replicas not in (0, default.min_replicas),
        "maxReplicas": scaling.max_replicas != default.max_replicas,
        "objectives": objectives is not None,
        "attainment": scaling.attainment != default.attainment,
    }
    why = f"has no effect with mode {scaling.mode.value}; use mode Objectives or leave it out"
    return [(f"scaling.{name}", why) for name, set_ in given.items() if set_]


def _credentials(spec: OptimizedModelSpec) -> list[Unavailable]:
    found: list[Unavailable] = []
    for where, source in _sources(spec):
        if source.object_store is not None and source.object_store.secret_ref is not None:
            found.append((f"{where}.objectStore.secretRef", _ONE_STORE))
    for where, dataset in _datasets(spec):
        if dataset.object_store is not None and dataset.object_store.secret_ref is not None:
            found.append((f"{where}.objectStore.secretRef", _ONE_STORE))
    return found


def _sources(spec: OptimizedModelSpec) -> list[tuple[str, Source]]:
    distillation = spec.optimization.distillation
    student = distillation.student.source if distillation is not None else None
    drafting = spec.runtime.speculative_decoding
    draft = drafting.draft.source if drafting is not None and drafting.draft is not None else None
    found = [
        ("source", spec.source),
        ("optimization.distillation.student.source", student),
        ("runtime.speculativeDecoding.draft.source", draft),
    ]
    return [(where, source) for where, source in found if source is not None]


def _datasets(spec: OptimizedModelSpec) -> list[tuple[str, Dataset]]:
    found: list[tuple[str, Dataset]] = []
    quantization = spec.optimization.quantization
    if quantization is not None and quantization.calibration.dataset is not None:
        found.append(("optimization.quantization.calibration.dataset", quantization.calibration.dataset))
    distillation = spec.optimization.distillation
    if distillation is not None and distillation.dataset is not None:
        found.append(("optimization.distillation.dataset", distillation.dataset))
    if spec.quality.dataset is not None:
        found.append(("quality.dataset", spec.quality.dataset))
    return found


_ONE_STORE = "credentials of its own are not available yet; the operator's store credentials are used, leave it out"
