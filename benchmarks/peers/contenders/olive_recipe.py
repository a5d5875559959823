"""Olive 0.13: the passes that `olive optimize --precision int8 --exporter dynamo_exporter` writes for the CPU, and
those with its dynamic quantiser instead, as its BERT examples have it.

Its default calibrates on a public set from the hub; here it reads the rows that our engine is calibrated on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onnx_session import session

_ROWS = 128
_BEFORE = {
    "onnx_conversion": {"type": "OnnxConversion", "use_dynamo_exporter": True},
    "onnx_peephole_optimizer": {"type": "OnnxPeepholeOptimizer"},
    "ort_transformers_optimization": {"type": "OrtTransformersOptimization"},
}
_QUANTIZERS: dict[str, dict[str, Any]] = {
    "int8-dynamic": {"type": "OnnxDynamicQuantization"},
    "int8": {
        "type": "OnnxStaticQuantization",
        "precision": "int8",
        "quant_format": "QOperator",
        "op_types_to_exclude": ["GatherBlockQuantized", "GroupQueryAttention", "MatMulNBits"],
        "data_config": "rows",
    },
}


def load(variant: str, checkpoint: Path, folder: Path, threads: int) -> Any:
    """`int8` (its default) or `int8-dynamic`."""
    into = folder / variant
    if not list(into.rglob("*.onnx")):
        import olive

        olive.run(_recipe(variant, checkpoint, into, folder / "calibration.txt"))
    (model,) = into.rglob("*.onnx")
    return session(model, threads)


def _recipe(variant: str, checkpoint: Path, into: Path, texts: Path) -> dict[str, Any]:
    rows = {
        "name": "rows",
        "type": "HuggingfaceContainer",
        "load_dataset_config": {"data_name": "text", "data_files": str(texts), "split": "train"},
        "pre_process_data_config": {
            "strategy": "line-by-line",
            "input_cols": ["text"],
            "add_special_tokens": False,
            "max_samples": _ROWS,
            "max_seq_len": 128,
        },
    }
    return {
        "input_model": {
            "type": "HfModel",
            "model_path": str(checkpoint),
            "load_kwargs": {"attn_implementation": "eager", "trust_remote_code": False},
            "task": "feature-extraction",
        },
        "passes": {**_BEFORE, "quantization": _QUANTIZERS[variant]},
        "systems": {
            "here": {"type": "LocalSystem", "accelerators": [{"execution_providers": ["CPUExecutionProvider"]}]}
        },
        "data_configs": [rows],
        "target": "here",
        "output_dir": str(into),
        "cache_dir": str(into.with_name(f"{into.name}-cache")),
        "log_severity_level": 3,
    }
