"""Labels of words: entities as CoNLL's scorer finds them, shares and F1 with bounds over texts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from enginewright_api.errors import DeterministicError
from enginewright_api.evidence import EvidenceRequest, Verdict
from enginewright_api.operation_spec import Metric
from enginewright_builder.datasets.rows import Row
from enginewright_builder.gate.bounds import bound_at
from enginewright_builder.gate.quality import compare
from enginewright_builder.gate.tagging import Scheme, found_of, measure_tagging, micro_f1

BIO = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
SIDES = ["O", "Negative", "Positive"]
LEVELS = (0.5, 0.95)


def request(metric: str, max_drop: float = 0.05) -> EvidenceRequest:
    return EvidenceRequest.model_validate(
        {
            "dataset": {"builtin": {"name": "valence-en"}},
            "metric": metric,
            "maxDrop": max_drop,
            "confidence": 0.95,
            "samples": 512,
        }
    )


def row(*labels: str) -> Row:
    return Row(" ".join(f"w{number}" for number in range(len(labels))), word_labels=labels)


def scores(rows: list[Row], labels: list[str]) -> Any:
    """Answers that say exactly what the rows say."""
    return np.eye(len(labels), dtype=np.float32)[[labels.index(label) for one in rows for label in one.word_labels]]


def entities(labels: list[str], *texts: list[str]) -> list[tuple[int, int, int]]:
    classes = np.array([labels.index(label) for text in texts for label in text])
    text = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    return [tuple(one) for one in Scheme.of(labels).entities(classes, text).tolist()]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (["O", "B-PER", "I-PER", "O"], [(1, 2, 1)]),
        (["B-PER", "B-PER"], [(0, 0, 1), (1, 1, 1)]),
        (["I-PER", "I-PER", "I-LOC"], [(0, 1, 1), (2, 2, 2)]),
        (["B-PER", "I-LOC"], [(0, 0, 1), (1, 1, 2)]),
        (["I-PER", "O", "I-PER"], [(0, 0, 1), (2, 2, 1)]),
        (["I-PER", "B-PER", "I-PER"], [(0, 0, 1), (1, 2, 1)]),
        (["O", "O"], []),
    ],
)
def test_entities_are_those_of_conlls_scorer(text: list[str], expected: list[tuple[int, int, int]]) -> None:
    assert entities(BIO, text) == expected


def test_an_entity_ends_with_its_text() -> None:
    assert entities(BIO, ["O", "B-PER"], ["I-PER"]) == [(1, 1, 1), (2, 2, 1)]


def test_iobes_ends_are_read() -> None:
    labels = ["O", "B-X", "I-X", "E-X", "S-X"]
    assert entities(labels, ["B-X", "I-X", "E-X", "I-X", "S-X", "S-X"]) == [(0, 2, 1), (3, 3, 1), (4, 4, 1), (5, 5, 1)]


def test_f1_is_seqevals() -> None:
    """The example in seqeval's documentation: one of two entities has a wrong first word."""
    labels = ["O", "B-MISC", "I-MISC", "B-PER", "I-PER"]
    wanted = [row("O", "O", "O", "B-MISC", "I-MISC", "I-MISC", "O"), row("B-PER", "I-PER", "O")]
    said = [row("O", "O", "B-MISC", "I-MISC", "I-MISC", "I-MISC", "O"), row("B-PER", "I-PER", "O")]
    found = measure_tagging(Metric.F1, scores(said, labels), scores(wanted, labels), wanted, labels, LEVELS)
    assert (found.baseline, found.optimized) == (1.0, 0.5)
    share = measure_tagging(Metric.ACCURACY, scores(said, labels), scores(wanted, labels), wanted, labels, LEVELS)
    assert share.drop == pytest.approx(2 / 10), "words, not texts, are counted"


@given(st.lists(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1), min_size=1))
def test_without_prefixes_f1_is_of_the_words_outside_o(texts: list[list[tuple[int, int]]]) -> None:
    pairs = np.array([pair for text in texts for pair in text])
    text = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    scheme = Scheme.of(SIDES)
    wanted, said = (scheme.entities(pairs[:, column], text) for column in (0, 1))
    ours = micro_f1(found_of(said, wanted, text), np.ones((1, len(texts))))[0]
    theirs = f1_score(pairs[:, 0], pairs[:, 1], labels=[1, 2], average="micro", zero_division=0)
    assert ours == pytest.approx(theirs)


def test_f1_needs_entities() -> None:
    rows = [row("O", "O")]
    with pytest.raises(DeterministicError, match="no word of its 1 rows has a label other than O"):
        measure_tagging(Metric.F1, scores(rows, SIDES), scores(rows, SIDES), rows, SIDES, LEVELS)


def test_counts_choose_texts_as_repeating_them_would() -> None:
    classes = np.array([1, 2, 0, 3, 1, 0, 3])
    said = np.array([1, 2, 0, 1, 1, 3, 3])
    text = np.array([0, 0, 0, 1, 1, 2, 2])
    scheme = Scheme.of(BIO)
    found = found_of(scheme.entities(said, text), scheme.entities(classes, text), text)
    assert found.tolist() == [[1, 2], [1, 4], [1, 3]]
    assert micro_f1(found, np.array([[1.0, 1, 1], [2, 0, 1], [0, 0, 0]])).tolist() == pytest.approx([6 / 9, 6 / 7, 0])


def test_bounds_are_over_texts_because_words_of_one_text_fail_together() -> None:
    """The same share of wrong words, once spread evenly and once in few texts: the second is less sure."""
    rows = [row(*["Positive"] * 20)] * 200
    right = scores(rows, SIDES)
    spread, bunched = right.copy(), right.copy()
    spread[::20] = [1, 0, 0]
    bunched[: len(right) // 20] = [1, 0, 0]
    for metric in (Metric.ACCURACY, Metric.F1):
        even, few = (measure_tagging(metric, said, right, rows, SIDES, LEVELS) for said in (spread, bunched))
        assert even.drop == pytest.approx(few.drop)
        assert even.bounds[-1] == pytest.approx(even.drop), "every text lost the same"
        assert few.bounds[-1] > 1.3 * few.drop


@pytest.mark.parametrize("metric", ["Accuracy", "F1"])
def test_equal_answers_pass_once_there_are_texts_enough(metric: str) -> None:
    rows = [row("O", "Positive", "O")] * 40
    same = scores(rows, SIDES)
    few = compare(same, same, rows, labels=SIDES, request=request(metric), dataset="t")
    assert few.verdict is Verdict.INCONCLUSIVE, "a fault of a twentieth of all texts may be missing from 40"
    assert (few.samples, few.drop) == (40, 0.0)
    many = compare(
        np.tile(same, (2, 1)), np.tile(same, (2, 1)), rows * 2, labels=SIDES, request=request(metric), dataset="t"
    )
    assert many.verdict is Verdict.PASSED
    assert bound_at(many.bounds, 0.95) == pytest.approx(1 - 0.05 ** (1 / 80), abs=1e-6)


@pytest.mark.parametrize("metric", ["Accuracy", "F1"])
def test_an_engine_with_another_order_of_labels_fails(metric: str) -> None:
    rows = [row("O", "Positive", "Negative", "O")] * 200
    right = scores(rows, SIDES)
    found = compare(right[:, [0, 2, 1]], right, rows, labels=SIDES, request=request(metric), dataset="t")
    assert found.verdict is Verdict.FAILED


def test_labels_are_names_or_the_models_numbers() -> None:
    rows = [row("0", "2", "Negative")]
    said = scores([row("O", "Positive", "Negative")], SIDES)
    assert measure_tagging(Metric.ACCURACY, said, said, rows, SIDES, LEVELS).baseline == 1.0
    with pytest.raises(DeterministicError, match=r"label 'B-PER' is none of the model's \(O, Negative, Positive\)"):
        measure_tagging(Metric.ACCURACY, said, said, [row("O", "B-PER", "O")], SIDES, LEVELS)
