"""The gateway as a process of its own: routes from another process, SIGTERM, kill -9, a port that is taken."""

from __future__ import annotations

import asyncio
import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from enginewright_cluster.local import LocalCluster
from tests.gateway.running_gateway import model_manifest, slice_manifest
from tests.gateway.triton_process import TritonProcess, free_ports


class GatewayProcess:
    """One process; the same ports over a restart."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.http_port, self.grpc_port = free_ports(2)
        self.log = state / "gateway.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> subprocess.Popen[bytes]:
        """Start without waiting."""
        command = [sys.executable, "-m", "tests.gateway.local_gateway", str(self.state)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, str(self.http_port), str(self.grpc_port)], stdout=log, stderr=subprocess.STDOUT
            )
        return self.process

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        """One request; (0, b"") when nobody listens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=20)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            return answer.status, answer.read()
        except ConnectionError:
            return 0, b""
        finally:
            connection.close()

    def embed(self, text: str) -> int:
        """Status of one embedding."""
        return self.ask("POST", "/v1/embeddings", {"model": "words", "input": text})[0]

    def until(self, condition: Callable[[], bool], seconds: float = 20.0) -> None:
        """Wait for something that takes a moment."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"it did not happen:\n{self.log.read_text()[-2000:]}"
            time.sleep(0.05)


@pytest.fixture
def gateway(triton: TritonProcess, tmp_path: Path) -> Iterator[GatewayProcess]:
    """A gateway process over a state with one model and one endpoint."""

    async def write() -> None:
        cluster = LocalCluster(tmp_path)
        await cluster.apply(model_manifest())
        await cluster.apply(slice_manifest("words", "one", triton.http_port, triton.grpc_port))
        await cluster.close()

    asyncio.run(write())
    subject = GatewayProcess(tmp_path)
    process = subject.start()
    subject.until(lambda: subject.ask("GET", "/readyz")[0] == 200)
    yield subject
    for started in (process, subject.process):
        if started is not None and started.poll() is None:
            started.kill()
            started.wait()


def test_sigterm_finishes_what_is_under_way_and_ends_with_0(gateway: GatewayProcess) -> None:
    assert gateway.process is not None
    with ThreadPoolExecutor(1) as executor:
        slow = executor.submit(gateway.embed, "sleep=1")
        gateway.until(lambda: b'enginewright_inflight{model="search/words"} 1.0' in gateway.ask("GET", "/metrics")[1])
        gateway.process.send_signal(signal.SIGTERM)
        assert slow.result() == 200
    assert gateway.process.wait(10) == 0


def test_after_kill_9_the_next_process_serves_the_same_routes(gateway: GatewayProcess) -> None:
    assert gateway.process is not None
    assert gateway.embed("a") == 200
    gateway.process.kill()
    gateway.process.wait()
    assert gateway.embed("a") == 0
    gateway.start()
    gateway.until(lambda: gateway.ask("GET", "/readyz")[0] == 200)
    assert gateway.embed("a") == 200


def test_requests_are_logged_as_json_lines_without_content(gateway: GatewayProcess) -> None:
    assert gateway.embed("confidential text") == 200
    # The line is written once the answer is out.
    gateway.until(lambda: '"/v1/embeddings"' in gateway.log.read_text())
    lines = [json.loads(line) for line in gateway.log.read_text().splitlines() if line.startswith("{")]
    (line,) = [line for line in lines if line.get("path") == "/v1/embeddings"]
    assert (line["model"], line["code"], line["tokens"]) == ("search/words", "200", 2)
    assert line["ms"] > 0
    assert "confidential" not in gateway.log.read_text()


@pytest.mark.parametrize("taken", ["http_port", "grpc_port"])
def test_a_port_that_is_taken_is_said_and_ends_the_process(tmp_path: Path, taken: str) -> None:
    subject = GatewayProcess(tmp_path)
    with socket.create_server(("127.0.0.1", getattr(subject, taken))):
        process = subject.start()
        assert process.wait(20) != 0
    assert f"{getattr(subject, taken)} cannot be opened" in subject.log.read_text()
