"""Records of a Parquet file, through DuckDB: bounded memory, and an error for whatever is broken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from enginewright_api.errors import DeterministicError

_MEMORY = "1GB"
_BATCH = 2048


def parquet_records(file: Path, name: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Number and record of each row; `name` is what messages call the file. Raises DeterministicError InvalidDataset.

    DuckDB may read this one file and nothing else: a Parquet file cannot name another, but a path could.
    """
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
            found = connection.execute("SELECT * FROM read_parquet(?)", [str(file)])
            columns = [str(column[0]) for column in found.description or ()]
            number = 0
            while batch := found.fetchmany(_BATCH):
                for values in batch:
                    number += 1
                    yield number, dict(zip(columns, values, strict=True))
        except duckdb.Error as error:
            said = str(error).splitlines()[0][:200]
            raise DeterministicError("InvalidDataset", f"data set {name}: is not readable Parquet ({said})") from error


def _quoted(file: Path) -> str:
    escaped = str(file).replace("'", "''")
    return f"'{escaped}'"
