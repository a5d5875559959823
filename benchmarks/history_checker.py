"""Judges a history: what clients sent and got, and which engines were allowed to answer when. Pure: records in,
violations out.

A history is linear in one thing only: an engine that was taken out of service must not answer what is sent
afterwards. So each request may be answered by every engine that was allowed at any moment between its sending and
its answer, and by no other; and it may fail only in a way that was allowed at such a moment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]
References = Mapping[str, Mapping[str, Sequence[Vector]]]
"""Engine, then text: what that engine answers. More than one where the answer depends on what it is batched with."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request and what became of it. Times are seconds on one clock."""

    sent_at: float
    ended_at: float
    text: str
    vector: Vector | None = None
    failure: str = ""
    """Kind of failure: an HTTP status, or the name of the client's error; empty for an answer."""


@dataclass(frozen=True, slots=True)
class Mark:
    """From `at` until the next mark these engines may answer, and requests may fail in these ways."""

    at: float
    engines: frozenset[str]
    failures: frozenset[str] = frozenset()
    """None, but where nobody is there to answer."""


@dataclass(frozen=True, slots=True)
class Violation:
    """What broke the contract."""

    kind: str
    """`wrong answer`, `stale engine`, `forbidden failure`, `no answer`."""
    asked: Asked
    message: str


def separation(references: References) -> float:
    """How far apart the answers of two engines are at least: largest difference of an element, over all texts.

    Infinite with one engine. A tolerance must be below half of it, or one engine's answer passes as the other's.
    """
    engines = sorted(references)
    gaps = [
        _distance(here, there)
        for number, one in enumerate(engines)
        for other in engines[number + 1 :]
        for text in references[one]
        for here in references[one][text]
        for there in references[other][text]
    ]
    return min(gaps, default=float("inf"))


def violations(
    history: Sequence[Asked], marks: Sequence[Mark], references: References, *, tolerance: float
) -> list[Violation]:
    """Everything that no gated engine and no allowed failure explains. Raises ValueError where it could not tell."""
    if not marks or any(later.at <= earlier.at for earlier, later in pairwise(marks)):
        raise ValueError("marks: at least one is needed, in the order of their times")
    if tolerance >= separation(references) / 2:
        raise ValueError(f"tolerance {tolerance:g} does not tell engines {separation(references):g} apart")
    return [found for asked in history for found in _judged(asked, marks, references, tolerance)]


def _judged(asked: Asked, marks: Sequence[Mark], references: References, tolerance: float) -> Iterator[Violation]:
    over = list(_over(asked, marks))
    engines = frozenset().union(*(mark.engines for mark in over))
    failures = frozenset().union(*(mark.failures for mark in over))
    if asked.failure:
        if asked.failure not in failures:
            yield Violation("forbidden failure", asked, f"{asked.failure}; allowed: {_names(failures)}")
        return
    if asked.vector is None:
        yield Violation("no answer", asked, "neither an answer nor a failure")
        return
    by = {
        engine
        for engine, answers in references.items()
        if any(_distance(asked.vector, answer) <= tolerance for answer in answers[asked.text])
    }
    if not by:
        nearest = min(
            (_distance(asked.vector, answer), engine)
            for engine in references
            for answer in references[engine][asked.text]
        )
        yield Violation("wrong answer", asked, f"no engine's; {nearest[1]}'s is {nearest[0]:.3g} away")
    elif not by & engines:
        yield Violation("stale engine", asked, f"answered by {_names(by)}; allowed: {_names(engines)}")


def _over(asked: Asked, marks: Sequence[Mark]) -> Iterator[Mark]:
    """Marks in force at any moment of the request; before the first one, the first."""
    for number, mark in enumerate(marks):
        begins = mark.at if number else float("-inf")
        ends = marks[number + 1].at if number + 1 < len(marks) else float("inf")
        if begins <= asked.ended_at and asked.sent_at < ends:
            yield mark


def _distance(one: Vector, other: Vector) -> float:
    """Largest difference of an element; infinite where one is not a number or of another shape."""
    if one.shape != other.shape or not np.isfinite(one).all():
        return float("inf")
    return float(np.abs(one - other).max())


def _names(found: frozenset[str] | set[str]) -> str:
    return ", ".join(sorted(found)) or "none"
