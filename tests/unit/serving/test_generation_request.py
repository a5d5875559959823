"""Requests for text: what is taken with which defaults, what is refused; chat templates as transformers has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from enginewright_api.engine_description import EngineDescription
from enginewright_api.errors import DeterministicError
from enginewright_serving.triton.chat_template import ChatTemplate
from enginewright_serving.triton.generation_request import RequestReader

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if tools %}tools: {{ tools | tojson }}\n{% endif %}{% if add_generation_prompt %}assistant:{% endif %}"
)


def engine(**generation: Any) -> EngineDescription:
    return EngineDescription.model_validate(
        {
            "task": "TextGeneration", "backend": "OpenVINO", "entry": "openvino_model.xml", "inputs": ["input_ids"],
            "output": "logits", "outputDimension": 8, "runtimePackage": "openvino-genai", "runtimeVersion": "1",
            "limits": {"maxBatchSize": 4, "maxInputTokens": 8, "maxOutputTokens": 10},
            "generation": {"eosTokenIds": [2, 3], "maxContextTokens": 12} | generation,
        }
    )  # fmt: skip


def reader(template: str | None = TEMPLATE) -> RequestReader:
    words = {word: at for at, word in enumerate(["?", "a", "b", "user", "assistant", ":"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return RequestReader(engine(), tokenizer, None if template is None else ChatTemplate(template, {}))


def test_defaults_are_greedy_and_as_long_as_fits() -> None:
    found = reader().read({"text_input": b"a b a"}.get)
    assert list(found.prompt) == [1, 2, 1]
    assert (found.sampling.max_tokens, found.sampling.temperature, found.sampling.logprobs) == (9, 0.0, False)
    assert found.sampling.eos_token_ids == {2, 3}
    assert (found.answers, found.stops, found.streaming, found.echo) == (1, (), False, False)


def test_messages_become_a_prompt_that_ends_where_the_answer_begins() -> None:
    messages = json.dumps([{"role": "user", "content": "a b"}]).encode()
    assert list(reader().read({"messages": messages}.get).prompt) == [3, 5, 1, 2, 4, 5]


def test_a_prompt_that_cannot_fit_is_refused_before_its_tokens_are_counted() -> None:
    tokenizer = Tokenizer(models.BPE({"a": 0, "aa": 1}, [("a", "a")]))
    subject = RequestReader(engine(), tokenizer, None)
    assert list(subject.read({"text_input": b"a" * 16, "sampling_param_max_tokens": 1}.get).prompt) == [1] * 8
    with pytest.raises(DeterministicError, match="has 9 tokens"):
        subject.read({"text_input": b"a" * 17}.get)
    with pytest.raises(DeterministicError, match=r"has 65 bytes, more than the 8 tokens .*maxInputTokens"):
        subject.read({"text_input": b"a" * 65}.get)


def test_a_token_that_may_stand_for_any_text_sets_no_bound_of_bytes() -> None:
    tokenizer = Tokenizer(models.BPE({"?": 0, "a": 1}, [], unk_token="?", fuse_unk=True))
    assert list(RequestReader(engine(), tokenizer, None).read({"text_input": b"b" * 1000}.get).prompt) == [0]


def test_each_answer_draws_with_a_seed_of_its_own() -> None:
    found = reader().read({"text_input": b"a", "sampling_param_n": 3, "sampling_param_seed": 2**63 - 2}.get)
    assert [found.sampling_of(index).seed for index in range(3)] == [2**63 - 2, 2**63 - 1, 0]
    unseeded = [reader().read({"text_input": b"a"}.get).sampling.seed for _ in range(4)]
    assert len(set(unseeded)) == 4


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({}, "exactly one of text_input and messages"),
        ({"text_input": b"a", "messages": b"[]"}, "exactly one of"),
        ({"text_input": b""}, "the prompt is empty"),
        ({"text_input": b"\xff"}, "text_input: not valid UTF-8 at byte 0"),
        ({"text_input": b"a", "tools": b"[]"}, "tools: only together with messages"),
        ({"text_input": b"a a a a a a a a a"}, "has 9 tokens.*at most 8 .*maxInputTokens"),
        ({"text_input": b"a", "sampling_param_max_tokens": 11}, "at most 10 .*maxOutputTokens"),
        ({"text_input": b"a a a a a", "sampling_param_max_tokens": 8}, "context of 12"),
        ({"text_input": b"a", "sampling_param_max_tokens": 0}, "only for echo"),
        ({"text_input": b"a", "sampling_param_max_tokens": -1}, "negative"),
        ({"text_input": b"a", "sampling_param_temperature": 2.5}, "temperature: 2.5 is not from 0 to 2"),
        ({"text_input": b"a", "sampling_param_temperature": float("nan")}, "temperature: nan"),
        ({"text_input": b"a", "sampling_param_top_p": 0.0}, "top_p: must be above 0"),
        ({"text_input": b"a", "sampling_param_top_k": -1}, "top_k"),
        ({"text_input": b"a", "sampling_param_presence_penalty": -3.0}, "presence_penalty"),
        ({"text_input": b"a", "sampling_param_n": 17}, "n: 17 is not from 1 to 16"),
        ({"text_input": b"a", "sampling_param_stop": b'"x"'}, "stop: must be a JSON list"),
        ({"text_input": b"a", "sampling_param_stop": b'[""]'}, "none empty"),
        ({"messages": b"{"}, "messages: not valid JSON"),
        ({"messages": b"[" * 100_000}, "messages: not valid JSON"),
        ({"messages": b"[]"}, "with one at least"),
        ({"messages": b"[5]"}, "list of objects"),
    ],
)
def test_anything_else_is_refused_with_a_sentence(inputs: dict[str, Any], says: str) -> None:
    with pytest.raises(DeterministicError, match=says):
        reader().read(inputs.get)


def test_a_model_without_a_template_takes_only_prompts() -> None:
    with pytest.raises(DeterministicError, match="no chat template"):
        reader(None).read({"messages": b'[{"role": "user", "content": "a"}]'}.get)


def test_templates_say_what_they_refuse_and_cannot_reach_out() -> None:
    messages = [{"role": "user", "content": "a"}]
    with pytest.raises(DeterministicError, match="only one system message"):
        ChatTemplate("{{ raise_exception('only one system message') }}", {}).render(messages)
    with pytest.raises(DeterministicError, match="refuses them"):
        ChatTemplate("{{ messages.__class__.__mro__ }}", {}).render(messages)
    with pytest.raises(DeterministicError, match="refuses them"):
        ChatTemplate("{{ messages.append(1) }}", {}).render(messages)
    with pytest.raises(DeterministicError, match="is invalid"):
        ChatTemplate("{% if %}", {})
    with pytest.raises(DeterministicError, match="no place for tools"):
        ChatTemplate("{{ messages[0].content }}", {}).render(messages, [{"type": "function"}])


@pytest.mark.parametrize("where", ["file", "configuration", "named"])
def test_templates_are_found_where_tokenizers_keep_them(tmp_path: Path, where: str) -> None:
    config: dict[str, Any] = {"bos_token": {"content": "<s>"}}
    if where == "configuration":
        config["chat_template"] = TEMPLATE
    elif where == "named":
        config["chat_template"] = [{"name": "rag", "template": "no"}, {"name": "default", "template": TEMPLATE}]
    else:
        (tmp_path / "chat_template.jinja").write_text(TEMPLATE)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    template = ChatTemplate.load(tmp_path)
    assert template is not None
    rendered = template.render([{"role": "user", "content": "é"}], [{"name": "f", "é": 1}])
    assert rendered == '<s>user: é\ntools: [{"name": "f", "é": 1}]\nassistant:'


def test_no_template_is_none(tmp_path: Path) -> None:
    assert ChatTemplate.load(tmp_path) is None
