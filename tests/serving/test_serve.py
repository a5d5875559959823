"""The real tritonserver on a real engine, through `enginewright-serving stage` and `serve`."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
import tritonclient.http

from tests.serving.engines import built
from tests.serving.servers import Server, alive, children, run_cli, serving

TEXTS = ["A cat sits on the mat.", "Stock prices fell sharply " * 40, "", "Un café, s'il vous plaît 🙂"]


def staged(engine: Path, folder: Path, *options: str) -> Path:
    done = run_cli("stage", "--engine", engine, "--dest", folder / "models", "--model-name", "minilm", *options)
    assert done.returncode == 0, done.stderr
    return folder / "models"


def vectors(server: Server, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    answer = server.infer(texts)["embedding"]
    return np.array(answer["data"], np.float32).reshape(answer["shape"])


@pytest.fixture(scope="module")
def reference() -> tuple[npt.NDArray[np.float32], list[int]]:
    """Vectors and token counts as transformers gives them, text by text, by the model card's own recipe."""
    import torch
    import transformers

    from tests.serving.engines import checkpoint

    tokenizer = transformers.AutoTokenizer.from_pretrained(str(checkpoint()))
    model = transformers.AutoModel.from_pretrained(str(checkpoint())).eval()
    rows, counts = [], []
    with torch.inference_mode():
        for text in TEXTS:
            tokens = tokenizer(text, return_tensors="pt", truncation=True, max_length=256)
            states = model(**tokens).last_hidden_state
            counts.append(tokens["input_ids"].shape[1])
            rows.append(torch.nn.functional.normalize(states.mean(1), dim=-1)[0].numpy())
    return np.array(rows), counts


@pytest.mark.parametrize("kind", ["openvino", "onnx", "torch"])
def test_every_backend_gives_the_models_vectors(
    kind: str, reference: tuple[npt.NDArray[np.float32], list[int]], tmp_path: Path
) -> None:
    """Together and one by one: padding, grouping and order change nothing."""
    expected, counts = reference
    with serving(staged(built(kind), tmp_path), "minilm", tmp_path) as server:
        np.testing.assert_allclose(vectors(server, TEXTS), expected, atol=2e-5)
        for row, text in enumerate(TEXTS):
            np.testing.assert_allclose(vectors(server, [text])[0], expected[row], atol=2e-5)
        assert server.infer(TEXTS)["tokens"]["data"] == counts


def test_requests_that_share_an_execution_keep_their_own_answers(openvino_server: Server) -> None:
    texts = [f"sentence number {n} " * (1 + n % 7) for n in range(24)]
    alone = [vectors(openvino_server, [text])[0] for text in texts]
    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(lambda text: vectors(openvino_server, [text])[0], texts))
    np.testing.assert_allclose(together, alone, atol=2e-5)


def test_malformed_text_fails_alone(openvino_server: Server) -> None:
    """Requests are held back by a first long one, so that they are executed together."""
    address = openvino_server.url("").removeprefix("http://").rstrip("/")

    def ask(value: bytes) -> Any:
        client = tritonclient.http.InferenceServerClient(address)
        tensor = tritonclient.http.InferInput("text", [1, 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[value]], dtype=object))
        try:
            return client.infer("minilm", [tensor]).as_numpy("embedding").shape
        except tritonclient.http.InferenceServerException as error:
            return str(error)
        finally:
            client.close()

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(ask, [b"\xff\xfe" if n % 3 == 0 else b"fine " * 50 for n in range(12)]))
    for n, answer in enumerate(answers):
        if n % 3 == 0:
            assert "text[0]: not valid UTF-8" in answer
        else:
            assert answer == (1, 384)


def test_a_batch_over_the_limit_is_the_clients_mistake(openvino_server: Server) -> None:
    with pytest.raises(httpx.HTTPStatusError) as caught:
        openvino_server.infer(["x"] * 33)
    assert caught.value.response.status_code == 400


def test_health_says_why(openvino_server: Server) -> None:
    answer = httpx.get(f"http://127.0.0.1:{openvino_server.ports['health']}/readyz").json()
    assert answer == {"ready": True, "alive": True, "reason": "the model answers"}
    assert openvino_server.health("/livez") == 200
    assert openvino_server.health("/metrics") == 404
    metrics = httpx.get(f"http://127.0.0.1:{openvino_server.ports['metrics']}/metrics").text
    assert "nv_inference_request_summary_us" in metrics


def test_a_dead_model_process_ends_the_server_at_the_next_look(openvino_engine: Path, tmp_path: Path) -> None:
    """tritonserver itself goes on saying that it is ready."""
    with serving(staged(openvino_engine, tmp_path), "minilm", tmp_path) as server:
        os.kill(server.stub_pid(), signal.SIGKILL)
        assert httpx.get(server.url("/v2/models/minilm/ready")).status_code == 200
        server.until(lambda: server.process.poll() is not None, seconds=10)
        assert server.process.returncode == 22
        assert server.events("failed")[0]["reason"] == "EngineDead"


def test_a_dead_server_is_noticed_at_once(openvino_engine: Path, tmp_path: Path) -> None:
    with serving(staged(openvino_engine, tmp_path), "minilm", tmp_path) as server:
        os.kill(server.events("server-started")[0]["pid"], signal.SIGKILL)
        server.until(lambda: server.process.poll() is not None, seconds=10)
        assert server.process.returncode == 22
        assert server.events("failed")[0]["reason"] == "ServerDied"


def test_a_server_can_be_looked_at_seldom(openvino_engine: Path, tmp_path: Path) -> None:
    """Then it computes nothing for its own sake, stays ready, and its end is noticed all the same."""
    with serving(staged(openvino_engine, tmp_path), "minilm", tmp_path, "--look-seconds", "60") as server:
        first = successes(server)
        time.sleep(4.0)
        assert server.health("/readyz") == 200
        assert successes(server) == first
        os.kill(server.events("server-started")[0]["pid"], signal.SIGKILL)
        assert server.process.wait(timeout=10) == 22


def successes(server: Server) -> int:
    (model,) = httpx.get(server.url("/v2/models/minilm/stats"), timeout=5).json()["model_stats"]
    return int(model["inference_stats"]["success"]["count"])


def test_nothing_outlives_a_killed_wrapper(openvino_engine: Path, tmp_path: Path) -> None:
    with serving(staged(openvino_engine, tmp_path), "minilm", tmp_path) as server:
        started = server.events("server-started")[0]["pid"]
        family = [started, *children(started)]
        assert len(family) >= 2
        server.process.kill()
        server.process.wait()
        server.until(lambda: not any(alive(pid) for pid in family), seconds=20)
        left = _regions(server)
    with serving(tmp_path / "models", "minilm", tmp_path) as successor:
        assert not any(region.exists() for region in left)
        assert _regions(successor)
    assert not _regions(successor)


def test_what_is_in_flight_at_sigterm_is_answered(openvino_engine: Path, tmp_path: Path) -> None:
    """Seconds of work, more than the server itself waits for at its end."""
    with serving(staged(openvino_engine, tmp_path), "minilm", tmp_path, "--drain-seconds", "120") as server:
        texts = ["a text that takes a while " * 16] * 32  # a whole batch: requests cannot share an execution
        with ThreadPoolExecutor(12) as pool:
            asked = [pool.submit(lambda: server.infer(texts, timeout=120)) for _ in range(12)]
            server.until(lambda: _pending(server) >= 8, seconds=20)
            server.process.send_signal(signal.SIGTERM)
            server.until(lambda: server.health("/readyz") != 200, seconds=5)
            assert [answer.result()["embedding"]["shape"] for answer in asked] == [[32, 384]] * 12
        assert server.process.wait(timeout=30) == 0
        assert server.events("drained")[0]["idle"] is True


def test_what_arrives_during_an_execution_runs_right_after_it(openvino_server: Server) -> None:
    """Triton's own queue policies let one in five wait for half a second, unless something else arrives."""

    def ended(texts: Sequence[str]) -> float:
        openvino_server.infer(texts)
        return time.monotonic()

    waits = []
    with ThreadPoolExecutor(2) as pool:
        for _ in range(60):
            first = pool.submit(ended, ["a text that takes a while"] * 32)
            time.sleep(0.02)
            second = pool.submit(ended, ["a text that takes a while"] * 32)
            waits.append(second.result() - first.result())
    slow = [wait for wait in waits if wait > 0.4]
    assert len(slow) <= 2, slow


def _regions(server: Server) -> list[Path]:
    """Shared memory of the server's Python backend."""
    return list(Path("/dev/shm").glob(f"enginewright-{server.process.pid}-*"))


def _pending(server: Server) -> int:
    text = httpx.get(f"http://127.0.0.1:{server.ports['metrics']}/metrics").text
    lines = [line for line in text.splitlines() if line.startswith("nv_inference_pending_request_count{")]
    return sum(int(line.rpartition(" ")[2]) for line in lines)


@pytest.mark.parametrize(
    ("damage", "says"),
    [("engine/openvino.xml", "minilm"), ("tokenizer/tokenizer.json", "minilm")],
)
def test_an_engine_that_does_not_load_is_told_with_the_servers_words(
    openvino_engine: Path, tmp_path: Path, damage: str, says: str
) -> None:
    import shutil

    shutil.copytree(openvino_engine, tmp_path / "engine")
    (tmp_path / "engine" / damage).write_text("not what it should be")
    message = tmp_path / "termination"
    env_before = os.environ.get("TERMINATION_MESSAGE_PATH")
    os.environ["TERMINATION_MESSAGE_PATH"] = str(message)
    try:
        with serving(staged(tmp_path / "engine", tmp_path), "minilm", tmp_path, ready=False) as server:
            server.until(lambda: server.process.poll() is not None, seconds=60)
            assert server.process.returncode == 20
    finally:
        if env_before is None:
            del os.environ["TERMINATION_MESSAGE_PATH"]
        else:
            os.environ["TERMINATION_MESSAGE_PATH"] = env_before
    told = json.loads(message.read_text())
    assert (told["class"], told["reason"]) == ("Deterministic", "EngineLoadFailed")
    assert says in told["message"]
    assert "load failed for model" in told["message"]


def test_serve_without_a_staged_model_says_what_to_run(tmp_path: Path) -> None:
    ports = ["--http-port", "1", "--grpc-port", "1", "--metrics-port", "1", "--health-port", "1"]
    done = run_cli("serve", "--repository", tmp_path, "--model", "minilm", *ports)
    assert done.returncode == 20
    assert "run admit or stage" in done.stderr
