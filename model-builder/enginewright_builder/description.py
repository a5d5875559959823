"""From a checkpoint and a recipe to engine.json."""

from __future__ import annotations

import importlib.metadata
from collections import Counter
from collections.abc import Sequence

from enginewright_api.cpu import gains_from_bf16
from enginewright_api.engine_description import TOKEN_SCORES, EngineDescription, ExitPart, ExitPoint, Pooling
from enginewright_api.errors import DeterministicError
from enginewright_api.optimization import Format
from enginewright_api.recipe import Recipe, Task
from enginewright_api.serving_spec import Backend
from enginewright_builder.generation_description import describe_generation
from enginewright_builder.length_dependent import check_length
from enginewright_builder.nvidia_runtime import PACKAGES as NVIDIA_PACKAGES
from enginewright_builder.nvidia_runtime import entry_of, version_of
from enginewright_builder.sources.checkpoint import Checkpoint, read_json

EAGER = "checkpoint"
"""Entry of engines that eager PyTorch runs: the baseline."""

ENTRIES = {Backend.OPENVINO: "openvino.xml", Backend.ONNX_RUNTIME: "model.onnx", Backend.TORCH: EAGER}
_FEW_BITS = frozenset({Format.INT8, Format.INT4, Format.INT2, Format.MIXED})
EXIT = "exit.json"
"""Of a checkpoint with an early exit; compression.early_exit writes it."""

_OUTPUTS = {
    Task.EMBEDDING: "embedding",
    Task.CLASSIFICATION: "scores",
    Task.RERANKING: "scores",
    Task.TOKEN_CLASSIFICATION: TOKEN_SCORES,
}

PACKAGES = {Backend.OPENVINO: "openvino", Backend.ONNX_RUNTIME: "onnxruntime", Backend.TORCH: "torch"}


def describe(checkpoint: Checkpoint, recipe: Recipe, backend: Backend, *, architecture: str = "") -> EngineDescription:
    """engine.json of an engine with this backend for CPUs of this level; Torch describes the baseline."""
    if recipe.task is Task.TEXT_GENERATION:
        return describe_generation(checkpoint, recipe, backend, precision=_precision(recipe, backend, architecture))
    check_length(checkpoint, recipe.limits)
    config = checkpoint.config
    scores = recipe.task is not Task.EMBEDDING
    head = "ForTokenClassification" if recipe.task is Task.TOKEN_CLASSIFICATION else "ForSequenceClassification"
    if scores and not checkpoint.architecture.endswith(head):
        raise DeterministicError(
            "InvalidCheckpoint",
            f"config.json: architecture {checkpoint.architecture} has no head for task {recipe.task.value}, which needs"
            f" a …{head} checkpoint",
        )
    pooling, normalize = (Pooling.NONE, False) if scores else checkpoint.pooling()
    labels = checkpoint.labels() if scores else []
    if recipe.task is Task.RERANKING and len(labels) != 1:
        raise DeterministicError(
            "InvalidCheckpoint",
            f"config.json: id2label has {len(labels)} classes; task Reranking needs a head with one output, the score",
        )
    _check_distinct(labels)
    inputs = ["input_ids", "attention_mask"]
    if int(config.get("type_vocab_size") or 0) > 1:
        inputs.append("token_type_ids")
    return EngineDescription(
        task=recipe.task,
        backend=backend,
        entry=ENTRIES.get(backend) or entry_of(recipe, backend),
        inputs=inputs,
        output=_OUTPUTS[recipe.task],
        output_dimension=len(labels) if scores else _dimension(config),
        labels=labels if recipe.task in (Task.CLASSIFICATION, Task.TOKEN_CLASSIFICATION) else [],
        pooling=pooling,
        normalize=normalize,
        limits=recipe.limits,
        pad_token_id=int(config.get("pad_token_id") or 0),
        precision_hint=_precision(recipe, backend, architecture),
        fast_path_tokens=_fast_path_tokens(recipe, backend),
        runtime_package=PACKAGES.get(backend) or NVIDIA_PACKAGES[backend],
        runtime_version=(
            importlib.metadata.version(PACKAGES[backend]) if backend in PACKAGES else version_of(recipe, backend)
        ),
    )


def describe_engine(checkpoint: Checkpoint, recipe: Recipe, architecture: str = "") -> EngineDescription:
    """engine.json of what the recipe compiles."""
    found = describe(checkpoint, recipe, recipe.backend, architecture=architecture)
    if recipe.early_exit is not None:
        return _with_exit(found, checkpoint)
    if recipe.backend is Backend.TORCH and recipe.task is not Task.TEXT_GENERATION:
        return found.model_copy(update={"entry": "model.pt2"})
    return found


def _check_distinct(labels: Sequence[str]) -> None:
    """Answers and rows name classes: those that share a name cannot be told apart, nor judged."""
    name, times = Counter(labels).most_common(1)[0] if labels else ("", 1)
    if times > 1:
        numbers = ", ".join(str(number) for number, label in enumerate(labels) if label == name)
        raise DeterministicError(
            "InvalidCheckpoint",
            f"config.json: id2label names classes {numbers[:80]} {name[:80]!r}; give each class a name of its own",
        )


def _with_exit(whole: EngineDescription, checkpoint: Checkpoint) -> EngineDescription:
    """What its exit.json says; the first of three graphs is the entry."""
    found = read_json(checkpoint.folder / EXIT, name=EXIT)
    point = ExitPoint(layer=found["layer"], width=found["width"], threshold=found["threshold"])
    return whole.model_copy(update={"entry": f"{ExitPart.FIRST.value}/{whole.entry}", "early_exit": point})


def _fast_path_tokens(recipe: Recipe, backend: Backend) -> int:
    """The baseline has none: it is what the engine is compared with."""
    short = recipe.fast_path
    return short.max_input_tokens if short is not None and backend is Backend.OPENVINO else 0


def _dimension(config: dict[str, object]) -> int:
    for name in ("hidden_size", "dim", "d_model"):
        if isinstance(config.get(name), int):
            return int(str(config[name]))
    raise DeterministicError("InvalidCheckpoint", "config.json: has no hidden_size; the output's length is unknown")


def _precision(recipe: Recipe, backend: Backend, architecture: str) -> str:
    """Of what is not quantised: f32, but bf16 with format BF16, and in quantised encoders where the CPU gains.

    An engine in float32 stays in float32. FP16 keeps weights in 16 bits on disk and computes in f32: CPUs gain size,
    not speed.
    """
    wanted = recipe.quantization.format if recipe.quantization is not None else Format.NONE
    if backend is not Backend.OPENVINO:
        return "f32"
    remainder = wanted in _FEW_BITS and recipe.task is not Task.TEXT_GENERATION and gains_from_bf16(architecture)
    return "bf16" if wanted is Format.BF16 or remainder else "f32"
