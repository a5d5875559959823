"""Rows from where a recipe says they are: a mounted file or folder, an object store, a hub."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from enginewright_api.errors import DeterministicError
from enginewright_api.identity import sha256_hex
from enginewright_api.source import Columns, HuggingFaceDataset
from enginewright_builder.datasets.rows import SUFFIXES, Row, invalid, read_rows
from enginewright_builder.datasets.splits import CARD, preferred_split, split_files
from enginewright_builder.places import Places
from enginewright_builder.sources.address import check_bucket
from enginewright_builder.sources.hub_access import HubAccess
from enginewright_store import open_store

_MOST_FILES = 10_000


def mounted_rows(root: Path, relative: str, columns: Columns, splits: Sequence[str]) -> list[Row]:
    """Of a file or folder below a mount; of a folder, the first of `splits` that it has.

    Raises DeterministicError InvalidDataset, also for a path or link that leads out of the mount.
    """
    path = (root / relative).resolve()
    if not path.is_relative_to(root.resolve()):
        raise invalid(relative, "leads out of its volume")
    if path.is_dir():
        return _folder_rows(path, columns, splits, relative)
    if not path.is_file():
        raise invalid(relative, "no such file")
    return read_rows(path, columns, name=relative)


def stored_rows(uri: str, columns: Columns, splits: Sequence[str], places: Places) -> list[Row]:
    """Of a file or folder in an object store or on this machine (file://).

    Raises DeterministicError InvalidDataset, ForbiddenAddress, or what the store raises.
    """
    parts = urlsplit(uri)
    if parts.scheme == "file":
        path = Path(parts.path)
        return _folder_rows(path, columns, splits, uri) if path.is_dir() else _stored_file(uri, columns, places)
    check_bucket(parts.netloc, where="dataset.objectStore.uri")
    if uri.endswith(SUFFIXES):
        return _stored_file(uri, columns, places)
    store = open_store(uri.rstrip("/"))
    names = store.list()
    if not names:
        raise invalid(uri, f"names neither a folder with files nor a file that ends in {', '.join(SUFFIXES)}")

    def local(name: str) -> Path:
        return _kept(store.read(name), Path(name).suffix, places)

    return _split_rows(names, local, columns, splits, uri)


def hub_rows(dataset: HuggingFaceDataset, columns: Columns, places: Places) -> list[Row]:
    """Of one split of a data-set repository: only that split's files are downloaded.

    Raises DeterministicError (InvalidDataset, SourceNotFound, SourceAccessDenied, InvalidRevision) or TransientError.
    """
    name = f"{dataset.repository}@{dataset.revision[:12]}"
    access = HubAccess(dataset, places, "dataset", "dataset.huggingFace")
    access.check_revision()
    names = access.names()
    into = places.scratch / "datasets" / sha256_hex(f"{dataset.repository}@{dataset.revision}".encode())[:16]
    into.mkdir(parents=True, exist_ok=True)
    card = ""
    if CARD in names:
        access.download([CARD], into)
        card = (into / CARD).read_text(encoding="utf-8", errors="replace")
    files = split_files(names, dataset.split, card=card, name=name)
    access.download([_literally(file) for file in files], into)
    return [row for file in files for row in read_rows(into / file, columns, name=f"{name}/{file}")]


def _folder_rows(folder: Path, columns: Columns, splits: Sequence[str], name: str) -> list[Row]:
    root = folder.resolve()
    names = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            if not path.resolve().is_relative_to(root):
                raise DeterministicError("UnsafePath", f"data set {name}: {path.name} is a link out of the folder")
            names.append(path.relative_to(folder).as_posix())
    return _split_rows(names, lambda file: folder / file, columns, splits, name)


def _split_rows(
    names: Sequence[str], local: Callable[[str], Path], columns: Columns, splits: Sequence[str], name: str
) -> list[Row]:
    if len(names) > _MOST_FILES:
        raise invalid(name, f"holds {len(names)} files, more than {_MOST_FILES}; name one file")
    card = local(CARD).read_text(encoding="utf-8", errors="replace") if CARD in names else ""
    files = preferred_split(names, splits, card=card, name=name)
    return [row for file in files for row in read_rows(local(file), columns, name=f"{name}/{file}")]


def _stored_file(uri: str, columns: Columns, places: Places) -> list[Row]:
    folder, _, file_name = uri.rpartition("/")
    if not file_name.endswith(SUFFIXES):
        raise invalid(uri, f"names neither a folder nor a file that ends in {', '.join(SUFFIXES)}")
    return read_rows(_kept(open_store(folder).read(file_name), Path(file_name).suffix, places), columns, name=uri)


def _kept(data: bytes, suffix: str, places: Places) -> Path:
    local = places.scratch / f"dataset-{sha256_hex(data)[:16]}{suffix}"
    local.write_bytes(data)
    return local


def _literally(name: str) -> str:
    """A pattern that matches this name only."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)
