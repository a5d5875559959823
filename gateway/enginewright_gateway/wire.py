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
_SCALARS = {"FP32": "<f4", "INT32": "<i4", "UINT64": "<u8", "BOOL": "?"}
_TEXT = np.dtype(object)


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


def renamed(message: bytes, asked: str, name: str) -> bytes:
    """The request as the server knows its model: asked for as `namespace/name`, known by its name alone.

    The name is written once more at the end, where it counts: see `first_string`.
    """
    return message if asked == name else message + string_field(1, name)


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


def text_request(model: str, texts: Sequence[bytes], pairs: Sequence[bytes] | None = None) -> bytes:
    """ModelInferRequest with `text` (and `text_pair`) BYTES [n, 1], asking for all outputs."""
    columns = [("text", texts), *([] if pairs is None else [("text_pair", pairs)])]
    shape = _number(len(texts)) + b"\x01"
    kind = string_field(2, "BYTES") + string_field(3, shape)
    tensors = b"".join(string_field(5, string_field(1, name) + kind) for name, _ in columns)
    raw = b"".join(
        string_field(7, b"".join(len(text).to_bytes(4, "little") + text for text in column)) for _, column in columns
    )
    return string_field(1, model) + tensors + raw


@dataclass(frozen=True, slots=True)
class Input:
    """One input tensor of one value, encoded."""

    name: str
    datatype: str
    raw: bytes

    @classmethod
    def text(cls, name: str, value: bytes) -> Input:
        """BYTES."""
        return cls(name, "BYTES", len(value).to_bytes(4, "little") + value)

    @classmethod
    def number(cls, name: str, datatype: str, value: float) -> Input:
        """FP32, INT32, UINT64 or BOOL."""
        return cls(name, datatype, np.array(value, _SCALARS[datatype]).tobytes())


def scalars_request(model: str, inputs: Sequence[Input]) -> bytes:
    """ModelInferRequest of inputs of shape [1], asking for all outputs."""
    tensors = (
        string_field(5, string_field(1, each.name) + string_field(2, each.datatype) + string_field(3, b"\x01"))
        for each in inputs
    )
    raws = (string_field(7, each.raw) for each in inputs)
    return string_field(1, model) + b"".join(tensors) + b"".join(raws)


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
    if datatype == "BYTES":
        return _Output(name, _TEXT, tuple(shape))
    if datatype not in _DTYPES:
        raise _MalformedError
    return _Output(name, _DTYPES[datatype], tuple(shape))


def numeric_outputs(message: bytes) -> dict[str, npt.NDArray[np.generic]]:
    """Outputs of a ModelInferResponse by name, all numeric, as views on its bytes. Raises NotNowError 502."""
    try:
        outputs = _outputs(memoryview(message))
        if any(output.dtype is _TEXT for output, _ in outputs):
            raise _MalformedError
        return {output.name: np.frombuffer(raw, dtype=output.dtype).reshape(output.shape) for output, raw in outputs}
    except ValueError as error:
        raise _unreadable() from error


@dataclass(frozen=True, slots=True)
class StreamAnswer:
    """A ModelStreamInferResponse: an error, or outputs by name. An answer without outputs only marks the end."""

    error: str
    numbers: dict[str, list[Any]]
    texts: dict[str, list[bytes]]


def stream_answer(message: bytes) -> StreamAnswer:
    """Read one message of a stream. Raises NotNowError 502."""
    error, numbers, texts = "", dict[str, list[Any]](), dict[str, list[bytes]]()
    try:
        for number, _, value in _fields(memoryview(message)):
            if number == 1 and isinstance(value, memoryview):
                error = bytes(value).decode(errors="replace")
            elif number == 2 and isinstance(value, memoryview):
                for output, raw in _outputs(value):
                    if output.dtype is _TEXT:
                        texts[output.name] = list(_byte_strings(raw))
                    else:
                        numbers[output.name] = np.frombuffer(raw, dtype=output.dtype).tolist()
    except ValueError as failure:
        raise _unreadable() from failure
    return StreamAnswer(error, numbers, texts)


def _outputs(message: memoryview) -> list[tuple[_Output, memoryview]]:
    outputs: list[_Output] = []
    raws: list[memoryview] = []
    try:
        for number, _, value in _fields(message):
            if number == 5 and isinstance(value, memoryview):
                outputs.append(_output(value))
            elif number == 6 and isinstance(value, memoryview):
                raws.append(value)
        return list(zip(outputs, raws, strict=True))
    except ValueError as error:
        raise _unreadable() from error


def _byte_strings(raw: memoryview) -> Iterator[bytes]:
    at = 0
    while at < len(raw):
        end = at + 4 + int.from_bytes(raw[at : at + 4], "little")
        if end > len(raw):
            raise _MalformedError
        yield bytes(raw[at + 4 : end])
        at = end


def _unreadable() -> NotNowError:
    return NotNowError(502, "MalformedAnswer", "the model's server sent an answer that cannot be read")
