"""Labels of words against people's: the share that is right, and F1 of the entities they spell.

Entities of labels such as `B-PER`, `I-PER`, `O` are those of CoNLL's scorer (conlleval, Tjong Kim Sang and Buchholz
2000) and of seqeval: type, first and last word must all be right; `I-` after `O` or after another type begins an
entity, so IOB1 and IOB2 are both read, and `E-` and `S-` end one. F1 is the micro average: of all entities of all texts
at once. For labels without such prefixes each word whose label is not `O` is an entity of its own.

The words of a text are not independent of each other: bounds resample texts, never words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from enginewright_api.errors import DeterministicError
from enginewright_api.operation_spec import Metric
from enginewright_builder.datasets.rows import Row
from enginewright_builder.datasets.words import class_numbers
from enginewright_builder.gate.bounds import at_least_unseen, ratio_bounds, statistic_bounds
from enginewright_builder.gate.measured import Measured

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Answers = NDArray[np.float32]
    Numbers = NDArray[np.int64]
    Floats = NDArray[np.float64]

OUTSIDE = "O"
_PREFIXES = tuple("BIES")
_SET = "quality.dataset"


@dataclass(frozen=True, slots=True)
class Scheme:
    """What a model's labels say of a word: one number a class. Types count from 1; 0 is outside of entities."""

    types: tuple[int, ...]
    prefixes: str
    """One letter a class: B, I, E, S, or O outside; of labels without prefixes S, each word by itself."""

    @classmethod
    def of(cls, labels: Sequence[str]) -> Scheme:
        """By the model's labels: prefixes count only where every label but `O` has one."""
        inside = [label for label in labels if label != OUTSIDE]
        prefixed = all(label[:1] in _PREFIXES and label[1:2] == "-" for label in inside)
        numbers: dict[str, int] = {}
        types, prefixes = [], ""
        for label in labels:
            if label == OUTSIDE:
                types.append(0)
                prefixes += OUTSIDE
            else:
                types.append(numbers.setdefault(label[2:] if prefixed else label, len(numbers) + 1))
                prefixes += label[0] if prefixed else "S"
        return cls(tuple(types), prefixes)

    def entities(self, classes: Numbers, text: Numbers) -> Numbers:
        """First word, last word and type of each entity [entities, 3] of words [words] and the text each is of."""
        kind = np.array(self.types, np.int64)[classes]
        prefix = np.array(list(self.prefixes))[classes]
        before, prior = np.roll(kind, 1), np.roll(prefix, 1)
        fresh = text != np.roll(text, 1)
        fresh[:1] = True
        before[fresh], prior[fresh] = 0, OUTSIDE
        inside = kind > 0
        starts = inside & ((kind != before) | np.isin(prefix, ["B", "S"]) | np.isin(prior, ["E", "S", OUTSIDE]))
        first = np.flatnonzero(starts)
        number = np.cumsum(starts) - 1
        # Each word inside belongs to the entity that began last, so the last such word ends it.
        last = np.zeros(len(first), np.int64)
        last[number[inside]] = np.flatnonzero(inside)
        return np.stack([first, last, kind[first]], axis=1)


def measure_tagging(  # noqa: PLR0917 - what is measured, on what, and how surely
    metric: Metric,
    engine: Answers,
    baseline: Answers,
    rows: Sequence[Row],
    labels: Sequence[str],
    levels: Sequence[float],
) -> Measured:
    """Accuracy or F1 of both; answers [words of all rows, labels], rows as `datasets.words.judged` leaves them.

    Accuracy: the share of all words that is right. Raises DeterministicError InvalidDataset for labels that the model
    does not know, and for F1 of rows without any entity.
    """
    expected = np.array([one for row in rows for one in class_numbers(row, labels, _SET)], np.int64)
    text = np.repeat(np.arange(len(rows)), [len(row.word_labels) for row in rows])
    said, said_before = engine.argmax(axis=1), baseline.argmax(axis=1)
    if metric is Metric.ACCURACY:
        return _accuracy(said == expected, said_before == expected, text, levels)
    if metric is Metric.F1:
        scheme = Scheme.of(labels)
        wanted = scheme.entities(expected, text)
        if not len(wanted):
            raise DeterministicError(
                "InvalidDataset",
                f"{_SET}: no word of its {len(rows)} rows has a label other than O; F1 needs some, or use Accuracy",
            )
        counts = [found_of(scheme.entities(one, text), wanted, text) for one in (said, said_before)]
        return _f1(counts[0], counts[1], levels)
    raise DeterministicError(
        "FeatureNotAvailable", f"quality.metric: {metric.value} cannot be measured on labels of words"
    )


def found_of(said: Numbers, wanted: Numbers, text: Numbers) -> Floats:
    """Per text: entities found rightly, and entities said and wanted together [texts, 2]."""
    texts = int(text[-1]) + 1
    right = {tuple(one) for one in said.tolist()} & {tuple(one) for one in wanted.tolist()}
    hits = np.bincount(text[[first for first, _, _ in right]], minlength=texts) if right else np.zeros(texts)
    total = np.bincount(text[said[:, 0]], minlength=texts) + np.bincount(text[wanted[:, 0]], minlength=texts)
    return np.stack([hits, total], axis=1).astype(np.float64)


def micro_f1(found: Floats, counts: Floats) -> Floats:
    """2·TP / (2·TP + FP + FN), one a choice of texts; `counts` [choices, texts] says how often each text is in one.

    0 where a choice holds no entity at all.
    """
    hits, total = (counts @ found).T
    return np.asarray(np.divide(2 * hits, total, out=np.zeros_like(hits), where=total > 0))


def _accuracy(
    right: NDArray[np.bool_], right_before: NDArray[np.bool_], text: Numbers, levels: Sequence[float]
) -> Measured:
    words = np.bincount(text).astype(np.float64)
    lost = np.bincount(text, weights=right_before.astype(np.float64) - right).astype(np.float64)
    optimized, baseline = float(right.mean()), float(right_before.mean())
    bounds = at_least_unseen(ratio_bounds(lost, words, levels), len(words), levels)
    return Measured(baseline, optimized, baseline - optimized, bounds)


def _f1(found: Floats, found_before: Floats, levels: Sequence[float]) -> Measured:
    texts = len(found)

    def drop_of(counts: Floats) -> Floats:
        return micro_f1(found_before, counts) - micro_f1(found, counts)

    once = np.ones((1, texts))
    optimized, baseline = (float(micro_f1(one, once)[0]) for one in (found, found_before))
    bounds = at_least_unseen(statistic_bounds(drop_of, texts, levels), texts, levels)
    return Measured(baseline, optimized, baseline - optimized, bounds)
