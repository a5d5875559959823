"""What recipes for NVIDIA GPUs may ask for: format × method × GPU × flavour, parallelism, drafting.

Everything comes from the version matrix; field paths are those of OptimizedModel.spec.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from enginewright_api.nvidia import Kernel, encoder_kernel_of, kernel_of, kv_kernel_of, matrix, refusal
from enginewright_api.optimization import Format, Granularity, KvCacheFormat, Quantization, QuantizationMethod
from enginewright_api.recipe import AcceleratorFacts, Recipe
from enginewright_api.serving_spec import Backend, SpeculativeMethod, TensorRTLLM, TensorRTLLMFlavor

Unavailable = tuple[str, str]
"""(field path, one sentence)."""

Find = Callable[[Format, QuantizationMethod], Kernel | None]

BACKENDS = frozenset({Backend.TENSORRT_LLM, Backend.TENSORRT})
GROUP_SIZES = (64, 128)
"""Groups that the INT4 kernels have."""

_QUANTIZATION = "optimization.quantization"
_SIXTEEN_BITS = (Format.NONE, Format.FP16, Format.BF16)


def nvidia_rows(backend: Backend) -> list[tuple[Format, tuple[QuantizationMethod, ...]]]:
    """(format, methods) of a backend in the matrix's order; the first method is what Auto stands for."""
    kernels = matrix().tensorrt_llm if backend is Backend.TENSORRT_LLM else matrix().tensorrt
    methods: dict[Format, list[QuantizationMethod]] = {}
    for kernel in kernels:
        known = methods.setdefault(kernel.format, [])
        if kernel.method is not QuantizationMethod.AUTO:
            known.append(kernel.method)
    return [(format_, tuple(found)) for format_, found in methods.items()]


def unavailable_on_nvidia(recipe: Recipe, accelerator: AcceleratorFacts, *, calibrated: bool) -> list[Unavailable]:
    """Every field of a resolved recipe for TensorRT or TensorRT-LLM that cannot be had on this class.

    `calibrated` says whether its method measures ranges on rows.
    """
    if recipe.backend is Backend.TENSORRT_LLM:
        found = [*_kernel(recipe, kernel_of, accelerator), *_key_values(recipe, accelerator, calibrated=calibrated)]
        return [*found, *_group(recipe.quantization), *_drafting(recipe), *_parallelism(recipe)]
    return [*_kernel(recipe, encoder_kernel_of, accelerator), *_encoder(recipe)]


def _kernel(recipe: Recipe, find: Find, accelerator: AcceleratorFacts) -> Iterator[Unavailable]:
    quantization = recipe.quantization
    wanted = quantization.format if quantization is not None else Format.NONE
    method = quantization.method if quantization is not None else QuantizationMethod.AUTO
    kernel = find(wanted, method)
    if kernel is None:
        return  # the table of support says which formats and methods there are
    what = f"format {wanted.value}" + (f" with method {method.value}" if method is not QuantizationMethod.AUTO else "")
    sentence = refusal(what, kernel.architectures, accelerator)
    if sentence is not None:
        field = f"{_QUANTIZATION}.format" if wanted is not Format.NONE else "hardware.acceleratorClasses"
        yield field, sentence
    yield from _flavor(recipe, kernel.flavors, f"{_QUANTIZATION}.method", what)
    if quantization is None or wanted in _SIXTEEN_BITS:
        yield from _without_scales(quantization)


def _flavor(recipe: Recipe, able: list[TensorRTLLMFlavor], field: str, what: str) -> Iterator[Unavailable]:
    flavor = _flavor_of(recipe)
    if able and flavor not in able:
        other = able[0].value
        yield field, f"{what} runs in flavor {other} only; set engine.tensorRTLLM.flavor to {other}"


def _without_scales(quantization: Quantization | None) -> Iterator[Unavailable]:
    if quantization is not None and quantization.exclude:
        name = quantization.format.value
        yield f"{_QUANTIZATION}.exclude", f"exclude has no effect with format {name}; leave it out"


def _key_values(recipe: Recipe, accelerator: AcceleratorFacts, *, calibrated: bool) -> Iterator[Unavailable]:
    wanted = recipe.quantization.kv_cache_format if recipe.quantization is not None else KvCacheFormat.AUTO
    kernel = kv_kernel_of(wanted)
    if kernel is None:
        return
    what = f"kvCacheFormat {wanted.value}"
    sentence = refusal(what, kernel.architectures, accelerator)
    if sentence is not None:
        yield f"{_QUANTIZATION}.kvCacheFormat", sentence
    yield from _flavor(recipe, kernel.flavors, f"{_QUANTIZATION}.kvCacheFormat", what)
    if not calibrated and _flavor_of(recipe) is TensorRTLLMFlavor.ENGINE:
        yield (
            f"{_QUANTIZATION}.kvCacheFormat",
            f"{what} of an engine needs ranges measured on rows; use a method that measures, such as MinMax or AWQ",
        )


def _group(quantization: Quantization | None) -> Iterator[Unavailable]:
    if quantization is None or quantization.granularity is Granularity.PER_CHANNEL:
        return
    field = f"{_QUANTIZATION}.granularity"
    name = quantization.granularity.value
    if quantization.granularity is Granularity.PER_TENSOR or quantization.format is not Format.INT4:
        yield field, f"granularity {name} has no effect with format {quantization.format.value}; leave it out"
    elif quantization.group_size not in GROUP_SIZES:
        sizes = " and ".join(str(size) for size in GROUP_SIZES)
        yield f"{_QUANTIZATION}.groupSize", f"TensorRT-LLM has kernels for groups of {sizes}, not for others"


def _drafting(recipe: Recipe) -> Iterator[Unavailable]:
    wanted = recipe.speculative_decoding
    if wanted is None:
        return
    field = "runtime.speculativeDecoding.method"
    if _flavor_of(recipe) is TensorRTLLMFlavor.ENGINE:
        name = wanted.method.value
        yield field, f"method {name} runs in flavor PyTorch only; set engine.tensorRTLLM.flavor to PyTorch"
    elif wanted.method in (SpeculativeMethod.EAGLE3, SpeculativeMethod.DRAFT_MODEL):
        name = wanted.method.value
        yield field, f"method {name} is not available with TensorRTLLM yet: only the model is built; use NGram or MTP"


def _parallelism(recipe: Recipe) -> Iterator[Unavailable]:
    wanted = recipe.parallelism
    if wanted.tensor % wanted.expert:
        yield (
            "parallelism.expert",
            f"experts are spread over the tensor shards: {wanted.expert} must divide parallelism.tensor"
            f" ({wanted.tensor})",
        )
    if _flavor_of(recipe) is not TensorRTLLMFlavor.ENGINE:
        return
    # ModelOpt writes engine checkpoints sharded by tensor and layer only.
    for name in ("expert", "context"):
        if getattr(wanted, name) != 1:
            yield (
                f"parallelism.{name}",
                f"{name} parallelism runs in flavor PyTorch only; set engine.tensorRTLLM.flavor to PyTorch",
            )


def _encoder(recipe: Recipe) -> Iterator[Unavailable]:
    quantization, wanted = recipe.quantization, recipe.parallelism
    for name in ("tensor", "pipeline", "expert", "context"):
        if getattr(wanted, name) != 1:
            yield f"parallelism.{name}", "an encoder runs on one GPU; leave it at 1 and use replicas"
    if recipe.tensor_rt_llm is not None:
        yield "engine.tensorRTLLM", "has no effect with backend TensorRT; leave it out"
    if recipe.speculative_decoding is not None:
        yield "runtime.speculativeDecoding", "has no effect without text generation; leave it out"
    if quantization is None:
        return
    if quantization.kv_cache_format is not KvCacheFormat.AUTO:
        yield f"{_QUANTIZATION}.kvCacheFormat", "kvCacheFormat has no effect without text generation; leave it out"
    if quantization.granularity is not Granularity.PER_CHANNEL:
        name = quantization.granularity.value
        yield f"{_QUANTIZATION}.granularity", f"granularity {name} is not available with TensorRT; leave it out"


def _flavor_of(recipe: Recipe) -> TensorRTLLMFlavor:
    return (recipe.tensor_rt_llm or TensorRTLLM()).flavor
