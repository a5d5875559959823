"""The whole gateway on real ports, in a thread of its own, fed by a cluster that the test writes to."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any

from enginewright_cluster.fake import FakeCluster
from enginewright_cluster.port import ENDPOINT_SLICE, OPTIMIZED_MODEL, Ref
from enginewright_gateway.app import Listening, serve
from enginewright_gateway.settings import GatewaySettings

NAMESPACE = "search"


def model_manifest(name: str = "words", namespace: str = NAMESPACE, **spec: Any) -> dict[str, Any]:
    """An OptimizedModel with the smallest spec, and what the test adds."""
    return {
        "apiVersion": "enginewright.io/v1alpha1",
        "kind": "OptimizedModel",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "source": {"package": {"name": "weights", "version": "1.0.0"}},
            "task": "Embedding",
            "hardware": {"acceleratorClasses": ["cpu"]},
            "batching": {"maxBatchSize": 8},
            **spec,
        },
    }


def slice_manifest(
    service: str, name: str, http_port: int, grpc_port: int, namespace: str = NAMESPACE
) -> dict[str, Any]:
    """An EndpointSlice with one ready endpoint on this machine."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": http_port}, {"name": "grpc", "port": grpc_port}],
        "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}],
    }


class RunningGateway:
    """`with RunningGateway(settings...) as gateway:` serves until the block ends, then drains."""

    def __init__(self, **settings: Any) -> None:
        defaults = {"http_port": 0, "grpc_port": 0, "allow_anonymous": "keys_dir" not in settings, "drain_seconds": 2}
        self.settings = GatewaySettings(**(defaults | settings))
        self.cluster: FakeCluster
        self.listening: Listening
        self._loop = asyncio.new_event_loop()
        self._stop: asyncio.Event
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> RunningGateway:
        self._thread.start()
        assert self._started.wait(20), "the gateway did not start"
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """Drain and end."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(30)
        assert not self._thread.is_alive(), "the gateway did not stop"

    def begin_stop(self) -> None:
        """What SIGTERM does, without waiting."""
        self._loop.call_soon_threadsafe(self._stop.set)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._main())
        except BaseException as error:
            self._failure = error
            raise
        finally:
            self._started.set()
            self._loop.close()

    async def _main(self) -> None:
        self.cluster = FakeCluster()
        self._stop = asyncio.Event()
        listening: asyncio.Future[Listening] = self._loop.create_future()

        def opened(future: asyncio.Future[Listening]) -> None:
            self.listening = future.result()
            self._started.set()

        listening.add_done_callback(opened)
        await serve(self.cluster, self.settings, stop=self._stop, listening=listening)

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine in the gateway's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def add_model(self, name: str = "words", namespace: str = NAMESPACE, **spec: Any) -> None:
        """Apply an OptimizedModel."""
        self.do(self.cluster.apply(model_manifest(name, namespace, **spec)))

    def add_endpoint(self, slice_name: str, http_port: int, grpc_port: int, *, service: str = "words") -> None:
        """A server became ready."""
        self.do(self.cluster.apply(slice_manifest(service, slice_name, http_port, grpc_port)))

    def remove_endpoint(self, slice_name: str) -> None:
        """A server went away."""
        self.do(self.cluster.delete(Ref(ENDPOINT_SLICE, slice_name, NAMESPACE)))

    def remove_model(self, name: str = "words") -> None:
        """Delete an OptimizedModel."""
        self.do(self.cluster.delete(Ref(OPTIMIZED_MODEL, name, NAMESPACE)))

    def set_condition(self, name: str, status: str, reason: str, message: str) -> None:
        """What the operator says of the model."""
        condition = {
            "type": "Ready", "status": status, "reason": reason, "message": message,
            "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1,
        }  # fmt: skip
        self.do(self.cluster.patch_status(Ref(OPTIMIZED_MODEL, name, NAMESPACE), {"conditions": [condition]}))

    @property
    def url(self) -> str:
        """Base of HTTP addresses."""
        return f"http://127.0.0.1:{self.listening.http_port}"

    @property
    def grpc(self) -> str:
        """Address of the gRPC port."""
        return f"127.0.0.1:{self.listening.grpc_port}"

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, timeout: float = 20
    ) -> tuple[int, Any, dict[str, str]]:
        """One request; (status, parsed JSON or text, headers in lower case)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.listening.http_port, timeout=timeout)
        try:
            raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method, path, raw, headers or {})
            answer = connection.getresponse()
            text = answer.read()
            parsed: Any = text
            if answer.headers.get_content_type() == "application/json" and text:
                parsed = json.loads(text)
            return answer.status, parsed, {name.lower(): value for name, value in answer.headers.items()}
        finally:
            connection.close()

    def raw(self, data: bytes, *, seconds: float = 3.0) -> tuple[bytes, bool]:
        """Bytes over a bare socket; (answer, whether the gateway closed the connection)."""
        with socket.create_connection(("127.0.0.1", self.listening.http_port), timeout=seconds) as sock:
            received = b""
            try:
                sock.sendall(data)
                while chunk := sock.recv(65536):
                    received += chunk
            except TimeoutError:
                return received, False
            except ConnectionError:
                return received, True
            return received, True

    def metric(self, name: str, **labels: str) -> float:
        """One sample of /metrics; 0 when it is not there yet."""
        _, text, _ = self.ask("GET", "/metrics")
        wanted = {f'{key}="{value}"' for key, value in labels.items()}
        for line in text.decode().splitlines():
            head, _, value = line.rpartition(" ")
            family, _, rest = head.partition("{")
            if family == name and wanted == set(filter(None, rest.rstrip("}").split(","))):
                return float(value)
        return 0.0
