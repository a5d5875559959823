"""Requests for text whose own time is over, at whatever moment: 504, never a fault of the gateway."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import httpx
import pytest

from enginewright_gateway.upstream import SERVICE
from tests.gateway.running_gateway import RunningGateway


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A server that takes every request and answers none."""

    def hang(_: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        left = threading.Event()
        context.add_callback(left.set)
        left.wait(30)
        return iter(())

    handlers = {"ModelStreamInfer": grpc.stream_stream_rpc_method_handler(hang)}
    server = grpc.server(ThreadPoolExecutor(8), handlers=(grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(0).wait(10)


def test_time_that_is_over_is_told_as_such(silent_port: int) -> None:
    found: Counter[tuple[int, str]] = Counter()
    with RunningGateway() as gateway, httpx.Client(base_url=gateway.url, timeout=20) as client:
        gateway.add_model("silent", task="TextGeneration")
        gateway.add_endpoint("one", 9, silent_port, service="silent")
        for milliseconds in [1, 2, 3, 5, 8, 12] * 10:
            answer = client.post(
                "/v1/completions",
                json={"model": "silent", "prompt": "a"},
                headers={"enginewright-timeout-milliseconds": str(milliseconds)},
            )
            found[answer.status_code, answer.json()["error"]["code"]] += 1
    assert set(found) <= {(504, "deadline_exceeded"), (429, "rate_limit_exceeded")}, found
    assert found[504, "deadline_exceeded"] > 30
