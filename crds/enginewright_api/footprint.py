"""How much memory an engine will take while it serves, before anything is built.

Weights by format with the copies that the runtime makes of them, key-value cache by geometry, activations by the
largest batch, and what the runtime itself takes: the resident size of a replica at its peak. Constants of CPU backends
were measured with `python -m benchmarks.memory`; those of GPUs were not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

from enginewright_api.engine_description import DIVIDED_BYTES, TOKENS_A_STEP
from enginewright_api.errors import DeterministicError
from enginewright_api.geometry import Geometry
from enginewright_api.optimization import Format, Granularity, KvCacheFormat, PruningGranularity, Quantization
from enginewright_api.recipe import AcceleratorFacts, Recipe, Task
from enginewright_api.serving_spec import Backend
from enginewright_api.support import resolve_kv_cache
from enginewright_api.weight_support import weights_only

_MIB = 2**20
_GIB = 2**30
_WEIGHT_BYTES = {
    Format.NONE: 4.0, Format.FP16: 2.0, Format.BF16: 2.0, Format.FP8: 1.0, Format.INT8: 1.0, Format.INT4: 0.5,
    Format.NVFP4: 0.5, Format.INT2: 0.25,
}  # fmt: skip
_KV_SCALE_BYTES = 8.0
"""Scale and zero point in float32."""
_KV_BLOCK_TOKENS = 32
_KV_SHARED_PREFIXES = 0.25
"""How the server lays the cache out: blocks, and room for prefixes of finished answers."""
_KV_BYTES = {KvCacheFormat.FP16: 2.0, KvCacheFormat.FP8: 1.0, KvCacheFormat.INT8: 1.0}
_SCALE_BYTES = 2.0
_ZERO_POINT_BYTES = 2.0
"""Of decoders on OpenVINO, whose zero points are fractional; elsewhere they take half a byte or none."""
_GROUP = 128
_FLOAT_BYTES = 4.0
_RUNTIME_BYTES = {Backend.OPENVINO: 226 * _MIB, Backend.ONNX_RUNTIME: 200 * _MIB, Backend.TORCH: 420 * _MIB}
"""Supervisor (51 MiB), tritonserver (37 MiB), and the process that runs the model, without the model."""
_ARENA = {Backend.ONNX_RUNTIME: 2.5}
"""What the arena of activations holds for each byte in use: ONNX Runtime's grows by powers of two."""
_PARTS = 1.3
"""Of a batch divided among the cores: each part keeps what its widest point took, and so do single texts."""
_LOGIT_COPIES = 20
"""What sampling holds for each request, in rows of logits; measured with SmolLM2 at 4 and at 16 requests."""
_GENERATION_BYTES = 15 * _MIB
"""What OpenVINO GenAI and its tokenizers add."""
_CUDA_BYTES = 600 * _MIB


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes while serving at the limits."""

    weights_bytes: int
    """The engine's file and the copies that the runtime makes of it."""
    kv_cache_bytes: int
    activation_bytes: int
    runtime_bytes: int

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return self.weights_bytes + self.kv_cache_bytes + self.activation_bytes + self.runtime_bytes

    def sentence(self) -> str:
        """For people: `0.5 GiB: weights 0.1, KV cache 0.2 …`."""
        parts = {
            "weights": self.weights_bytes,
            "KV cache": self.kv_cache_bytes,
            "activations": self.activation_bytes,
            "runtime": self.runtime_bytes,
        }
        told = ", ".join(f"{name} {shown(size)}" for name, size in parts.items() if size)
        return f"{shown(self.total_bytes)} ({told})"


def footprint(geometry: Geometry, recipe: Recipe, draft: Geometry | None = None) -> Footprint:
    """Memory of one replica; of one of its accelerators where it is spread over several.

    `draft` is the model of `runtime.speculativeDecoding.draft`: it has weights, a cache and activations of its own.
    """
    if draft is None:
        return _alone(geometry, recipe, TOKENS_A_STEP)
    # Beside a draft the server reads prompts whole.
    step_tokens = TOKENS_A_STEP + recipe.limits.max_input_tokens
    alone, beside = _alone(geometry, recipe, step_tokens), _alone(draft, recipe.for_draft(), step_tokens)
    return replace(
        alone,
        weights_bytes=alone.weights_bytes + beside.weights_bytes,
        # In the model's format, which is float32 beside a model that is not quantised.
        kv_cache_bytes=alone.kv_cache_bytes + ceil(_kv_cache(draft, recipe)),
        activation_bytes=alone.activation_bytes + beside.activation_bytes,
    )


def _alone(geometry: Geometry, recipe: Recipe, step_tokens: int) -> Footprint:
    shards = recipe.parallelism.tensor * recipe.parallelism.pipeline
    generates = recipe.task is Task.TEXT_GENERATION
    smaller = _compressed(geometry, recipe)
    return Footprint(
        weights_bytes=ceil(_weights(smaller, recipe) / shards),
        kv_cache_bytes=ceil(_kv_cache(smaller, recipe) / shards) if generates else 0,
        activation_bytes=ceil(_activations(smaller, recipe, step_tokens) / recipe.parallelism.tensor),
        runtime_bytes=_runtime(recipe),
    )


def check_will_fit(found: Footprint, accelerator: AcceleratorFacts) -> None:
    """Raises DeterministicError WillNotFit with both figures. A class that does not give its memory fits everything."""
    available = accelerator.memory_gib * _GIB
    if available and found.total_bytes > available:
        raise DeterministicError(
            "WillNotFit",
            f"serving needs about {found.sentence()} and accelerator class {accelerator.accelerator_class} has"
            f" {accelerator.memory_gib:g} GiB; lower engine.limits, choose a smaller format, or spread it with"
            " parallelism",
        )


def shown(size: float) -> str:
    """Bytes for people."""
    return f"{size / _GIB:.1f} GiB" if size >= _GIB else f"{size / _MIB:.0f} MiB"


def _compressed(geometry: Geometry, recipe: Recipe) -> Geometry:
    """What distillation and structured pruning leave; low rank only makes it smaller, so it is left out."""
    student = recipe.distillation.student.layers if recipe.distillation is not None else None
    if student is not None:
        geometry = replace(geometry, layers=min(student, geometry.layers))
    pruning = recipe.pruning
    if pruning is None:
        return geometry
    kept = 1.0 - pruning.sparsity
    kind = pruning.granularity
    if kind is PruningGranularity.LAYERS:
        return replace(geometry, layers=max(1, round(geometry.layers * kept)))
    if kind in (PruningGranularity.NEURONS, PruningGranularity.HEADS_AND_NEURONS):
        geometry = replace(geometry, neurons=max(1, round(geometry.neurons * kept)))
    if kind in (PruningGranularity.HEADS, PruningGranularity.HEADS_AND_NEURONS):
        groups = max(1, round(geometry.key_value_heads * kept))
        heads = groups * (geometry.heads // geometry.key_value_heads)
        geometry = replace(geometry, heads=heads, key_value_heads=groups)
    return geometry


def _runtime(recipe: Recipe) -> int:
    generates = recipe.task is Task.TEXT_GENERATION and recipe.backend is Backend.OPENVINO
    return _RUNTIME_BYTES.get(recipe.backend, _CUDA_BYTES) + (_GENERATION_BYTES if generates else 0)


def _weights(geometry: Geometry, recipe: Recipe) -> float:
    """The engine's file, which stays mapped, and what the runtime keeps beside it."""
    stored = _stored(geometry, recipe)
    if recipe.backend is not Backend.OPENVINO:
        return stored
    matrix, table = _bytes_each(recipe)
    # Matrices are packed once more for the kernels, in the precision they are multiplied in; tables are looked up in
    # float32, whatever they are stored in.
    packed = matrix if _multiplied_as_stored(recipe.quantization) else _FLOAT_BYTES
    expanded = 0.0 if table == _FLOAT_BYTES else _FLOAT_BYTES
    copies = 2 if _divided(geometry, recipe) else 1
    return stored + copies * (geometry.layer_weights * packed + geometry.embedding_weights * expanded)


def _stored(geometry: Geometry, recipe: Recipe) -> float:
    """The engine's file."""
    matrix, table = _bytes_each(recipe)
    return geometry.layer_weights * matrix + geometry.embedding_weights * table


def _divided(geometry: Geometry, recipe: Recipe) -> bool:
    """Whether batches are compiled for as well as single texts: a part of the texts for each core."""
    encodes = recipe.backend is Backend.OPENVINO and recipe.task is not Task.TEXT_GENERATION
    return encodes and recipe.limits.max_batch_size > 1 and _stored(geometry, recipe) <= DIVIDED_BYTES


def _bytes_each(recipe: Recipe) -> tuple[float, float]:
    """Of one weight of a matrix, scales and zero points included, and of a table."""
    quantization = recipe.quantization
    if quantization is None:
        return _FLOAT_BYTES, _FLOAT_BYTES
    if quantization.mixed is not None:
        return quantization.mixed.average_bits / 8, 1.0
    each = _WEIGHT_BYTES[quantization.format]
    scales = 0.0
    if quantization.format in (Format.INT4, Format.INT2, Format.NVFP4):
        group = quantization.group_size if quantization.granularity is Granularity.PER_GROUP else _GROUP
        decoder = recipe.backend is Backend.OPENVINO and recipe.task is Task.TEXT_GENERATION
        scales = (_SCALE_BYTES + (_ZERO_POINT_BYTES if decoder else 0.0)) / (group or _GROUP)
    if recipe.backend is Backend.ONNX_RUNTIME and not weights_only(quantization):
        return each, _FLOAT_BYTES  # only products are quantised
    # Tables and heads lose most by 4 bits and stay at 8.
    return each + scales, max(each, 1.0)


def _multiplied_as_stored(quantization: Quantization | None) -> bool:
    return quantization is None or quantization.format is not Format.FP16


def _kv_cache(geometry: Geometry, recipe: Recipe) -> float:
    limits = recipe.limits
    tokens = limits.max_input_tokens + limits.max_output_tokens
    if recipe.backend is not Backend.OPENVINO:
        # Left open, TensorRT-LLM keeps the cache in the model's 16 bits.
        wanted = recipe.quantization.kv_cache_format if recipe.quantization is not None else KvCacheFormat.AUTO
        each = _KV_BYTES.get(wanted, 2.0)
        return geometry.key_value_elements_per_token * each * limits.max_batch_size * tokens
    kept = resolve_kv_cache(recipe.quantization)
    each = _FLOAT_BYTES if kept is None else _KV_BYTES[kept]
    if kept is KvCacheFormat.INT8:
        each += _KV_SCALE_BYTES / geometry.head_width  # a scale and a zero point a token and head
    blocks = ceil(tokens / _KV_BLOCK_TOKENS) * limits.max_batch_size
    blocks += ceil(blocks * _KV_SHARED_PREFIXES)
    return geometry.key_value_elements_per_token * each * blocks * _KV_BLOCK_TOKENS


def _activations(geometry: Geometry, recipe: Recipe, step_tokens: int) -> float:
    """The widest point of one layer in float32: the block's input, its queries, keys and values, its neurons.

    `step_tokens` is what a generating engine on OpenVINO reads in one step at most.
    """
    requests = recipe.limits.max_batch_size
    tokens = requests * recipe.limits.max_input_tokens
    wide = 4 * geometry.width + 2 * geometry.head_width * (geometry.heads + geometry.key_value_heads) + geometry.neurons
    if recipe.task is Task.TEXT_GENERATION and recipe.backend is Backend.OPENVINO:
        logits = requests * geometry.vocabulary * _LOGIT_COPIES
        return _FLOAT_BYTES * (min(tokens, step_tokens) * wide + logits)
    spread = _PARTS if _divided(geometry, recipe) else _ARENA.get(recipe.backend, 1.0)
    return _FLOAT_BYTES * tokens * wide * spread
