"""About how long a build takes on a CPU, stage by stage, before it starts.

Floating-point operations of what a stage computes over what a core does a second, plus what the stage costs whatever
the model is. The constants are rough: a first build of SmolLM2 took three times as long as estimated.
"""

from __future__ import annotations

from enginewright_api.evidence import EvidenceRequest
from enginewright_api.geometry import Geometry
from enginewright_api.recipe import Recipe, Task
from enginewright_api.support import calibrates

_FLOPS_A_CORE = {"x86_64-amx": 60e9, "x86_64-avx512-vnni": 50e9, "x86_64-avx512": 45e9, "x86_64-avx2": 30e9}
"""What eager PyTorch reaches in float32 on real texts, padding included."""
_OTHER_FLOPS = 15e9
_FIXED_SECONDS = {"fetch": 2.0, "export": 9.0, "compile": 3.0, "verify": 3.0, "benchmark": 12.0, "publish": 1.0}
_SECONDS_A_GIGAWEIGHT = {"fetch": 10.0, "export": 60.0, "quantize": 40.0, "compile": 20.0}
_TEXT_TOKENS = 48
"""Tokens of a text as news and reviews have them, padded."""
_TRAINING_BATCH = 16
_CALIBRATION_PASSES = 4.0
"""Statistics are collected more than once, by a runtime that stores every activation."""
_BACKWARD = 3.0
"""Forward and backward pass over the forward pass alone."""


def build_seconds(
    geometry: Geometry, recipe: Recipe, evidence: EvidenceRequest, *, architecture: str, cores: int
) -> dict[str, float]:
    """Seconds a stage, for stages that are not in the cache."""
    rate = _FLOPS_A_CORE.get(architecture, _OTHER_FLOPS) * max(cores, 1)
    text_seconds = _TEXT_TOKENS * geometry.flops_per_token(_TEXT_TOKENS) / rate
    found = dict(_FIXED_SECONDS)
    if recipe.task is Task.TEXT_GENERATION:
        # One token at a time: memory is what limits, eight times slower than the arithmetic.
        found["benchmark"] += 8 * 64 * geometry.flops_per_token(_TEXT_TOKENS) / rate
    found["reference"] = evidence.samples * text_seconds
    found["verify"] += evidence.samples * text_seconds / 3
    steps = _training_steps(recipe)
    for stage, count in steps.items():
        found[stage] = 3.0 + count * _TRAINING_BATCH * text_seconds * (_BACKWARD + 1)
    if recipe.low_rank is not None:
        found["factorize"] = 3.0 + geometry.layer_weights * min(geometry.width, geometry.neurons) * 20 / rate
    if recipe.quantization is not None:
        rows = recipe.quantization.calibration.samples if calibrates(recipe.quantization) else 0
        found["quantize"] = 3.0 + rows * text_seconds * _CALIBRATION_PASSES
    weights = geometry.parameters / 1e9
    for stage, seconds in _SECONDS_A_GIGAWEIGHT.items():
        if stage in found:
            found[stage] += seconds * weights
    return found


def _training_steps(recipe: Recipe) -> dict[str, int]:
    found = {}
    if recipe.distillation is not None:
        found["distil"] = recipe.distillation.max_steps
    if recipe.pruning is not None:
        found["prune"] = recipe.pruning.recovery_steps
    return found
