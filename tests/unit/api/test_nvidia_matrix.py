"""The version matrix: images, formats of a GPU, and the sentences of refusals."""

from __future__ import annotations

from pathlib import Path

import pytest

from enginewright_api.nvidia import (
    capabilities,
    encoder_kernel_of,
    formats_of,
    kernel_of,
    kv_kernel_of,
    matrix,
    newest,
    refusal,
    tensorrt_image,
    tensorrt_llm_image,
)
from enginewright_api.nvidia_reference import written
from enginewright_api.optimization import Format, KvCacheFormat, QuantizationMethod
from enginewright_api.recipe import AcceleratorFacts
from enginewright_api.serving_spec import TensorRTLLMFlavor

ENGINE, PYTORCH = TensorRTLLMFlavor.ENGINE, TensorRTLLMFlavor.PYTORCH


def gpu(compute_capability: str, name: str = "nvidia-x") -> AcceleratorFacts:
    return AcceleratorFacts(accelerator_class=name, vendor="nvidia", compute_capability=compute_capability)


def test_releases_are_listed_newest_first_and_once() -> None:
    names = [row.triton for row in matrix().releases]
    assert names == sorted(set(names), reverse=True)


def test_architectures_named_by_kernels_exist() -> None:
    known = {row.name for row in matrix().architectures}
    for row in (*matrix().tensorrt_llm, *matrix().kv_cache, *matrix().tensorrt):
        assert set(row.architectures) <= known, row


def test_no_format_and_method_is_listed_twice() -> None:
    for rows in (matrix().tensorrt_llm, matrix().tensorrt):
        keys = [(row.format, row.method) for row in rows]
        assert len(keys) == len(set(keys))


def test_images_of_the_flavours() -> None:
    assert tensorrt_llm_image(ENGINE) == "nvcr.io/nvidia/tritonserver:26.07-trtllm-python-py3"
    assert tensorrt_image() == "nvcr.io/nvidia/tritonserver:26.07-py3"
    assert newest(ENGINE).tensorrt_llm == "1.2.1"


def test_engines_stay_with_the_last_release_that_builds_them(monkeypatch: pytest.MonkeyPatch) -> None:
    newer = matrix().releases[0].model_copy(update={"triton": "27.01", "tensorrt_llm": "1.3.0"})
    later = matrix().model_copy(update={"releases": [newer, *matrix().releases]})
    monkeypatch.setattr("enginewright_api.nvidia.matrix", lambda: later)
    assert newest(PYTORCH).triton == "27.01"
    assert newest(ENGINE).triton == "26.07"


# The table of TensorRT-LLM's documentation, as far as recipes can ask for it: format, method → GPUs.
DOCUMENTED = {
    (Format.NVFP4, QuantizationMethod.MIN_MAX): {"10.0", "10.3", "12.0"},
    (Format.FP8, QuantizationMethod.MIN_MAX): {"8.9", "9.0", "10.0", "10.3", "12.0"},
    (Format.FP8, QuantizationMethod.DYNAMIC): {"9.0"},
    (Format.INT4, QuantizationMethod.AWQ): {"8.0", "8.6", "8.9", "9.0"},
    (Format.INT8, QuantizationMethod.SMOOTH_QUANT): {"8.0", "8.6", "8.9", "9.0", "10.0", "10.3", "12.0"},
}


@pytest.mark.parametrize(("format_", "method"), DOCUMENTED, ids=str)
def test_which_gpu_runs_which_format(format_: Format, method: QuantizationMethod) -> None:
    kernel = kernel_of(format_, method)
    assert kernel is not None
    assert set(capabilities(kernel.architectures)) == DOCUMENTED[format_, method]


def test_kernels_that_only_one_flavour_has() -> None:
    smooth, nvfp4 = kernel_of(Format.INT8), kernel_of(Format.NVFP4)
    assert smooth is not None
    assert nvfp4 is not None
    assert (smooth.flavors, nvfp4.flavors) == ([ENGINE], [PYTORCH])
    int8 = kv_kernel_of(KvCacheFormat.INT8)
    assert int8 is not None
    assert int8.flavors == [ENGINE]


def test_what_nothing_runs_has_no_kernel() -> None:
    assert kernel_of(Format.INT2) is None
    assert kernel_of(Format.INT4, QuantizationMethod.GPTQ) is None
    assert kv_kernel_of(KvCacheFormat.AUTO) is None
    assert encoder_kernel_of(Format.NVFP4) is None


@pytest.mark.parametrize(
    ("compute_capability", "formats"),
    [
        ("7.5", {"FP16", "INT8"}),
        ("8.6", {"FP16", "BF16", "INT8", "INT4"}),
        ("8.9", {"FP16", "BF16", "INT8", "INT4", "FP8"}),
        ("10.0", {"FP16", "BF16", "INT8", "FP8", "NVFP4"}),
        ("6.1", set()),
    ],
)
def test_formats_of_a_gpu(compute_capability: str, formats: set[str]) -> None:
    assert {format_.value for format_ in formats_of(compute_capability)} == formats


@pytest.mark.parametrize(
    ("format_", "has", "sentence"),
    [
        (Format.FP8, "8.6", "format FP8 needs compute capability 8.9 or later; class nvidia-x has 8.6"),
        (Format.NVFP4, "9.0", "format NVFP4 needs compute capability 10.0 or later; class nvidia-x has 9.0"),
        (
            Format.INT4,
            "10.0",
            "format INT4 needs compute capability 8.0, 8.6, 8.9 or 9.0; class nvidia-x has 10.0",
        ),
        (
            Format.FP16,
            "8.7",
            "format FP16: class nvidia-x has compute capability 8.7, which is not in the table"
            " (7.5, 8.0, 8.6, 8.9, 9.0, 10.0, 10.3, 12.0)",
        ),
        (Format.FP8, "9.0", None),
        (Format.FP8, "", None),
    ],
)
def test_a_refusal_is_one_sentence(format_: Format, has: str, sentence: str | None) -> None:
    kernel = kernel_of(format_)
    assert kernel is not None
    assert refusal(f"format {format_.value}", kernel.architectures, gpu(has)) == sentence


def test_a_single_gpu_is_named_alone() -> None:
    dynamic = kernel_of(Format.FP8, QuantizationMethod.DYNAMIC)
    assert dynamic is not None
    found = refusal("format FP8", dynamic.architectures, gpu("8.9"))
    assert found == "format FP8 needs compute capability 9.0; class nvidia-x has 8.9"


def test_the_page_shows_the_matrix_as_it_is() -> None:
    page = (Path(__file__).parents[3] / "docs" / "nvidia.md").read_text(encoding="utf-8")
    assert page == written(page), "run `make generate`"
    assert all(f"| {row.triton} | {row.tensorrt_llm} |" in page for row in matrix().releases)
