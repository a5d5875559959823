"""What a TensorRT-LLM recipe would run and write, before anything of it is there: for people and for golden tests."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from enginewright_api.errors import DeterministicError
from enginewright_api.nvidia import kernel_of, kv_kernel_of, tensorrt_llm_image
from enginewright_api.optimization import Format, Granularity, KvCacheFormat, QuantizationMethod
from enginewright_api.recipe import Recipe
from enginewright_api.serving_spec import Batching, KvCache, TensorRTLLM, TensorRTLLMFlavor
from enginewright_builder.tensorrt_llm.build_command import build_flags
from enginewright_builder.tensorrt_llm.checkpoint_config import mapping_of, quantization_of
from enginewright_builder.tensorrt_llm.inflight_repository import placeholder_values
from enginewright_builder.tensorrt_llm.launch import launch_engine, launch_llmapi, world_size
from enginewright_builder.tensorrt_llm.llm_arguments import llm_arguments
from enginewright_builder.tensorrt_llm.llmapi_repository import MODEL, render_llmapi_config, render_llmapi_model

DEFAULT_GROUP = 128
CHECKPOINT, ENGINE, TOKENIZER, REPOSITORY = (
    PurePosixPath("/model", name) for name in ("checkpoint", "engine", "tokenizer", "repository")
)


@dataclass(frozen=True, slots=True)
class Plan:
    """Image, command lines (argv), files by their path in the Triton repository, and what an engine is made from."""

    image: str
    flavor: TensorRTLLMFlavor
    algorithm: str
    kv_cache_algorithm: str
    world_size: int
    commands: tuple[tuple[str, ...], ...]
    files: dict[str, str] = field(default_factory=dict)
    checkpoint: dict[str, object] = field(default_factory=dict)
    """`mapping` and `quantization` of the checkpoint's config.json; engines only."""
    placeholders: dict[str, str | None] = field(default_factory=dict)
    """Values for the templates of `inflight_batcher_llm`; engines only."""

    def lines(self) -> list[str]:
        """The commands as a shell would take them."""
        return [shlex.join(command) for command in self.commands]


def flavor_of(recipe: Recipe) -> TensorRTLLMFlavor:
    """The recipe's flavour; PyTorch when it says nothing."""
    return (recipe.tensor_rt_llm or TensorRTLLM()).flavor


def algorithm_of(recipe: Recipe) -> str:
    """`quant_algo`; empty for 16-bit weights. Raises DeterministicError FormatNotSupported."""
    quantization = recipe.quantization
    wanted = quantization.format if quantization is not None else Format.NONE
    method = quantization.method if quantization is not None else QuantizationMethod.AUTO
    kernel = kernel_of(wanted, method)
    if kernel is None:
        raise DeterministicError(
            "FormatNotSupported",
            f"optimization.quantization.format: TensorRT-LLM has no kernel for {wanted.value} {method.value}",
        )
    return kernel.algorithm


def kv_cache_algorithm_of(recipe: Recipe) -> str:
    """`kv_cache_quant_algo`; empty when keys and values stay as they are."""
    quantization = recipe.quantization
    kernel = kv_kernel_of(quantization.kv_cache_format if quantization is not None else KvCacheFormat.AUTO)
    return kernel.algorithm if kernel is not None else ""


def group_size_of(recipe: Recipe) -> int:
    """Weights per scale of INT4; 128 unless the recipe groups otherwise."""
    quantization = recipe.quantization
    if quantization is None or quantization.granularity is not Granularity.PER_GROUP:
        return DEFAULT_GROUP
    return quantization.group_size or DEFAULT_GROUP


def plan_of(recipe: Recipe, *, batching: Batching | None = None, kv_cache: KvCache | None = None) -> Plan:
    """The plan of a resolved recipe with backend TensorRTLLM. Raises what its parts raise."""
    flavor = flavor_of(recipe)
    algorithm, kv_algorithm = algorithm_of(recipe), kv_cache_algorithm_of(recipe)
    ranks = world_size(recipe.parallelism)
    image = tensorrt_llm_image(flavor)
    if flavor is TensorRTLLMFlavor.PYTORCH:
        arguments = llm_arguments(
            model=str(CHECKPOINT),
            limits=recipe.limits,
            parallelism=recipe.parallelism,
            quantization=recipe.quantization,
            kv_cache=kv_cache,
            speculative=recipe.speculative_decoding,
        )
        return Plan(
            image=image,
            flavor=flavor,
            algorithm=algorithm,
            kv_cache_algorithm=kv_algorithm,
            world_size=ranks,
            commands=(tuple(launch_llmapi(str(REPOSITORY))),),
            files={
                f"{MODEL}/config.pbtxt": render_llmapi_config(),
                f"{MODEL}/1/model.yaml": render_llmapi_model(arguments),
            },
        )
    flags = build_flags(
        checkpoint=CHECKPOINT,
        engine=ENGINE,
        limits=recipe.limits,
        world_size=ranks,
        algorithm=algorithm,
        kv_cache_algorithm=kv_algorithm,
    )
    return Plan(
        image=image,
        flavor=flavor,
        algorithm=algorithm,
        kv_cache_algorithm=kv_algorithm,
        world_size=ranks,
        commands=(tuple(flags.arguments()), tuple(launch_engine(str(REPOSITORY), ranks))),
        checkpoint={
            "mapping": mapping_of(recipe.parallelism),
            "quantization": quantization_of(algorithm, kv_algorithm, group_size=group_size_of(recipe)),
        },
        placeholders=placeholder_values(
            engine=str(ENGINE),
            tokenizer=str(TOKENIZER),
            limits=recipe.limits,
            batching=batching or Batching(),
            kv_cache=kv_cache,
        ),
    )
