"""Optimum for OpenVINO as its documentation says: export, weights in INT8, and full INT8 by its own defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_MODEL = "openvino_model.xml"


def load(variant: str, checkpoint: Path, folder: Path, threads: int) -> Any:
    """`default` (the plugin's own precision), `fp32`, `int8-weights` or `int8-full`."""
    import openvino

    plain = folder / "fp32"
    if not (plain / _MODEL).exists():
        _export(checkpoint, plain)
    model = plain
    if variant.startswith("int8"):
        model = folder / variant
        if not (model / _MODEL).exists():
            _quantize(variant, plain, model, folder / "calibration.txt")
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    if variant == "fp32":
        settings["INFERENCE_PRECISION_HINT"] = "f32"
    request = openvino.Core().compile_model(model / _MODEL, "CPU", settings).create_infer_request()
    names = {name for port in request.model_inputs for name in port.get_names()}

    def run(ids: Any, mask: Any) -> Any:
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": ids * 0}
        kept = {name: value for name, value in feed.items() if name in names}
        return request.infer(kept, share_inputs=True, share_outputs=True)[0]

    return run


def _export(checkpoint: Path, folder: Path) -> None:
    import transformers
    from optimum.intel import OVModelForFeatureExtraction

    OVModelForFeatureExtraction.from_pretrained(checkpoint, export=True, compile=False).save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(checkpoint).save_pretrained(folder)


def _quantize(variant: str, plain: Path, folder: Path, texts: Path) -> None:
    import datasets
    import transformers
    from optimum.intel import OVModelForFeatureExtraction, OVQuantizationConfig, OVQuantizer, OVWeightQuantizationConfig

    model = OVModelForFeatureExtraction.from_pretrained(plain, compile=False)
    if variant == "int8-weights":
        OVQuantizer.from_pretrained(model).quantize(
            ov_config=_config(OVWeightQuantizationConfig(bits=8)), save_directory=folder
        )
        return
    # Its documentation calibrates on a public set; these are the rows that our engine is calibrated on.
    tokenizer = transformers.AutoTokenizer.from_pretrained(plain)
    rows = datasets.Dataset.from_dict({"text": texts.read_text(encoding="utf-8").splitlines()})
    rows = rows.map(lambda row: tokenizer(row["text"], truncation=True, max_length=128), remove_columns=["text"])
    quantizer = OVQuantizer.from_pretrained(model)
    quantizer.quantize(
        ov_config=_config(OVQuantizationConfig(num_samples=len(rows))), calibration_dataset=rows, save_directory=folder
    )


def _config(quantization: Any) -> Any:
    from optimum.intel import OVConfig

    return OVConfig(quantization_config=quantization)
