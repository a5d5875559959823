"""Engine, batching, runtime, parallelism: how the compiled model runs."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from enginewright_api.model_base import ApiModel
from enginewright_api.rules import rules
from enginewright_api.source import Name, Source


class Backend(StrEnum):
    """Compiler and runtime of an engine."""

    AUTO = "Auto"
    TENSORRT_LLM = "TensorRTLLM"
    TENSORRT = "TensorRT"
    ONNX_RUNTIME = "ONNXRuntime"
    OPENVINO = "OpenVINO"
    TORCH = "Torch"


class TensorRTLLMFlavor(StrEnum):
    """PyTorch: quantised checkpoint + LLM YAML. Engine: trtllm-build, toolchain 1.2.1 at most."""

    PYTORCH = "PyTorch"
    ENGINE = "Engine"


class BatchingMode(StrEnum):
    """How requests share one execution."""

    AUTO = "Auto"
    NONE = "None"
    DYNAMIC = "Dynamic"
    CONTINUOUS = "Continuous"


class SpeculativeMethod(StrEnum):
    """Who drafts the tokens that the model then checks."""

    NGRAM = "NGram"
    DRAFT_MODEL = "DraftModel"
    EAGLE3 = "EAGLE3"
    MTP = "MTP"


class Limits(ApiModel):
    """Largest shapes the engine accepts."""

    max_batch_size: int = Field(default=32, ge=1, le=4096, description="Requests in one execution.")
    max_input_tokens: int = Field(
        default=512,
        ge=1,
        le=1_048_576,
        description="Tokens of one input; longer ones are refused or cut by the client's choice.",
    )
    max_output_tokens: int = Field(default=512, ge=1, le=1_048_576, description="Tokens generated for one request.")


class TensorRTLLM(ApiModel):
    """Settings that only TensorRT-LLM has."""

    flavor: TensorRTLLMFlavor = Field(default=TensorRTLLMFlavor.PYTORCH, description="PyTorch or Engine.")


class Engine(ApiModel):
    """Which compiler, for which shapes."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!has(self.tensorRTLLM) || self.backend in ['Auto', 'TensorRTLLM']",
                "tensorRTLLM: only with backend TensorRTLLM or Auto",
            ),
        )
    )
    backend: Backend = Field(default=Backend.AUTO, description="Auto picks by task and accelerator class.")
    limits: Limits = Field(default_factory=Limits, description="Largest shapes.")
    tensor_rt_llm: TensorRTLLM | None = Field(default=None, alias="tensorRTLLM", description="TensorRT-LLM only.")


class Parallelism(ApiModel):
    """How one replica is spread over accelerators. Data parallelism is `replicas`."""

    tensor: int = Field(default=1, ge=1, le=64, description="Shards of every layer.")
    pipeline: int = Field(default=1, ge=1, le=64, description="Groups of layers.")
    expert: int = Field(default=1, ge=1, le=256, description="Groups of experts; divides tensor × pipeline.")
    context: int = Field(default=1, ge=1, le=64, description="Shards of the sequence.")


class Batching(ApiModel):
    """How requests share one execution."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!has(self.preferredBatchSizes) || !has(self.maxBatchSize)"
                " || self.preferredBatchSizes.all(size, size <= self.maxBatchSize)",
                "preferredBatchSizes: none may exceed batching.maxBatchSize",
            ),
            (
                "!has(self.maxBatchSize) || self.maxQueueSize >= self.maxBatchSize",
                "maxQueueSize: must be at least batching.maxBatchSize, or it caps the batch",
            ),
        )
    )
    mode: BatchingMode = Field(
        default=BatchingMode.AUTO, description="Auto: Dynamic for encoders, Continuous for text generation."
    )
    max_batch_size: Annotated[int, Field(ge=1, le=4096)] | None = Field(
        default=None, description="Requests in one execution; engine.limits.maxBatchSize when left out."
    )
    preferred_batch_sizes: Annotated[list[Annotated[int, Field(ge=1, le=4096)]], Field(max_length=16)] = Field(
        default_factory=list, description="Sizes worth waiting for."
    )
    max_queue_delay_microseconds: int = Field(default=0, ge=0, le=10_000_000, description="Longest wait for company.")
    max_queue_size: int = Field(
        default=256,
        ge=1,
        le=1_000_000,
        description="Requests waiting at the gateway for each replica; more are refused with 429.",
    )
    queue_timeout_milliseconds: int = Field(
        default=10_000, ge=1, le=3_600_000, description="Longest wait at the gateway."
    )
    stream_interval: Annotated[int, Field(ge=1, le=64)] | None = Field(
        default=None,
        description="Tokens of a streamed answer sent together after the first; when left out, 1 for up to four answers"
        " at a time and up to 4 for more.",
    )


class KvCache(ApiModel):
    """Memory for attention keys and values."""

    memory_fraction: float = Field(default=0.9, gt=0.0, le=1.0, description="Share of the free accelerator memory.")
    reuse: bool = Field(default=True, description="Share blocks between requests with a common prefix.")
    host_memory_gib: float = Field(
        default=0.0, ge=0.0, le=65536.0, alias="hostMemoryGiB", description="Blocks moved to host memory."
    )


class DraftModel(ApiModel):
    """A smaller model that drafts for the one that is served."""

    source: Source = Field(description="Its weights, with the tokenizer of the model that it drafts for.")


class SpeculativeDecoding(ApiModel):
    """Draft several tokens, check them at once."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "self.method != 'DraftModel' || has(self.draft)",
                "draft: needed with method DraftModel; give the source of a smaller model with the same tokenizer",
            ),
            (
                "self.method == 'DraftModel' || !has(self.draft)",
                "draft: only method DraftModel has one; leave it out or set method to DraftModel",
            ),
        )
    )
    method: SpeculativeMethod = Field(description="Who drafts.")
    draft_tokens: int = Field(default=4, ge=1, le=32, description="Tokens drafted a step.")
    draft: DraftModel | None = Field(default=None, description="The model that drafts; method DraftModel only.")


class EarlyExit(ApiModel):
    """Answer from a middle layer when it is sure."""

    confidence: float = Field(gt=0.0, lt=1.0, description="Share of early answers that must be the whole model's.")


class FastPath(ApiModel):
    """A second engine shape for short inputs."""

    max_input_tokens: int = Field(ge=1, le=131072, description="Inputs up to this many tokens take the short shape.")


class ModelReference(ApiModel):
    """Another OptimizedModel in the same namespace."""

    name: Name = Field(description="Its name.")


class Cascade(ApiModel):
    """This model answers when sure; else the other one does."""

    to: ModelReference = Field(description="The heavier model.")
    confidence: float = Field(gt=0.0, lt=1.0, description="Confidence that suffices.")


class Runtime(ApiModel):
    """What happens while serving."""

    kv_cache: KvCache | None = Field(default=None, description="Key-value cache (text generation).")
    speculative_decoding: SpeculativeDecoding | None = Field(default=None, description="Draft and check.")
    early_exit: EarlyExit | None = Field(default=None, description="Answer from a middle layer when sure.")
    fast_path: FastPath | None = Field(default=None, description="A second shape for short inputs.")
    cascade: Cascade | None = Field(default=None, description="Light model first, heavy one when unsure.")
