"""A GGUF file as a Hugging Face checkpoint: weights dequantised to float32, configuration, tokenizer.

Dequantised values are exact in float32 (a 16-bit scale times a small integer, plus a 16-bit offset), so the checkpoint
is what the file says, and the baseline of everything that is measured later. Rounding it to 16 bits would be another
model. Layout: the GGUF specification of ggml; names and the order of rotary dimensions as llama.cpp's converter has
them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enginewright_api.errors import DeterministicError
from enginewright_builder.sources.checkpoint import GGUF_SUFFIX
from enginewright_builder.sources.gguf_tokenizer import write_tokenizer

if TYPE_CHECKING:
    import gguf
    import numpy as np
    from numpy.typing import NDArray

_ARCHITECTURES = {"llama": "LlamaForCausalLM"}
_SHARD_BYTES = 2**30
_FLOAT32_BYTES = 4
_BLOCK = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Geometry:
    """Sizes of a Llama-like decoder."""

    layers: int
    hidden: int
    inner: int
    heads: int
    kv_heads: int
    head_dimension: int
    vocabulary: int
    positions: int


@dataclass(frozen=True, slots=True)
class Expected:
    """A tensor the model needs: its name in a checkpoint, its shape, and its heads when rotary dimensions move."""

    name: str
    shape: tuple[int, ...]
    rotary_heads: int = 0


def unpack(folder: Path) -> None:
    """Replace the GGUF file of a fetched folder, if there is one, by the checkpoint it holds. Raises as `convert`."""
    for file in sorted(folder.rglob(f"*{GGUF_SUFFIX}")):
        convert(file, folder)
        file.unlink()


def convert(file: Path, into: Path) -> None:
    """Write the checkpoint of a GGUF file into a folder; the same file gives the same bytes.

    Raises DeterministicError: InvalidCheckpoint (cut, broken, tensors missing), UnsupportedArchitecture,
    FeatureNotAvailable (a tokenizer or a rotary scaling that is not understood).
    """
    reader = _open(file)
    fields = _fields(reader, file.name)
    architecture = _architecture(fields, file.name)
    geometry = _geometry(fields, architecture, file.name)
    tensors = {str(tensor.name): tensor for tensor in reader.tensors}
    expected = _expected(geometry, tied="output.weight" not in tensors)
    _check(tensors, expected, file.name)
    _write_weights(tensors, expected, into, file.name)
    config = _config(fields, architecture, geometry, tied="output.weight" not in tensors)
    (into / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    ids = {name: config[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id") if name in config}
    (into / "generation_config.json").write_text(json.dumps(ids, indent=2, sort_keys=True) + "\n")
    write_tokenizer(fields, into, name=file.name, positions=geometry.positions)


def config_of(file: Path) -> dict[str, Any]:
    """config.json as `convert` writes it; no weights are read. Raises as `convert`."""
    reader = _open(file)
    fields = _fields(reader, file.name)
    architecture = _architecture(fields, file.name)
    tied = all(str(tensor.name) != "output.weight" for tensor in reader.tensors)
    return _config(fields, architecture, _geometry(fields, architecture, file.name), tied=tied)


def _architecture(fields: Mapping[str, Any], name: str) -> str:
    architecture = str(fields.get("general.architecture"))
    if architecture not in _ARCHITECTURES:
        raise DeterministicError(
            "UnsupportedArchitecture",
            f"{name}: architecture {architecture} cannot be read from GGUF; {', '.join(_ARCHITECTURES)} can."
            " Give the model as safetensors",
        )
    return architecture


def _open(file: Path) -> gguf.GGUFReader:
    import gguf

    try:
        return gguf.GGUFReader(file)
    except (ValueError, IndexError, KeyError, OverflowError, MemoryError) as error:
        first = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise DeterministicError(
            "InvalidCheckpoint", f"{file.name}: is no complete GGUF file ({first[0][:200]}); download it again"
        ) from error


def _fields(reader: gguf.GGUFReader, name: str) -> dict[str, Any]:
    try:
        return {key: field.contents() for key, field in reader.fields.items()}
    except (ValueError, IndexError, TypeError) as error:
        raise DeterministicError("InvalidCheckpoint", f"{name}: its metadata is broken ({error})") from error


def _geometry(fields: Mapping[str, Any], architecture: str, name: str) -> Geometry:
    def number(key: str, default: int | None = None) -> int:
        value = fields.get(f"{architecture}.{key}", default)
        if not isinstance(value, int) or value < 1:
            raise DeterministicError("InvalidCheckpoint", f"{name}: {architecture}.{key} is missing or no number")
        return value

    scaling = fields.get(f"{architecture}.rope.scaling.type", "none")
    if scaling != "none":
        raise DeterministicError(
            "FeatureNotAvailable",
            f"{name}: rotary scaling {scaling} cannot be read from GGUF; give the model as safetensors",
        )
    heads, hidden = number("attention.head_count"), number("embedding_length")
    return Geometry(
        layers=number("block_count"),
        hidden=hidden,
        inner=number("feed_forward_length"),
        heads=heads,
        kv_heads=number("attention.head_count_kv", heads),
        head_dimension=number("attention.key_length", hidden // heads),
        vocabulary=number("vocab_size", len(fields.get("tokenizer.ggml.tokens", []))),
        positions=number("context_length"),
    )


def _expected(geometry: Geometry, *, tied: bool) -> dict[str, Expected]:
    """GGUF name → what it must be."""
    hidden, queries = geometry.hidden, geometry.heads * geometry.head_dimension
    keys = geometry.kv_heads * geometry.head_dimension
    shapes: dict[str, tuple[int, ...]] = {
        "attn_norm": (hidden,), "attn_q": (queries, hidden), "attn_k": (keys, hidden), "attn_v": (keys, hidden),
        "attn_output": (hidden, queries), "ffn_norm": (hidden,), "ffn_gate": (geometry.inner, hidden),
        "ffn_up": (geometry.inner, hidden), "ffn_down": (hidden, geometry.inner),
    }  # fmt: skip
    rotary = {"attn_q": geometry.heads, "attn_k": geometry.kv_heads}
    found = {
        "token_embd.weight": Expected("model.embed_tokens.weight", (geometry.vocabulary, hidden)),
        "output_norm.weight": Expected("model.norm.weight", (hidden,)),
    }
    if not tied:
        found["output.weight"] = Expected("lm_head.weight", (geometry.vocabulary, hidden))
    for layer in range(geometry.layers):
        for short, long in _BLOCK.items():
            found[f"blk.{layer}.{short}.weight"] = Expected(
                f"model.layers.{layer}.{long}.weight", shapes[short], rotary.get(short, 0)
            )
    return found


def _check(tensors: Mapping[str, Any], expected: Mapping[str, Expected], name: str) -> None:
    absent = [tensor for tensor in expected if tensor not in tensors]
    if absent:
        raise DeterministicError(
            "InvalidCheckpoint", f"{name}: lacks {len(absent)} tensors of its architecture, first {absent[0]}"
        )
    unknown = [tensor for tensor in tensors if tensor not in expected]
    if unknown:
        raise DeterministicError(
            "FeatureNotAvailable",
            f"{name}: holds tensor {unknown[0]}, which cannot be read from GGUF; give the model as safetensors",
        )
    for tensor, wanted in expected.items():
        # GGUF lists the fastest dimension first.
        shape = tuple(int(side) for side in reversed(tensors[tensor].shape))
        if shape != wanted.shape:
            raise DeterministicError(
                "InvalidCheckpoint", f"{name}: {tensor} has shape {shape}, its metadata says {wanted.shape}"
            )


def _write_weights(tensors: Mapping[str, Any], expected: Mapping[str, Expected], into: Path, name: str) -> None:
    """Shards of bounded size, one in memory at a time."""
    from safetensors.numpy import save_file

    shards = _shards(expected)
    listed: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = "model.safetensors" if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        save_file(dict(_weights(tensors, shard, name)), into / file, metadata={"format": "pt"})
        (into / file).chmod(0o644)  # the library leaves it readable by nobody else
        listed |= dict.fromkeys((wanted.name for wanted in shard.values()), file)
    if len(shards) > 1:
        size = sum(prod(wanted.shape) * _FLOAT32_BYTES for wanted in expected.values())
        index = {"metadata": {"total_size": size}, "weight_map": listed}
        (into / "model.safetensors.index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")


def _shards(expected: Mapping[str, Expected]) -> list[dict[str, Expected]]:
    shards: list[dict[str, Expected]] = [{}]
    size = 0
    for tensor, wanted in expected.items():
        own = prod(wanted.shape) * _FLOAT32_BYTES
        if shards[-1] and size + own > _SHARD_BYTES:
            shards.append({})
            size = 0
        shards[-1][tensor] = wanted
        size += own
    return shards


def _weights(
    tensors: Mapping[str, Any], shard: Mapping[str, Expected], name: str
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    import gguf
    import numpy as np

    for tensor, wanted in shard.items():
        stored = tensors[tensor]
        try:
            values = gguf.dequantize(stored.data, stored.tensor_type).reshape(wanted.shape)
        except NotImplementedError as error:
            raise DeterministicError(
                "FeatureNotAvailable", f"{name}: {tensor} has type {stored.tensor_type.name}, which cannot be read"
            ) from error
        if not np.isfinite(values).all():
            raise DeterministicError("NotFinite", f"{name}: {tensor} holds NaN or infinity")
        if wanted.rotary_heads:
            values = _halves(values, wanted.rotary_heads)
        yield wanted.name, np.ascontiguousarray(values, dtype=np.float32)


def _halves(values: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Rotary dimensions from llama.cpp's order (pairs side by side) to transformers' (two halves)."""
    half = values.shape[0] // heads // 2
    return values.reshape(heads, half, 2, values.shape[1]).swapaxes(1, 2).reshape(values.shape)


def _config(fields: Mapping[str, Any], architecture: str, geometry: Geometry, *, tied: bool) -> dict[str, Any]:
    import numpy as np

    def decimal(key: str, default: float) -> float:
        # Stored in 32 bits: the shortest decimal of that is what was meant (1e-05, not 9.999999747e-06).
        return float(str(np.float32(fields.get(f"{architecture}.{key}", default))))

    tokens = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}
    ids = {name: fields.get(f"tokenizer.ggml.{short}_token_id") for name, short in tokens.items()}
    return {
        "architectures": [_ARCHITECTURES[architecture]],
        "model_type": architecture,
        "hidden_size": geometry.hidden,
        "intermediate_size": geometry.inner,
        "num_hidden_layers": geometry.layers,
        "num_attention_heads": geometry.heads,
        "num_key_value_heads": geometry.kv_heads,
        "head_dim": geometry.head_dimension,
        "vocab_size": geometry.vocabulary,
        "max_position_embeddings": geometry.positions,
        "rms_norm_eps": decimal("attention.layer_norm_rms_epsilon", 1e-5),
        "rope_theta": decimal("rope.freq_base", 10000.0),
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": tied,
        "dtype": "float32",
        **{name: int(value) for name, value in ids.items() if value is not None},
    }
