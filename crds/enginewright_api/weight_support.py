"""What may be asked of weights alone on CPUs: formats, methods, groups, mixtures.

Field paths are those of OptimizedModel.spec. FP8 and NVFP4 stay out: with as many bits INT8 and INT4 come closer to
the model on OpenVINO (mean cosine .9991 against .9981, .9756 against .9717, all-MiniLM-L6-v2).
"""

from __future__ import annotations

from enginewright_api.optimization import Format, Granularity, Quantization, QuantizationMethod

Unavailable = tuple[str, str]
"""(field path, one sentence)."""

_METHOD = QuantizationMethod
_WEIGHT_METHODS = (_METHOD.GPTQ, _METHOD.AWQ, _METHOD.MIN_MAX)
"""GPTQ first: with four bits it loses least by far (measured, docs/techniques/quantization.md)."""
WEIGHT_ROWS: tuple[tuple[Format, tuple[QuantizationMethod, ...]], ...] = (
    (Format.INT4, _WEIGHT_METHODS),
    (Format.INT2, _WEIGHT_METHODS),
    # Each layer has a format of its own: AWQ's divisor, which several layers share, cannot suit all of theirs.
    (Format.MIXED, (_METHOD.GPTQ, _METHOD.MIN_MAX)),
)
"""(format, methods) that store weights in few bits and leave activations alone."""
FEW_BITS = tuple(format_ for format_, _ in WEIGHT_ROWS)
"""Formats that the builder packs itself, for encoders and text generation alike."""
WEIGHT_ONLY_INT8 = (_METHOD.GPTQ, _METHOD.AWQ)
"""Methods that make INT8 a format of weights alone; the others quantise activations too."""
MIXTURE = (Format.INT2, Format.INT4, Format.INT8, Format.FP16)
"""Formats that Mixed chooses from."""

_QUANTIZATION = "optimization.quantization"


def weights_only(quantization: Quantization) -> bool:
    """Whether an encoder's activations stay as they are."""
    if quantization.format is Format.INT8:
        return quantization.method in WEIGHT_ONLY_INT8
    return quantization.format in FEW_BITS


def unavailable_weights(quantization: Quantization) -> list[Unavailable]:
    """Granularity and mixture of an encoder on a CPU that nothing implements."""
    return [*_granularity(quantization), *unavailable_mixture(quantization)]


def _granularity(quantization: Quantization) -> list[Unavailable]:
    field, granularity = f"{_QUANTIZATION}.granularity", quantization.granularity
    asked = f"format {quantization.format.value} with method {quantization.method.value}"
    if weights_only(quantization):
        if granularity is Granularity.PER_TENSOR:
            return [(field, f"granularity PerTensor is not available for {asked}; use PerChannel or PerGroup")]
        return []
    if granularity is not Granularity.PER_CHANNEL and quantization.format is not Format.INT8:
        return [(field, f"granularity has no effect with format {quantization.format.value}; leave it out")]
    if granularity is Granularity.PER_GROUP:
        return [(field, f"granularity PerGroup is not available for {asked}; use PerChannel, or method GPTQ or AWQ")]
    return []


def unavailable_mixture(quantization: Quantization) -> list[Unavailable]:
    """Formats that cannot be mixed."""
    mixed, field = quantization.mixed, f"{_QUANTIZATION}.mixed"
    if mixed is None:
        return []
    strangers = [format_.value for format_ in mixed.formats if format_ not in MIXTURE]
    if strangers:
        names = ", ".join(format_.value for format_ in MIXTURE)
        return [(f"{field}.formats", f"{', '.join(strangers)} cannot be mixed on a CPU; choose from {names}")]
    if len(set(mixed.formats)) < len(mixed.formats):
        return [(f"{field}.formats", "names a format twice; name each once")]
    return []
