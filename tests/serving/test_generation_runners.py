"""The runners themselves on SmolLM2: eager PyTorch against transformers' own generate, scores, prompts of chats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from enginewright_api.engine_description import EngineDescription
from enginewright_api.serving_spec import SpeculativeDecoding, SpeculativeMethod
from enginewright_serving.triton.chat_template import ChatTemplate
from enginewright_serving.triton.generation_runner import GenerationRunner, load_generation_runner
from enginewright_serving.triton.sampling import Sampling
from tests.serving.language_models import language_model

PROMPTS = ("The capital of France is", "One, two, three, four, five, six, seven,", "Water boils at")
EOS = frozenset({2})


def runner(kind: str, **generation: object) -> GenerationRunner:
    folder = language_model(kind)
    engine = EngineDescription.model_validate_json((folder / "engine.json").read_bytes())
    assert engine.generation is not None
    engine = engine.model_copy(update={"generation": engine.generation.model_copy(update=generation)})
    return load_generation_runner(folder, engine, threads=1)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(language_model("torch") / "tokenizer" / "tokenizer.json"))


@pytest.fixture(scope="module")
def eager() -> GenerationRunner:
    return runner("torch")


@pytest.fixture(scope="module")
def compiled() -> GenerationRunner:
    return runner("openvino")


def finished(subject: GenerationRunner, wanted: int) -> dict[int, list[int]]:
    """Tokens of each key, once all have ended."""
    found: dict[int, list[int]] = {}
    ended = 0
    while ended < wanted:
        for news in subject.step():
            found.setdefault(news.key, []).extend(news.token_ids)
            ended += bool(news.finish_reason)
    return found


def test_eager_rows_that_join_and_leave_say_what_they_say_alone(eager: GenerationRunner, tokenizer: Tokenizer) -> None:
    prompts = [tokenizer.encode(prompt).ids for prompt in PROMPTS]
    lengths = (6, 2, 9)
    for key, (prompt, length) in enumerate(zip(prompts, lengths, strict=True)):
        eager.add(key, prompt, Sampling(max_tokens=length, eos_token_ids=EOS))
    together = finished(eager, 3)
    assert together == {key: expected(prompt, lengths[key]) for key, prompt in enumerate(prompts)}
    assert not eager.busy() and eager.load().running == 0


def expected(prompt: Sequence[int], length: int) -> list[int]:
    """What transformers generates greedily."""
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(
        str(language_model("torch") / "engine" / "checkpoint"), dtype=torch.float32
    )
    ids = torch.tensor([list(prompt)])
    with torch.inference_mode():
        output: Any = model.generate(ids, max_new_tokens=length, do_sample=False, eos_token_id=2, pad_token_id=2)
    tokens: list[int] = output[0, ids.shape[1] :].tolist()
    return tokens


@pytest.mark.parametrize("kind", ["eager", "compiled"])
def test_a_dropped_key_leaves_the_others_alone(kind: str, tokenizer: Tokenizer, request: pytest.FixtureRequest) -> None:
    subject: GenerationRunner = request.getfixturevalue(kind)
    prompt = tokenizer.encode(PROMPTS[1]).ids
    subject.add(10, prompt, Sampling(max_tokens=8, eos_token_ids=EOS))
    alone = finished(subject, 1)[10]
    subject.add(11, prompt, Sampling(max_tokens=8, eos_token_ids=EOS))
    subject.add(12, prompt, Sampling(max_tokens=500, eos_token_ids=EOS))
    while sum(news.key == 12 for news in subject.step()) == 0:
        pass
    subject.drop(12)
    subject.drop(99)
    left = finished(subject, 1)
    assert set(left) <= {11, 12} and alone[-len(left[11]) :] == left[11]
    for _ in range(3):
        if subject.busy():
            subject.step()
    assert not subject.busy()


@pytest.mark.parametrize("kind", ["eager", "compiled"])
def test_scores_are_of_every_token_also_when_the_prompt_was_seen_before(
    kind: str, tokenizer: Tokenizer, request: pytest.FixtureRequest
) -> None:
    subject: GenerationRunner = request.getfixturevalue(kind)
    text = "The capital of France is Paris. " * 6
    prompt = tokenizer.encode(text).ids
    assert len(prompt) > 32  # more than a block of the cache, so that a prefix could be shared
    subject.add(20, prompt, Sampling(max_tokens=1, logprobs=True, eos_token_ids=EOS))
    finished(subject, 1)
    first, again = subject.score(prompt), subject.score(prompt)
    assert first == pytest.approx(again, abs=0.3)
    assert len(first) == len(prompt) and first[0] == 0.0 and all(value <= 0 for value in first)
    # What was said before is expected.
    assert math.fsum(first[-7:]) > math.fsum(first[1:8])


def test_the_two_agree_roughly(eager: GenerationRunner, compiled: GenerationRunner, tokenizer: Tokenizer) -> None:
    prompt = tokenizer.encode("Paris is the capital of France, and Rome is the capital of Italy.").ids
    one, other = eager.score(prompt), compiled.score(prompt)
    assert sum(abs(a - b) for a, b in zip(one, other, strict=True)) / len(one) < 0.8  # 4 bits apart


def test_chats_become_the_prompt_that_transformers_makes(tokenizer: Tokenizer) -> None:
    import transformers

    folder: Path = language_model("torch") / "tokenizer"
    theirs = transformers.AutoTokenizer.from_pretrained(str(folder))
    template = ChatTemplate.load(folder)
    assert template is not None
    for messages in (
        [{"role": "user", "content": "hi"}],
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"},
         {"role": "assistant", "content": "Hello."}, {"role": "user", "content": "<b>é</b>"}],
    ):  # fmt: skip
        rendered = theirs.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        assert template.render(messages) == rendered
        assert tokenizer.encode(rendered, add_special_tokens=False).ids == theirs(rendered)["input_ids"]


def test_drafts_change_the_number_of_steps_and_not_the_answers(
    compiled: GenerationRunner, tokenizer: Tokenizer
) -> None:
    """Prompts that repeat themselves: what follows is found in them."""
    drafting = runner("openvino", speculative_decoding=SpeculativeDecoding(method=SpeculativeMethod.NGRAM))
    texts = (PROMPTS[1] * 3, "Paris, Rome, Oslo. " * 8, PROMPTS[0])
    answers: list[list[list[int]]] = []
    steps = []
    for subject in (compiled, drafting):
        before, count = subject.load(), 0
        found: list[list[int]] = []
        prompts = [tokenizer.encode(text).ids for text in texts]
        for key in range(len(texts) + 1):  # one at a time: no rounding depends on who shares a step
            # The last prompt goes on with an answer: its cached blocks must hold no draft that was thrown away.
            prompt = prompts[key] if key < len(texts) else [*prompts[1], *found[1]]
            tokens, logprobs, made = answered(subject, 100 + key, prompt)
            assert len(tokens) == len(logprobs)
            found.append(tokens)
            count += made
        answers.append(found)
        steps.append(count)
        load = subject.load()
        gained = load.accepted - before.accepted
        assert count == sum(map(len, found)) - gained, "a step gives one token and the drafts that were accepted"
        assert load.drafted >= load.accepted
    assert answers[0] == answers[1]
    assert steps[1] < 0.75 * steps[0]
    assert compiled.load().drafted == 0


def answered(subject: GenerationRunner, key: int, prompt: Sequence[int]) -> tuple[list[int], list[float], int]:
    """Tokens, their log-probabilities, and the steps that they took."""
    subject.add(key, prompt, Sampling(max_tokens=24, eos_token_ids=EOS, logprobs=True))
    tokens: list[int] = []
    logprobs: list[float] = []
    steps = 0
    while subject.busy():
        steps += 1
        for news in subject.step():
            tokens += news.token_ids
            logprobs += news.logprobs
    return tokens, logprobs, steps
