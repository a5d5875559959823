"""`enginewright-gateway run` against a real API server and a real tritonserver."""

from __future__ import annotations

import hashlib
import http.client
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.gateway.running_gateway import model_manifest, slice_manifest
from tests.gateway.triton_process import TritonProcess, free_ports, missing, outward_address
from tests.kube.harness import Cluster
from tests.required import cannot_run

KEY = "a key for this test"


@pytest.fixture(scope="module")
def served(kube_crds: Cluster) -> Cluster:
    """The shared cluster with our kinds."""
    return kube_crds


def ask(port: int, method: str, path: str, body: Any = None, key: str = KEY) -> tuple[int, Any]:
    """One request; (0, None) when nobody listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        raw = None if body is None else json.dumps(body)
        connection.request(method, path, raw, {"Authorization": f"Bearer {key}"})
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text.startswith(b"{") else text
    except ConnectionError:
        return 0, None
    finally:
        connection.close()


@pytest.fixture
def outward() -> Iterator[TritonProcess]:
    """A server that an EndpointSlice may name."""
    if reason := missing():
        cannot_run(reason)
    try:
        address = outward_address()
    except OSError as error:
        pytest.skip(f"this machine has no address but loopback: {error}")
    server = TritonProcess(address=address)
    try:
        yield server.start()
    finally:
        server.close()


def test_the_program_serves_what_the_cluster_says(
    served: Cluster, kube_namespace: str, outward: TritonProcess, tmp_path: Path
) -> None:
    def apply(manifest: dict[str, Any]) -> None:
        manifest["metadata"]["namespace"] = kube_namespace
        served.kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump(manifest))

    keys = tmp_path / "keys"
    keys.mkdir()
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    (keys / "test").write_text(json.dumps({"sha256": digest, "models": [f"{kube_namespace}/*"]}))
    http_port, grpc_port = free_ports(2)
    command = [
        sys.executable, "-m", "enginewright_gateway.main", "run", "--address", "127.0.0.1",
        "--http-port", str(http_port), "--grpc-port", str(grpc_port), "--kubeconfig", str(served.kubeconfig),
        "--namespace", kube_namespace, "--keys-dir", str(keys), "--hold-seconds", "20", "--drain-delay-seconds", "0",
    ]  # fmt: skip
    log = tmp_path / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 30
        while ask(http_port, "GET", "/readyz")[0] != 200:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.1)
        embedding = {"model": "words", "input": "a b"}
        assert ask(http_port, "POST", "/v1/embeddings", embedding)[0] == 404
        apply(model_manifest())
        while ask(http_port, "GET", "/v1/models/words")[0] != 200:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        held = subprocess.Popen(
            [sys.executable, "-c", _ASK, str(http_port), KEY, json.dumps(embedding)], stdout=subprocess.PIPE, text=True
        )
        endpoints = slice_manifest("words", "words-1", outward.http_port, outward.grpc_port)
        endpoints["endpoints"][0]["addresses"] = [outward.address]
        apply(endpoints)
        answer, _ = held.communicate(timeout=30)
        assert json.loads(answer)["usage"]["prompt_tokens"] == 2, log.read_text()[-2000:]
        assert ask(http_port, "POST", "/v1/embeddings", embedding, key="another")[0] == 401
        served.kubectl("delete", "-n", kube_namespace, "optimizedmodel", "words")
        while ask(http_port, "POST", "/v1/embeddings", embedding)[0] != 404:
            assert time.monotonic() < deadline + 30
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert KEY not in log.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


_ASK = """
import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=30)
connection.request("POST", "/v1/embeddings", sys.argv[3], {"Authorization": "Bearer " + sys.argv[2]})
print(connection.getresponse().read().decode())
"""
