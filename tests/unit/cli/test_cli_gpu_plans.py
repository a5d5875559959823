"""`enginewright plan` shows what a GPU node would run, on a machine without one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

from enginewright_cli.authoring import register
from tests.objects.table import model
from tests.scenarios.models import gpu_class

FORMATS = ["FP16", "BF16", "FP8", "INT8", "INT4"]


def planned(tmp_path: Path, item: dict[str, Any], capability: str, *options: str) -> Any:
    hardware = gpu_class("nvidia-h100", computeCapability=capability, formats=FORMATS)
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all([hardware, item]))
    arguments = ["plan", "-f", str(tmp_path / "all.yaml"), *options]
    app = typer.Typer()
    register(app)
    return CliRunner().invoke(app, arguments, env={"ENGINEWRIGHT_HOME": str(tmp_path), "COLUMNS": "200"})


def chat(**changes: Any) -> dict[str, Any]:
    return model(
        **{
            "task": "TextGeneration",
            "optimization": {"quantization": {"format": "FP8", "kvCacheFormat": "FP8"}},
            "parallelism": {"tensor": 2},
            "hardware": {"acceleratorClasses": ["nvidia-h100"], "acceleratorsPerReplica": 2},
            **changes,
        }
    )


@pytest.mark.parametrize(
    ("flavor", "words"),
    [
        ("PyTorch", ("tensor_parallel_size: 2", "dtype: fp8", "tritonserver --model-repository")),
        ("Engine", ("trtllm-build --checkpoint_dir", "tp_size: 2", "quant_algo: FP8", "mpirun")),
    ],
)
def test_a_language_model(tmp_path: Path, flavor: str, words: tuple[str, ...]) -> None:
    item = chat(engine={"tensorRTLLM": {"flavor": flavor}})
    done = planned(tmp_path, item, "9.0")
    assert done.exit_code == 0, done.output
    for word in ("image: nvcr.io/nvidia/tritonserver:26.07-trtllm-python-py3", "gpus: 2", *words):
        assert word in done.stdout
    (row,) = json.loads(planned(tmp_path, item, "9.0", "-o", "json").stdout)
    assert row["onGpu"]["gpus"] == 2


def test_an_encoder(tmp_path: Path) -> None:
    item = model(
        optimization={"quantization": {"format": "FP16"}},
        hardware={"acceleratorClasses": ["nvidia-h100"]},
        engine={"limits": {"maxBatchSize": 8, "maxInputTokens": 128}},
    )
    done = planned(tmp_path, item, "9.0")
    assert done.exit_code == 0, done.output
    assert "image: nvcr.io/nvidia/tritonserver:26.07-py3" in done.stdout
    assert "trtexec --onnx=model.onnx" in done.stdout
    assert "--maxShapes=input_ids:8x128,attention_mask:8x128" in done.stdout


def test_what_the_gpu_lacks_is_said_at_once(tmp_path: Path) -> None:
    done = planned(tmp_path, chat(), "8.6")
    assert done.exit_code == 1
    assert (
        "format FP8 with method MinMax needs compute capability 8.9 or later; class nvidia-h100 has 8.6"
        in str(done.exception) + done.output
    )


def test_the_class_taken_and_why_not_those_before_it(tmp_path: Path) -> None:
    hardware = {"acceleratorClasses": ["nvidia-h100", "cpu"]}
    item = model(optimization={"quantization": {"format": "INT8"}}, engine={"backend": "OpenVINO"}, hardware=hardware)
    done = planned(tmp_path, item, "9.0")
    assert done.exit_code == 0, done.output
    said = (
        "class cpu of nvidia-h100, cpu; nvidia-h100: hardware.acceleratorClasses: backend OpenVINO runs on vendor cpu"
    )
    assert said in done.stdout
    both = model(optimization={"quantization": {"format": "FP16"}}, hardware=hardware)
    assert "class nvidia-h100 of nvidia-h100, cpu." in planned(tmp_path, both, "9.0").stdout


def test_the_nodes_that_a_cluster_counted(tmp_path: Path) -> None:
    condition = {
        "type": "HasNodes",
        "status": "False",
        "reason": "NoNodes",
        "lastTransitionTime": "2026-05-04T09:12:00Z",
    }
    counted = gpu_class("nvidia-h100", computeCapability="9.0", formats=FORMATS) | {
        "status": {"conditions": [condition]}
    }
    item = model(
        optimization={"quantization": {"format": "FP16"}}, hardware={"acceleratorClasses": ["nvidia-h100", "cpu"]}
    )
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all([counted, item]))
    app = typer.Typer()
    register(app)
    given = {"ENGINEWRIGHT_HOME": str(tmp_path), "COLUMNS": "200"}
    done = CliRunner().invoke(app, ["plan", "-f", str(tmp_path / "all.yaml")], env=given)
    assert "class cpu of nvidia-h100, cpu; nvidia-h100: no nodes since 2026-05-04T09:12:00Z." in done.stdout, (
        done.output
    )
