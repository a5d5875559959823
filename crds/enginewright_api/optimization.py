"""How the model is compressed. Blocks apply in the order distillation, pruning, lowRank, quantization."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from enginewright_api.model_base import ApiModel
from enginewright_api.rules import exactly_one_of, rules
from enginewright_api.source import Dataset, Name, Source


class Format(StrEnum):
    """Number format of the weights (and, where the engine has it, of the activations)."""

    NONE = "None"
    FP16 = "FP16"
    BF16 = "BF16"
    FP8 = "FP8"
    INT8 = "INT8"
    INT4 = "INT4"
    INT2 = "INT2"
    NVFP4 = "NVFP4"
    MIXED = "Mixed"


class QuantizationMethod(StrEnum):
    """How scales are found."""

    AUTO = "Auto"
    DYNAMIC = "Dynamic"
    MIN_MAX = "MinMax"
    HISTOGRAM = "Histogram"
    ENTROPY = "Entropy"
    PERCENTILE = "Percentile"
    SMOOTH_QUANT = "SmoothQuant"
    AWQ = "AWQ"
    GPTQ = "GPTQ"
    QAT = "QAT"


class Granularity(StrEnum):
    """What shares one scale."""

    PER_TENSOR = "PerTensor"
    PER_CHANNEL = "PerChannel"
    PER_GROUP = "PerGroup"


class KvCacheFormat(StrEnum):
    """Number format of the key-value cache."""

    AUTO = "Auto"
    FP16 = "FP16"
    FP8 = "FP8"
    INT8 = "INT8"


class DistillationObjective(StrEnum):
    """What the student imitates."""

    LOGITS = "Logits"
    HIDDEN_STATES = "HiddenStates"
    ATTENTION = "Attention"


class PruningGranularity(StrEnum):
    """What is removed as one piece."""

    WEIGHTS = "Weights"
    BLOCKS = "Blocks"
    TWO_OF_FOUR = "TwoOfFour"
    NEURONS = "Neurons"
    HEADS = "Heads"
    HEADS_AND_NEURONS = "HeadsAndNeurons"
    LAYERS = "Layers"


class PruningCriterion(StrEnum):
    """What makes a piece unimportant."""

    MAGNITUDE = "Magnitude"
    GRADIENT = "Gradient"
    LOTTERY_TICKET = "LotteryTicket"
    RECONSTRUCTION = "Reconstruction"


class ScheduleType(StrEnum):
    """How sparsity grows over the steps."""

    ONE_SHOT = "OneShot"
    CUBIC = "Cubic"


class Profile(StrEnum):
    """What a recipe search optimises."""

    LATENCY = "Latency"
    THROUGHPUT = "Throughput"
    SIZE = "Size"


class Calibration(ApiModel):
    """Rows that activation ranges are measured on; never the rows the gate is judged on."""

    dataset: Dataset | None = Field(default=None, description="Rows; the task's builtin set when left out.")
    samples: int = Field(default=256, ge=1, le=65536, description="Number of rows.")
    max_tokens: int = Field(default=128, ge=8, le=131072, description="Rows are cut to this many tokens.")


class Mixed(ApiModel):
    """Bits by layer under an average budget."""

    average_bits: float = Field(description="Bits per weight, averaged over the quantised layers.", ge=2.0, le=16.0)
    formats: Annotated[list[Format], Field(min_length=2, max_length=6)] = Field(description="Formats to choose from.")


class RungQuantization(ApiModel):
    """Lower-precision weights and activations; calibration as in the block above the ladder."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!has(self.groupSize) || self.granularity == 'PerGroup'",
                "groupSize: only with granularity PerGroup",
            ),
            (
                "self.granularity != 'PerGroup' || has(self.groupSize)",
                "groupSize: needed with granularity PerGroup",
            ),
            (
                "!has(self.groupSize) || self.groupSize in [16, 32, 64, 128, 256]",
                "groupSize: one of 16, 32, 64, 128, 256",
            ),
            ("has(self.mixed) == (self.format == 'Mixed')", "mixed: needed with format Mixed, and only there"),
            (
                "!(self.format in ['None', 'FP16', 'BF16']) || self.method == 'Auto'",
                "method: formats None, FP16 and BF16 have no scales; leave method out",
            ),
            (
                "!(self.method in ['AWQ', 'GPTQ']) || self.format in ['INT8', 'INT4', 'INT2', 'Mixed']",
                "method: AWQ and GPTQ quantise weights to INT8, INT4 or INT2",
            ),
            (
                "self.method != 'SmoothQuant' || self.format in ['INT8', 'FP8', 'Mixed']",
                "method: SmoothQuant goes with format INT8 or FP8",
            ),
            (
                "self.method != 'Dynamic' || self.format in ['INT8', 'FP8']",
                "method: Dynamic goes with format INT8 or FP8",
            ),
        )
    )
    format: Format = Field(default=Format.INT8, description="Number format of the weights.")
    method: QuantizationMethod = Field(default=QuantizationMethod.AUTO, description="How scales are found.")
    granularity: Granularity = Field(default=Granularity.PER_CHANNEL, description="What shares one scale.")
    group_size: int | None = Field(default=None, description="Weights per group; 16 to 256, a power of two.")
    kv_cache_format: KvCacheFormat = Field(default=KvCacheFormat.AUTO, description="Format of the key-value cache.")
    exclude: Annotated[list[Name], Field(max_length=64)] = Field(
        default_factory=list, description="Module name patterns that keep their precision."
    )
    mixed: Mixed | None = Field(default=None, description="Bits by layer; with format Mixed.")


class Quantization(RungQuantization):
    """Lower-precision weights and activations."""

    calibration: Calibration = Field(default_factory=Calibration, description="Rows that ranges are measured on.")


class Student(ApiModel):
    """The smaller model that learns."""

    model_config = ConfigDict(json_schema_extra=rules(exactly_one_of("student", "layers", "source")))
    layers: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        default=None, description="Keep this many of the layers."
    )
    source: Source | None = Field(default=None, description="A model of its own that learns.")


class Distillation(ApiModel):
    """A smaller model that imitates the given one."""

    student: Student = Field(description="The model that learns.")
    objectives: Annotated[list[DistillationObjective], Field(min_length=1, max_length=3)] = Field(
        default_factory=lambda: [DistillationObjective.LOGITS], description="What is imitated."
    )
    temperature: float = Field(default=4.0, gt=0.0, le=100.0, description="Softens the teacher's distribution.")
    alpha: float = Field(default=0.7, ge=0.0, le=1.0, description="Weight of the teacher against the labels.")
    teachers: Annotated[list[Name], Field(min_length=1, max_length=4)] = Field(
        default_factory=lambda: ["self"],
        description="`self` is the source; others hf:ORG/NAME@COMMIT, s3://, package:NAME==VERSION.",
    )
    dataset: Dataset | None = Field(default=None, description="Training rows; the builtin set when left out.")
    max_steps: int = Field(default=1000, ge=1, le=10_000_000, description="Optimiser steps.")


class Schedule(ApiModel):
    """How sparsity grows."""

    type: ScheduleType = Field(default=ScheduleType.ONE_SHOT, description="OneShot, or Cubic as in Zhu and Gupta 2017.")
    steps: int = Field(default=1, ge=1, le=1000, description="Pruning steps.")


class Pruning(ApiModel):
    """Pieces of the network that are removed."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "self.granularity != 'TwoOfFour' || self.sparsity == 0.5",
                "sparsity: granularity TwoOfFour is always 0.5",
            ),
            (
                "self.criterion != 'LotteryTicket' || self.granularity == 'Weights'",
                "criterion: LotteryTicket goes with granularity Weights",
            ),
            (
                "self.criterion != 'Reconstruction' || self.granularity in ['Neurons', 'Heads', 'HeadsAndNeurons']",
                "criterion: Reconstruction is for Neurons, Heads and HeadsAndNeurons",
            ),
        )
    )
    granularity: PruningGranularity = Field(description="What is removed as one piece.")
    criterion: PruningCriterion = Field(
        default=PruningCriterion.MAGNITUDE, description="What makes a piece unimportant."
    )
    sparsity: float = Field(default=0.5, gt=0.0, lt=1.0, description="Share of the pieces that goes.")
    schedule: Schedule = Field(default_factory=Schedule, description="How sparsity grows.")
    recovery_steps: int = Field(default=0, ge=0, le=10_000_000, description="Fine-tuning steps afterwards.")

    @property
    def looks_at_rows(self) -> bool:
        """Whether it needs training rows."""
        return self.criterion is not PruningCriterion.MAGNITUDE or self.recovery_steps > 0


class LowRank(ApiModel):
    """Weight matrices replaced by two thin factors."""

    model_config = ConfigDict(json_schema_extra=rules(exactly_one_of("lowRank", "energy", "rank")))
    method: Annotated[str, Field(pattern="^SVD$", max_length=16)] = Field(default="SVD", description="SVD.")
    energy: Annotated[float, Field(gt=0.0, le=1.0)] | None = Field(
        default=None, description="Share of squared singular values kept."
    )
    rank: Annotated[int, Field(ge=1, le=65536)] | None = Field(default=None, description="Rank kept.")


class Block(StrEnum):
    """A block of the optimization."""

    DISTILLATION = "Distillation"
    PRUNING = "Pruning"
    LOW_RANK = "LowRank"
    QUANTIZATION = "Quantization"


class Fallback(ApiModel):
    """A rung of the ladder: blocks given here replace the ones above, blocks named in `without` go, others stay."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "has(self.pruning) || has(self.lowRank) || has(self.quantization)"
                " || (has(self.without) && self.without.size() > 0)",
                "fallbacks: a rung must change something",
            ),
            (
                "!has(self.without) || !((has(self.pruning) && 'Pruning' in self.without)"
                " || (has(self.lowRank) && 'LowRank' in self.without)"
                " || (has(self.quantization) && 'Quantization' in self.without))",
                "without: must not name a block that the rung brings",
            ),
        )
    )
    without: Annotated[list[Block], Field(max_length=4)] = Field(
        default_factory=list, description="Blocks this rung leaves out."
    )
    pruning: Pruning | None = Field(default=None, description="Replaces optimization.pruning.")
    low_rank: LowRank | None = Field(default=None, description="Replaces optimization.lowRank.")
    quantization: RungQuantization | None = Field(
        default=None, description="Replaces optimization.quantization; calibration stays."
    )


@dataclass(frozen=True, slots=True)
class Blocks:
    """What one rung does, defaults filled in."""

    distillation: Distillation | None
    pruning: Pruning | None
    low_rank: LowRank | None
    quantization: Quantization | None


class Search(ApiModel):
    """Budget of a recipe search."""

    max_builds: int = Field(default=8, ge=1, le=64, description="Builds at most.")
    max_minutes: int = Field(default=240, ge=1, le=10080, description="Minutes of building at most.")


class Optimization(ApiModel):
    """How the model is compressed; every block is optional."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("!has(self.search) || has(self.profile)", "search: goes with optimization.profile"),
        )
    )
    distillation: Distillation | None = Field(default=None, description="A smaller student.")
    pruning: Pruning | None = Field(default=None, description="Pieces removed.")
    low_rank: LowRank | None = Field(default=None, description="Thin factors.")
    quantization: Quantization | None = Field(default=None, description="Lower precision.")
    fallbacks: Annotated[list[Fallback], Field(max_length=8)] = Field(
        default_factory=list,
        description="Rungs tried in order when the one before fails its gate or is not faster than the baseline.",
    )
    profile: Profile | None = Field(
        default=None, description="Search recipes for this goal; blocks given above take part."
    )
    search: Search | None = Field(default=None, description="Budget of the search.")

    def rungs(self) -> tuple[Blocks, ...]:
        """The ladder in order: the blocks themselves, then each fallback merged over them."""
        first = Blocks(self.distillation, self.pruning, self.low_rank, self.quantization)
        return (first, *(self._merged(fallback) for fallback in self.fallbacks))

    def _merged(self, rung: Fallback) -> Blocks:
        quantization = self.quantization
        if rung.quantization is not None:
            calibration = quantization.calibration if quantization is not None else Calibration()
            own = {name: getattr(rung.quantization, name) for name in RungQuantization.model_fields}
            quantization = Quantization(**own, calibration=calibration)
        return Blocks(
            None if Block.DISTILLATION in rung.without else self.distillation,
            None if Block.PRUNING in rung.without else rung.pruning or self.pruning,
            None if Block.LOW_RANK in rung.without else rung.low_rank or self.low_rank,
            None if Block.QUANTIZATION in rung.without else quantization,
        )
