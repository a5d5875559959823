"""Runs a runner in a thread of its own: prompts in from any thread, tokens out through callbacks on another.

    generate   the only user of the runner: adds, drops, steps
    answer     calls back with what the steps brought, and asks from time to time who has left

They take turns: a step of openvino_genai holds the interpreter's lock from its beginning to its end, so what is not
passed on before the next one begins is passed on after it, one answer a step (sending lets go of the lock, and the next
step takes it). The text of a batch would come in lumps, a second late.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Protocol

from enginewright_api.errors import DeterministicError, TransientError
from enginewright_serving.triton.generation_runner import GenerationRunner, NewTokens, RunnerLoad
from enginewright_serving.triton.sampling import Sampling

_HAND_OVER_SECONDS = 0.1
"""Longest that the next step waits for the last one's tokens to be passed on; a server that hangs stops no step."""

_COMPANY_SECONDS, _MOST_COMPANY_SECONDS = 0.001, 0.01
"""Pause after which nobody else is coming, and the longest that the first of a batch waits for others."""

_LOOK_FOR_LEAVERS_SECONDS = 0.25
_IDLE_SECONDS = 0.25


class Answer(Protocol):
    """One answer under way. Its methods are called by the `answer` thread only."""

    def tokens(self, news: NewTokens, at_seconds: float) -> bool:
        """More tokens, as of a monotonic time; False when no more are wanted."""
        ...

    def failed(self, message: str) -> None:
        """The engine cannot go on with it."""
        ...

    def left(self) -> bool:
        """Whether nobody waits for it any more; it was told then that it ended."""
        ...


@dataclass(frozen=True, slots=True)
class _Add:
    key: int
    prompt: Sequence[int]
    sampling: Sampling


@dataclass(frozen=True, slots=True)
class _Drop:
    key: int


@dataclass(frozen=True, slots=True)
class _Score:
    prompt: Sequence[int]
    done: Future[list[float]]


class _Nothing:
    """No order."""


_Order = _Add | _Drop | _Score | _Nothing | None


class GenerationEngine:
    """Owner of a runner. `observe` is called by the `answer` thread, a few times a second and when work ends."""

    def __init__(self, runner: GenerationRunner, observe: Callable[[RunnerLoad], None]) -> None:
        self._runner = runner
        self._observe = observe
        self._orders: queue.SimpleQueue[_Add | _Drop | _Score | None] = queue.SimpleQueue()
        self._news: queue.SimpleQueue[tuple[list[NewTokens], float] | None] = queue.SimpleQueue()
        self._passed_on = threading.Event()
        self._answers: dict[int, Answer] = {}
        self._lock = threading.Lock()
        self._keys = 0
        self._broken = ""
        self._load = RunnerLoad(0, 0, 0.0)
        self._threads = [
            threading.Thread(target=self._generate, name="generate", daemon=True),
            threading.Thread(target=self._answer, name="answer", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def answers(self) -> int:
        """Answers under way, those that wait included."""
        return len(self._answers)

    def submit(self, prompt: Sequence[int], sampling: Sampling, answer: Answer) -> None:
        """Queue a prompt. Raises TransientError when the engine has failed for good."""
        with self._lock:
            self._keys += 1
            key = self._keys
            self._answers[key] = answer
        if self._broken:  # asked after the answer was listed: from then on a failure is told to it
            self._forget(key)
            raise TransientError("EngineBroken", self._broken)
        self._orders.put(_Add(key, prompt, sampling))

    def score(self, prompt: Sequence[int]) -> Future[list[float]]:
        """Log-probabilities of a prompt's tokens, as GenerationRunner.score."""
        done: Future[list[float]] = Future()
        self._orders.put(_Score(prompt, done))
        return done

    def close(self) -> None:
        """End both threads; answers under way are told that they failed."""
        self._orders.put(None)
        for thread in self._threads:
            thread.join(timeout=30)

    def _generate(self) -> None:
        try:
            while self._take_orders():
                if self._runner.busy():
                    news = self._runner.step()
                    self._load = replace(self._runner.load(), steps=self._load.steps + 1)
                    if news:
                        self._passed_on.clear()
                        self._news.put((news, time.monotonic()))
                        self._passed_on.wait(_HAND_OVER_SECONDS)
        except Exception as error:  # whatever a runtime raises: all answers must be told, none may wait for ever
            self._broken = f"the engine failed: {type(error).__name__}: {error}"
        else:
            self._broken = "the engine was stopped"
        self._news.put(None)

    def _take_orders(self) -> bool:
        """Everything ordered so far; waits while there is nothing to do. False at the end.

        Who comes within moments of the first shares its step: alone, the first would hold all others up for one.
        """
        idle = not self._runner.busy()
        order = self._orders.get() if idle else self._next(0.0)
        company_until = time.monotonic() + _MOST_COMPANY_SECONDS if idle else 0.0
        while not isinstance(order, _Nothing):
            if order is None:
                return False
            if isinstance(order, _Drop):
                self._runner.drop(order.key)
                self._load = replace(self._runner.load(), steps=self._load.steps)
            elif isinstance(order, _Score):
                self._score(order)
            else:
                self._add(order)
            order = self._next(_COMPANY_SECONDS if time.monotonic() < company_until else 0.0)
        return True

    def _next(self, seconds: float) -> _Order:
        """The next order, if there is one within so many seconds."""
        try:
            return self._orders.get(timeout=seconds) if seconds else self._orders.get(block=False)
        except queue.Empty:
            return _Nothing()

    def _add(self, order: _Add) -> None:
        try:
            self._runner.add(order.key, order.prompt, order.sampling)
        except DeterministicError as error:
            self._news.put(([NewTokens(order.key, (), (), error=error.message)], time.monotonic()))

    def _score(self, order: _Score) -> None:
        try:
            scores = self._runner.score(order.prompt)
        except Exception as error:  # whatever a runtime raises is an answer to who asked, not the engine's end
            order.done.set_exception(error)
        else:
            order.done.set_result(scores)

    def _answer(self) -> None:
        looked = time.monotonic()
        while True:
            try:
                batch = self._news.get(timeout=_LOOK_FOR_LEAVERS_SECONDS if self._answers else _IDLE_SECONDS)
            except queue.Empty:
                batch = ([], time.monotonic())
            if batch is None:
                break
            for news in batch[0]:
                try:
                    self._pass_on(news, batch[1])
                except Exception as error:  # one answer that cannot be sent must not end all others
                    self._give_up(news.key, error)
            now = time.monotonic()
            if now - looked >= _LOOK_FOR_LEAVERS_SECONDS:
                looked = now
                self._drop_leavers()
                self._observe(self._load)
            if batch[0]:
                self._passed_on.set()
        with self._lock:
            answers, self._answers = self._answers, {}
        for answer in answers.values():
            answer.failed(self._broken)

    def _pass_on(self, news: NewTokens, at_seconds: float) -> None:
        answer = self._answers.get(news.key)
        if answer is None:
            return  # dropped meanwhile
        if news.error:
            answer.failed(news.error)
        elif answer.tokens(news, at_seconds) and not news.finish_reason:
            return
        elif not news.finish_reason:
            self._orders.put(_Drop(news.key))
        self._forget(news.key)

    def _give_up(self, key: int, error: Exception) -> None:
        answer = self._answers.get(key)
        self._orders.put(_Drop(key))
        self._forget(key)
        if answer is not None:
            with contextlib.suppress(Exception):
                answer.failed(f"the answer could not be sent: {type(error).__name__}: {error}")

    def _drop_leavers(self) -> None:
        with self._lock:
            answers = list(self._answers.items())
        for key, answer in answers:
            if answer.left():
                self._orders.put(_Drop(key))
                self._forget(key)

    def _forget(self, key: int) -> None:
        with self._lock:
            self._answers.pop(key, None)
