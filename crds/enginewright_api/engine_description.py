"""engine.json: what the serving side must know to run an engine. Written by the builder, read by admission.

Files of an artifact, by the paths that its manifest lists:

    engine.json          this description
    engine/              what the backend loads (openvino.xml/.bin, model.onnx, checkpoint/ for Torch)
    tokenizer/           tokenizer.json and its configuration
    report.json, report.html
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from enginewright_api.errors import DeterministicError
from enginewright_api.model_base import ApiModel
from enginewright_api.optimization import KvCacheFormat
from enginewright_api.recipe import Task
from enginewright_api.serving_spec import Backend, Limits, Parallelism, SpeculativeDecoding, TensorRTLLMFlavor

ENGINE_DESCRIPTION = "engine.json"
HIDDEN_STATES = "hidden_states"
"""Output of the first graph of an engine with an early exit, and an input of the other two."""
TOKEN_SCORES, TOKEN_SPANS, TOKEN_LABELS = "token_scores", "token_spans", "token_labels"
"""Outputs of a model that labels tokens."""
DIVIDED_BYTES = 2**29
"""Encoders on OpenVINO with larger files run batches as they run single texts: the weights that dividing packs once
more would cost more memory than the few per cent of time are worth, which large operators lose by waiting."""
TOKENS_A_STEP = 512
"""Of a generating engine on OpenVINO: longer prompts are read over several steps, so that running answers go on."""


class Pooling(StrEnum):
    """How token states become one vector."""

    MEAN = "Mean"
    CLS = "Cls"
    NONE = "None"


class Generation(ApiModel):
    """What a text generation engine needs beyond an encoder."""

    kv_cache_precision: Annotated[str, Field(pattern="^(|u4|u8|f16|f32|bf16)$")] = Field(
        default="", description="Format of the key-value cache; empty leaves it to the runtime."
    )
    eos_token_ids: list[int] = Field(default_factory=list, description="Tokens that end an answer.")
    chat_template: bool = Field(default=False, description="Whether the tokenizer can render chat messages.")
    max_context_tokens: int = Field(ge=1, description="Prompt and answer together, at most.")
    speculative_decoding: SpeculativeDecoding | None = Field(
        default=None, description="Draft and check, on a CPU. Where the draft came from is the recipe's."
    )
    draft_entry: Annotated[str, Field(max_length=256)] | None = Field(
        default=None, description="File below engine/ of the model that drafts, where one does."
    )


class GpuDeployment(ApiModel):
    """How TensorRT-LLM runs one replica; only its engines have it."""

    flavor: TensorRTLLMFlavor = Field(description="PyTorch or Engine.")
    parallelism: Parallelism = Field(description="GPUs of one replica.")
    speculative_decoding: SpeculativeDecoding | None = Field(default=None, description="Draft and check.")
    kv_cache_format: KvCacheFormat = Field(default=KvCacheFormat.AUTO, description="Format of keys and values.")


class ExitPart(StrEnum):
    """A graph of an engine that has an early exit."""

    FIRST = "first"
    HEAD = "head"
    REST = "rest"


class ExitPoint(ApiModel):
    """Where inputs leave that a small head is sure of; such an engine is three graphs.

    `first` gives `hidden_states` (FP32 [batch, tokens, width]) after `layer`; `head` gives scores of them; `rest` goes
    on with the inputs whose largest softmax probability is below `threshold`.
    """

    layer: int = Field(ge=1, description="Layers of `first`.")
    width: int = Field(ge=1, description="Length of a token's hidden state.")
    threshold: float = Field(gt=0.0, le=1.0, description="Probability of the head's answer that suffices.")
    part: ExitPart | None = Field(default=None, description="The graph described; none of them: the engine as a whole.")


class EngineDescription(ApiModel):
    """How to run one engine.

    Encoders take `input_ids`, `attention_mask` (and `token_type_ids` when listed), int64, shape [batch, tokens],
    and give `output`, float32: [batch, dimension] (pooled inside the engine), [batch, labels], or, where tokens are
    labelled, [batch, tokens, labels].
    The served Triton model takes `text` (BYTES [batch, 1]) and gives `embedding` (FP32 [batch, dimension]) or
    `scores` (FP32 [batch, labels]) and `tokens` (INT32 [batch, 1], tokens of each input as run). A reranker also takes
    `text_pair`: `text` is the query, and `scores` [batch, 1] say how well the pair's text answers it. A model that
    labels tokens gives `token_scores` (FP32 [batch, longest, labels]), `token_spans` (INT32 [batch, longest, 2],
    characters from and up to) and `token_labels` (BYTES [batch, longest], the best label's name) of each text's own
    tokens in order, not of special ones; places after a text's last token have span -1, -1, scores 0 and no name.

    Text generation engines have `generation`; their output is `logits`, its dimension the vocabulary.
    """

    task: Task = Field(description="What the model does.")
    backend: Backend = Field(description="What loads it; Torch means eager PyTorch (the baseline).")
    entry: Annotated[str, Field(max_length=256)] = Field(
        description="File or folder below engine/ that the backend loads."
    )
    inputs: list[str] = Field(description="Input names in order.")
    output: str = Field(description="Output name.")
    output_dimension: int = Field(ge=1, description="Length of the output vector.")
    labels: list[str] = Field(default_factory=list, description="Class names, for classification of texts or tokens.")
    pooling: Pooling = Field(default=Pooling.NONE, description="Pooling the graph contains; information only.")
    normalize: bool = Field(default=False, description="Whether output vectors have length one (done in the graph).")
    limits: Limits = Field(description="Largest shapes.")
    pad_token_id: int = Field(default=0, description="Padding.")
    precision_hint: Annotated[str, Field(max_length=8)] = Field(
        default="f32", description="Inference precision: f32, bf16, f16."
    )
    fast_path_tokens: int = Field(
        default=0, ge=0, description="Single inputs of at most this many tokens run in a shape of their own; 0: none."
    )
    early_exit: ExitPoint | None = Field(default=None, description="For classification with an early exit.")
    generation: Generation | None = Field(default=None, description="For text generation.")
    tensor_rt_llm: GpuDeployment | None = Field(default=None, alias="tensorRTLLM", description="For TensorRT-LLM.")
    runtime_package: Annotated[str, Field(max_length=64)] = Field(description="Distribution that loads it.")
    runtime_version: Annotated[str, Field(max_length=64)] = Field(description="Its version at build time.")

    def exit_part(self, part: ExitPart) -> EngineDescription:
        """Description of one graph of an engine with an early exit, whose `entry` is that of `first`."""
        if self.early_exit is None:
            raise DeterministicError("InvalidEngine", f"engine.json: has no earlyExit, so no part {part.value}")
        changes: dict[str, object] = {
            "entry": f"{part.value}/{self.entry.rpartition('/')[2]}",
            "early_exit": self.early_exit.model_copy(update={"part": part}),
        }
        if part is ExitPart.FIRST:
            changes["output"] = HIDDEN_STATES
        else:
            changes["inputs"] = [HIDDEN_STATES, "attention_mask"]
        return self.model_copy(update=changes)
