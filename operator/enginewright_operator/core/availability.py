"""Fields of a spec that nothing acts on yet and that do not reach a recipe. They are refused, never ignored.

What a recipe or an evidence request may ask for is in `enginewright_api.support`, shared with the builder.
"""

from __future__ import annotations

from enginewright_api.operation_spec import RolloutStrategy
from enginewright_api.optimized_model import OptimizedModelSpec
from enginewright_api.serving_spec import BatchingMode
from enginewright_api.source import Dataset

Unavailable = tuple[str, str]
"""(field path below spec, one sentence)."""


def unavailable_fields(spec: OptimizedModelSpec) -> list[Unavailable]:
    """Every such field that is set, with what to do instead."""
    return [*_optimization(spec), *_runtime(spec), *_operation(spec), *_credentials(spec)]


def _optimization(spec: OptimizedModelSpec) -> list[Unavailable]:
    if spec.optimization.profile is None:
        return []
    return [("optimization.profile", "recipe search is not available yet; name the blocks and fallbacks instead")]


def _runtime(spec: OptimizedModelSpec) -> list[Unavailable]:
    found: list[Unavailable] = []
    if spec.runtime.kv_cache is not None:
        found.append(("runtime.kvCache", "settings of the key-value cache are not available yet; leave it out"))
    if spec.runtime.cascade is not None:
        found.append(("runtime.cascade", "cascades are not available yet; leave it out"))
    if spec.batching.mode is BatchingMode.CONTINUOUS:
        found.append(("batching.mode", "mode Continuous is not available yet; use Auto"))
    return found


def _operation(spec: OptimizedModelSpec) -> list[Unavailable]:
    found: list[Unavailable] = []
    if spec.rollout.strategy is RolloutStrategy.CANARY:
        found.append(("rollout.canary", "canary rollouts are not available yet; use strategy Rolling"))
    if spec.rollout.max_surge == 0:
        found.append(("rollout.maxSurge", "replacing in place (0) is not available yet; allow at least 1"))
    if spec.scaling.min_replicas == 0:
        found.append(("scaling.minReplicas", "scaling to zero is not available yet; use at least 1"))
    return found


def _credentials(spec: OptimizedModelSpec) -> list[Unavailable]:
    found: list[Unavailable] = []
    source = spec.source.object_store
    if source is not None and source.secret_ref is not None:
        found.append(("source.objectStore.secretRef", _ONE_STORE))
    for where, dataset in _datasets(spec):
        if dataset.object_store is not None and dataset.object_store.secret_ref is not None:
            found.append((f"{where}.objectStore.secretRef", _ONE_STORE))
    return found


def _datasets(spec: OptimizedModelSpec) -> list[tuple[str, Dataset]]:
    found: list[tuple[str, Dataset]] = []
    quantization = spec.optimization.quantization
    if quantization is not None and quantization.calibration.dataset is not None:
        found.append(("optimization.quantization.calibration.dataset", quantization.calibration.dataset))
    if spec.quality.dataset is not None:
        found.append(("quality.dataset", spec.quality.dataset))
    return found


_ONE_STORE = "credentials of its own are not available yet; the operator's store credentials are used, leave it out"
