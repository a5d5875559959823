"""`valence-en`: the short English texts of `reviews-en`, word by word: `Negative`, `Positive` or `O`.

A word's label is the side that people put it on: every entry of the lexicon was rated from -4 to +4 by ten people, out
of any context. Words without an entry, or with a mean nearer to 0 than half a point, are `O`, as are signs.
Source: Hutto and Gilbert (2014), as `reviews-en`; documents are divided as there.
"""

from __future__ import annotations

import re

from enginewright_api.errors import DeterministicError
from enginewright_builder.datasets.package_archive import fetched, member
from enginewright_builder.datasets.reviews import ARCHIVE, judged_on, snippets
from enginewright_builder.datasets.rows import Row

NAME = "valence-en"
LABELS = ("O", "Negative", "Positive")
"""In the order of the classes."""
_LEXICON = "vaderSentiment-3.3.2/vaderSentiment/vader_lexicon.txt"
_KINDS = ("movieReview", "amazonReview")
_NEUTRAL = 0.5
_WORD = re.compile(r"\w+(?:['’\-]\w+)*|[^\w\s]")
"""A word with what is written into it, or one sign."""


def calibration_rows() -> list[Row]:
    """Rows to learn from and to measure ranges on. None of their texts is among the evaluation rows."""
    kept_apart = {row.normalized for row in evaluation_rows()}
    return [row for row in _rows(judged=False) if row.normalized not in kept_apart]


def evaluation_rows() -> list[Row]:
    """Rows for the gate."""
    return _rows(judged=True)


def ratings() -> dict[str, float]:
    """Mean rating of each entry of the lexicon, in lower case."""
    content = member(fetched(ARCHIVE).read_bytes(), _LEXICON, archive=ARCHIVE.file_name).decode("utf-8")
    found = {}
    for number, line in enumerate(content.splitlines(), start=1):
        cells = line.split("\t")
        if len(cells) < 2:
            raise DeterministicError("InvalidDataset", f"data set {NAME}: the lexicon's line {number} has no rating")
        found[cells[0].lower()] = float(cells[1])
    return found


def _rows(*, judged: bool) -> list[Row]:
    rated = ratings()
    found: dict[str, Row] = {}
    for kind in _KINDS:
        for snippet in snippets(kind):
            words = _WORD.findall(snippet.text)
            if words and judged_on(snippet) is judged:
                row = Row(" ".join(words), word_labels=tuple(_label(word, rated) for word in words))
                found.setdefault(row.normalized, row)
    return list(found.values())


def _label(word: str, rated: dict[str, float]) -> str:
    rating = rated.get(word.lower(), 0.0)
    if abs(rating) < _NEUTRAL or not word[0].isalnum():
        return LABELS[0]
    return LABELS[1 + (rating > 0)]
