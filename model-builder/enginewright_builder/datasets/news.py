"""`news-en`: short English news texts, cut from the Lee corpora that come with gensim.

Every document gives passages of one, two and four sentences, so that inputs are as mixed in length as real ones. The
documents, not the passages, are divided between calibration and evaluation: the two sets cannot share a text.
Source: Lee, Pincombe, Welsh (2005), An empirical evaluation of models of text document similarity.
"""

from __future__ import annotations

import importlib.metadata
import re
from itertools import cycle
from pathlib import Path

from enginewright_api.errors import DeterministicError
from enginewright_builder.datasets.rows import Row

NAME = "news-en"
_FILES = ("lee_background.cor", "lee.cor")
_PASSAGE_SENTENCES = (1, 2, 4)
_CALIBRATION_EVERY = 3
"""One document in three calibrates, the other two are judged on."""
_MIN_WORDS = 4
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'])")


def calibration_rows() -> list[Row]:
    """Passages for measuring ranges."""
    return passages(documents()[::_CALIBRATION_EVERY])


def evaluation_rows() -> list[Row]:
    """Passages for the gate."""
    return passages([text for index, text in enumerate(documents()) if index % _CALIBRATION_EVERY])


def documents() -> list[str]:
    """Distinct documents in the order of the files."""
    return list(dict.fromkeys(text for name in _FILES for text in corpus(name)))


def corpus(file_name: str) -> list[str]:
    """Documents of one file, one a line."""
    lines = (folder() / file_name).read_text(encoding="utf-8", errors="replace").splitlines()
    return [line.strip() for line in lines if line.strip()]


def passages(texts: list[str]) -> list[Row]:
    """One, two and four sentences in turn; pieces of less than four words are left out."""
    sizes = cycle(_PASSAGE_SENTENCES)
    found: list[str] = []
    for text in texts:
        sentences = _SENTENCE_END.split(text)
        while sentences:
            size = next(sizes)
            found.append(" ".join(sentences[:size]))
            sentences = sentences[size:]
    return [Row(text) for text in dict.fromkeys(found) if len(text.split()) >= _MIN_WORDS]


def folder() -> Path:
    """Where gensim keeps the files of its tests."""
    # gensim itself is not imported: it would cost a second for two text files.
    try:
        distribution = importlib.metadata.distribution("gensim")
    except importlib.metadata.PackageNotFoundError as error:
        raise DeterministicError(
            "ToolchainMissing", f"data set {NAME}: needs the package gensim; install enginewright[builder]"
        ) from error
    return Path(str(distribution.locate_file("gensim/test/test_data")))
