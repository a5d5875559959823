"""The edge on bare sockets: framing, sizes, times, wrong bodies. Each wrong thing is 4xx, and never 5xx."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from tests.gateway.running_gateway import RunningGateway
from tests.gateway.triton_process import TritonProcess

HEAD = b"POST /v2/models/words/infer HTTP/1.1\r\nHost: a\r\n"


def answers(received: bytes) -> int:
    """Status lines in what came back."""
    return len(re.findall(rb"HTTP/1\.1 \d{3} ", received))


@pytest.fixture(scope="module")
def strict(triton: TritonProcess) -> Iterator[RunningGateway]:
    """A gateway with small limits."""
    with RunningGateway(max_body_bytes=100_000, max_header_bytes=8192, header_seconds=0.5) as running:
        running.add_model()
        running.add_endpoint("one", triton.http_port, triton.grpc_port)
        yield running


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde", 400),
        (HEAD + b"Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd", 400),
        (HEAD + b"Content-Length: 4, 4\r\n\r\nabcd", 400),
        (HEAD + b"Content-Length: +4\r\n\r\nabcd", 400),
        (HEAD + b"Content-Length: -1\r\n\r\n", 400),
        (HEAD + b"Content-Length: 0x4\r\n\r\nabcd", 400),
        (HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n", 400),
        (HEAD + b"Content-Length: 100001\r\n\r\n", 413),
        (HEAD + b"Content-Length : 4\r\n\r\nabcd", 400),
        (HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n", 400),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n10000000000000003\r\nabc\r\n0\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: a/b@c\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\nHost: a\n\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n", 400),
        (b"GET /healthz HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"GET /healthz HTTP/1.9\r\nHost: a\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 9000 + b"\r\n\r\n", 431),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 1_000_000, 431),
        (b"GET /" + b"a" * 1_000_000, 431),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 200 + b"\r\n", 431),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 100_000, 431),
        (HEAD + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd", 415),
        (HEAD + b"Content-Encoding: identity, deflate\r\nContent-Length: 4\r\n\r\nabcd", 415),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\nX", 408),
        (b"", 408),
    ],
    ids=[
        "length and chunked", "chunked and length", "lengths differ", "lengths repeat", "list of lengths", "plus",
        "minus", "hexadecimal", "huge length", "body above limit", "space before colon", "xchunked", "gzip chunked",
        "chunked identity", "chunked twice", "chunked in 1.0", "bad chunk", "chunk size overflow", "no host",
        "two hosts", "host with space", "host with path", "folded line", "bare LF", "NUL", "HTTP/2.0", "HTTP/1.9",
        "TLS", "long line", "endless line", "endless target", "many lines", "endless lines", "gzip body",
        "two encodings",
        "slow head", "silence",
    ],
)  # fmt: skip
def test_wrong_framing_is_refused_and_the_connection_closed(strict: RunningGateway, data: bytes, status: int) -> None:
    received, closed = strict.raw(data)
    assert received.startswith(b"HTTP/1.1 %d " % status), received[:300]
    assert closed
    assert answers(received) == 1
    body = json.loads(received.partition(b"\r\n\r\n")[2])
    assert body["error"]


def test_what_follows_a_refused_head_is_never_served(strict: RunningGateway) -> None:
    smuggled = b"GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n"
    received, closed = strict.raw(
        HEAD + b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" % len(smuggled) + smuggled
    )
    assert closed and answers(received) == 1


def test_a_chunked_body_above_the_limit_is_413(strict: RunningGateway) -> None:
    chunk = b"10000\r\n" + b"a" * 0x10000 + b"\r\n"
    for path in (b"/v2/models/words/infer", b"/v1/embeddings"):
        head = b"POST %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n" % path
        received, _ = strict.raw(head + chunk * 2 + b"0\r\n\r\n")
        assert received.startswith(b"HTTP/1.1 413 "), received[:200]


def test_a_right_request_of_several_chunks_and_a_pipelined_one_are_served(strict: RunningGateway) -> None:
    body = json.dumps(tensor()).encode()
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:7], body[7:30], body[30:]))
    second = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    received, closed = strict.raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n" + second)
    assert received.count(b"HTTP/1.1 200 ") == 2 and closed, received[:300]


def test_an_idle_connection_is_kept_between_requests(strict: RunningGateway) -> None:
    received, closed = strict.raw(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", seconds=1.2)
    assert received.startswith(b"HTTP/1.1 200 ")
    assert not closed  # the time for a head begins with its first byte


def tensor(**changes: Any) -> dict[str, Any]:
    """A right request in JSON, with changes to its tensor."""
    return {"inputs": [{"name": "text", "shape": [1, 1], "datatype": "BYTES", "data": ["a b"]} | changes]}


def binary(
    size: int, *, data: bytes = struct.pack("<I", 1) + b"a", header_length: str | None = None
) -> tuple[bytes, Any]:
    """A request with the binary tensor extension."""
    head = tensor(parameters={"binary_data_size": size})
    del head["inputs"][0]["data"]
    raw = json.dumps(head).encode()
    return raw + data, {"Inference-Header-Content-Length": header_length or str(len(raw))}


WRONG: dict[str, tuple[Any, dict[str, str]]] = {
    "not JSON": (b"nope", {}),
    "empty": (b"", {}),
    "not an object": (b"[]", {}),
    "no inputs": ({}, {}),
    "inputs not a list": ({"inputs": 5}, {}),
    "negative shape": (tensor(shape=[-1, 1]), {}),
    "fractional shape": (tensor(shape=[1.5, 1]), {}),
    "shape not a list": (tensor(shape="x"), {}),
    "shape and data differ": (tensor(shape=[2, 1]), {}),
    "wrong rank": (tensor(shape=[1]), {}),
    "overflowing shape": (tensor(shape=[2**62, 4]), {}),
    "other datatype": (tensor(datatype="FP32"), {}),
    "unknown datatype": (tensor(datatype="FOO"), {}),
    "numbers for texts": (tensor(data=[1]), {}),
    "null data": (tensor(data=None), {}),
    "unknown input": (tensor(name="other"), {}),
    "batch too large": (tensor(shape=[9, 1], data=["a"] * 9), {}),
    "lone surrogate": (json.dumps(tensor(data=["\ud800"])).encode(), {}),
    "deep nesting": (b"[" * 50_000, {}),
    "timeout not a number": (tensor() | {"parameters": {"timeout": "soon"}}, {}),
    "unknown output": (tensor() | {"outputs": [{"name": "other"}]}, {}),
    "binary size too large": binary(100),
    "binary size too small": binary(2),
    "text length beyond its tensor": binary(5, data=struct.pack("<I", 4000) + b"a"),
    "header length too large": binary(5, header_length="10000"),
    "header length too small": binary(5, header_length="5"),
    "header length negative": binary(5, header_length="-1"),
    "header length not a number": binary(5, header_length="x"),
    "header length zero": binary(5, header_length="0"),
    "unregistered shared memory": (tensor(parameters={"shared_memory_region": "x", "shared_memory_byte_size": 4}), {}),
    "patience not a number": (tensor(), {"enginewright-timeout-milliseconds": "soon"}),
    "patience zero": (tensor(), {"enginewright-timeout-milliseconds": "0"}),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_tensors_are_4xx_with_a_sentence(strict: RunningGateway, name: str) -> None:
    body, headers = WRONG[name]
    status, answer, _ = strict.ask("POST", "/v2/models/words/infer", body, headers)
    assert 400 <= status < 500, answer
    assert len(answer["error"]) > 20
    assert strict.ask("POST", "/v2/models/words/infer", tensor())[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/models/words/infer", 405),
        ("POST", "/v2/models/words/ready", 405),
        ("GET", "/v2/models/words/versions/9", 404),
        ("GET", "/v2/models/words/versions/x", 404),
        ("GET", "/v2/models/words/versions/..%2f..%2frepository", 404),
        ("GET", "/v2/models/..%2frepository/index", 404),
        ("GET", "/v2/models/words/unload", 404),
        ("POST", "/v2/repository/index", 404),
        ("POST", "/v2/repository/models/words/unload", 404),
        ("POST", "/v2/systemsharedmemory/region/x/register", 404),
        ("POST", "/v2/logging", 404),
        ("GET", "/v2/models/other/ready", 404),
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/embeddings", 405),
        ("POST", "/v1/moderations", 501),
    ],
)
def test_paths_that_are_not_there(strict: RunningGateway, method: str, path: str, status: int) -> None:
    answered, body, _ = strict.ask(method, path, {} if method == "POST" else None)
    assert answered == status
    error = body["error"]
    assert isinstance(error, str) if path.startswith("/v2") else error["message"] and error["type"] and error["code"]


def test_a_model_of_another_task_gives_no_embeddings(strict: RunningGateway) -> None:
    strict.add_model("labels", task="Classification")
    status, body, _ = strict.ask("POST", "/v1/embeddings", {"model": "labels", "input": "a"})
    assert status == 400 and "Classification" in body["error"]["message"]
