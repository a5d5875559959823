"""TensorRT-LLM: checkpoint → quantised checkpoint (ModelOpt, on any machine) → engine or LLM API (on a GPU).

The graph of this backend is a checkpoint folder: Hugging Face's, or TensorRT-LLM's once an engine is to be built.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from enginewright_api.engine_description import EngineDescription, GpuDeployment
from enginewright_api.errors import DeterministicError
from enginewright_api.nvidia import kernel_of, kv_kernel_of
from enginewright_api.optimization import Format, Granularity, KvCacheFormat, Quantization
from enginewright_api.serving_spec import TensorRTLLMFlavor
from enginewright_builder.nvidia_runtime import ENGINE, LLM_API, toolchain_missing
from enginewright_builder.tensorrt_llm import quantize as modelopt
from enginewright_builder.tensorrt_llm.build_command import PROGRAM, build_flags
from enginewright_builder.tensorrt_llm.huggingface_config import (
    for_transformers_4,
    in_sixteen_bits,
    tokenizer_for_transformers_4,
)
from enginewright_builder.tensorrt_llm.launch import world_size
from enginewright_builder.tensorrt_llm.llm_arguments import llm_arguments
from enginewright_builder.tensorrt_llm.shape import check_group_size, check_parallelism, decoder_shape
from enginewright_builder.toolchain.inputs import Feed

PACKAGE = "tensorrt_llm"
CHECKPOINT = "checkpoint"
"""Folder of a graph."""
_CONFIG, _TOKENIZER_CONFIG, _STRUCTURE = "config.json", "tokenizer_config.json", "structure.json"
_ENGINE_WEIGHTS = "rank0.safetensors"
_DEFAULT_GROUP = 128
_DTYPES = {Format.FP16: "float16", Format.BF16: "bfloat16"}
_SIXTEEN_BITS = (Format.NONE, *_DTYPES)


class TensorRTLLMBackend:
    """Text generation on NVIDIA GPUs."""

    graph = CHECKPOINT
    entry = LLM_API
    package = PACKAGE

    def export(self, checkpoint: Path, description: EngineDescription, into: Path) -> None:
        """The checkpoint as transformers 4 reads it; weights are hard links.

        Raises DeterministicError: ParallelismMismatch, UnsupportedArchitecture.
        """
        if (checkpoint / _STRUCTURE).exists():
            raise DeterministicError(
                "UnsupportedArchitecture",
                f"{_STRUCTURE}: TensorRT-LLM runs the shapes of config.json only; leave out pruning and low rank",
            )
        config = _read(checkpoint / _CONFIG)
        check_parallelism(decoder_shape(config), _deployment(description).parallelism)
        target = into / CHECKPOINT
        target.mkdir()
        for path in sorted(checkpoint.iterdir()):
            if path.is_file() and path.name not in (_CONFIG, _TOKENIZER_CONFIG):
                (target / path.name).hardlink_to(path)
        _write(target / _CONFIG, for_transformers_4(config))
        if (checkpoint / _TOKENIZER_CONFIG).is_file():
            _write(target / _TOKENIZER_CONFIG, tokenizer_for_transformers_4(_read(checkpoint / _TOKENIZER_CONFIG)))

    def quantize(
        self,
        graph: Path,
        description: EngineDescription,
        quantization: Quantization,
        calibration: Sequence[Feed],
        into: Path,
    ) -> dict[str, object]:
        """Quantised checkpoint for the flavour. Returns quantAlgo, kvCacheQuantAlgo and what keeps its precision.

        Without rows keys and values get no scales: the LLM API then stores them in FP8 with scales of one, as asked
        for in its arguments; engines need the scales.
        """
        source, target, deployment = graph / CHECKPOINT, into / CHECKPOINT, _deployment(description)
        group = quantization.group_size if quantization.granularity is Granularity.PER_GROUP else None
        group_size = group or _DEFAULT_GROUP
        engine = deployment.flavor is TensorRTLLMFlavor.ENGINE
        if not calibration and not engine:
            quantization = quantization.model_copy(update={"kv_cache_format": KvCacheFormat.AUTO})
        kernel = kernel_of(quantization.format, quantization.method)
        kv_kernel = kv_kernel_of(quantization.kv_cache_format)
        kv_algorithm = kv_kernel.algorithm if kv_kernel is not None else ""
        if quantization.format in _SIXTEEN_BITS and not kv_algorithm:
            _retyped(source, target, quantization.format)
            return {"excluded": [], "quantAlgo": "", "kvCacheQuantAlgo": ""}
        if kernel is None:
            raise DeterministicError(
                "FormatNotSupported",
                f"optimization.quantization.method: TensorRT-LLM has no kernel for {quantization.format.value}"
                f" {quantization.method.value}",
            )
        if quantization.format is Format.INT4:
            check_group_size(decoder_shape(_read(source / _CONFIG)), group_size, deployment.parallelism.tensor)
        if quantization.format in _DTYPES:
            source = _retyped(source, into.with_name("retyped"), quantization.format)
        model = modelopt.load_decoder(source)
        excluded = modelopt.quantize(model, quantization, calibration, group_size=group_size)
        if engine:
            written = modelopt.export_engine_checkpoint(
                model,
                source,
                target,
                parallelism=deployment.parallelism,
                algorithm=kernel.algorithm,
                kv_cache_algorithm=kv_algorithm,
                group_size=group_size,
            )["quantization"]
        else:
            written = modelopt.export_huggingface(model, source, target)
        return {
            "excluded": excluded,
            "quantAlgo": written["quant_algo"] or "",
            "kvCacheQuantAlgo": written["kv_cache_quant_algo"] or "",
        }

    def compile(self, graph: Path, description: EngineDescription, into: Path) -> None:
        """The checkpoint itself for the LLM API, or an engine by `trtllm-build`.

        Raises DeterministicError: ToolchainMissing naming the image, EngineBuildFailed.
        """
        deployment, checkpoint = _deployment(description), graph / CHECKPOINT
        if deployment.flavor is TensorRTLLMFlavor.PYTORCH:
            if importlib.util.find_spec(PACKAGE) is None:
                raise toolchain_missing(description, PACKAGE, checkpoint)
            shutil.copytree(checkpoint, into / LLM_API, copy_function=_link)
            return
        prepared = (
            checkpoint if (checkpoint / _ENGINE_WEIGHTS).is_file() else _unquantized(checkpoint, deployment, into)
        )
        if shutil.which(PROGRAM) is None:
            raise toolchain_missing(description, PROGRAM, prepared)
        quantized = _read(prepared / _CONFIG)["quantization"]
        flags = build_flags(
            checkpoint=prepared,
            engine=into / ENGINE,
            limits=description.limits,
            world_size=world_size(deployment.parallelism),
            algorithm=quantized["quant_algo"] or "",
            kv_cache_algorithm=quantized["kv_cache_quant_algo"] or "",
        )
        _build(flags.arguments())

    def answers(
        self, engine: Path, description: EngineDescription, feeds: Iterable[Feed], threads: int
    ) -> Iterator[Any]:
        """Logits after each prompt, [1, vocabulary], as the LLM API gives them."""
        import numpy as np
        from tensorrt_llm import SamplingParams

        asked = SamplingParams(max_tokens=1, return_context_logits=True)
        with _llm(engine, description) as llm:
            for feed in feeds:
                prompt = {"prompt_token_ids": feed["input_ids"][0].tolist()}
                logits = llm.generate([prompt], asked)[0].context_logits
                yield np.asarray(logits[-1:].float().cpu())


def _llm(engine: Path, description: EngineDescription) -> Any:
    deployment = _deployment(description)
    if deployment.flavor is TensorRTLLMFlavor.ENGINE:
        from tensorrt_llm import _tensorrt_engine

        return _tensorrt_engine.LLM(model=str(engine / ENGINE))
    from tensorrt_llm import LLM
    from tensorrt_llm.llmapi.llm_utils import update_llm_args_with_extra_dict

    arguments = llm_arguments(
        model=str(engine / LLM_API),
        limits=description.limits,
        parallelism=deployment.parallelism,
        quantization=Quantization(format=Format.NONE, kv_cache_format=deployment.kv_cache_format),
        speculative=deployment.speculative_decoding,
    )
    # As Triton's model reads its YAML: nested settings become the library's own types.
    return LLM(**update_llm_args_with_extra_dict({}, arguments.model_dump(exclude_none=True)))


def _retyped(source: Path, target: Path, wanted: Format) -> Path:
    """The checkpoint with the format's type in config.json; weights are hard links and are cast when they load."""
    shutil.copytree(source, target, copy_function=_link)
    if wanted in _DTYPES:
        config = in_sixteen_bits(_read(target / _CONFIG), _DTYPES[wanted])
        (target / _CONFIG).unlink()  # it is a link to the other one
        _write(target / _CONFIG, config)
    return target


def _unquantized(checkpoint: Path, deployment: GpuDeployment, into: Path) -> Path:
    """An engine is always built from a TensorRT-LLM checkpoint, also when nothing is quantised."""
    target = into.with_name("engine-checkpoint")
    modelopt.export_engine_checkpoint(
        modelopt.load_decoder(checkpoint), checkpoint, target, parallelism=deployment.parallelism, algorithm=""
    )
    return target


def _build(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise DeterministicError("EngineBuildFailed", f"{PROGRAM}: {last[0][:500]}")


def _deployment(description: EngineDescription) -> GpuDeployment:
    if description.tensor_rt_llm is None:
        raise DeterministicError("InternalError", "engine.json: has no tensorRTLLM, which this backend needs")
    return description.tensor_rt_llm


def _link(source: str, target: str) -> None:
    Path(target).hardlink_to(source)


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
