"""NVIDIA's version matrix, from `data/nvidia.yaml`: which image holds what, which GPU computes in which format.

Read once; everything else here is a pure function of it. Operator, builder and documentation ask the same table.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field

from enginewright_api.optimization import Format, KvCacheFormat, QuantizationMethod
from enginewright_api.recipe import AcceleratorFacts
from enginewright_api.serving_spec import TensorRTLLMFlavor


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Images(_Row):
    """Names with `{release}` in them."""

    triton: str
    tensorrt_llm: str


class Release(_Row):
    """One Triton release and what its TensorRT-LLM image holds."""

    triton: Annotated[str, Field(pattern=r"^\d\d\.\d\d$")]
    tensorrt_llm: str
    transformers: str = ""
    """Empty where it has not been looked up."""


class Architecture(_Row):
    """GPUs that have the same kernels."""

    name: str
    compute_capabilities: list[str]


class Kernel(_Row):
    """One format (and method) and where it runs."""

    format: Format
    method: QuantizationMethod = QuantizationMethod.AUTO
    algorithm: str = ""
    """TensorRT-LLM's `quant_algo`; empty for weights in 16 bits."""
    flavors: list[TensorRTLLMFlavor] = Field(default_factory=list)
    architectures: list[str]


class KvKernel(_Row):
    """One format of the key-value cache and where it runs."""

    format: KvCacheFormat
    algorithm: str
    flavors: list[TensorRTLLMFlavor]
    architectures: list[str]


class Matrix(_Row):
    """The whole file."""

    images: Images
    last_tensorrt_llm_with_engines: str
    releases: list[Release]
    architectures: list[Architecture]
    tensorrt_llm: list[Kernel]
    kv_cache: list[KvKernel]
    tensorrt: list[Kernel]


@cache
def matrix() -> Matrix:
    """The version matrix."""
    text = files("enginewright_api").joinpath("data/nvidia.yaml").read_text(encoding="utf-8")
    return Matrix.model_validate(yaml.safe_load(text))


def newest(flavor: TensorRTLLMFlavor = TensorRTLLMFlavor.PYTORCH) -> Release:
    """Newest release that can build and serve the flavour."""
    last = _version(matrix().last_tensorrt_llm_with_engines)
    engines = flavor is TensorRTLLMFlavor.ENGINE
    return next(row for row in matrix().releases if not engines or _version(row.tensorrt_llm) <= last)


def tensorrt_llm_image(flavor: TensorRTLLMFlavor) -> str:
    """Image that has the tools of a flavour and serves it."""
    return matrix().images.tensorrt_llm.format(release=newest(flavor).triton)


def tensorrt_image() -> str:
    """Image that compiles and serves TensorRT plans of encoders."""
    return matrix().images.triton.format(release=matrix().releases[0].triton)


def kernel_of(
    format: Format,  # noqa: A002 - the field's name
    method: QuantizationMethod = QuantizationMethod.AUTO,
) -> Kernel | None:
    """How TensorRT-LLM runs a format and method."""
    return _find(matrix().tensorrt_llm, format, method)


def kv_kernel_of(format: KvCacheFormat) -> KvKernel | None:  # noqa: A002 - the field's name
    """How TensorRT-LLM keeps keys and values in a format."""
    return next((row for row in matrix().kv_cache if row.format is format), None)


def encoder_kernel_of(
    format: Format,  # noqa: A002 - the field's name
    method: QuantizationMethod = QuantizationMethod.AUTO,
) -> Kernel | None:
    """How TensorRT runs an encoder in a format and method."""
    return _find(matrix().tensorrt, format, method)


def formats_of(compute_capability: str) -> list[Format]:
    """Formats that some kernel has on a GPU, in the order of the table."""
    rows = [*matrix().tensorrt_llm, *matrix().tensorrt]
    known = [row.format for row in rows if compute_capability in capabilities(row.architectures)]
    return [format_ for format_ in dict.fromkeys(known) if format_ is not Format.NONE]


def capabilities(architectures: Sequence[str]) -> list[str]:
    """Compute capabilities of the named architectures, in order."""
    return [
        capability
        for row in matrix().architectures
        if row.name in architectures
        for capability in row.compute_capabilities
    ]


def refusal(what: str, architectures: Sequence[str], accelerator: AcceleratorFacts) -> str | None:
    """One sentence when a class has no kernel for `what`, such as "format FP8"; None when it has."""
    has = accelerator.compute_capability
    able = capabilities(architectures)
    if not has or has in able:
        return None
    every = [capability for row in matrix().architectures for capability in row.compute_capabilities]
    name = accelerator.accelerator_class
    if has not in every:
        return f"{what}: class {name} has compute capability {has}, which is not in the table ({', '.join(every)})"
    if able == every[every.index(able[0]) :]:
        needs = f"{able[0]} or later"
    else:
        needs = " or ".join(filter(None, [", ".join(able[:-1]), able[-1]]))
    return f"{what} needs compute capability {needs}; class {name} has {has}"


def _find(rows: Sequence[Kernel], format_: Format, method: QuantizationMethod) -> Kernel | None:
    fitting = [row for row in rows if row.format is format_]
    return next((row for row in fitting if row.method is method or method is QuantizationMethod.AUTO), None)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))
