"""Overload, lost servers, held requests, leaving clients, keys, draining: on real servers and real ports."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from tests.gateway.running_gateway import RunningGateway
from tests.gateway.test_gateway_edge import tensor
from tests.gateway.triton_process import TritonProcess, missing
from tests.required import cannot_run


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for something that takes a moment."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def embed(gateway: RunningGateway, text: str, **more: object) -> tuple[int, dict[str, str]]:
    """Status and headers of one embedding."""
    status, _, headers = gateway.ask("POST", "/v1/embeddings", {"model": "words", "input": text} | more)
    return status, headers


def grpc_infer(gateway: RunningGateway, text: str, **options: object) -> np.ndarray:
    """One gRPC inference."""
    tensor_in = tritonclient.grpc.InferInput("text", [1, 1], "BYTES")
    tensor_in.set_data_from_numpy(np.array([[text.encode()]], dtype=object))
    with tritonclient.grpc.InferenceServerClient(gateway.grpc) as client:
        return client.infer("words", [tensor_in], **options).as_numpy("embedding")


@pytest.fixture
def fresh(triton: TritonProcess) -> Iterator[RunningGateway]:
    """A gateway that holds for two seconds; no model yet."""
    with RunningGateway(hold_seconds=2.0, max_held=4, inflight_batches=1) as running:
        yield running


def test_overload_is_429_with_retry_after_and_passes(fresh: RunningGateway, triton: TritonProcess) -> None:
    fresh.add_model(batching={"maxBatchSize": 2, "maxQueueSize": 2, "queueTimeoutMilliseconds": 5000})
    fresh.add_endpoint("one", triton.http_port, triton.grpc_port)
    assert embed(fresh, "warm")[0] == 200
    with ThreadPoolExecutor(16) as executor:
        outcomes = list(executor.map(lambda index: embed(fresh, f"sleep=0.2 {index}"), range(16)))
    codes = Counter(status for status, _ in outcomes)
    assert set(codes) == {200, 429}
    assert codes[200] >= 4  # two at the server, two in the queue
    for status, headers in outcomes:
        if status == 429:
            assert 1 <= int(headers["retry-after"]) <= 60
    assert fresh.metric("enginewright_requests_total", model="search/words", code="429") == codes[429]
    assert embed(fresh, "after")[0] == 200


def test_waiting_longer_than_the_queue_timeout_is_429_and_than_the_client_wants_504(
    fresh: RunningGateway, triton: TritonProcess
) -> None:
    fresh.add_model(batching={"maxBatchSize": 1, "maxQueueSize": 8, "queueTimeoutMilliseconds": 300})
    fresh.add_endpoint("one", triton.http_port, triton.grpc_port)
    with ThreadPoolExecutor(2) as executor:
        busy = executor.submit(embed, fresh, "sleep=1.5")
        until(lambda: fresh.metric("enginewright_inflight", model="search/words") == 1)
        assert embed(fresh, "a")[0] == 429
        status, body, _ = fresh.ask(
            "POST", "/v2/models/words/infer", tensor(), {"enginewright-timeout-milliseconds": "50"}
        )
        assert (status, "own time" in body["error"]) == (504, True)
        with pytest.raises(InferenceServerException) as caught:
            grpc_infer(fresh, "a", client_timeout=0.05)
        assert caught.value.status() == "StatusCode.DEADLINE_EXCEEDED"
        assert busy.result()[0] == 200


def test_a_slow_answer_ends_at_the_clients_deadline(fresh: RunningGateway, triton: TritonProcess) -> None:
    fresh.add_model()
    fresh.add_endpoint("one", triton.http_port, triton.grpc_port)
    patience = {"enginewright-timeout-milliseconds": "200"}
    status, body, _ = fresh.ask("POST", "/v1/embeddings", {"model": "words", "input": "sleep=1"}, patience)
    assert (status, body["error"]["code"]) == (504, "deadline_exceeded")
    assert fresh.ask("POST", "/v2/models/words/infer", tensor(data=["sleep=1"]), patience)[0] == 504
    until(lambda: fresh.metric("enginewright_inflight", model="search/words") == 0)


def test_a_held_request_is_answered_when_an_endpoint_appears(fresh: RunningGateway, triton: TritonProcess) -> None:
    fresh.add_model()
    with ThreadPoolExecutor(3) as executor:
        openai = executor.submit(embed, fresh, "a")
        http = executor.submit(fresh.ask, "POST", "/v2/models/words/infer", tensor())
        grpc = executor.submit(grpc_infer, fresh, "a")
        until(lambda: fresh.metric("enginewright_held_requests", model="search/words") == 3)
        fresh.add_endpoint("one", triton.http_port, triton.grpc_port)
        assert openai.result()[0] == 200
        assert http.result()[0] == 200
        assert grpc.result().shape == (1, 384)
    assert fresh.metric("enginewright_held_requests", model="search/words") == 0


def test_a_model_that_does_not_come_is_503_with_its_condition(fresh: RunningGateway) -> None:
    fresh.add_model()
    fresh.set_condition("words", "False", "BuildFailed", "the disk is full")
    began = time.monotonic()
    with ThreadPoolExecutor(6) as executor:
        outcomes = list(
            executor.map(lambda _: fresh.ask("POST", "/v1/embeddings", {"model": "words", "input": "a"}), range(6))
        )
    assert time.monotonic() - began < 6
    for status, body, headers in outcomes:
        assert status == 503
        assert int(headers["retry-after"]) >= 1
        assert "BuildFailed: the disk is full" in body["error"]["message"]
    assert any("requests wait for it already" in body["error"]["message"] for _, body, _ in outcomes)  # four are held
    assert fresh.ask("GET", "/v2/models/words/ready")[0] == 400
    with tritonclient.grpc.InferenceServerClient(fresh.grpc) as client:
        assert client.is_model_ready("words") is False


def test_a_deleted_model_answers_who_waits_for_it(fresh: RunningGateway) -> None:
    fresh.add_model()
    with ThreadPoolExecutor(1) as executor:
        waiting = executor.submit(embed, fresh, "a")
        until(lambda: fresh.metric("enginewright_held_requests", model="search/words") == 1)
        fresh.remove_model()
        assert waiting.result()[0] == 503
    assert embed(fresh, "a")[0] == 404


def test_killing_one_of_two_servers_under_load_fails_no_request(fresh: RunningGateway, triton: TritonProcess) -> None:
    other = TritonProcess().start()
    try:
        fresh.add_model()
        fresh.add_endpoint("one", triton.http_port, triton.grpc_port)
        fresh.add_endpoint("two", other.http_port, other.grpc_port)
        stop = threading.Event()
        codes: Counter[object] = Counter()

        def load(kind: int) -> None:
            while not stop.is_set() and sum(codes.values()) < 3000:
                if kind == 0:
                    codes[embed(fresh, "a b")[0]] += 1
                elif kind == 1:
                    codes[fresh.ask("POST", "/v2/models/words/infer", tensor())[0]] += 1
                else:
                    codes[200 if grpc_infer(fresh, "a").shape == (1, 384) else "wrong"] += 1

        with ThreadPoolExecutor(3) as executor:
            workers = [executor.submit(load, kind) for kind in range(3)]
            until(lambda: codes[200] > 60)
            other.kill()
            at_kill = codes[200]
            until(lambda: codes[200] > at_kill + 60, 20)
            fresh.remove_endpoint("two")
            until(lambda: codes[200] > at_kill + 100, 20)
            stop.set()
            for worker in workers:
                worker.result()
        assert set(codes) == {200}, codes
    finally:
        other.close()


def test_requests_outlast_the_restart_of_the_only_server(fresh: RunningGateway) -> None:
    if reason := missing():
        cannot_run(reason)
    server = TritonProcess().start()
    try:
        fresh.add_model()
        fresh.add_endpoint("one", server.http_port, server.grpc_port)
        assert embed(fresh, "a")[0] == 200
        server.kill()
        status, headers = embed(fresh, "a")
        assert status == 503 and int(headers["retry-after"]) >= 1
        server.start()
        until(lambda: embed(fresh, "a")[0] == 200)
        until(lambda: fresh.ask("POST", "/v2/models/words/infer", tensor())[0] == 200)
    finally:
        server.close()


@pytest.mark.parametrize("lost", ["server", "engine process"])
def test_requests_under_way_are_held_until_their_only_server_is_back(lost: str) -> None:
    if reason := missing():
        cannot_run(reason)
    server = TritonProcess().start()
    try:
        with RunningGateway(hold_seconds=40.0, max_held=16) as gateway:
            gateway.add_model()
            gateway.add_endpoint("one", server.http_port, server.grpc_port)
            assert embed(gateway, "a")[0] == 200
            with ThreadPoolExecutor(6) as executor:
                asked = [executor.submit(embed, gateway, "sleep=0.5") for _ in range(3)]
                asked += [
                    executor.submit(lambda: gateway.ask("POST", "/v2/models/words/infer", tensor(), timeout=60))
                    for _ in range(3)
                ]  # fmt: skip
                until(lambda: gateway.metric("enginewright_inflight", model="search/words") > 0)
                server.kill() if lost == "server" else server.kill_engine_process()
                time.sleep(3)  # longer than three attempts take
                server.kill()
                server.start()
                assert [answer.result()[0] for answer in asked] == [200] * 6
    finally:
        server.close()


def test_a_client_that_leaves_is_cancelled_in_the_server(
    fresh: RunningGateway, triton: TritonProcess, tmp_path: Path
) -> None:
    fresh.add_model()
    fresh.add_endpoint("one", triton.http_port, triton.grpc_port)
    told = tmp_path / "openai"
    body = json.dumps({"model": "words", "input": f"wait-for-cancel={told}"}).encode()
    head = b"POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body)
    with socket.create_connection(("127.0.0.1", fresh.listening.http_port)) as sock:
        sock.sendall(head + body)
        # What is cancelled before the model has it never gets there.
        until(told.with_suffix(".begun").exists)
        assert fresh.metric("enginewright_inflight", model="search/words") == 1
    until(told.exists)
    told = tmp_path / "grpc"
    with pytest.raises(InferenceServerException, match="Deadline"):
        grpc_infer(fresh, f"wait-for-cancel={told}", client_timeout=0.5)
    until(told.exists)
    until(lambda: fresh.metric("enginewright_inflight", model="search/words") == 0)
    assert fresh.metric("enginewright_requests_total", model="search/words", code="499") >= 1


def test_a_client_that_leaves_over_kserve_http_frees_its_place(fresh: RunningGateway, triton: TritonProcess) -> None:
    fresh.add_model()
    fresh.add_endpoint("one", triton.http_port, triton.grpc_port)
    body = json.dumps(tensor(data=["sleep=2"])).encode()
    head = b"POST /v2/models/words/infer HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body)
    with socket.create_connection(("127.0.0.1", fresh.listening.http_port)) as sock:
        sock.sendall(head + body)
        until(lambda: fresh.metric("enginewright_inflight", model="search/words") == 1)
    until(lambda: fresh.metric("enginewright_inflight", model="search/words") == 0, 1.5)


def test_a_client_that_leaves_while_held_frees_its_place(fresh: RunningGateway) -> None:
    fresh.add_model()
    body = json.dumps({"model": "words", "input": "a"}).encode()
    with socket.create_connection(("127.0.0.1", fresh.listening.http_port)) as sock:
        sock.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        until(lambda: fresh.metric("enginewright_held_requests", model="search/words") == 1)
    until(lambda: fresh.metric("enginewright_held_requests", model="search/words") == 0, 1.5)


def test_keys_open_their_models_and_nothing_else(triton: TritonProcess, tmp_path: Path) -> None:
    for name, pattern in (("searcher", "search/*"), ("seller", "sales/*")):
        digest = hashlib.sha256(f"key of {name}".encode()).hexdigest()
        (tmp_path / name).write_text(json.dumps({"sha256": digest, "models": [pattern]}))
    with RunningGateway(keys_dir=tmp_path) as gateway:
        gateway.add_model()
        gateway.add_endpoint("one", triton.http_port, triton.grpc_port)
        paths = [
            ("POST", "/v1/embeddings", {"model": "words", "input": "a"}),
            ("GET", "/v1/models/words", None),
            ("POST", "/v2/models/words/infer", tensor()),
            ("GET", "/v2/models/words", None),
        ]
        for method, path, body in paths:
            for header in ({}, {"Authorization": "Bearer wrong"}):
                status, answer, headers = gateway.ask(method, path, body, header)
                assert (status, headers["www-authenticate"]) == (401, "Bearer")
                assert isinstance(answer["error"], str if path.startswith("/v2") else dict)
            assert gateway.ask(method, path, body, {"Authorization": "Bearer key of searcher"})[0] == 200
            status, answer, _ = gateway.ask(method, path, body, {"Authorization": "Bearer key of seller"})
            assert status == 404 and "there are no models yet" in str(answer)
        assert gateway.ask("GET", "/v1/models", None, {"Authorization": "Bearer key of seller"})[1]["data"] == []
        for code, headers in (("UNAUTHENTICATED", {}), ("NOT_FOUND", {"authorization": "Bearer key of seller"})):
            with pytest.raises(InferenceServerException) as caught:
                grpc_infer(gateway, "a", headers=headers)
            assert caught.value.status() == f"StatusCode.{code}"
        assert grpc_infer(gateway, "a", headers={"authorization": "Bearer key of searcher"}).shape == (1, 384)
        for path in ("/healthz", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"):
            assert gateway.ask("GET", path)[0] == 200


def test_draining_says_so_finishes_what_is_under_way_and_ends(triton: TritonProcess) -> None:
    with RunningGateway(drain_delay_seconds=0.5, drain_seconds=5) as gateway:
        gateway.add_model()
        gateway.add_endpoint("one", triton.http_port, triton.grpc_port)
        with ThreadPoolExecutor(2) as executor:
            slow = [executor.submit(embed, gateway, "sleep=1.2"), executor.submit(grpc_infer, gateway, "sleep=1.2")]
            until(lambda: gateway.metric("enginewright_inflight", model="search/words") == 2)
            gateway.begin_stop()
            until(lambda: gateway.ask("GET", "/readyz")[0] == 503)
            assert gateway.ask("GET", "/v2/health/ready")[0] == 503
            assert slow[0].result()[0] == 200
            assert slow[1].result().shape == (1, 384)
        gateway.stop()
        with pytest.raises(ConnectionError):
            socket.create_connection(("127.0.0.1", gateway.listening.http_port), timeout=1)
