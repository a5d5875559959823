"""From a data set of the recipe to the rows that are used, in an order that does not depend on the file's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from enginewright_api.errors import DeterministicError
from enginewright_api.identity import digest_of, sha256_hex
from enginewright_api.source import Dataset
from enginewright_builder.datasets.builtin import builtin_rows
from enginewright_builder.datasets.rows import SUFFIXES, Row, read_rows
from enginewright_builder.places import Places
from enginewright_store import open_store

Purpose = Literal["calibration", "evaluation"]


@dataclass(frozen=True, slots=True)
class Drawn:
    """Rows in order of use. More may be taken from the same list: the first n stay the first n."""

    name: str
    rows: tuple[Row, ...]

    @property
    def digest(self) -> str:
        """Names the content."""
        return digest_of([[row.text, row.text_pair, row.label, row.score] for row in self.rows])

    def first(self, count: int) -> Drawn:
        """The first `count` rows, or all there are."""
        return Drawn(self.name, self.rows[:count])


def draw(dataset: Dataset, purpose: Purpose, places: Places) -> Drawn:
    """All rows, shuffled by content (a digest, no random numbers): equal sets give equal draws on every machine."""
    name, rows = _read(dataset, purpose, places)
    distinct = {(row.text, row.text_pair): row for row in rows}
    ordered = sorted(distinct.values(), key=lambda row: sha256_hex(f"{row.text}\0{row.text_pair or ''}".encode()))
    return Drawn(name, tuple(ordered))


def without_leaks(calibration: Drawn, evaluation: Sequence[Row]) -> tuple[Drawn, int]:
    """Calibration without rows that the gate judges on, and how many those were.

    Raises DeterministicError when nothing is left.
    """
    judged = {row.normalized for row in evaluation}
    kept = tuple(row for row in calibration.rows if row.normalized not in judged)
    if not kept:
        raise DeterministicError(
            "InvalidDataset",
            f"data set {calibration.name}: every calibration row is also judged on;"
            " give optimization.quantization.calibration.dataset other rows than quality.dataset",
        )
    return Drawn(calibration.name, kept), len(calibration.rows) - len(kept)


def _read(dataset: Dataset, purpose: Purpose, places: Places) -> tuple[str, list[Row]]:
    columns = dataset.columns
    if dataset.builtin is not None:
        name = dataset.builtin.name
        return name, builtin_rows(name, judged_on=purpose == "evaluation")
    if dataset.config_map is not None:
        name = f"{dataset.config_map.name}/{dataset.config_map.key}"
        return name, read_rows(_inside(places.datasets, name, name), columns, name=name)
    if dataset.persistent_volume_claim is not None:
        claim = dataset.persistent_volume_claim
        name = f"{claim.claim_name}/{claim.path}"
        return name, read_rows(_inside(places.volumes, name, name), columns, name=name)
    if dataset.object_store is not None:
        uri = dataset.object_store.uri
        return uri, read_rows(_from_store(uri, places), columns, name=uri)
    raise DeterministicError(
        "FeatureNotAvailable", "dataset.huggingFace: data sets from a hub are not available yet; use a file in a store"
    )


def _inside(root: Path, relative: str, name: str) -> Path:
    path = (root / relative).resolve()
    if not path.is_relative_to(root.resolve()):
        raise DeterministicError("InvalidDataset", f"data set {name}: leads out of its volume")
    if not path.is_file():
        raise DeterministicError("InvalidDataset", f"data set {name}: no such file")
    return path


def _from_store(uri: str, places: Places) -> Path:
    folder, _, file_name = uri.rpartition("/")
    if not file_name.endswith(SUFFIXES):
        raise DeterministicError(
            "InvalidDataset", f"data set {uri}: must name a file that ends in {', '.join(SUFFIXES)}"
        )
    store = open_store(folder)
    data = store.read(file_name)
    local = places.scratch / f"dataset-{sha256_hex(data)[:16]}{Path(file_name).suffix}"
    local.write_bytes(data)
    return local
