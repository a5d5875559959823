"""Official clients against the gateway in front of a real tritonserver."""

from __future__ import annotations

import base64
import queue
from types import ModuleType
from typing import Any

import numpy as np
import openai
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from tests.gateway.running_gateway import RunningGateway
from tests.gateway.triton_process import TritonProcess
from tests.written import Written

CLIENTS = pytest.mark.parametrize("library", [tritonclient.http, tritonclient.grpc], ids=["http", "grpc"])


def kserve(library: ModuleType, gateway: RunningGateway) -> Any:
    """A tritonclient on the gateway."""
    url = gateway.grpc if library is tritonclient.grpc else gateway.url.removeprefix("http://")
    return library.InferenceServerClient(url)


def text_input(library: ModuleType, *texts: str, binary: bool = True) -> Any:
    """The `text` tensor."""
    tensor = library.InferInput("text", [len(texts), 1], "BYTES")
    array = np.array([[text.encode()] for text in texts], dtype=object)
    if library is tritonclient.http:
        tensor.set_data_from_numpy(array, binary_data=binary)
    else:
        tensor.set_data_from_numpy(array)
    return tensor


@pytest.fixture
def client(gateway: RunningGateway) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="any", max_retries=0)


def direct(triton: TritonProcess, *texts: str) -> np.ndarray:
    """What the server itself answers."""
    server = tritonclient.http.InferenceServerClient(f"127.0.0.1:{triton.http_port}")
    return server.infer("words", [text_input(tritonclient.http, *texts)]).as_numpy("embedding")


@pytest.mark.parametrize("encoding", ["float", "base64", openai.omit])
def test_openai_embeddings_are_the_servers_numbers(client: openai.OpenAI, triton: TritonProcess, encoding: Any) -> None:
    answer = client.embeddings.create(model="words", input=["good morning", "night"], encoding_format=encoding)
    vectors = [
        np.frombuffer(base64.b64decode(item.embedding), dtype="<f4")
        if isinstance(item.embedding, str)
        else np.array(item.embedding, dtype=np.float32)
        for item in answer.data
    ]
    np.testing.assert_array_equal(np.stack(vectors), direct(triton, "good morning", "night"))
    assert (answer.usage.prompt_tokens, answer.model) == (3, "words")


def test_more_inputs_than_the_engine_takes_come_back_in_order(client: openai.OpenAI, triton: TritonProcess) -> None:
    texts = [f"text {index}" for index in range(53)]
    answer = client.embeddings.create(model="search/words", input=texts)
    assert [item.index for item in answer.data] == list(range(53))
    assert answer.usage.prompt_tokens == 106
    np.testing.assert_array_equal(np.array(answer.data[52].embedding, np.float32), direct(triton, "text 52")[0])


def test_dimensions_shorten(client: openai.OpenAI) -> None:
    full = np.array(client.embeddings.create(model="words", input="a").data[0].embedding)
    short = np.array(client.embeddings.create(model="words", input="a", dimensions=32).data[0].embedding)
    np.testing.assert_allclose(short, full[:32] / np.linalg.norm(full[:32]), rtol=1e-5)


def test_models_are_listed_and_found(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["words"]
    assert client.models.retrieve("words").owned_by == "search"
    with pytest.raises(openai.NotFoundError, match="there is: words"):
        client.models.retrieve("other")


def test_openai_errors_are_the_clients_own_classes(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.embeddings.create(model="other", input="a")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="token ids"):
        client.embeddings.create(model="words", input=[[1, 2]])
    with pytest.raises(openai.InternalServerError, match="/v1/moderations is not available"):
        client.moderations.create(input="hello")
    with pytest.raises(openai.InternalServerError, match="asked to fail"):
        client.embeddings.create(model="words", input="fail")


@CLIENTS
def test_kserve_health_and_metadata(gateway: RunningGateway, library: ModuleType) -> None:
    client = kserve(library, gateway)
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("words")
    as_json = {"as_json": True} if library is tritonclient.grpc else {}
    assert client.get_server_metadata(**as_json)["name"] == "enginewright"
    metadata = client.get_model_metadata("words", **as_json)
    assert {output["name"] for output in metadata["outputs"]} == {"embedding", "tokens"}
    config = client.get_model_config("words", **as_json)
    assert config.get("config", config)["backend"] == "python"


@CLIENTS
@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
def test_kserve_infer_is_the_servers_answer(
    gateway: RunningGateway, triton: TritonProcess, library: ModuleType, binary: bool
) -> None:
    result = kserve(library, gateway).infer("words", [text_input(library, "good day", "x", binary=binary)])
    np.testing.assert_array_equal(result.as_numpy("embedding"), direct(triton, "good day", "x"))
    assert result.as_numpy("tokens").tolist() == [[2], [1]]


@CLIENTS
def test_kserve_refusals(gateway: RunningGateway, library: ModuleType) -> None:
    client = kserve(library, gateway)
    with pytest.raises(InferenceServerException, match="there is: words") as missing:
        client.infer("other", [text_input(library, "a")])
    assert missing.value.status() in {"404", "StatusCode.NOT_FOUND"}
    with pytest.raises(InferenceServerException, match="batch-size must be <= 8") as large:
        client.infer("words", [text_input(library, *"abcdefghi")])
    assert large.value.status() in {"400", "StatusCode.INVALID_ARGUMENT"}
    with pytest.raises(InferenceServerException, match=r"not available|does not exist"):
        client.load_model("words")


def test_http_compression_of_answers_passes_through(gateway: RunningGateway, triton: TritonProcess) -> None:
    result = kserve(tritonclient.http, gateway).infer(
        "words", [text_input(tritonclient.http, "a")], response_compression_algorithm="gzip"
    )
    np.testing.assert_array_equal(result.as_numpy("embedding"), direct(triton, "a"))


def test_grpc_streams_carry_several_models_and_survive_refusals(gateway: RunningGateway) -> None:
    client = kserve(tritonclient.grpc, gateway)
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for text in ("one", "two words", "and three words"):
        client.async_stream_infer("words", [text_input(tritonclient.grpc, text)])
    tokens = [int(answers.get(timeout=10)[0].as_numpy("tokens")[0, 0]) for _ in range(3)]
    assert tokens == [1, 2, 3]
    client.async_stream_infer("other", [text_input(tritonclient.grpc, "a")])
    assert "there is: words" in str(answers.get(timeout=10)[1])
    client.async_stream_infer("words", [text_input(tritonclient.grpc, "a b")])
    assert int(answers.get(timeout=10)[0].as_numpy("tokens")[0, 0]) == 2
    client.stop_stream()


def test_the_namespace_can_be_said_in_a_header(gateway: RunningGateway) -> None:
    for library in (tritonclient.http, tritonclient.grpc):
        client = kserve(library, gateway)
        tensor = text_input(library, "a")
        assert client.infer("words", [tensor], headers={"enginewright-namespace": "search"}) is not None
        with pytest.raises(InferenceServerException, match="sales/words"):
            client.infer("words", [tensor], headers={"enginewright-namespace": "sales"})


def test_the_namespace_can_be_said_in_the_name_by_grpc(gateway: RunningGateway, triton: TritonProcess) -> None:
    """The server behind knows the model by its name alone."""
    client, name = kserve(tritonclient.grpc, gateway), "search/words"
    assert client.is_model_ready(name)
    assert client.get_model_metadata(name, as_json=True)["name"] == "words"
    result = client.infer(name, [text_input(tritonclient.grpc, "good day")])
    np.testing.assert_array_equal(result.as_numpy("embedding"), direct(triton, "good day"))
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    client.async_stream_infer(name, [text_input(tritonclient.grpc, "a b")])
    answer, error = answers.get(timeout=10)
    assert error is None
    assert int(answer.as_numpy("tokens")[0, 0]) == 2
    client.stop_stream()


def test_requests_are_counted_under_their_model(gateway: RunningGateway, client: openai.OpenAI) -> None:
    labels = {"model": "search/words", "code": "200"}
    before = gateway.metric("enginewright_requests_total", **labels)
    tokens = gateway.metric("enginewright_tokens_total", model="search/words", kind="prompt")
    client.embeddings.create(model="words", input="three words here")
    kserve(tritonclient.grpc, gateway).infer("words", [text_input(tritonclient.grpc, "a")])
    kserve(tritonclient.http, gateway).infer("words", [text_input(tritonclient.http, "a")])
    assert gateway.metric("enginewright_requests_total", **labels) == before + 3
    assert gateway.metric("enginewright_tokens_total", model="search/words", kind="prompt") == tokens + 3
    assert gateway.metric("enginewright_request_seconds_count", model="search/words") >= 3
    assert gateway.metric("enginewright_inflight", model="search/words") == 0


def test_log_lines_tell_model_code_and_time_and_no_content(
    gateway: RunningGateway, client: openai.OpenAI, triton: TritonProcess, written: Written
) -> None:
    client.embeddings.create(model="words", input="confidential words")
    kserve(tritonclient.grpc, gateway).infer("words", [text_input(tritonclient.grpc, "confidential")])
    lines = written.lines("request")
    assert [(line["protocol"], line["model"], line["code"]) for line in lines] == [
        ("http", "search/words", "200"),
        ("grpc", "search/words", "200"),
    ]
    assert all(line["ms"] > 0 and line["time"] for line in lines)
    assert {line["endpoint"] for line in lines} == {f"127.0.0.1:{triton.http_port}"}, "the server that answered"
    assert "confidential" not in written.stream.getvalue()
