"""About how long a build takes on a CPU, stage by stage, before it starts.

Floating-point operations of what a stage computes over what a core does a second, plus what the stage costs whatever
the model is. The constants come from the stage times of real builds (docs/preflight.md says which, and how far off the
estimates are); what was not measured is scaled from that.
"""

from __future__ import annotations

from collections.abc import Mapping

from enginewright_api.evidence import EvidenceRequest
from enginewright_api.geometry import Geometry
from enginewright_api.optimization import PruningCriterion, QuantizationMethod
from enginewright_api.recipe import Recipe, Task
from enginewright_api.support import calibrates

_FLOPS_A_CORE = {
    "x86_64-amx": 60e9,
    "x86_64-zen4": 70e9,
    "x86_64-avx512-vnni": 50e9,
    "x86_64-avx512": 45e9,
    "x86_64-avx2": 30e9,
}
"""What eager PyTorch reaches in float32 with matrices 384 wide."""
_OTHER_FLOPS = 15e9
_WIDTH = 384
_WIDEST_GAIN = 1.8
"""Wider matrices keep a core busier: 1.75 times the operations a second at 768, measured; taken to end there."""
_START_SECONDS = 4.0
"""Interpreter, data sets, and an engine's server until it is ready."""
_TEXT_TOKENS = 36
"""Tokens of a text as news and reviews have them, padded."""
_TRAINING_BATCH = 16
_GRADIENT_ROWS = 256
_CALIBRATION_PASSES = 6.0
"""Statistics are collected more than once, by a runtime that stores every activation."""
LEARNING_PASSES = 4
"""Of quantisation-aware training over the calibration rows."""
EXIT_ROWS, EXIT_STEPS, EXIT_BATCH = 2048, 150, 128
"""Of an early exit: rows read, and steps in which heads learn on so many rows each, in one thread."""
_BACKWARD = 3.0
"""Forward and backward pass over the forward pass alone."""
_ROW_SECONDS = 0.006
"""A row of the evaluation set through the server, beyond its arithmetic."""
_BENCHMARK_SHAPES = ((1, 16), (1, 128), (8, 128), (32, 128))
_BENCHMARK_LEAST_SECONDS, _BENCHMARK_ROUNDS = 2.0, 7
"""Each shape takes its seconds or its rounds, whichever is more; the engine adds a third to the baseline's time."""
_STREAMS, _STREAM_ROUNDS, _STREAM_TOKENS = (1, 8), 4, 32
_BYTES_A_SECOND = 10e9
"""Weights that eager PyTorch reads for one token of one stream; seven more streams cost 1.4 times that."""
_EAGER_GENERATION = 2.0
"""Keys and values are put together in Python."""
_DRAFT_SECONDS = 10.0
"""Fetching, exporting and rounding a draft, in a toolchain that has done the same with the model."""
_BESIDE = frozenset({"reference"})
_TOOLCHAIN = frozenset({"distil", "prune", "factorize", "exit", "learn", "export", "quantize", "draft", "compile"})


def build_seconds(
    geometry: Geometry,
    recipe: Recipe,
    evidence: EvidenceRequest,
    *,
    architecture: str,
    cores: int,
    draft: Geometry | None = None,
) -> dict[str, float]:
    """Seconds a stage, for stages that are not in the cache; `start` is none, but takes its time too."""
    wider = min(_WIDEST_GAIN, geometry.width / _WIDTH)
    rate = _FLOPS_A_CORE.get(architecture, _OTHER_FLOPS) * max(wider, 0.5)
    cores = max(cores, 1)
    text = _TEXT_TOKENS * geometry.flops_per_token(_TEXT_TOKENS) / (rate * cores)
    weights = geometry.parameters / 1e9
    generates = recipe.task is Task.TEXT_GENERATION
    found = {"start": _START_SECONDS, "fetch": 0.2 + 20 * weights, "package": 1.2}
    found["export"] = (30 if generates else 6.5) + 40 * weights
    found["compile"] = 2.0 + (60 if generates else 14) * weights
    found |= _generation(geometry, evidence, text, cores) if generates else _encoding(geometry, evidence, text)
    for stage, count in _training_steps(recipe).items():
        found[stage] = 3.0 + count * _TRAINING_BATCH * text * (_BACKWARD + 1)
    pruning = recipe.pruning
    if pruning is not None and pruning.criterion is PruningCriterion.GRADIENT:
        found["prune"] += _GRADIENT_ROWS * text * _BACKWARD
    if recipe.low_rank is not None:
        narrow = min(geometry.width, geometry.neurons)
        found["factorize"] = 3.0 + geometry.layer_weights * narrow * 20 / (rate * cores)
    if recipe.early_exit is not None:
        heads = 2 * geometry.width**2 * (geometry.layers - 1) * EXIT_BATCH * _BACKWARD
        found["exit"] = 3.0 + EXIT_ROWS * text + EXIT_STEPS * heads / rate
    if draft is not None:
        found["draft"] = _DRAFT_SECONDS + (20 + 40 + 80) * draft.parameters / 1e9
    if recipe.quantization is not None:
        # What learnt quantised brings its ranges along.
        measures = calibrates(recipe.quantization) and recipe.quantization.method is not QuantizationMethod.QAT
        rows = recipe.quantization.calibration.samples if measures else 0
        found["quantize"] = 3.0 + 80 * weights * generates + rows * text * _CALIBRATION_PASSES
    return found


def total_seconds(stages: Mapping[str, float]) -> float:
    """Of the whole build: the baseline answers beside the toolchain's work."""
    beside = sum(seconds for stage, seconds in stages.items() if stage in _BESIDE)
    toolchain = sum(seconds for stage, seconds in stages.items() if stage in _TOOLCHAIN)
    others = sum(seconds for stage, seconds in stages.items() if stage not in _BESIDE | _TOOLCHAIN)
    return others + max(beside, toolchain)


def _encoding(geometry: Geometry, evidence: EvidenceRequest, text: float) -> dict[str, float]:
    """The baseline answers with half of the threads; the engine is quicker than what surrounds it."""
    benchmark = 3.0
    for batch, tokens in _BENCHMARK_SHAPES:
        arithmetic = batch * tokens / _TEXT_TOKENS * text * geometry.flops_per_token(tokens)
        once = 1.3 * arithmetic / geometry.flops_per_token(_TEXT_TOKENS)
        benchmark += max(_BENCHMARK_LEAST_SECONDS, _BENCHMARK_ROUNDS * once)
    return {
        "reference": _START_SECONDS + evidence.samples * 2 * text,
        "verify": 3.0 + evidence.samples * _ROW_SECONDS,
        "benchmark": benchmark,
    }


def _generation(geometry: Geometry, evidence: EvidenceRequest, text: float, cores: int) -> dict[str, float]:
    """A row is asked for twice, whole and half, and each time gives one token; the engine is four times as quick."""
    step = 4.0 * geometry.parameters / _BYTES_A_SECOND
    row = _EAGER_GENERATION * (1.5 * text * cores + 2 * step)
    benchmark = 3.0
    for streams in _STREAMS:
        benchmark += 1.25 * _STREAM_ROUNDS * _STREAM_TOKENS * step * (1 + 0.2 * (streams - 1))
    return {
        "reference": _START_SECONDS + evidence.samples * row,
        "verify": 3.0 + evidence.samples * row / 4,
        "benchmark": benchmark,
    }


def _training_steps(recipe: Recipe) -> dict[str, int]:
    found = {}
    if recipe.distillation is not None:
        found["distil"] = recipe.distillation.max_steps
    if recipe.pruning is not None:
        found["prune"] = recipe.pruning.recovery_steps
    quantization = recipe.quantization
    if quantization is not None and quantization.method is QuantizationMethod.QAT:
        found["learn"] = LEARNING_PASSES * -(-quantization.calibration.samples // _TRAINING_BATCH)
    return found
