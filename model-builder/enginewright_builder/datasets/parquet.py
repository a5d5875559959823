"""Records of a Parquet file, through DuckDB: bounded memory, and an error for whatever is broken."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from enginewright_api.errors import DeterministicError

if TYPE_CHECKING:
    import duckdb

_MEMORY = "1GB"
_FEATURES_KEY = "huggingface"
_BATCH = 2048


def parquet_records(file: Path, name: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Number and record of each row; `name` is what messages call the file. Raises DeterministicError InvalidDataset.

    DuckDB may read this one file and nothing else: a Parquet file cannot name another, but a path could.
    """
    with _opened(file, name) as connection:
        found = connection.execute("SELECT * FROM read_parquet(?)", [str(file)])
        columns = [str(column[0]) for column in found.description or ()]
        number = 0
        while batch := found.fetchmany(_BATCH):
            for values in batch:
                number += 1
                yield number, dict(zip(columns, values, strict=True))


def names_of_classes(file: Path, column: str, name: str) -> tuple[str, ...]:
    """What the file itself calls the class numbers in a column of lists, as the library datasets writes it; else empty.

    Numbers mean what the data set says they mean, which is often not the order of a model's classes. Raises as
    `parquet_records`.
    """
    with _opened(file, name) as connection:
        found = connection.execute(
            "SELECT decode(value) FROM parquet_kv_metadata(?) WHERE decode(key) = ?", [str(file), _FEATURES_KEY]
        ).fetchone()
    try:
        described = json.loads(found[0]) if found is not None else {}
        feature = described["info"]["features"][column]
        names = (feature["feature"] if isinstance(feature, dict) else feature[0])["names"]
        return tuple(str(one) for one in names)
    except (ValueError, RecursionError, LookupError, TypeError):
        return ()


@contextmanager
def _opened(file: Path, name: str) -> Iterator[duckdb.DuckDBPyConnection]:
    import duckdb

    settings: dict[str, str | bool | int | float | list[str]] = {
        "threads": 1,
        "memory_limit": _MEMORY,
        "autoinstall_known_extensions": False,
    }
    with duckdb.connect(":memory:", config=settings) as connection:
        try:
            connection.execute(f"SET allowed_paths=[{_quoted(file)}]")
            connection.execute("SET enable_external_access=false")
            yield connection
        except duckdb.Error as error:
            said = str(error).splitlines()[0][:200]
            raise DeterministicError("InvalidDataset", f"data set {name}: is not readable Parquet ({said})") from error


def _quoted(file: Path) -> str:
    escaped = str(file).replace("'", "''")
    return f"'{escaped}'"
