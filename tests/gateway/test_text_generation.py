"""The official OpenAI client against the gateway, a real tritonserver and SmolLM2-135M."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from enginewright_api.errors import TransientError
from enginewright_cli.demo import chat as demo_chat
from tests.gateway.running_gateway import RunningGateway
from tests.gateway.triton_process import missing
from tests.required import cannot_run
from tests.serving.language_models import language_model
from tests.serving.servers import Server, run_cli, serving

FRANCE = [{"role": "user", "content": "What is the capital of France?"}]
COUNTING = "1, 2, 3, 4, 5, 6,"
"""Goes on for as long as it may."""
RUNNING = "enginewright_engine_running"
STORY = [{"role": "user", "content": "Tell me a long story about a lighthouse."}]


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Triton repository of the model."""
    if reason := missing():
        cannot_run(reason)
    folder = tmp_path_factory.mktemp("smollm2")
    done = run_cli("stage", "--engine", language_model("openvino"), "--dest", folder, "--model-name", "smollm2")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def server(staged: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(staged, "smollm2", tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(server: Server) -> Iterator[RunningGateway]:
    with RunningGateway() as running:
        running.add_model("smollm2", task="TextGeneration", batching={"maxBatchSize": 16})
        running.add_endpoint("one", server.ports["http"], server.ports["grpc"], service="smollm2")
        yield running


@pytest.fixture
def client(gateway: RunningGateway) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="any", max_retries=0, timeout=120)


def chat(client: openai.OpenAI, **options: Any) -> Any:
    """The chat about France at temperature 0, or what the options say."""
    return client.chat.completions.create(
        **({"model": "smollm2", "messages": FRANCE, "temperature": 0, "max_tokens": 24} | options)
    )


def engine_metric(server: Server, name: str, kind: str = "") -> float:
    """A sample of the server's own metrics."""
    text = httpx.get(f"http://127.0.0.1:{server.ports['metrics']}/metrics").text
    lines = [line for line in text.splitlines() if line.startswith(f"{name}{{") and (not kind or f'"{kind}"' in line)]
    found = [line.rpartition(" ")[2] for line in lines]
    assert len(found) == 1, f"{name} in {text}"
    return float(found[0])


def completion_tokens(server: Server) -> float:
    return engine_metric(server, "enginewright_engine_tokens_total", kind="completion")


def until(what: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.05)


def test_it_knows_the_capital_of_france(client: openai.OpenAI) -> None:
    answer = chat(client)
    choice = answer.choices[0]
    assert "Paris" in choice.message.content and choice.message.role == "assistant"
    assert choice.finish_reason == "stop" and choice.logprobs is None
    assert (answer.object, answer.model) == ("chat.completion", "smollm2")
    assert answer.usage.prompt_tokens == 37
    assert answer.usage.total_tokens == 37 + answer.usage.completion_tokens
    assert answer.usage.prompt_tokens_details is None  # the runtime does not tell, so nothing is claimed


def test_a_stream_says_what_the_whole_answer_says(client: openai.OpenAI) -> None:
    whole = chat(client)
    chunks = list(chat(client, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 2) + ["stop"]
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
    assert len({chunk.id for chunk in chunks}) == 1 and len(chunks) > 5
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_events_on_the_wire(gateway: RunningGateway) -> None:
    body = {"model": "smollm2", "messages": FRANCE, "temperature": 0, "max_tokens": 3, "stream": True}
    with httpx.stream("POST", f"{gateway.url}/v1/chat/completions", json=body, timeout=60) as answer:
        text = answer.read().decode()
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert all(event.startswith("data: {") for event in events[:-2])
    assert "usage" not in json.loads(events[0].removeprefix("data: "))


def test_limits_and_stop_strings_end_an_answer(client: openai.OpenAI) -> None:
    short = chat(client, max_completion_tokens=4, max_tokens=openai.omit)
    assert (short.choices[0].finish_reason, short.usage.completion_tokens) == ("length", 4)
    full = chat(client).choices[0].message.content
    for stop in (["capital of"], "Paris", ["xyzzy", " is"]):
        answer = chat(client, stop=stop)
        first = min(full.find(each) for each in ([stop] if isinstance(stop, str) else stop) if each in full)
        assert answer.choices[0].message.content == full[:first]
        assert answer.choices[0].finish_reason == "stop"
        streamed = chat(client, stop=stop, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed) == full[:first]


def test_a_seed_draws_the_same_answer_again(client: openai.OpenAI) -> None:
    def draw(seed: int) -> str:
        return str(chat(client, messages=STORY, temperature=1.0, top_p=0.9, seed=seed).choices[0].message.content)

    assert draw(7) == draw(7)
    assert len({draw(seed) for seed in (7, 8, 9)}) > 1


def test_several_answers(client: openai.OpenAI) -> None:
    answer = chat(client, messages=STORY, n=3, temperature=1.0, seed=5, max_tokens=12)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) > 1
    assert answer.usage.completion_tokens <= 36 and answer.usage.prompt_tokens < 60
    texts = ["", "", ""]
    for chunk in chat(client, messages=STORY, n=3, temperature=1.0, seed=5, max_tokens=12, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == [choice.message.content for choice in answer.choices]


def test_penalties_change_what_is_said(client: openai.OpenAI) -> None:
    options = {"messages": [{"role": "user", "content": "Say the word yes again and again."}], "max_tokens": 40}
    plain = chat(client, **options).choices[0].message.content
    assert chat(client, **options, frequency_penalty=2.0, presence_penalty=2.0).choices[0].message.content != plain


def test_log_probabilities(client: openai.OpenAI) -> None:
    choice = chat(client, logprobs=True).choices[0]
    entries = choice.logprobs.content
    assert b"".join(bytes(entry.bytes) for entry in entries).decode() == choice.message.content
    assert all(entry.logprob <= 0 for entry in entries) and min(entry.logprob for entry in entries) < -0.001
    completion = client.completions.create(
        model="smollm2", prompt="The capital of France is", temperature=0, max_tokens=5, logprobs=0
    )
    found = completion.choices[0].logprobs
    assert "".join(found.tokens) == completion.choices[0].text
    assert found.text_offset[0] == 0 and found.text_offset[-1] + len(found.tokens[-1]) == len(
        completion.choices[0].text
    )


def test_completions_of_several_prompts(client: openai.OpenAI) -> None:
    prompts = ["The capital of France is", "One, two, three,"]
    options: dict[str, Any] = {"model": "smollm2", "temperature": 0, "max_tokens": 6}
    both = client.completions.create(prompt=prompts, n=2, **options)
    alone = [client.completions.create(prompt=prompt, **options).choices[0].text for prompt in prompts]
    assert [choice.text for choice in both.choices] == [alone[0], alone[0], alone[1], alone[1]]
    assert "Paris" in alone[0] and "four" in alone[1]
    texts = [""] * 4
    for chunk in client.completions.create(prompt=prompts, n=2, stream=True, **options):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == [choice.text for choice in both.choices]
    assert client.completions.create(model="smollm2", prompt="a", temperature=0).usage.completion_tokens <= 16


@pytest.mark.parametrize(
    ("options", "param", "says"),
    [
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format", "only type text"),
        ({"tool_choice": "required"}, "tool_choice", "tool_choice"),
        ({"logit_bias": {"5": 1}}, "logit_bias", "not available"),
        ({"top_logprobs": 3, "logprobs": True}, "top_logprobs", "not available"),
        ({"extra_body": {"min_p": 0.1}}, "min_p", "is not a field"),
        ({"temperature": 3}, "temperature", "less than or equal to 2"),
        ({"n": 17}, "n", "less than or equal to 16"),
        ({"max_completion_tokens": 5}, "max_tokens", "either"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "stream: true"),
        ({"messages": []}, "messages", "at least 1"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages",
            "image_url",
        ),
        ({"max_tokens": 100_000}, None, "maxOutputTokens"),
        ({"messages": [{"role": "user", "content": "word " * 600}]}, None, "maxInputTokens"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, None, "no place for tools"),
    ],
    ids=lambda value: str(value)[:30],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_what_cannot_be_done_is_refused_by_name(
    client: openai.OpenAI, options: dict[str, Any], param: str | None, says: str, stream: bool
) -> None:
    if stream and "stream_options" in options:
        return
    with pytest.raises(openai.BadRequestError, match=says) as refused:
        chat(client, **options, stream=stream)
    assert refused.value.param == param
    assert refused.value.type == "invalid_request_error"


def test_other_models_are_told_apart(client: openai.OpenAI, gateway: RunningGateway) -> None:
    with pytest.raises(openai.NotFoundError):
        chat(client, model="other")
    with pytest.raises(openai.BadRequestError, match="gives no embeddings"):
        client.embeddings.create(model="smollm2", input="a")
    gateway.add_model("encoder")
    with pytest.raises(openai.BadRequestError, match="generates no text"):
        chat(client, model="encoder")
    gateway.remove_model("encoder")


def test_tokens_and_times_are_counted(client: openai.OpenAI, gateway: RunningGateway) -> None:
    def counted(kind: str) -> float:
        return gateway.metric("enginewright_tokens_total", model="search/smollm2", kind=kind)

    before = {kind: counted(kind) for kind in ("prompt", "completion")}
    first = gateway.metric("enginewright_time_to_first_token_seconds_count", model="search/smollm2")
    between = gateway.metric("enginewright_inter_token_seconds_count", model="search/smollm2")
    usage = chat(client).usage
    until(lambda: counted("completion") > before["completion"])
    assert counted("prompt") - before["prompt"] == usage.prompt_tokens
    assert counted("completion") - before["completion"] == usage.completion_tokens
    assert gateway.metric("enginewright_time_to_first_token_seconds_count", model="search/smollm2") == first + 1
    now = gateway.metric("enginewright_inter_token_seconds_count", model="search/smollm2")
    assert now - between == usage.completion_tokens - 1


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_client_that_leaves_ends_its_generation(gateway: RunningGateway, server: Server, stream: bool) -> None:
    until(lambda: engine_metric(server, RUNNING) == 0)  # the last level of an answer comes a moment after it
    generated = completion_tokens(server)
    asked = gateway.metric("enginewright_requests_total", model="search/smollm2", code="499")
    url = f"{gateway.url}/v1/completions"
    body = {"model": "smollm2", "prompt": COUNTING, "max_tokens": 500, "stream": stream, "temperature": 0}

    async def ask_and_leave() -> None:
        async with httpx.AsyncClient(timeout=60) as http:
            asking = asyncio.ensure_future(http.post(url, json=body))
            while engine_metric(server, RUNNING) != 1:
                assert not asking.done(), "the answer was whole before the engine told that it ran"
                await asyncio.sleep(0.02)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking

    asyncio.run(asyncio.wait_for(ask_and_leave(), 60))
    until(lambda: engine_metric(server, RUNNING) == 0)
    assert 0 < completion_tokens(server) - generated < 500, "the answer was generated to its end"
    until(lambda: gateway.metric("enginewright_inflight", model="search/smollm2") == 0)
    assert gateway.metric("enginewright_requests_total", model="search/smollm2", code="499") == asked + 1


def test_sixteen_streams_at_once_are_all_whole(client: openai.OpenAI, server: Server) -> None:
    def count(at: int) -> tuple[str, str, int]:
        messages = [{"role": "user", "content": f"Count from {at} upwards, one number a line."}]
        text, finish, tokens = "", "", 0
        options: dict[str, Any] = {"max_tokens": 30, "stream": True, "stream_options": {"include_usage": True}}
        for chunk in chat(client, messages=messages, **options):
            if chunk.choices:
                text += chunk.choices[0].delta.content or ""
                finish = chunk.choices[0].finish_reason or finish
            else:
                tokens = chunk.usage.completion_tokens
        return text, finish, tokens

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(count, range(16)))
    assert all(text and finish in {"stop", "length"} for text, finish, _ in answers)
    assert all(tokens == 30 for _, finish, tokens in answers if finish == "length")
    assert len({text for text, _, _ in answers}) > 8
    until(lambda: engine_metric(server, RUNNING) == 0)


def test_no_character_is_cut_in_a_stream(client: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": "Repeat: 日本語 😀 Ünïcödé 日本語 😀"}]
    chunks = [
        chunk.choices[0].delta.content or ""
        for chunk in chat(client, messages=messages, stream=True, temperature=1.5, seed=3, max_tokens=60)
    ]
    assert any(ord(character) > 127 for chunk in chunks for character in chunk)
    assert all("\ufffd" not in chunk for chunk in chunks[:-2]), chunks  # only an answer cut by its limit may end so


def test_the_demo_chats_and_says_when_an_answer_is_not_to_be_had(gateway: RunningGateway) -> None:
    pieces: list[str] = []
    spoken = demo_chat.ask(gateway.url, "smollm2", demo_chat.QUESTIONS[0], pieces.append, max_tokens=20)
    assert "Paris" in spoken.text == "".join(pieces) and len(pieces) > 3
    assert 3 < spoken.tokens <= 20 and 0 < spoken.first_token_seconds < spoken.seconds and spoken.tokens_per_second > 0
    with pytest.raises(TransientError, match=r"404 .*there is: smollm2"):
        demo_chat.ask(gateway.url, "other", "hello", pieces.append)


def kserve_inputs(prompt: str, *, streaming: bool, tokens: int) -> list[Any]:
    found = []
    for name, datatype, value in (
        ("text_input", "BYTES", prompt.encode()),
        ("streaming", "BOOL", streaming),
        ("sampling_param_max_tokens", "INT32", tokens),
    ):
        tensor = tritonclient.grpc.InferInput(name, [1], datatype)
        kind: Any = {"BYTES": object, "BOOL": bool, "INT32": np.int32}[datatype]
        tensor.set_data_from_numpy(np.array([value], dtype=kind))
        found.append(tensor)
    return found


def test_kserve_streams_pass_through(gateway: RunningGateway) -> None:
    answers: list[Any] = []
    with tritonclient.grpc.InferenceServerClient(gateway.grpc) as client:
        client.start_stream(lambda result, error: answers.append(error or result))
        client.async_stream_infer("smollm2", kserve_inputs("The capital of France is", streaming=True, tokens=6))
        until(lambda: bool(answers) and answers[-1].as_numpy("finish_reason")[0] != b"")
        client.stop_stream()
    assert len(answers) > 2
    assert b"Paris" in b"".join(answer.as_numpy("text_output")[0] for answer in answers)


def test_a_model_process_that_dies_mid_stream_is_an_error_not_an_end(staged: Path, tmp_path: Path) -> None:
    with serving(staged, "smollm2", tmp_path) as server, RunningGateway() as gateway:
        gateway.add_model("smollm2", task="TextGeneration")
        gateway.add_endpoint("one", server.ports["http"], server.ports["grpc"], service="smollm2")
        client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="any", max_retries=0, timeout=60)
        stream = client.completions.create(model="smollm2", prompt=COUNTING, max_tokens=500, stream=True, temperature=0)
        for _ in range(3):
            next(stream)
        os.kill(server.stub_pid(), signal.SIGKILL)
        with pytest.raises(openai.APIError, match=r"search/smollm2"):
            for _ in stream:
                pass
        assert server.process.wait(30) != 0  # and serve asks to be started again
        until(lambda: gateway.metric("enginewright_requests_total", model="search/smollm2", code="503") == 1)


def test_calls_that_have_one_answer_are_told_where_text_is_streamed(gateway: RunningGateway) -> None:
    answer = httpx.post(f"{gateway.url}/v2/models/smollm2/infer", json={"inputs": []})
    assert answer.status_code == 400
    assert "/v1/chat/completions" in answer.json()["error"]
    text = tritonclient.grpc.InferInput("text_input", [1], "BYTES")
    text.set_data_from_numpy(np.array([b"Hello"], np.object_))
    with (
        tritonclient.grpc.InferenceServerClient(gateway.grpc) as asked,
        pytest.raises(InferenceServerException, match="ModelStreamInfer") as refused,
    ):
        asked.infer("smollm2", [text])
    assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"
