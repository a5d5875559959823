"""The hand-written reading of protobuf, against the official message classes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as pb

from enginewright_gateway import wire
from enginewright_gateway.errors import NotNowError, RefusedError

_TEXT = st.text(st.characters(codec="utf-8"), max_size=40)


@given(name=_TEXT, version=_TEXT, raw=st.lists(st.binary(max_size=200), max_size=3))
def test_the_name_is_found_whatever_else_the_message_holds(name: str, version: str, raw: list[bytes]) -> None:
    message = pb.ModelInferRequest(model_name=name, model_version=version, id="7", raw_input_contents=raw)
    message.parameters["priority"].int64_param = 3
    tensor = message.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    tensor.contents.fp32_contents.extend([1.0, 2.0])
    assert wire.first_string(message.SerializeToString()) == name


def test_of_a_repeated_name_the_last_counts_as_for_the_server() -> None:
    message = wire.string_field(1, "allowed") + wire.string_field(7, b"tensor") + wire.string_field(1, "other")
    assert pb.ModelInferRequest.FromString(message).model_name == "other"
    assert wire.first_string(message) == "other"


@given(st.binary(max_size=60))
def test_any_bytes_give_a_name_or_a_refusal(data: bytes) -> None:
    try:
        wire.first_string(data)
    except RefusedError as error:
        assert error.status == 400


@pytest.mark.parametrize(
    "data",
    [b"\x0a\x05abc", b"\x0a", b"\xff" * 12, b"\x0a\x02\xff\xfe", b"\x0b", b"\x02\x01a", b"\x0d\x01"],
    ids=["short", "no length", "endless number", "not utf-8", "group", "field 0", "short fixed"],
)
def test_malformed_messages_are_refused(data: bytes) -> None:
    with pytest.raises(RefusedError, match="not a valid protobuf"):
        wire.first_string(data)


@given(
    name=st.text("abcz-", min_size=1, max_size=40), texts=st.lists(st.binary(max_size=300), min_size=1, max_size=300)
)
def test_requests_read_back_as_the_official_message(name: str, texts: list[bytes]) -> None:
    message = pb.ModelInferRequest.FromString(wire.text_request(name, texts))
    assert (message.model_name, message.inputs[0].name, message.inputs[0].datatype) == (name, "text", "BYTES")
    assert list(message.inputs[0].shape) == [len(texts), 1]
    raw = message.raw_input_contents[0]
    for text in texts:
        size = int.from_bytes(raw[:4], "little")
        assert raw[4 : 4 + size] == text
        raw = raw[4 + size :]
    assert raw == b""


@given(rows=st.integers(0, 5), columns=st.integers(0, 400))
def test_outputs_of_the_official_message_are_read(rows: int, columns: int) -> None:
    vectors = np.arange(rows * columns, dtype=np.float32).reshape(rows, columns)
    tokens = np.arange(rows, dtype=np.int32).reshape(rows, 1)
    message = pb.ModelInferResponse(model_name="m")
    for name, datatype, array in (("embedding", "FP32", vectors), ("tokens", "INT32", tokens)):
        message.outputs.add(name=name, datatype=datatype, shape=array.shape)
        message.raw_output_contents.append(array.tobytes())
    outputs = wire.numeric_outputs(message.SerializeToString())
    assert np.array_equal(outputs["embedding"], vectors)
    assert np.array_equal(outputs["tokens"], tokens)


@pytest.mark.parametrize(
    ("datatype", "shape", "raw"),
    [("FP32", [1, 3], b"\0" * 8), ("BYTES", [1], b"\0" * 4), ("FP32", [1, 1], None)],
    ids=["too short", "not numeric", "no bytes"],
)
def test_answers_that_cannot_be_read_are_the_servers_fault(datatype: str, shape: list[int], raw: bytes | None) -> None:
    message = pb.ModelInferResponse()
    message.outputs.add(name="embedding", datatype=datatype, shape=shape)
    if raw is not None:
        message.raw_output_contents.append(raw)
    with pytest.raises(NotNowError) as caught:
        wire.numeric_outputs(message.SerializeToString())
    assert caught.value.status == 502


def test_true_and_absent_are_the_booleans() -> None:
    assert pb.ServerLiveResponse.FromString(wire.true_field(1)).live is True
    assert pb.ServerReadyResponse.FromString(b"").ready is False


def test_stream_errors_are_the_official_message() -> None:
    message = pb.ModelStreamInferResponse.FromString(wire.string_field(1, "no such model"))
    assert message.error_message == "no such model"
