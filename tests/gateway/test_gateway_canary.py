"""A canary behind the gateway as a process: shares over HTTP, figures that the operator reads, and no lost request."""

from __future__ import annotations

import asyncio
import http.client
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from enginewright_api.operation_spec import Guard
from enginewright_api.rollout_status import RolloutStatus
from enginewright_cluster.local import LocalCluster
from enginewright_cluster.port import OPTIMIZED_MODEL, Ref
from enginewright_operator.core.guard import Judgement, Verdict, judge
from enginewright_operator.core.traffic import Traffic
from enginewright_operator.shell.gateway_figures import GatewayFigures
from tests.gateway.running_gateway import NAMESPACE, model_manifest, slice_manifest
from tests.gateway.triton_process import free_ports

DIGEST = "sha256:" + "1a2b3c4d" * 8
INFER = {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a"]}]}


class Server:
    """An HTTP server in Triton's place that says which version it is."""

    def __init__(self, version: str) -> None:
        self.seconds = 0.0
        self.status = 200
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 2**16  # head and body in one packet

            def do_POST(self) -> None:
                """Answer after a while."""
                self.rfile.read(int(self.headers.get("content-length", 0)))
                time.sleep(outer.seconds)
                body = json.dumps({"version": version} if outer.status == 200 else {"error": "it broke"}).encode()
                self.send_response(outer.status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.send_header("connection", "close")  # a closed server has no connection left to answer on
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name it has there
                """Quiet."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self) -> None:
        """No longer there: connections are refused."""
        self._http.shutdown()
        self._http.server_close()


class Canary:
    """One model with two versions, each one server, and a gateway process in front."""

    def __init__(self, state: Path) -> None:
        self.state, self.log = state, state / "gateway.log"
        self.stable, self.new = Server("stable"), Server("canary")
        self.http_port, grpc_port = free_ports(2)
        self.record = RolloutStatus(
            artifact_digest=DIGEST, spec_digest="x", state="Canary", since="2026-01-01T00:00:00Z"
        )
        self.do(self._objects)
        command = [sys.executable, "-m", "tests.gateway.local_gateway", str(state), str(self.http_port), str(grpc_port)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

    async def _objects(self, cluster: LocalCluster) -> None:
        await cluster.apply(model_manifest())
        await cluster.apply(slice_manifest("words", "one", self.stable.port, 1))
        await cluster.apply(slice_manifest("words-1a2b3c4d", "two", self.new.port, 2))

    def do(self, work: Callable[[LocalCluster], Any]) -> Any:
        """Something with the cluster's state, which the gateway watches."""

        async def run() -> Any:
            cluster = LocalCluster(self.state)
            try:
                return await work(cluster)
            finally:
                await cluster.close()

        return asyncio.run(run())

    def give(self, weight: int, step: int) -> None:
        """What the operator writes when a step begins; returns when the gateway knows of it."""
        self.record = self.record.model_copy(update={"weight": weight, "step": step})
        status = {"rollout": self.record.wire()}
        self.do(lambda cluster: cluster.patch_status(Ref(OPTIMIZED_MODEL, "words", NAMESPACE), status))
        self.until(lambda: (f'window="{self.record.window}"' in self.metrics()) == (weight > 0))

    def until(self, condition: Callable[[], bool], seconds: float = 90.0) -> None:
        """Wait for what takes a moment."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"it did not happen:\n{self.log.read_text()[-2000:]}"
            time.sleep(0.05)

    def _ask(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=20)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            return answer.status, answer.read()
        except ConnectionError:
            return 0, b""
        finally:
            connection.close()

    def metrics(self) -> str:
        """/metrics."""
        return self._ask("GET", "/metrics")[1].decode()

    def ready(self) -> bool:
        """Whether routes are known."""
        return self._ask("GET", "/readyz")[0] == 200

    def infer(self, requests: int) -> Counter[str]:
        """Who answered so many requests, a few of them at a time: a version, or a code."""

        def one(_: int) -> str:
            code, body = self._ask("POST", "/v2/models/words/infer", INFER)
            return str(json.loads(body)["version"]) if code == 200 else str(code)

        with ThreadPoolExecutor(8) as executor:
            return Counter(executor.map(one, range(requests)))

    def judged(self) -> tuple[Traffic, Judgement]:
        """What the operator makes of it."""
        url = f"http://127.0.0.1:{self.http_port}"
        window = self.record.window
        traffic = self.do(lambda cluster: GatewayFigures(cluster, (url,)).find("search/words", window))
        return traffic, judge(traffic, window, Guard(), weight=self.record.weight)


@pytest.fixture(scope="module")
def canary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Canary]:
    """Both versions work; the canary gets nothing yet."""
    subject = Canary(tmp_path_factory.mktemp("canary"))
    try:
        subject.until(subject.ready)
        yield subject
    finally:
        subject.process.kill()
        subject.process.wait()
        subject.stable.close()


def test_shares_figures_and_the_way_back(canary: Canary) -> None:
    assert canary.infer(20) == {"stable": 20}
    canary.give(20, step=0)
    assert canary.infer(50) == {"stable": 40, "canary": 10}
    traffic, found = canary.judged()
    assert (traffic.stable.requests, traffic.canary.requests, traffic.silent) == (40, 10, ())
    assert found.verdict is Verdict.UNDECIDED

    # Another step begins at zero. The times are the servers' own.
    canary.give(50, step=1)
    canary.new.seconds = 0.3
    assert canary.infer(40) == {"stable": 20, "canary": 20}
    traffic, found = canary.judged()
    assert (traffic.stable.timed, traffic.canary.timed) == (20, 20)
    assert traffic.canary.p95_seconds() > 0.28
    assert found.verdict is not Verdict.PASSED
    assert "p95" in found.message

    canary.give(0, step=1)
    canary.new.seconds = 0.0
    assert canary.infer(20) == {"stable": 20}


def test_errors_of_the_canary_count_even_where_another_server_answers(canary: Canary) -> None:
    canary.give(50, step=2)
    canary.new.status = 500
    assert canary.infer(20) == {"stable": 10, "500": 10}
    traffic, found = canary.judged()
    assert (traffic.canary.failures, traffic.stable.failures) == (10, 0)
    assert found.verdict is Verdict.BREACHED
    assert "the canary failed 10 of 10 requests, the stable engine 0 of 10 requests" in found.message

    # A server that is gone costs nobody an answer, and is counted all the same.
    canary.give(50, step=3)
    canary.new.close()
    assert canary.infer(20) == {"stable": 20}
    traffic, found = canary.judged()
    assert traffic.canary.failures == traffic.canary.requests > 0
    assert found.verdict is Verdict.BREACHED
