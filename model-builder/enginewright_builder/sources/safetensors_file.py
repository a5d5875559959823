"""Checks of weight files by their content: nothing is loaded, nothing is executed."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TypeGuard

from enginewright_api.errors import DeterministicError

_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 100 * 2**20
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "I16": 16, "U16": 16, "F16": 16,
    "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip
_ZIP = b"PK\x03\x04"
_PICKLE_PROTOCOL = 0x80
_SHORT_HEADER = bytes(6) + b"{"
"""What follows in a safetensors file whose header is 0x0080 to 0x0580 bytes long; 0 is no instruction of a pickle."""
_ARCHIVES = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"7z\xbc\xaf": "7z", b"(\xb5/\xfd": "zstd"}
_TAR_MAGIC_AT = 257
_MOST_DIMENSIONS = 32
_LARGEST = 2**63


@dataclass(frozen=True, slots=True)
class Tensors:
    """Header of a safetensors file."""

    shapes: dict[str, tuple[int, ...]]
    parameters: int


def kind_of(path: Path) -> str | None:
    """`pickle` or `archive` when the content is one, whatever the name says."""
    with path.open("rb") as file:
        head = file.read(512)
    if head[:4] == _ZIP:
        return "pickle" if _is_torch_zip(path) else "archive"
    if len(head) > 1 and head[0] == _PICKLE_PROTOCOL and head[1] <= 5 and head[2:9] != _SHORT_HEADER:
        return "pickle"
    if any(head.startswith(magic) for magic in _ARCHIVES) or head[_TAR_MAGIC_AT:][:5] == b"ustar":
        return "archive"
    return None


def read_header(path: Path, *, name: str) -> Tensors:
    """Names and shapes of the tensors of a file that is complete.

    Raises DeterministicError: UnsafeWeights for a pickle under this name, InvalidCheckpoint for a broken or cut file.
    """
    if kind_of(path) == "pickle":
        raise DeterministicError(
            "UnsafeWeights", f"{name}: is a pickle (it could run code) under a safetensors name; convert it properly"
        )
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(_LENGTH_BYTES)
        if len(prefix) < _LENGTH_BYTES:
            raise _broken(name, f"has only {size} bytes")
        (length,) = struct.unpack("<Q", prefix)
        if length > min(_MAX_HEADER_BYTES, size - _LENGTH_BYTES):
            raise _broken(name, f"is truncated or no safetensors file: its header should be {length} bytes long")
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError) as error:
            raise _broken(name, "its header is not JSON") from error
    if not isinstance(header, dict):
        raise _broken(name, "its header is not a JSON object")
    return _tensors(header, size - _LENGTH_BYTES - length, name)


def _tensors(header: dict[str, object], data_bytes: int, name: str) -> Tensors:
    shapes: dict[str, tuple[int, ...]] = {}
    places: list[tuple[int, int, str]] = []
    for tensor, entry in header.items():
        if tensor == "__metadata__":
            continue
        shape, (start, stop), bits = _entry(tensor, entry, name)
        if stop - start != (prod(shape) * bits + 7) // 8:
            raise _broken(name, f"the size of {tensor!r} does not fit its shape")
        shapes[tensor] = shape
        places.append((start, stop, tensor))
    if not shapes:
        raise _broken(name, "holds no tensors")
    end = _end(places, name)
    if end != data_bytes:
        what = "is truncated" if end > data_bytes else "has bytes that belong to no tensor"
        raise _broken(name, f"{what}: {data_bytes} bytes of tensors are there, {end} are listed; download it again")
    return Tensors(shapes, sum(prod(shape) for shape in shapes.values()))


def _entry(tensor: str, entry: object, name: str) -> tuple[tuple[int, ...], tuple[int, int], int]:
    """Shape, place and bits an element, of types that nothing has to be made of: no `2.5`, no `true`, no `"2"`."""
    given = entry if isinstance(entry, dict) else {}
    shape, offsets, dtype = given.get("shape"), given.get("data_offsets"), given.get("dtype")
    if not (_counts(shape) and _counts(offsets) and len(offsets) == 2 and isinstance(dtype, str) and dtype in _BITS):
        raise _broken(name, f"the header's entry for {tensor!r} is broken")
    return tuple(shape), (offsets[0], offsets[1]), _BITS[dtype]


def _counts(value: object) -> TypeGuard[list[int]]:
    """Whether it is a list of sizes that a file can have."""
    return (
        isinstance(value, list)
        and len(value) <= _MOST_DIMENSIONS
        and all(type(item) is int and 0 <= item < _LARGEST for item in value)
    )


def _end(places: list[tuple[int, int, str]], name: str) -> int:
    """Where the last tensor ends. The format allows neither holes nor bytes that two tensors share."""
    end = 0
    for start, stop, tensor in sorted(places):
        if start != end:
            what = "overlaps the tensor before it" if start < end else "leaves bytes before it to no tensor"
            raise _broken(name, f"{tensor!r} {what}; save the weights again")
        end = stop
    return end


def _is_torch_zip(path: Path) -> bool:
    """torch.save writes a zip with a `data.pkl`; its name is in the central directory at the end."""
    with path.open("rb") as file:
        size = path.stat().st_size
        head = file.read(2**16)
        file.seek(max(0, size - 2**20))
        return b".pkl" in head or b".pkl" in file.read()


def _broken(name: str, what: str) -> DeterministicError:
    return DeterministicError("InvalidCheckpoint", f"{name}: {what}")
