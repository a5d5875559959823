"""ModelOpt: a decoder quantised on rows, exported for either flavour. Runs in toolchain `modelopt`, on CPU or GPU.

PyTorch flavour: a Hugging Face checkpoint with hf_quant_config.json. Engine flavour: a TensorRT-LLM checkpoint,
config.json and one rank{N}.safetensors a GPU.
"""

from __future__ import annotations

import copy
import json
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enginewright_api.errors import DeterministicError
from enginewright_api.optimization import Format, KvCacheFormat, Quantization, QuantizationMethod
from enginewright_api.serving_spec import Parallelism
from enginewright_builder.tensorrt_llm.checkpoint_config import completed, quantization_of
from enginewright_builder.tensorrt_llm.huggingface_config import rotary_base
from enginewright_builder.toolchain.inputs import Feed
from enginewright_builder.toolchain.scopes import excluded_nodes

if TYPE_CHECKING:
    import torch
    import transformers

CONFIG = "config.json"
QUANTIZED_CONFIG = "hf_quant_config.json"
_METHOD = QuantizationMethod
_CONFIGURATIONS = {
    (Format.FP8, _METHOD.MIN_MAX): "FP8_DEFAULT_CFG",
    (Format.FP8, _METHOD.DYNAMIC): "FP8_PER_CHANNEL_PER_TOKEN_CFG",
    (Format.INT8, _METHOD.SMOOTH_QUANT): "INT8_SMOOTHQUANT_CFG",
    (Format.INT4, _METHOD.AWQ): "INT4_AWQ_CFG",
    (Format.INT4, _METHOD.MIN_MAX): "INT4_BLOCKWISE_WEIGHT_ONLY_CFG",
    (Format.NVFP4, _METHOD.MIN_MAX): "NVFP4_DEFAULT_CFG",
}
_KV_BITS: dict[KvCacheFormat, object] = {KvCacheFormat.FP8: (4, 3), KvCacheFormat.INT8: 8}
_FUSED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


def load_decoder(checkpoint: Path) -> transformers.PreTrainedModel:
    """The model in 16 bits, as its checkpoint says (float32 ones in bfloat16), in evaluation mode.

    Raises DeterministicError InvalidCheckpoint.
    """
    import torch
    import transformers

    config = json.loads((checkpoint / CONFIG).read_text(encoding="utf-8"))
    written = config.get("dtype") or config.get("torch_dtype")
    torch.manual_seed(0)
    try:
        model, info = transformers.AutoModelForCausalLM.from_pretrained(
            checkpoint,
            dtype=torch.float16 if written == "float16" else torch.bfloat16,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        first = str(error).strip().splitlines()[0]
        raise DeterministicError("InvalidCheckpoint", f"the decoder cannot be loaded: {first}") from error
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise DeterministicError(
            "InvalidCheckpoint", f"the safetensors lack {len(missing)} tensors, first {missing[0]}"
        )
    return model.eval()


def quantize(
    model: transformers.PreTrainedModel, quantization: Quantization, rows: Sequence[Feed], *, group_size: int
) -> list[str]:
    """Insert quantisers and find their scales on the rows, in place. Returns the modules that keep their precision.

    Raises DeterministicError: PatternMatchesNothing, CalibrationEmpty, FormatNotSupported.
    """
    import modelopt.torch.quantization as mtq
    import torch

    weight_only = quantization.format is Format.INT4 and quantization.method is _METHOD.MIN_MAX
    measures = quantization.kv_cache_format in _KV_BITS or not (weight_only or quantization.method is _METHOD.DYNAMIC)
    if measures and not rows:
        raise DeterministicError(
            "CalibrationEmpty", "optimization.quantization.calibration: no row to measure ranges on; give a data set"
        )
    excluded = _excluded(model, quantization.exclude)

    def measure(measured: torch.nn.Module) -> None:
        for row in rows:
            measured(
                input_ids=torch.from_numpy(row["input_ids"]), attention_mask=torch.from_numpy(row["attention_mask"])
            )

    configuration = _configuration(quantization, excluded, group_size=group_size)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mtq.quantize(model, configuration, measure if rows else None)
    if weight_only:
        _unit_activation_scales(model)
    return excluded


def export_huggingface(model: transformers.PreTrainedModel, source: Path, into: Path) -> dict[str, Any]:
    """Quantised Hugging Face checkpoint with the source's tokenizer. Returns hf_quant_config.json's `quantization`.

    Raises DeterministicError CheckpointMismatch when the rotary base got lost.
    """
    from modelopt.torch.export import export_hf_checkpoint

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export_hf_checkpoint(model, export_dir=str(into))
    copy_tokenizer_files(source, into)
    expected = rotary_base(json.loads((source / CONFIG).read_text(encoding="utf-8")))
    written = rotary_base(json.loads((into / CONFIG).read_text(encoding="utf-8")))
    if written != expected:
        raise DeterministicError(
            "CheckpointMismatch", f"{CONFIG} of the quantised checkpoint: rope_theta is {written}, expected {expected}"
        )
    found: dict[str, Any] = json.loads((into / QUANTIZED_CONFIG).read_text(encoding="utf-8"))["quantization"]
    return found


def export_engine_checkpoint(
    model: transformers.PreTrainedModel,
    source: Path,
    into: Path,
    *,
    parallelism: Parallelism,
    algorithm: str,
    kv_cache_algorithm: str = "",
    group_size: int = 128,
) -> dict[str, Any]:
    """TensorRT-LLM checkpoint, one file a rank. Returns its config.json, with everything written out.

    Raises DeterministicError: UnsupportedArchitecture, CheckpointMismatch.
    """
    from modelopt.torch.export import export_tensorrt_llm_checkpoint
    from modelopt.torch.export.model_utils import get_model_type

    decoder = get_model_type(model)
    if decoder is None:
        raise DeterministicError(
            "UnsupportedArchitecture",
            f"engine.tensorRTLLM.flavor: ModelOpt cannot write {type(model).__name__} as an engine's checkpoint;"
            " use flavor PyTorch",
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export_tensorrt_llm_checkpoint(
            model,
            decoder,
            model.dtype,
            str(into),
            inference_tensor_parallel=parallelism.tensor,
            inference_pipeline_parallel=parallelism.pipeline,
        )
    config = completed(
        json.loads((into / CONFIG).read_text(encoding="utf-8")),
        parallelism=parallelism,
        quantization=quantization_of(algorithm, kv_cache_algorithm, group_size=group_size),
        rotary_base=rotary_base(json.loads((source / CONFIG).read_text(encoding="utf-8"))),
    )
    # Every rank reads the same file; the exporter leaves the last rank's number in it.
    config.pop("rank", None)
    (into / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return config


def copy_tokenizer_files(source: Path, into: Path) -> None:
    """The tokenizer's files beside the weights, where the LLM API looks for them."""
    from enginewright_builder.sources.checkpoint import TOKENIZER_FILES

    for name in (*TOKENIZER_FILES, "chat_template.jinja"):
        if (source / name).is_file():
            shutil.copyfile(source / name, into / name)


def _configuration(quantization: Quantization, excluded: Sequence[str], *, group_size: int) -> dict[str, Any]:
    """ModelOpt's configuration: rules in order, the last that matches a quantiser's name decides."""
    import modelopt.torch.quantization as mtq

    name = _CONFIGURATIONS.get((quantization.format, quantization.method))
    scaled = quantization.format not in (Format.NONE, Format.FP16, Format.BF16)
    if scaled and name is None:
        raise DeterministicError(
            "FormatNotSupported",
            f"optimization.quantization.method: ModelOpt has no {quantization.method.value} for"
            f" {quantization.format.value}",
        )
    nothing = {"quant_cfg": [{"quantizer_name": "*", "enable": False}], "algorithm": "max"}
    found: dict[str, Any] = copy.deepcopy(getattr(mtq, name)) if name is not None else nothing
    for rule in found["quant_cfg"]:
        blocks = rule.get("cfg", {}).get("block_sizes") if isinstance(rule.get("cfg"), dict) else None
        if quantization.format is Format.INT4 and blocks:
            blocks[-1] = group_size
    bits = _KV_BITS.get(quantization.kv_cache_format)
    if bits is not None:
        found["quant_cfg"].append(
            {"quantizer_name": "*[kv]_bmm_quantizer", "cfg": {"num_bits": bits, "axis": None}, "enable": True}
        )
    found["quant_cfg"] += [{"quantizer_name": f"{module}.*", "enable": False} for module in excluded]
    return found


def _excluded(model: transformers.PreTrainedModel, patterns: Sequence[str]) -> list[str]:
    """Modules that keep their precision. What is fused at run time is kept or quantised together."""
    import torch

    linears = {name: name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    found = excluded_nodes(linears, patterns)
    for name in found:
        parent, _, last = name.rpartition(".")
        for group in _FUSED:
            split = [f"{parent}.{other}" for other in group if f"{parent}.{other}" in linears] if last in group else []
            left = [other for other in split if other not in found]
            if left:
                raise DeterministicError(
                    "FormatNotSupported",
                    f"optimization.quantization.exclude: {name} is fused with {left[0]} at run time; exclude both",
                )
    return found


def _unit_activation_scales(model: transformers.PreTrainedModel) -> None:
    """Scales of one, in AWQ's place.

    ModelOpt labels every grouped INT4 checkpoint W4A16_AWQ with pre_quant_scale, and TensorRT-LLM then reads a scale
    for each layer; without calibration there is none, and loading fails on the missing tensor.
    """
    import torch

    for module in model.modules():
        quantizer = getattr(module, "weight_quantizer", None)
        if quantizer is not None and quantizer.is_enabled:
            module.input_quantizer._enable_pre_quant_scale = True
            module.input_quantizer.pre_quant_scale = torch.ones(module.in_features, dtype=module.weight.dtype)
