"""/v1/chat/completions and /v1/completions: what is taken, refused and sent on; how answers are written."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from enginewright_gateway.errors import NotNowError, RefusedError
from enginewright_gateway.generating import Chunk
from enginewright_gateway.openai_answers import ChatShape, CompletionShape, Writer
from enginewright_gateway.openai_generation import parse_chat, parse_completion
from enginewright_gateway.wire import Input, stream_answer, string_field

HELLO = [{"role": "user", "content": "hello"}]


def chat(**fields: Any) -> Any:
    return parse_chat(json.dumps({"model": "m", "messages": HELLO} | fields).encode())


def completion(**fields: Any) -> Any:
    return parse_completion(json.dumps({"model": "m", "prompt": "a"} | fields).encode())


def sent(inputs: list[Input]) -> dict[str, Any]:
    """Values of the tensors by name without the common prefix."""
    kinds = {"FP32": "<f4", "INT32": "<i4", "UINT64": "<u8", "BOOL": "?"}
    return {
        each.name.removeprefix("sampling_param_"): each.raw[4:]
        if each.datatype == "BYTES"
        else np.frombuffer(each.raw, kinds[each.datatype])[0].item()
        for each in inputs
    }


def test_defaults_are_openais() -> None:
    assert sent(chat().sampling_inputs()) == {"streaming": True, "temperature": 1.0, "n": 1, "logprobs": 0}
    assert sent(completion().sampling_inputs())["max_tokens"] == 16


def test_every_parameter_reaches_the_engine() -> None:
    wanted = chat(
        temperature=0, top_p=0.5, top_k=7, n=2, seed=-1, frequency_penalty=0.5, presence_penalty=-0.5, stop="x",
        max_completion_tokens=9, logprobs=True,
    )  # fmt: skip
    assert sent(wanted.sampling_inputs()) == {
        "streaming": True, "temperature": 0.0, "top_p": 0.5, "top_k": 7, "n": 2, "seed": 2**64 - 1,
        "frequency_penalty": 0.5, "presence_penalty": -0.5, "stop": b'["x"]', "max_tokens": 9, "logprobs": 1,
    }  # fmt: skip


def test_null_and_neutral_values_mean_left_out() -> None:
    fields = dict.fromkeys(("max_tokens", "temperature", "top_p", "n", "stop", "seed", "stream", "tools", "logprobs"))
    neutral = {"logit_bias": {}, "store": False, "top_logprobs": 0, "response_format": {"type": "text"}}
    assert sent(chat(**fields, **neutral).sampling_inputs()) == sent(chat().sampling_inputs())


def test_messages_and_tools_go_to_the_template() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages = [{"role": "user", "content": parts}, {"role": "assistant", "tool_calls": [{"id": "1"}], "content": None}]
    tools = [{"type": "function", "function": {"name": "f"}}]
    (inputs,) = chat(messages=messages, tools=tools, tool_choice="auto").prompts()
    found = sent(inputs)
    assert json.loads(found["messages"]) == [
        {"role": "user", "content": "ab"},
        {"role": "assistant", "tool_calls": [{"id": "1"}], "content": ""},
    ]
    assert json.loads(found["tools"]) == tools
    (without,) = chat(tools=tools, tool_choice="none").prompts()
    assert "tools" not in sent(without)


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"messages": "hello"}, "messages", "messages: "),
        ({"messages": [{"content": "a"}]}, "messages", "messages.0.role: is missing"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages", "messages.0.content"),
        ({"messages": [{"role": "user", "content": None}]}, "messages", "messages.0.content"),
        ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
        ({"max_tokens": 1.5}, "max_tokens", "valid integer"),
        ({"temperature": "hot"}, "temperature", "valid number"),
        ({"top_p": 0}, "top_p", "greater than 0"),
        ({"stop": [""]}, "stop", "stop: must be a text or a list of up to 16 texts"),
        ({"stop": ["a"] * 17}, "stop", "stop: must be a text or a list of up to 16 texts"),
        ({"seed": 2**64}, "seed", "seed"),
        ({"functions": [{}]}, "functions", "not available"),
        ({"stream_options": {"other": 1}, "stream": True}, "stream_options", "is not a field"),
    ],
)
def test_chats_are_refused_by_field(fields: dict[str, Any], param: str, says: str) -> None:
    with pytest.raises(RefusedError, match=says) as refused:
        chat(**fields).prompts()
    assert (refused.value.status, refused.value.param) == (400, param)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a"] * 17}, "prompt"),
        ({"echo": True}, "echo"),
        ({"suffix": "x"}, "suffix"),
        ({"logprobs": 3}, "logprobs"),
        ({"best_of": 3}, "best_of"),
        ({"messages": HELLO}, "messages"),
    ],
)
def test_completions_are_refused_by_field(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(RefusedError) as refused:
        completion(**fields)
    assert refused.value.param == param
    assert refused.value.message.startswith(f"{param}: ")


def chunk(text: str, *, index: int = 0, finish: str = "", tokens: int = 1, cached: int = -1, **more: Any) -> Chunk:
    return Chunk(index, text, finish, 5, tokens, cached, [1], **more)


def events(raw: bytes) -> list[Any]:
    return [
        json.loads(part.removeprefix("data: ")) if part != "data: [DONE]" else "[DONE]"
        for part in raw.decode().split("\n\n")
        if part
    ]


def test_a_chat_stream_begins_with_the_role_and_ends_with_its_usage() -> None:
    writer = Writer(ChatShape(), "m", with_logprobs=False, include_usage=True)
    for each in (first := chunk("Hi"), last := chunk("", finish="stop", tokens=2)):
        writer.usage.add(0, each)
    found = events(writer.events(0, first) + writer.events(0, last) + writer.last())
    assert [event["choices"][0]["delta"] for event in found[:3]] == [
        {"role": "assistant", "content": ""}, {"content": "Hi"}, {},
    ]  # fmt: skip
    assert found[2]["choices"][0]["finish_reason"] == "stop"
    assert found[3]["usage"] == {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    assert found[4] == "[DONE]" and len({event["id"] for event in found[:4]}) == 1


def test_usage_counts_each_prompt_once_and_tells_cached_tokens_only_when_known() -> None:
    writer = Writer(CompletionShape(), "m", with_logprobs=False)
    for prompt, each in ((0, chunk("a")), (0, chunk("b", index=1, tokens=3)), (1, chunk("c", tokens=2, cached=4))):
        writer.usage.add(prompt, each)
    assert writer.usage.body() == {
        "prompt_tokens": 10, "completion_tokens": 6, "total_tokens": 16, "prompt_tokens_details": {"cached_tokens": 4},
    }  # fmt: skip


def test_log_probabilities_leave_out_what_is_no_text_and_keep_bytes() -> None:
    parts = [
        chunk("é", token_bytes=[b"\xc3", b"\xa9"], logprobs=[-1.0, -2.0]),
        chunk("", token_bytes=[b""], logprobs=[-3.0]),
    ]
    content = ChatShape().logprobs(parts, 0)["content"]
    assert [(entry["bytes"], entry["logprob"]) for entry in content] == [([0xC3], -1.0), ([0xA9], -2.0)]
    assert CompletionShape().logprobs([chunk("ab", token_bytes=[b"a", b"b"], logprobs=[0.0, 0.0])], 7) == {
        "tokens": ["a", "b"], "token_logprobs": [0.0, 0.0], "top_logprobs": None, "text_offset": [7, 8],
    }  # fmt: skip


def tensor(name: str, datatype: str, shape: bytes) -> bytes:
    return string_field(5, string_field(1, name) + string_field(2, datatype) + string_field(3, shape))


def test_stream_messages_are_read() -> None:
    response = tensor("index", "INT32", b"\x01") + tensor("token_bytes", "BYTES", b"\x02")
    response += string_field(6, b"\x07\0\0\0") + string_field(6, b"\x01\0\0\0a\x02\0\0\0bc")
    answer = stream_answer(string_field(2, response))
    assert (answer.error, answer.numbers, answer.texts) == ("", {"index": [7]}, {"token_bytes": [b"a", b"bc"]})
    assert stream_answer(string_field(1, "no")).error == "no"
    with pytest.raises(NotNowError, match="cannot be read"):
        stream_answer(string_field(2, tensor("t", "BYTES", b"\x01") + string_field(6, b"\x09\0\0\0a")))
