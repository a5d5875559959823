"""engine.json of text generation: vocabulary, end tokens, context, format of the key-value cache."""

from __future__ import annotations

import importlib.metadata
from typing import Any

from enginewright_api.engine_description import EngineDescription, Generation
from enginewright_api.errors import DeterministicError
from enginewright_api.optimization import KvCacheFormat
from enginewright_api.recipe import Recipe, Task
from enginewright_api.serving_spec import Backend
from enginewright_api.support import resolve_kv_cache
from enginewright_builder.nvidia_runtime import PACKAGES as NVIDIA_PACKAGES
from enginewright_builder.nvidia_runtime import deployment_of, entry_of, version_of
from enginewright_builder.positions import context_tokens
from enginewright_builder.sources.checkpoint import Checkpoint, read_json

_ENTRIES = {Backend.OPENVINO: "openvino_model.xml", Backend.TORCH: "checkpoint"}
DRAFT_ENTRY = f"draft/{_ENTRIES[Backend.OPENVINO]}"
"""Of the model that drafts, below engine/."""
_PACKAGES = {Backend.OPENVINO: "openvino-genai", Backend.TORCH: "torch"}
_CACHES = {None: "f32", KvCacheFormat.FP16: "f16", KvCacheFormat.INT8: "u8"}


def describe_generation(
    checkpoint: Checkpoint, recipe: Recipe, backend: Backend, *, precision: str
) -> EngineDescription:
    """engine.json with this backend; Torch describes the baseline, whose cache is in the model's own precision.

    Raises DeterministicError InvalidCheckpoint for a model without a language head, or without an end token.
    """
    config = checkpoint.config
    if not checkpoint.architecture.endswith(("ForCausalLM", "LMHeadModel")):
        raise DeterministicError(
            "InvalidCheckpoint",
            f"config.json: architecture {checkpoint.architecture} has no language head; task TextGeneration needs a"
            " …ForCausalLM checkpoint",
        )
    if backend not in _ENTRIES and backend not in NVIDIA_PACKAGES:
        raise DeterministicError(
            "FeatureNotAvailable", f"engine.backend: {backend.value} generates no text; use OpenVINO"
        )
    limits = recipe.limits
    ends = _end_tokens(checkpoint)
    return EngineDescription(
        task=Task.TEXT_GENERATION,
        backend=backend,
        entry=_ENTRIES.get(backend) or entry_of(recipe, backend),
        inputs=["input_ids", "attention_mask", "position_ids"],
        output="logits",
        output_dimension=int(config["vocab_size"]),
        limits=limits,
        pad_token_id=_first(config.get("pad_token_id"), ends[0]),
        precision_hint=precision,
        generation=Generation(
            kv_cache_precision=_kv_cache(recipe, backend),
            eos_token_ids=ends,
            chat_template=_has_chat_template(checkpoint),
            max_context_tokens=context_tokens(config, limits),
            **_drafting(recipe, backend),
        ),
        tensor_rt_llm=deployment_of(recipe, backend),
        runtime_package=_PACKAGES.get(backend) or NVIDIA_PACKAGES[backend],
        runtime_version=_version(recipe, backend),
    )


def _drafting(recipe: Recipe, backend: Backend) -> dict[str, Any]:
    """TensorRT-LLM has its own, in `tensorRTLLM`; the baseline is the model as it is."""
    drafting = recipe.speculative_decoding
    if drafting is None or backend is not Backend.OPENVINO:
        return {}
    # The same draft from another place makes the same engine.
    wanted = drafting.model_copy(update={"draft": None})
    return {"speculative_decoding": wanted, "draft_entry": DRAFT_ENTRY if drafting.draft is not None else None}


def _version(recipe: Recipe, backend: Backend) -> str:
    """NVIDIA's runtime is in the image that builds and serves, not here."""
    package = _PACKAGES.get(backend)
    return version_of(recipe, backend) if package is None else importlib.metadata.version(package)


def _kv_cache(recipe: Recipe, backend: Backend) -> str:
    if backend is Backend.TORCH:
        return "f32"
    if backend in NVIDIA_PACKAGES:
        return ""  # the checkpoint says it
    return _CACHES[resolve_kv_cache(recipe.quantization)]


def _end_tokens(checkpoint: Checkpoint) -> list[int]:
    found = _file(checkpoint, "generation_config.json").get("eos_token_id")
    if found is None:
        found = checkpoint.config.get("eos_token_id")
    ids = [token for token in (found if isinstance(found, list) else [found]) if isinstance(token, int)]
    if not ids:
        raise DeterministicError(
            "InvalidCheckpoint", "generation_config.json: eos_token_id is missing; answers would never end"
        )
    return ids


def _has_chat_template(checkpoint: Checkpoint) -> bool:
    if (checkpoint.folder / "chat_template.jinja").is_file():
        return True
    return bool(_file(checkpoint, "tokenizer_config.json").get("chat_template"))


def _file(checkpoint: Checkpoint, name: str) -> dict[str, Any]:
    path = checkpoint.folder / name
    return dict(read_json(path, name=name)) if path.is_file() else {}


def _first(value: object, default: int) -> int:
    return value if isinstance(value, int) else default
