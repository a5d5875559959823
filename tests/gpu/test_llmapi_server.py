"""The rendered `llmapi` repository in NVIDIA's image: the server loads it and generates."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from enginewright_api.engine_description import EngineDescription
from enginewright_api.serving_spec import Limits, Parallelism
from enginewright_builder.datasets.news import calibration_rows
from enginewright_builder.tensorrt_llm.launch import launch_llmapi
from enginewright_builder.tensorrt_llm.llm_arguments import llm_arguments
from enginewright_builder.tensorrt_llm.llmapi_repository import (
    CODE,
    MODEL,
    render_llmapi_config,
    render_llmapi_model,
)
from enginewright_builder.toolchain.tensorrt_llm_backend import TensorRTLLMBackend
from tests.builder.tiny_llama import llm_description, write_tiny_llama

pytestmark = pytest.mark.timeout(1800)


def test_generate(tensorrt_llm: str, tritonserver: Path, tmp_path: Path) -> None:
    if not Path(CODE).is_dir():
        pytest.skip(f"{CODE} is not there; run in NVIDIA's Triton image for TensorRT-LLM")
    source = tmp_path / "llama"
    source.mkdir()
    write_tiny_llama(source, [row.text for row in calibration_rows()[:8]])
    graph = tmp_path / "graph"
    graph.mkdir()
    TensorRTLLMBackend().export(source, EngineDescription.model_validate(llm_description()), graph)
    limits = Limits(max_batch_size=4, max_input_tokens=64, max_output_tokens=32)
    arguments = llm_arguments(model=str(graph / "checkpoint"), limits=limits, parallelism=Parallelism())
    model = tmp_path / "repository" / MODEL
    shutil.copytree(CODE, model / "1")
    (model / "config.pbtxt").write_text(render_llmapi_config())
    (model / "1" / "model.yaml").write_text(render_llmapi_model(arguments))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [*launch_llmapi(str(model.parent)), f"--http-port={port}", "--allow-grpc=false", "--allow-metrics=false"]
    log = tmp_path / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            text = _generated(f"http://127.0.0.1:{port}/v2/models/{MODEL}", process, log)
        finally:
            process.terminate()
            process.wait(timeout=120)
    assert text


def _generated(url: str, process: subprocess.Popen[bytes], log: Path) -> str:
    for _ in range(600):
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            if httpx.get(f"{url}/ready").status_code == 200:
                break
        except httpx.TransportError:
            pass
        time.sleep(1.0)
    asked = {"text_input": "The news today", "sampling_param_max_tokens": 8, "streaming": False}
    # The model is decoupled, so that only the streaming address answers.
    answer = httpx.post(f"{url}/generate_stream", json=asked, timeout=120)
    assert answer.status_code == 200, answer.text
    return answer.text
