"""The resolved recipe: what one engine follows from, no default left open."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from enginewright_api.evidence import EvidenceRequest
from enginewright_api.identity import BUILDER_SCHEMA_VERSION, digest_of
from enginewright_api.model_base import ApiModel
from enginewright_api.optimization import (
    Distillation,
    Format,
    KvCacheFormat,
    LowRank,
    Pruning,
    Quantization,
    QuantizationMethod,
)
from enginewright_api.serving_spec import (
    Backend,
    EarlyExit,
    FastPath,
    Limits,
    Parallelism,
    SpeculativeDecoding,
    TensorRTLLM,
)
from enginewright_api.source import Dataset, Source


class Task(StrEnum):
    """What the model does."""

    TEXT_GENERATION = "TextGeneration"
    EMBEDDING = "Embedding"
    CLASSIFICATION = "Classification"
    TOKEN_CLASSIFICATION = "TokenClassification"  # noqa: S105 - a task, not a secret
    RERANKING = "Reranking"


class Recipe(ApiModel):
    """Source to engine, resolved: backend and quantization method are never Auto, every data set is named."""

    source: Source = Field(description="Trained weights.")
    task: Task = Field(description="What the model does.")
    training: Dataset | None = Field(
        default=None, description="Rows that steps 1 and 2 learn from; none when they need none."
    )
    distillation: Distillation | None = Field(default=None, description="Step 1.")
    pruning: Pruning | None = Field(default=None, description="Step 2.")
    low_rank: LowRank | None = Field(default=None, description="Step 3.")
    quantization: Quantization | None = Field(default=None, description="Step 4.")
    backend: Backend = Field(description="Compiler, resolved.")
    limits: Limits = Field(description="Largest shapes.")
    tensor_rt_llm: TensorRTLLM | None = Field(default=None, alias="tensorRTLLM", description="TensorRT-LLM only.")
    parallelism: Parallelism = Field(default_factory=Parallelism, description="Shards.")
    speculative_decoding: SpeculativeDecoding | None = Field(default=None, description="Draft and check.")
    early_exit: EarlyExit | None = Field(default=None, description="Answer from a middle layer.")
    fast_path: FastPath | None = Field(default=None, description="Short shape.")

    @property
    def draft_source(self) -> Source | None:
        """Where the model that drafts is, where one does."""
        drafting = self.speculative_decoding
        return drafting.draft.source if drafting is not None and drafting.draft is not None else None

    @property
    def draft_weights(self) -> Quantization:
        """Of the model that drafts: 8 bits, rounded. All it says is checked, so rounding can only cost speed.

        Its key-value cache has the format of the model's.
        """
        cache = self.quantization.kv_cache_format if self.quantization is not None else KvCacheFormat.AUTO
        return Quantization(format=Format.INT8, method=QuantizationMethod.DYNAMIC, kv_cache_format=cache)

    def for_draft(self) -> Recipe:
        """What is made of the model that drafts: 8-bit weights and nothing else."""
        left_out = dict.fromkeys(
            ("training", "distillation", "pruning", "low_rank", "speculative_decoding", "early_exit")
        )
        return self.model_copy(
            update={**left_out, "source": self.draft_source or self.source, "quantization": self.draft_weights}
        )

    @property
    def exact(self) -> bool:
        """Whether the engine must answer what the model answers, up to rounding: nothing compresses it."""
        quantization = self.quantization
        plain = quantization is None or (
            quantization.format is Format.NONE and quantization.kv_cache_format is KvCacheFormat.AUTO
        )
        return plain and not (self.distillation or self.pruning or self.low_rank or self.early_exit)


class Toolchain(ApiModel):
    """What compiles and serves: an image by digest on a cluster, a locked environment on one machine."""

    image: Annotated[str, Field(max_length=1024)] = Field(description="Builder image, or `local`.")
    digest: Annotated[str, Field(max_length=128)] = Field(description="sha256 of the image or of the lock file.")


class AcceleratorFacts(ApiModel):
    """Facts of the accelerator class that the engine depends on."""

    accelerator_class: Annotated[str, Field(max_length=253)] = Field(
        description="Name; for people, not part of the key."
    )
    vendor: Annotated[str, Field(max_length=63)] = Field(description="nvidia, amd, intel, cpu ...")
    compute_capability: Annotated[str, Field(max_length=16)] = Field(
        default="", description='CUDA compute capability such as "9.0"; empty for CPU.'
    )
    architecture: Annotated[str, Field(max_length=63)] = Field(default="", description="Such as x86_64-avx512-vnni.")
    memory_gib: float = Field(
        default=0.0, alias="memoryGiB", description="Memory of one accelerator; not part of the key."
    )


class BuildRequest(ApiModel):
    """The recipe file a builder process is given: what to build, for what, and what to measure."""

    key: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] = Field(description="Must equal build_key of the rest.")
    recipe: Recipe = Field(description="What to build.")
    toolchain: Toolchain = Field(description="With what.")
    accelerator: AcceleratorFacts = Field(description="For what.")
    evidence: EvidenceRequest = Field(description="What to measure.")


def build_key(recipe: Recipe, toolchain: Toolchain, accelerator: AcceleratorFacts) -> str:
    """sha256 hex of everything the engine follows from."""
    return digest_of(
        {
            "schema": BUILDER_SCHEMA_VERSION,
            "recipe": recipe.wire(),
            "toolchain": toolchain.digest,
            "accelerator": {
                "vendor": accelerator.vendor,
                "computeCapability": accelerator.compute_capability,
                "architecture": accelerator.architecture,
            },
        }
    )
