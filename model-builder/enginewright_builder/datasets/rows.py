"""One row of a data set, and the files rows are read from."""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from math import isfinite
from pathlib import Path

from enginewright_api.errors import DeterministicError
from enginewright_api.recipe import Task
from enginewright_api.source import Columns
from enginewright_builder.datasets.parquet import names_of_classes, parquet_records

SUFFIXES = (".parquet", ".jsonl", ".csv", ".txt")
MOST_BYTES = 2**30
MOST_ROWS = 2_000_000
_CELL_BYTES = 2**20
_WORDS = re.compile(r"\w+")

Text = str | tuple[str, str]
"""What an encoder reads at once: a text; or a query and a text that is ranked for it."""


@dataclass(frozen=True, slots=True)
class Row:
    """A text, and what a human said about it."""

    text: str
    text_pair: str | None = None
    label: str | None = None
    score: float | None = None
    word_labels: tuple[str, ...] = ()
    """One a word of the text, for token classification; `words` says what they are."""
    line: int = field(default=0, compare=False)
    """Where a row with labels of words was read, for messages; 0 where no file says."""

    @property
    def words(self) -> list[str]:
        """What the labels of words are about: the text between single spaces, as it was joined."""
        return self.text.split(" ")

    @property
    def normalized(self) -> str:
        """What two rows are compared by, so that copies which differ in writing only are found."""
        return normalized(self.text)


def paired(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Rows as a reranker reads them: one without a second text gets the next row's text, the last one the first's."""
    following = (*rows[1:], *rows[:1])
    return tuple(
        row if row.text_pair is not None else replace(row, text_pair=other.text)
        for row, other in zip(rows, following, strict=True)
    )


def texts_of_rows(rows: Sequence[Row], task: Task) -> list[Text]:
    """What an encoder is asked: of a reranker pairs, of others the texts, then the second texts of those with one."""
    if task is Task.RERANKING:
        return [(row.text, row.text_pair or "") for row in paired(rows)]
    return [*(row.text for row in rows), *(row.text_pair for row in rows if row.text_pair is not None)]


def normalized(text: str) -> str:
    """Words of a text: case, spaces, punctuation, and ways of writing one letter in Unicode do not count.

    A text without any word stays as it is.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(_WORDS.findall(folded)) or folded.strip()


def read_rows(file: Path, columns: Columns, *, name: str) -> list[Row]:
    """Rows of a .parquet, .jsonl, .csv or .txt file; `name` is what messages call it.

    Raises DeterministicError InvalidDataset: unknown ending, missing column, broken line, empty or too large a set.
    """
    if file.suffix not in SUFFIXES:
        raise invalid(name, f"the ending must be one of {', '.join(SUFFIXES)}, not {file.suffix or 'none'!r}")
    rows: list[Row] = []
    classes: tuple[str, ...] | None = None
    for number, record in _records(file, name):
        row = _row(record, columns, name, number)
        if row.word_labels and file.suffix == ".parquet":
            classes = names_of_classes(file, columns.label or "", name) if classes is None else classes
            row = replace(row, word_labels=_named(row, classes, name))
        if row.text.strip():
            rows.append(row)
        if len(rows) > MOST_ROWS:
            raise invalid(name, f"holds more than {MOST_ROWS} rows; give a smaller file or split")
    if not rows:
        raise invalid(name, "holds no rows with text")
    return rows


def _records(file: Path, name: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    try:
        size = file.stat().st_size
        if size > MOST_BYTES:
            raise invalid(name, f"is {size} bytes large, more than {MOST_BYTES}; give a smaller file or split")
        if file.suffix == ".parquet":
            return parquet_records(file, name)
        content = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise invalid(name, f"is not UTF-8 (byte {error.start})") from error
    except OSError as error:
        raise invalid(name, f"cannot be read ({error.strerror})") from error
    return {".jsonl": _json_lines, ".csv": _csv, ".txt": _lines}[file.suffix](content, name)


def _json_lines(content: str, name: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    # Not `splitlines`: JSON may hold U+2028, U+0085 and others that end a line there.
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise invalid(name, f"line {number} is not JSON ({getattr(error, 'msg', error)})") from error
        if not isinstance(record, dict):
            raise invalid(name, f"line {number} is not a JSON object")
        yield number, record


def _csv(content: str, name: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    reader = csv.DictReader(io.StringIO(content), strict=True)
    try:
        for record in reader:
            yield reader.line_num, {str(key): value for key, value in record.items()}
    except csv.Error as error:
        raise invalid(name, f"line {reader.line_num} is not CSV ({error})") from error


def _lines(content: str, name: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    for number, line in enumerate(content.split("\n"), start=1):
        if line.strip():
            yield number, {"text": line.strip()}


def _row(record: Mapping[str, object], columns: Columns, name: str, number: int) -> Row:
    def cell(field: str, column: str | None) -> str | None:
        if column is None:
            return None
        value = record.get(column)
        if value is None and column in record:
            raise invalid(name, f"line {number}: column {column!r} (columns.{field}) is null; leave the row out")
        if value is None:
            there = ", ".join(sorted(map(repr, record)))[:200] or "none"
            raise invalid(name, f"line {number} has no column {column!r} (columns.{field}); it has {there}")
        if not isinstance(value, str | int | float | Decimal):
            there = "is a list, and the text is no list of words" if isinstance(value, list) else "is no text or number"
            raise invalid(name, f"line {number}: column {column!r} (columns.{field}) {there}")
        return _printed(value, name, number, column)

    score = cell("score", columns.score)
    try:
        number_of_score = None if score is None else float(score)
    except ValueError as error:
        raise invalid(name, f"line {number}: column {columns.score!r} is not a number but {score[:80]!r}") from error  # type: ignore[index]  # it was given
    if number_of_score is not None and not isfinite(number_of_score):
        raise invalid(name, f"line {number}: column {columns.score!r} is {number_of_score}, no number to rank by")
    if isinstance(record.get(columns.text), list):
        text, word_labels = _text_of_words(record, columns, name, number)
        label = None
    else:
        text, word_labels = cell("text", columns.text) or "", ()
        label = cell("label", columns.label)
    return Row(
        text=text,
        text_pair=cell("textPair", columns.text_pair),
        label=label,
        score=number_of_score,
        word_labels=word_labels,
        line=number if word_labels else 0,
    )


def _text_of_words(
    record: Mapping[str, object], columns: Columns, name: str, number: int
) -> tuple[str, tuple[str, ...]]:
    """Words joined by single spaces, and their labels where columns.label names a column."""
    words = [word.strip() for word in _listed(record, "text", columns.text, name, number)]
    if not any(words):
        raise invalid(name, f"line {number}: column {columns.text!r} (columns.text) holds no words; leave the row out")
    spaced = next((word for word in words if " " in word), None)
    if spaced is not None:
        raise invalid(name, f"line {number}: word {spaced[:80]!r} holds a space; make it two words or write it with _")
    if columns.label is None:
        return " ".join(words), ()
    labels = _listed(record, "label", columns.label, name, number)
    if len(labels) != len(words):
        raise invalid(
            name,
            f"line {number}: column {columns.text!r} has {len(words)} words and column {columns.label!r} {len(labels)}"
            " labels; give one label a word",
        )
    return " ".join(words), tuple(labels)


def _named(row: Row, classes: Sequence[str], name: str) -> tuple[str, ...]:
    """Labels by the names that the data set itself gives its class numbers, where it gives any."""
    numbers = {str(number): label for number, label in enumerate(classes)}
    unknown = next((label for label in row.word_labels if classes and label not in numbers), None)
    if unknown is not None:
        listed = ", ".join(classes)[:200]
        raise invalid(name, f"line {row.line}: label {unknown[:80]!r} is none of the classes that it names ({listed})")
    return tuple(numbers.get(label, label) for label in row.word_labels)


def _listed(record: Mapping[str, object], field: str, column: str, name: str, number: int) -> list[str]:
    """A cell that is a list, its values as text."""
    values = record.get(column)
    if not isinstance(values, list):
        there = "nothing" if values is None else repr(values)[:80]
        raise invalid(
            name, f"line {number}: column {column!r} (columns.{field}) is {there}, no list; a list of words needs one"
        )
    # Numbers among words would be numbers of tokens, which are no text.
    wanted = "text" if field == "text" else "text or number"
    for value in values:
        if not isinstance(value, str) and (field == "text" or not isinstance(value, int)):
            shown = repr(value)[:80]
            raise invalid(name, f"line {number}: column {column!r} (columns.{field}) holds {shown}, no {wanted}")
    return [_printed(value, name, number, column) for value in values]


def _printed(value: str | float | Decimal, name: str, number: int, column: str) -> str:
    try:
        text = str(value)
        size = len(text.encode())
    except ValueError as error:  # an integer of thousands of digits, a lone surrogate
        raise invalid(name, f"line {number}: column {column!r} cannot be written as text ({error})"[:300]) from error
    if size > _CELL_BYTES:
        raise invalid(name, f"line {number}: column {column!r} holds {size} bytes, more than {_CELL_BYTES}")
    return text


def invalid(name: str, what: str) -> DeterministicError:
    """The error of every data set that cannot be used."""
    return DeterministicError("InvalidDataset", f"data set {name}: {what}")
