"""Optimum for ONNX Runtime as its documentation says: export, and dynamic INT8 with its settings for VNNI."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onnx_session import session


def load(variant: str, checkpoint: Path, folder: Path, threads: int) -> Any:
    """`fp32` or `int8-dynamic`. The session that Optimum would make, without its wrapper's time."""
    plain = folder / "fp32"
    if not (plain / "model.onnx").exists():
        _export(checkpoint, plain)
    model = plain / "model.onnx"
    if variant == "int8-dynamic":
        model = folder / variant / "model_quantized.onnx"
        if not model.exists():
            _quantize(plain, model.parent)
    return session(model, threads)


def _export(checkpoint: Path, folder: Path) -> None:
    from optimum.onnxruntime import ORTModelForFeatureExtraction

    ORTModelForFeatureExtraction.from_pretrained(checkpoint, export=True).save_pretrained(folder)


def _quantize(plain: Path, folder: Path) -> None:
    from optimum.onnxruntime import ORTQuantizer
    from optimum.onnxruntime.configuration import AutoQuantizationConfig

    settings = AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=False)
    ORTQuantizer.from_pretrained(plain).quantize(save_dir=folder, quantization_config=settings)
