"""Texts of the kind that `reviews-en` rates, without their labels: what a user has more of than of rated ones.

The rated texts to learn from, those on which people did not agree, tweets and newspapers' editorials; all from the same
archive. Of the documents that the gate judges on there is nothing.
"""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.models.places import model_folder
from enginewright_builder.datasets import reviews
from enginewright_builder.datasets.rows import Row

_VERSION = 1


def unlabelled() -> list[Row]:
    """Each text once."""
    found = {row.normalized: Row(row.text) for row in reviews.calibration_rows()}
    for kind, judged_too in (("movieReview", True), ("amazonReview", True), ("tweets", False), ("nytEditorial", False)):
        for snippet in reviews.snippets(kind):
            if snippet.text and not (judged_too and reviews.judged_on(snippet)):
                row = Row(snippet.text)
                found.setdefault(row.normalized, row)
    judged = {row.normalized for row in reviews.evaluation_rows()}
    return [row for normalized, row in found.items() if normalized not in judged]


def texts_file() -> Path:
    """A .jsonl file of them, made once."""
    with model_folder("texts-reviews-en", {"version": _VERSION}) as (folder, made):
        file = folder / "texts.jsonl"
        if not made:
            file.write_text("".join(json.dumps({"text": row.text}) + "\n" for row in unlabelled()), encoding="utf-8")
    return file
