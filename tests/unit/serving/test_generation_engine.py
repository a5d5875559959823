"""The engine's two threads around a runner that counts upwards: answers, drops, failures."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import pytest

from enginewright_api.errors import DeterministicError, TransientError
from enginewright_serving.triton.generation_engine import _LOOK_FOR_LEAVERS_SECONDS, GenerationEngine
from enginewright_serving.triton.generation_runner import NewTokens, RunnerLoad
from enginewright_serving.triton.sampling import Sampling


class Counting:
    """Generates 0, 1, 2 ... for every key; fails when told to."""

    def __init__(self) -> None:
        self.under_way: dict[int, tuple[int, int]] = {}
        self.fail = False
        self.steps = 0
        self.dropped: list[int] = []

    def add(self, key: int, prompt: Sequence[int], sampling: Sampling) -> None:
        if prompt[0] < 0:
            raise DeterministicError("InvalidParameter", "negative prompt")
        self.under_way[key] = (0, sampling.max_tokens)

    def step(self) -> list[NewTokens]:
        if self.fail:
            raise RuntimeError("out of luck")
        time.sleep(0.001)
        self.steps += 1
        news = []
        for key, (at, end) in list(self.under_way.items()):
            finish = "length" if at + 1 == end else ""
            news.append(NewTokens(key, (at,), (), finish))
            self.under_way[key] = (at + 1, end)
            if finish:
                del self.under_way[key]
        return news

    def drop(self, key: int) -> None:
        self.dropped.append(key)
        self.under_way.pop(key, None)

    def busy(self) -> bool:
        return bool(self.under_way)

    def score(self, prompt: Sequence[int]) -> list[float]:
        if self.fail:
            raise RuntimeError("no scores")
        return [float(token) for token in prompt]

    def load(self) -> RunnerLoad:
        return RunnerLoad(len(self.under_way), 0, 0.5)


class Collected:
    """An answer that keeps what it gets."""

    def __init__(self, *, enough: int = 10**9) -> None:
        self.token_ids: list[int] = []
        self.error = ""
        self.gone = False
        self.enough = enough
        self.done = threading.Event()

    def tokens(self, news: NewTokens, at_seconds: float) -> bool:
        self.token_ids += news.token_ids
        if news.finish_reason or len(self.token_ids) >= self.enough:
            self.done.set()
        return len(self.token_ids) < self.enough

    def failed(self, message: str) -> None:
        self.error = message
        self.done.set()

    def left(self) -> bool:
        return self.gone


def sampling(tokens: int) -> Sampling:
    return Sampling(max_tokens=tokens)


def until_idle(engine: GenerationEngine, runner: Counting) -> None:
    deadline = time.monotonic() + 5
    while engine.answers or runner.under_way:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_many_answers_come_whole() -> None:
    loads: list[RunnerLoad] = []
    engine = GenerationEngine(Counting(), loads.append)
    answers = [Collected() for _ in range(20)]
    for index, answer in enumerate(answers):
        engine.submit([1], sampling(index + 1), answer)
    for index, answer in enumerate(answers):
        assert answer.done.wait(5)
        assert answer.token_ids == list(range(index + 1))
    engine.close()


def test_enough_and_gone_answers_are_dropped_at_the_runner() -> None:
    runner = Counting()
    engine = GenerationEngine(runner, lambda _: None)
    enough, gone = Collected(enough=3), Collected()
    engine.submit([1], sampling(10**6), enough)
    engine.submit([1], sampling(10**6), gone)
    assert enough.done.wait(5)
    gone.gone = True
    until_idle(engine, runner)
    assert enough.token_ids == [0, 1, 2]
    assert sorted(set(runner.dropped)) == [1, 2]
    engine.close()


def test_the_load_is_told_until_nothing_runs() -> None:
    loads: list[RunnerLoad] = []
    runner = Counting()
    engine = GenerationEngine(runner, loads.append)
    answer = Collected()
    engine.submit([1], sampling(10**6), answer)
    time.sleep(2 * _LOOK_FOR_LEAVERS_SECONDS)
    answer.gone = True
    deadline = time.monotonic() + 5
    while not loads or loads[-1].running:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert any(load.running == 1 for load in loads)
    engine.close()


def test_one_refused_prompt_harms_no_other() -> None:
    engine = GenerationEngine(Counting(), lambda _: None)
    bad, good = Collected(), Collected()
    engine.submit([-1], sampling(3), bad)
    engine.submit([1], sampling(3), good)
    assert bad.done.wait(5) and good.done.wait(5)
    assert (bad.error, good.token_ids) == ("negative prompt", [0, 1, 2])
    engine.close()


def test_an_answer_that_cannot_be_sent_harms_no_other() -> None:
    class Unsendable(Collected):
        def tokens(self, news: NewTokens, at_seconds: float) -> bool:
            raise OSError("no room")

    engine = GenerationEngine(Counting(), lambda _: None)
    bad, good = Unsendable(), Collected()
    engine.submit([1], sampling(5), bad)
    engine.submit([1], sampling(50), good)
    assert good.done.wait(5) and good.token_ids == list(range(50))
    assert "could not be sent: OSError: no room" in bad.error
    engine.close()


def test_a_runner_that_fails_fails_every_answer_and_all_later_ones() -> None:
    runner = Counting()
    engine = GenerationEngine(runner, lambda _: None)
    answers = [Collected() for _ in range(3)]
    for answer in answers:
        engine.submit([1], sampling(10**6), answer)
    runner.fail = True
    for answer in answers:
        assert answer.done.wait(5)
        assert "RuntimeError: out of luck" in answer.error
    with pytest.raises(TransientError, match="out of luck"):
        engine.submit([1], sampling(1), Collected())


def test_scores_come_between_steps_and_their_failure_is_their_own() -> None:
    runner = Counting()
    engine = GenerationEngine(runner, lambda _: None)
    assert engine.score([3, 4]).result(5) == [3.0, 4.0]
    runner.fail = True
    with pytest.raises(RuntimeError, match="no scores"):
        engine.score([1]).result(5)
    runner.fail = False
    answer = Collected()
    engine.submit([1], sampling(2), answer)
    assert answer.done.wait(5) and answer.token_ids == [0, 1]
    engine.close()


def test_tokens_are_passed_on_before_the_next_step_begins() -> None:
    """A step may hold the interpreter's lock until it ends: whatever is not passed on by then waits for it."""

    class Slow(Collected):
        def tokens(self, news: NewTokens, at_seconds: float) -> bool:
            time.sleep(0.002)  # a message to the server
            return super().tokens(news, at_seconds)

    answers = [Slow() for _ in range(4)]

    class Watching(Counting):
        def step(self) -> list[NewTokens]:
            owed.append(sum(at for at, _ in self.under_way.values()) - sum(len(one.token_ids) for one in answers))
            return super().step()

    owed: list[int] = []
    engine = GenerationEngine(Watching(), lambda _: None)
    for answer in answers:
        engine.submit([1], sampling(20), answer)
    for answer in answers:
        assert answer.done.wait(5)
    assert len(owed) >= 20
    assert max(owed) <= 0
    engine.close()


def test_a_server_that_takes_nothing_stops_no_step() -> None:
    class Stuck(Collected):
        def tokens(self, news: NewTokens, at_seconds: float) -> bool:
            release.wait(5)
            return super().tokens(news, at_seconds)

    release = threading.Event()
    runner = Counting()
    engine = GenerationEngine(runner, lambda _: None)
    stuck = Stuck()
    engine.submit([1], sampling(4), stuck)
    deadline = time.monotonic() + 5
    while runner.steps < 4:
        assert time.monotonic() < deadline, "the first tokens are still on their way"
        time.sleep(0.01)
    assert stuck.token_ids == []
    release.set()
    assert stuck.done.wait(5) and stuck.token_ids == [0, 1, 2, 3]
    engine.close()
