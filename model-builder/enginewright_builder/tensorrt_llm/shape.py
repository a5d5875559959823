"""The dimensions of a decoder that parallelism and group sizes must divide, read from config.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from enginewright_api.errors import DeterministicError
from enginewright_api.serving_spec import Parallelism


@dataclass(frozen=True, slots=True)
class DecoderShape:
    """Sizes of one decoder; `experts` is 0 for a dense one."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_value_heads: int
    head_size: int
    experts: int

    def linears(self) -> Iterator[tuple[str, int, bool]]:
        """(module, in_features, whether tensor parallelism shards in_features) of one layer.

        Column-parallel layers (query, key, value, gate, up) keep their inputs whole; row-parallel ones (attention
        output, down) hold a share of them (Megatron-LM, Shoeybi et al. 2019, section 3).
        """
        prefix = "model.layers.0"
        for name in ("q_proj", "k_proj", "v_proj"):
            yield f"{prefix}.self_attn.{name}", self.hidden, False
        yield f"{prefix}.self_attn.o_proj", self.heads * self.head_size, True
        for name in ("gate_proj", "up_proj"):
            yield f"{prefix}.mlp.{name}", self.hidden, False
        yield f"{prefix}.mlp.down_proj", self.intermediate, True


def decoder_shape(config: Mapping[str, Any]) -> DecoderShape:
    """Raises DeterministicError InvalidCheckpoint naming the field that config.json lacks."""
    heads = _number(config, "num_attention_heads")
    hidden = _number(config, "hidden_size")
    return DecoderShape(
        hidden=hidden,
        intermediate=_number(config, "intermediate_size"),
        layers=_number(config, "num_hidden_layers"),
        heads=heads,
        key_value_heads=int(config.get("num_key_value_heads") or heads),
        head_size=int(config.get("head_dim") or hidden // heads),
        experts=int(
            config.get("num_local_experts") or config.get("num_experts") or config.get("n_routed_experts") or 0
        ),
    )


def check_parallelism(shape: DecoderShape, parallelism: Parallelism) -> None:
    """Raises DeterministicError ParallelismMismatch for what does not divide."""
    tensor, pipeline, expert = parallelism.tensor, parallelism.pipeline, parallelism.expert
    if shape.heads % tensor:
        raise _mismatch("tensor", tensor, "divide", f"the {shape.heads} attention heads")
    if shape.key_value_heads % tensor and tensor % shape.key_value_heads:
        raise _mismatch("tensor", tensor, "divide or be a multiple of", f"the {shape.key_value_heads} key-value heads")
    if shape.intermediate % tensor:
        raise _mismatch("tensor", tensor, "divide", f"the intermediate size {shape.intermediate}")
    if shape.layers % pipeline:
        raise _mismatch("pipeline", pipeline, "divide", f"the {shape.layers} layers")
    if expert > 1 and not shape.experts:
        raise DeterministicError(
            "ParallelismMismatch", f"parallelism.expert: {expert}, but the model has no experts; leave it at 1"
        )
    if expert > 1 and shape.experts % expert:
        raise _mismatch("expert", expert, "divide", f"the {shape.experts} experts")
    if tensor % expert:
        raise _mismatch("expert", expert, "divide", f"parallelism.tensor ({tensor})")


def check_group_size(shape: DecoderShape, group_size: int, tensor: int) -> None:
    """Raises DeterministicError GroupSizeMismatch naming module and dimension: no group may be cut by a shard."""
    for module, inputs, sharded in shape.linears():
        features = inputs // tensor if sharded else inputs
        if features % group_size == 0:
            continue
        share = f" ({inputs} on {tensor} shards)" if sharded and tensor > 1 else ""
        smaller = [size for size in (64, 32, 16) if size < group_size and features % size == 0]
        advice = f"use groupSize {smaller[0]}" if smaller else "use another format"
        raise DeterministicError(
            "GroupSizeMismatch",
            f"optimization.quantization.groupSize: in_features {features}{share} of {module} is not divisible by"
            f" {group_size}; {advice}",
        )


def _number(config: Mapping[str, Any], name: str) -> int:
    value = config.get(name)
    if not isinstance(value, int) or value < 1:
        raise DeterministicError("InvalidCheckpoint", f"config.json: has no {name}; the decoder's shape is unknown")
    return value


def _mismatch(field: str, value: int, verb: str, what: str) -> DeterministicError:
    return DeterministicError("ParallelismMismatch", f"parallelism.{field}: {value} must {verb} {what}")
