"""How much memory an engine will take while it serves, before anything is built.

Weights by format, key-value cache by geometry, activations by the largest batch, and what the runtime itself takes.
It has not been held against the observed peak of real engines yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from enginewright_api.errors import DeterministicError
from enginewright_api.geometry import Geometry
from enginewright_api.optimization import Format, Granularity, KvCacheFormat, Quantization
from enginewright_api.recipe import AcceleratorFacts, Recipe, Task
from enginewright_api.serving_spec import Backend

_MIB = 2**20
_GIB = 2**30
_WEIGHT_BYTES = {
    Format.NONE: 4.0, Format.FP16: 2.0, Format.BF16: 2.0, Format.FP8: 1.0, Format.INT8: 1.0, Format.INT4: 0.5,
    Format.NVFP4: 0.5, Format.INT2: 0.25,
}  # fmt: skip
_KV_BYTES = {KvCacheFormat.FP16: 2.0, KvCacheFormat.FP8: 1.0, KvCacheFormat.INT8: 1.0}
_SCALE_BYTES = 2.0
_GROUP = 128
_RUNTIME_BYTES = {Backend.OPENVINO: 190 * _MIB, Backend.ONNX_RUNTIME: 130 * _MIB, Backend.TORCH: 420 * _MIB}
"""Server, interpreter and runtime with the smallest of models loaded: rough figures, not measured."""
_CUDA_BYTES = 600 * _MIB


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes while serving at the limits."""

    weights_bytes: int
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


def footprint(geometry: Geometry, recipe: Recipe) -> Footprint:
    """Memory of one replica; of one of its accelerators where it is spread over several."""
    shards = recipe.parallelism.tensor * recipe.parallelism.pipeline
    generates = recipe.task is Task.TEXT_GENERATION
    smaller = _compressed(geometry, recipe)
    return Footprint(
        weights_bytes=ceil(_weights(smaller, recipe.quantization) / shards),
        kv_cache_bytes=ceil(_kv_cache(smaller, recipe) / shards) if generates else 0,
        activation_bytes=ceil(_activations(smaller, recipe) / recipe.parallelism.tensor),
        runtime_bytes=_RUNTIME_BYTES.get(recipe.backend, _CUDA_BYTES),
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
    from dataclasses import replace

    student = recipe.distillation.student.layers if recipe.distillation is not None else None
    if student is not None:
        geometry = replace(geometry, layers=min(student, geometry.layers))
    pruning = recipe.pruning
    if pruning is None:
        return geometry
    kept = 1.0 - pruning.sparsity
    kind = pruning.granularity.value
    if kind == "Layers":
        return replace(geometry, layers=max(1, round(geometry.layers * kept)))
    if kind in ("Neurons", "HeadsAndNeurons"):
        geometry = replace(geometry, neurons=max(1, round(geometry.neurons * kept)))
    if kind in ("Heads", "HeadsAndNeurons"):
        groups = max(1, round(geometry.key_value_heads * kept))
        heads = groups * (geometry.heads // geometry.key_value_heads)
        geometry = replace(geometry, heads=heads, key_value_heads=groups)
    return geometry


def _weights(geometry: Geometry, quantization: Quantization | None) -> float:
    if quantization is None:
        return geometry.parameters * _WEIGHT_BYTES[Format.NONE]
    if quantization.mixed is not None:
        bits = quantization.mixed.average_bits
        return geometry.layer_weights * bits / 8 + geometry.embedding_weights
    each = _WEIGHT_BYTES[quantization.format]
    scales = 0.0
    if quantization.format in (Format.INT4, Format.INT2, Format.NVFP4):
        group = quantization.group_size if quantization.granularity is Granularity.PER_GROUP else _GROUP
        scales = _SCALE_BYTES / (group or _GROUP)
    # Tables and heads lose most by 4 bits and stay at 8.
    table = max(each, 1.0)
    return geometry.layer_weights * (each + scales) + geometry.embedding_weights * table


def _kv_cache(geometry: Geometry, recipe: Recipe) -> float:
    wanted = recipe.quantization.kv_cache_format if recipe.quantization is not None else KvCacheFormat.AUTO
    # Left open, OpenVINO keeps the cache in 8 bits on CPUs, TensorRT-LLM in the model's 16.
    each = _KV_BYTES.get(wanted, 1.0 if recipe.backend is Backend.OPENVINO else 2.0)
    tokens = recipe.limits.max_batch_size * (recipe.limits.max_input_tokens + recipe.limits.max_output_tokens)
    return geometry.key_value_elements_per_token * each * tokens


def _activations(geometry: Geometry, recipe: Recipe) -> float:
    """The widest point of one layer in float32: the block's input, its queries, keys and values, its neurons."""
    tokens = recipe.limits.max_batch_size * recipe.limits.max_input_tokens
    wide = 4 * geometry.width + 2 * geometry.head_width * (geometry.heads + geometry.key_value_heads) + geometry.neurons
    return 4.0 * tokens * wide
