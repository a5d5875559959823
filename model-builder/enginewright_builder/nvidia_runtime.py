"""Which runtime of NVIDIA's a recipe is for, and the one sentence for when its tools are not here."""

from __future__ import annotations

from pathlib import Path

from enginewright_api.engine_description import EngineDescription, GpuDeployment
from enginewright_api.errors import DeterministicError
from enginewright_api.nvidia import matrix, newest, tensorrt_image, tensorrt_llm_image
from enginewright_api.optimization import Format, Quantization
from enginewright_api.recipe import Recipe
from enginewright_api.serving_spec import Backend, TensorRTLLM, TensorRTLLMFlavor

PACKAGES = {Backend.TENSORRT_LLM: "tensorrt_llm", Backend.TENSORRT: "tensorrt"}
LLM_API, ENGINE, PLAN = "llmapi", "engine", "model.plan"
"""What the server loads, below engine/. `checkpoint` is taken: it means the eager baseline."""


def entry_of(recipe: Recipe, backend: Backend) -> str:
    """What the server loads, below engine/."""
    if backend is Backend.TENSORRT:
        return PLAN
    return ENGINE if _flavor(recipe) is TensorRTLLMFlavor.ENGINE else LLM_API


def version_of(recipe: Recipe, backend: Backend) -> str:
    """Version of the runtime in the image that builds: TensorRT-LLM's own, and Triton's release for TensorRT."""
    return newest(_flavor(recipe)).tensorrt_llm if backend is Backend.TENSORRT_LLM else matrix().releases[0].triton


def deployment_of(recipe: Recipe, backend: Backend) -> GpuDeployment | None:
    """What engine.json says of TensorRT-LLM."""
    if backend is not Backend.TENSORRT_LLM:
        return None
    return GpuDeployment(
        flavor=_flavor(recipe),
        parallelism=recipe.parallelism,
        speculative_decoding=recipe.speculative_decoding,
        kv_cache_format=(recipe.quantization or Quantization(format=Format.NONE)).kv_cache_format,
    )


def toolchain_missing(description: EngineDescription, tool: str, made: Path) -> DeterministicError:
    """ToolchainMissing: what is not here, which image has it, and what is ready for it."""
    flavor = description.tensor_rt_llm.flavor if description.tensor_rt_llm is not None else TensorRTLLMFlavor.PYTORCH
    llm = description.backend is Backend.TENSORRT_LLM
    image = tensorrt_llm_image(flavor) if llm else tensorrt_image()
    return DeterministicError(
        "ToolchainMissing",
        f"engine.backend: {tool} is not on this machine; build on a GPU node with a builder image made from {image}"
        f" ({made.name} is ready for it)",
    )


def _flavor(recipe: Recipe) -> TensorRTLLMFlavor:
    return (recipe.tensor_rt_llm or TensorRTLLM()).flavor
