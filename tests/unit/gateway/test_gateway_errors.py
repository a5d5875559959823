"""Shapes of errors, and what a server's own errors become."""

import json

import grpc
import pytest

from enginewright_gateway.errors import NotNowError, RefusedError, grpc_status, wire_body, wire_headers
from enginewright_gateway.triton_errors import (
    connection_lost,
    is_caller_fault,
    is_engine_gone,
    is_queue_full,
    never_connected,
)


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (RefusedError(400, "InvalidRequest", "no", param="input"), "invalid_request_error", "invalid_request"),
        (RefusedError(401, "InvalidKey", "no"), "authentication_error", "invalid_api_key"),
        (RefusedError(404, "ModelNotFound", "no", param="model"), "invalid_request_error", "model_not_found"),
        (NotNowError(429, "QueueFull", "no", retry_after_seconds=2.5), "rate_limit_error", "rate_limit_exceeded"),
        (NotNowError(503, "ModelNotServable", "no"), "server_error", "model_not_servable"),
    ],
)
def test_openai_and_kserve_shapes(error: RefusedError | NotNowError, kind: str, code: str) -> None:
    body = json.loads(wire_body("/v1/embeddings", error))
    assert body == {"error": {"message": "no", "type": kind, "param": error.param, "code": code}}
    assert json.loads(wire_body("/v2/models/m/infer", error)) == {"error": "no"}
    assert json.loads(wire_body("/v2x", error)) == body


@pytest.mark.parametrize(("seconds", "header"), [(None, None), (0.2, "1"), (1.0, "1"), (2.1, "3")])
def test_retry_after_is_whole_seconds_rounded_up(seconds: float | None, header: str | None) -> None:
    error = NotNowError(429, "QueueFull", "no", retry_after_seconds=seconds)
    assert wire_headers(error).get("retry-after") == header


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, grpc.StatusCode.INVALID_ARGUMENT),
        (401, grpc.StatusCode.UNAUTHENTICATED),
        (404, grpc.StatusCode.NOT_FOUND),
        (429, grpc.StatusCode.RESOURCE_EXHAUSTED),
        (501, grpc.StatusCode.UNIMPLEMENTED),
        (503, grpc.StatusCode.UNAVAILABLE),
        (504, grpc.StatusCode.DEADLINE_EXCEEDED),
        (500, grpc.StatusCode.INTERNAL),
    ],
)
def test_grpc_codes(status: int, code: grpc.StatusCode) -> None:
    assert grpc_status(NotNowError(status, "Reason", "no")) is code


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ("failed to parse the request JSON buffer: Invalid value. at 1", True),
        ("Unable to parse 'shape': attempt to access JSON non-unsigned-integer as unsigned-integer", True),
        ("Unable to parse JSON bytes array: attempt to access JSON non-string as string", True),
        ("model failed: failed to parse the request JSON buffer", False),
        ("out of memory", False),
        ("", False),
    ],
)
def test_whose_fault_a_servers_error_is(message: str, fault: bool) -> None:
    assert is_caller_fault(message) is fault


def test_a_full_queue_behind_is_recognised() -> None:
    assert is_queue_full("[request id: 1] Exceeds maximum queue size")
    assert not is_queue_full("Socket closed")


@pytest.mark.parametrize(
    ("details", "meaning"),
    [
        ("Stream removed (Socket closed)", connection_lost),
        ("recvmsg:Connection reset by peer", connection_lost),
        ("failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: refused", never_connected),
        ("Stub process 'minilm_0_0' is not healthy.", is_engine_gone),
        ("Exceeds maximum queue size", is_queue_full),
        ("Request for unknown model: 'minilm' is not found", None),
    ],
)
def test_what_a_failure_says_about_the_server(details: str, meaning: object) -> None:
    meanings = (connection_lost, never_connected, is_engine_gone, is_queue_full)
    assert [test for test in meanings if test(details)] == ([meaning] if meaning else [])
