"""GGUF files as checkpoints: exact values in the right places, and one sentence for each file that cannot be read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from enginewright_api.errors import DeterministicError
from enginewright_builder.sources import gguf_file
from enginewright_builder.sources.checkpoint import check_source_names, chosen, inspect
from enginewright_builder.sources.gguf_file import convert, unpack

HIDDEN, INNER, HEADS, KV_HEADS, LAYERS = 64, 96, 4, 2, 2
TOKENS = ["<end>", "<start>", *"abcdefgh", "1", "2", "Ġ", "ab", "Ġc"]


def weights() -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """A random decoder under the names and in the order of a checkpoint."""
    generator = np.random.default_rng(0)
    keys = HIDDEN // HEADS * KV_HEADS

    def draw(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        return generator.normal(size=shape).astype(np.float32)

    found = {"model.embed_tokens.weight": draw(len(TOKENS), HIDDEN), "model.norm.weight": draw(HIDDEN)}
    for layer in range(LAYERS):
        block = {
            "input_layernorm": (HIDDEN,), "self_attn.q_proj": (HIDDEN, HIDDEN), "self_attn.k_proj": (keys, HIDDEN),
            "self_attn.v_proj": (keys, HIDDEN), "self_attn.o_proj": (HIDDEN, HIDDEN),
            "post_attention_layernorm": (HIDDEN,), "mlp.gate_proj": (INNER, HIDDEN), "mlp.up_proj": (INNER, HIDDEN),
            "mlp.down_proj": (HIDDEN, INNER),
        }  # fmt: skip
        found |= {f"model.layers.{layer}.{name}.weight": draw(*shape) for name, shape in block.items()}
    return found


def to_pairs(values: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """llama.cpp's `permute` (convert_hf_to_gguf.py): what the reader has to undo."""
    return (
        values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)
    )


def write(
    path: Path,
    *,
    packed: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    architecture: str = "llama",
    tokenizer: str = "gpt2",
    splitter: str = "smollm",
    drop: str = "",
    extra: str = "",
    edit: Callable[[gguf.GGUFWriter], None] = lambda writer: None,
) -> Path:
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(LAYERS)
    writer.add_context_length(256)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(50000.0)
    writer.add_tokenizer_model(tokenizer)
    writer.add_tokenizer_pre(splitter)
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3, *[1] * (len(TOKENS) - 2)])
    writer.add_token_merges(["a b", "Ġ c"])
    writer.add_eos_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_chat_template("{{ messages[0]['content'] }}")
    edit(writer)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, LAYERS)
    for name, values in weights().items():
        stored = names.get_name(name, try_suffixes=(".weight",))
        assert stored is not None
        if stored == drop:
            continue
        rotary = HEADS if "q_proj" in name else KV_HEADS if "k_proj" in name else 0
        ordered = to_pairs(values, rotary) if rotary else values
        if values.ndim == 2 and packed is not gguf.GGMLQuantizationType.F32:
            writer.add_tensor(stored, gguf.quantize(ordered, packed), raw_dtype=packed)
        else:
            writer.add_tensor(stored, ordered)
    if extra:
        writer.add_tensor(extra, np.zeros(4, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def converted(folder: Path, **options: Any) -> Path:
    folder.mkdir()
    write(folder / "m.gguf", **options)
    unpack(folder)
    return folder


def test_float_weights_come_back_bit_for_bit(tmp_path: Path) -> None:
    folder = converted(tmp_path / "m")
    found, wanted = load_file(folder / "model.safetensors"), weights()
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        assert np.array_equal(found[name], values), name
    assert inspect(folder).parameters == sum(values.size for values in wanted.values())
    assert not (folder / "m.gguf").exists()


def test_packed_weights_are_what_the_format_says(tmp_path: Path) -> None:
    """Q4_1 keeps 16 levels between the smallest and the largest of 32 neighbours: half a step of error at most."""
    folder = converted(tmp_path / "m", packed=gguf.GGMLQuantizationType.Q4_1)
    name = "model.layers.0.mlp.up_proj.weight"
    found, wanted = load_file(folder / "model.safetensors")[name], weights()[name]
    blocks, original = found.reshape(-1, 32), wanted.reshape(-1, 32)
    step = np.ptp(original, axis=1, keepdims=True) / 15
    assert (np.abs(blocks - original) <= 0.51 * step + 1e-2).all()
    assert max(len(np.unique(block)) for block in blocks) <= 16


def test_configuration_and_tokenizer(tmp_path: Path) -> None:
    folder = converted(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert (config["rms_norm_eps"], config["rope_theta"], config["tie_word_embeddings"]) == (1e-5, 50000.0, True)
    assert (config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]) == (4, 2, 16)
    assert json.loads((folder / "generation_config.json").read_text()) == {"bos_token_id": 1, "eos_token_id": 0}
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert tokenizer.encode("ab c12<end>").tokens == ["ab", "Ġc", "1", "2", "<end>"]
    assert tokenizer.decode(tokenizer.encode("ab c12").ids) == "ab c12"
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    assert (settings["eos_token"], settings["bos_token"]) == ("<end>", "<start>")
    assert settings["chat_template"] == "{{ messages[0]['content'] }}"


def test_a_beginning_token_is_added_where_the_file_says_so(tmp_path: Path) -> None:
    folder = converted(tmp_path / "m", edit=lambda writer: writer.add_add_bos_token(True))
    assert Tokenizer.from_file(str(folder / "tokenizer.json")).encode("ab").tokens == ["<start>", "ab"]


def test_twice_the_same_bytes(tmp_path: Path) -> None:
    one, other = converted(tmp_path / "one"), converted(tmp_path / "other")
    assert {path.name: path.read_bytes() for path in one.iterdir()} == {
        path.name: path.read_bytes() for path in other.iterdir()
    }


def test_large_files_become_shards_with_an_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_file, "_SHARD_BYTES", 40_000)
    folder = converted(tmp_path / "m")
    shards = sorted(folder.glob("*.safetensors"))
    assert len(shards) > 2
    found = {name: values for shard in shards for name, values in load_file(shard).items()}
    assert all(np.array_equal(found[name], values) for name, values in weights().items())
    assert inspect(folder).parameters == sum(values.size for values in weights().values())


@pytest.mark.parametrize(
    ("options", "reason", "words"),
    [
        ({"architecture": "mamba"}, "UnsupportedArchitecture", "architecture mamba"),
        ({"tokenizer": "llama"}, "FeatureNotAvailable", "tokenizer llama"),
        ({"splitter": "tekken"}, "FeatureNotAvailable", "tekken"),
        ({"drop": "blk.1.ffn_up.weight"}, "InvalidCheckpoint", "blk.1.ffn_up.weight"),
        ({"extra": "rope_freqs.weight"}, "FeatureNotAvailable", "rope_freqs.weight"),
        ({"edit": lambda w: w.add_rope_scaling_type(gguf.RopeScalingType.YARN)}, "FeatureNotAvailable", "yarn"),
        ({"edit": lambda w: w.add_vocab_size(9)}, "InvalidCheckpoint", "token_embd.weight has shape"),
    ],
    ids=["architecture", "tokenizer", "splitter", "missing", "unknown-tensor", "rope-scaling", "shape"],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, options: dict[str, Any], reason: str, words: str) -> None:
    file = write(tmp_path / "m.gguf", **options)
    with pytest.raises(DeterministicError) as found:
        convert(file, tmp_path)
    assert found.value.reason == reason
    assert found.value.message.startswith("m.gguf: ")
    assert words in found.value.message


@pytest.mark.parametrize("share", [0.0, 0.001, 0.05, 0.5, 0.999])
def test_a_cut_file_is_refused(tmp_path: Path, share: float) -> None:
    whole = write(tmp_path / "m.gguf").read_bytes()
    (tmp_path / "m.gguf").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(DeterministicError, match="is no complete GGUF file") as found:
        convert(tmp_path / "m.gguf", tmp_path)
    assert found.value.reason == "InvalidCheckpoint"


def test_other_bytes_under_the_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGML" + bytes(4096))
    with pytest.raises(DeterministicError, match="magic"):
        convert(tmp_path / "m.gguf", tmp_path)


def test_infinite_weights_are_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "m.gguf")
    data = bytearray(file.read_bytes())
    data[-4:] = np.float32(np.inf).tobytes()
    file.write_bytes(data)
    with pytest.raises(DeterministicError) as found:
        convert(file, tmp_path)
    assert found.value.reason == "NotFinite"


def test_which_file_of_a_folder_is_taken() -> None:
    assert chosen(["m.gguf", "config.json", "notes.md"]) == ["m.gguf", "config.json"]
    assert chosen(["m.gguf", "m.safetensors"]) == ["m.safetensors"]
    check_source_names(["m.gguf", "__init__.py"], where="package p")
    with pytest.raises(DeterministicError, match="package p: holds 2 GGUF files"):
        check_source_names(["a.gguf", "b.gguf"], where="package p")
