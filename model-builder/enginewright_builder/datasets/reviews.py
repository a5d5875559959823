"""`reviews-en`: short English texts, rated by people, labelled `negative` or `positive`.

Sentences of movie reviews and of product reviews, each rated from -4 to +4 by twenty people; the label is the sign of
their mean.
Source: Hutto and Gilbert (2014), VADER: a parsimonious rule-based model for sentiment analysis of social media text
(MIT licence), from the source archive of the package vaderSentiment.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from enginewright_api.errors import DeterministicError
from enginewright_api.identity import sha256_hex
from enginewright_builder.datasets.package_archive import PackageArchive, fetched, member
from enginewright_builder.datasets.rows import Row

NAME = "reviews-en"
LABELS = ("negative", "positive")
"""In the order of the classes."""
ARCHIVE = PackageArchive("vaderSentiment", "3.3.2", "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9")
_INNER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
_FOLDER = "hutto_ICWSM_2014"
_NEUTRAL = 0.5
"""Nearer to 0 than this, people do not agree which side a text is on: such texts have no label and are left out."""
_EVALUATION_IN = 3
"""One document in so many is judged on, the others are learnt from."""


@dataclass(frozen=True, slots=True)
class Snippet:
    """One rated text; texts of one document have the same `document`."""

    document: str
    text: str
    rating: float


def calibration_rows() -> list[Row]:
    """Rows to learn from and to measure ranges on. None of their texts is among the evaluation rows."""
    kept_apart = {row.normalized for row in evaluation_rows()}
    return [row for row in _rows(judged=False) if row.normalized not in kept_apart]


def evaluation_rows() -> list[Row]:
    """Rows for the gate."""
    return _rows(judged=True)


def snippets(kind: str) -> Iterator[Snippet]:
    """Of `movieReview`, `amazonReview`, `nytEditorial` or `tweets`, in the order of the file."""
    name = f"{kind}_GroundTruth.txt" if kind == "tweets" else f"{kind}Snippets_GroundTruth.txt"
    inner = member(fetched(ARCHIVE).read_bytes(), _INNER, archive=ARCHIVE.file_name)
    content = member(inner, f"{_FOLDER}/{name}", archive="hutto_ICWSM_2014.tar.gz").decode("utf-8")
    for number, line in enumerate(content.splitlines(), start=1):
        cells = line.split("\t", 2)
        if len(cells) != 3:
            raise DeterministicError("InvalidDataset", f"data set {NAME}: {name} line {number} has not three columns")
        # The document of 12_3 is 12; a movie snippet and a tweet are documents of their own.
        yield Snippet(f"{kind}/{cells[0].partition('_')[0]}", cells[2].strip(), float(cells[1]))


def judged_on(snippet: Snippet) -> bool:
    """Whether the snippet's document is one to judge on."""
    return int(sha256_hex(snippet.document.encode())[:8], 16) % _EVALUATION_IN == 0


def _rows(*, judged: bool) -> list[Row]:
    found: dict[str, Row] = {}
    for kind in ("movieReview", "amazonReview"):
        for snippet in snippets(kind):
            if judged_on(snippet) is judged and snippet.text and abs(snippet.rating) >= _NEUTRAL:
                row = Row(snippet.text, label=LABELS[snippet.rating > 0])
                found.setdefault(row.normalized, row)
    return list(found.values())
