"""The few fields of KServe v2 protobuf messages that the gateway reads or writes itself.

Messages are passed on as bytes; tensors in them are skipped by their length, never parsed. Field numbers: the Open
Inference Protocol's `grpc_predict_v2.proto`. Encoding: https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import NotNowError, RefusedError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_DTYPES: dict[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "INT32": np.dtype("<i4")}


class _MalformedError(ValueError):
    """Not a protobuf message."""


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise _MalformedError
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _fields(data: memoryview) -> Iterator[tuple[int, int, memoryview | int]]:
    """(number, wire type, value) of each field of one level."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield number, kind, value
            continue
        if kind == _BYTES:
            length, at = _varint(data, at)
        elif kind in {_FIXED32, _FIXED64}:
            length = 4 if kind == _FIXED32 else 8
        else:
            raise _MalformedError
        if number == 0 or at + length > len(data):
            raise _MalformedError
        yield number, kind, data[at : at + length]
        at += length


def first_string(message: bytes) -> str:
    """Field 1 of a request: `model_name` or `name`. Raises RefusedError 400.

    When a field comes twice the last one counts, as for the server behind: otherwise a caller could pass the check
    with one name and reach another.
    """
    name = b""
    try:
        for number, kind, value in _fields(memoryview(message)):
            if number == 1 and kind == _BYTES and isinstance(value, memoryview):
                name = bytes(value)
        return name.decode()
    except (_MalformedError, UnicodeDecodeError) as error:
        raise RefusedError(400, "MalformedMessage", "the message is not a valid protobuf request") from error


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def string_field(number: int, value: bytes | str) -> bytes:
    """A length-delimited field."""
    raw = value.encode() if isinstance(value, str) else value
    return _number(number << 3 | _BYTES) + _number(len(raw)) + raw


def true_field(number: int) -> bytes:
    """A boolean field that is true; a false one is left out."""
    return _number(number << 3 | _VARINT) + b"\x01"


def text_request(model: str, texts: Sequence[bytes]) -> bytes:
    """ModelInferRequest with `text` BYTES [n, 1], asking for all outputs."""
    shape = _number(len(texts)) + b"\x01"
    tensor = string_field(1, "text") + string_field(2, "BYTES") + string_field(3, shape)
    raw = b"".join(len(text).to_bytes(4, "little") + text for text in texts)
    return string_field(1, model) + string_field(5, tensor) + string_field(7, raw)


@dataclass(frozen=True, slots=True)
class _Output:
    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


def _output(data: memoryview) -> _Output:
    name, datatype, shape = "", "", list[int]()
    for number, kind, value in _fields(data):
        if number == 1 and isinstance(value, memoryview):
            name = bytes(value).decode()
        elif number == 2 and isinstance(value, memoryview):
            datatype = bytes(value).decode()
        elif number == 3 and kind == _VARINT and isinstance(value, int):
            shape.append(value)
        elif number == 3 and isinstance(value, memoryview):
            at = 0
            while at < len(value):
                dimension, at = _varint(value, at)
                shape.append(dimension)
    if datatype not in _DTYPES:
        raise _MalformedError
    return _Output(name, _DTYPES[datatype], tuple(shape))


def numeric_outputs(message: bytes) -> dict[str, npt.NDArray[np.generic]]:
    """Outputs of a ModelInferResponse by name, as views on its bytes. Raises NotNowError 502."""
    outputs: list[_Output] = []
    raws: list[memoryview] = []
    try:
        for number, _, value in _fields(memoryview(message)):
            if number == 5 and isinstance(value, memoryview):
                outputs.append(_output(value))
            elif number == 6 and isinstance(value, memoryview):
                raws.append(value)
        return {
            output.name: np.frombuffer(raw, dtype=output.dtype).reshape(output.shape)
            for output, raw in zip(outputs, raws, strict=True)
        }
    except ValueError as error:
        raise NotNowError(502, "MalformedAnswer", "the model's server sent an answer that cannot be read") from error
