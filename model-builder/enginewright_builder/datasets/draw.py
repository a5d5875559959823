"""From a data set of the recipe to the rows that are used, in an order that does not depend on the file's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from enginewright_api.errors import DeterministicError
from enginewright_api.identity import digest_of, sha256_hex
from enginewright_api.source import Dataset
from enginewright_builder.datasets.builtin import builtin_rows
from enginewright_builder.datasets.origins import hub_rows, mounted_rows, stored_rows
from enginewright_builder.datasets.rows import Row, normalized
from enginewright_builder.places import Places

Purpose = Literal["calibration", "evaluation"]

SPLITS: dict[Purpose, tuple[str, ...]] = {
    "calibration": ("train", "validation", "test"),
    "evaluation": ("validation", "test", "train"),
}
"""Splits of a folder in order of preference. The test split of many public sets has no labels."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """Rows in order of use. More may be taken from the same list: the first n stay the first n."""

    name: str
    rows: tuple[Row, ...]

    @property
    def digest(self) -> str:
        """Names the content."""
        return digest_of([_content(row) for row in self.rows])

    def first(self, count: int) -> Drawn:
        """The first `count` rows, or all there are."""
        return Drawn(self.name, self.rows[:count])

    def by_query(self) -> Drawn:
        """Pairs of one query side by side, so that the first rows hold whole queries; queries ordered by digest."""
        ordered = sorted(self.rows, key=lambda row: sha256_hex(row.text.encode()))
        return Drawn(self.name, tuple(ordered))


NOTHING = Drawn("", ())
"""Where no rows are looked at."""


def draw(dataset: Dataset, purpose: Purpose, places: Places) -> Drawn:
    """All rows, shuffled by content (a digest, no random numbers): equal sets give equal draws on every machine.

    Of rows with one text and several labels the first label in order counts.
    """
    name, rows = _read(dataset, purpose, places)
    rows.sort(key=lambda row: (row.label or "", row.score or 0.0, row.word_labels), reverse=True)
    distinct = {(row.text, row.text_pair): row for row in rows}
    ordered = sorted(distinct.values(), key=lambda row: sha256_hex(f"{row.text}\0{row.text_pair or ''}".encode()))
    return Drawn(name, tuple(ordered))


def without_leaks(calibration: Drawn, evaluation: Sequence[Row]) -> tuple[Drawn, int]:
    """Calibration without rows that the gate judges on, and how many those were.

    Texts are compared by their words, and also with the second text of a pair: both are judged on. Raises
    DeterministicError when nothing is left.
    """
    judged = {text for row in evaluation for text in _texts(row)}
    kept = tuple(row for row in calibration.rows if judged.isdisjoint(_texts(row)))
    if not kept:
        raise DeterministicError(
            "InvalidDataset",
            f"data set {calibration.name}: every calibration row is also judged on;"
            " give optimization.quantization.calibration.dataset other rows than quality.dataset",
        )
    return Drawn(calibration.name, kept), len(calibration.rows) - len(kept)


def _content(row: Row) -> list[object]:
    plain: list[object] = [row.text, row.text_pair, row.label, row.score]
    return [*plain, list(row.word_labels)] if row.word_labels else plain


def _texts(row: Row) -> set[str]:
    return {normalized(text) for text in (row.text, row.text_pair) if text}


def _read(dataset: Dataset, purpose: Purpose, places: Places) -> tuple[str, list[Row]]:
    columns, splits = dataset.columns, SPLITS[purpose]
    if dataset.builtin is not None:
        name = dataset.builtin.name
        return name, builtin_rows(name, judged_on=purpose == "evaluation")
    if dataset.config_map is not None:
        name = f"{dataset.config_map.name}/{dataset.config_map.key}"
        return name, mounted_rows(places.datasets, name, columns, splits)
    if dataset.persistent_volume_claim is not None:
        claim = dataset.persistent_volume_claim
        name = f"{claim.claim_name}/{claim.path}"
        return name, mounted_rows(places.volumes, name, columns, splits)
    if dataset.object_store is not None:
        uri = dataset.object_store.uri
        return uri, stored_rows(uri, columns, splits, places)
    hub = dataset.hugging_face
    if hub is not None:
        return f"{hub.repository}@{hub.revision[:12]}/{hub.split}", hub_rows(hub, columns, places)
    raise DeterministicError("InvalidDataset", "dataset: names no place; set configMap, objectStore, or another one")
