"""A node agent over a real SQLite file, with real processes."""

from __future__ import annotations

import asyncio
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from enginewright_cluster.agent.agent import Agent
from enginewright_cluster.local import LocalCluster
from enginewright_cluster.port import (
    DEPLOYMENT,
    ENDPOINT_SLICE,
    EVENT,
    JOB,
    POD,
    SERVICE,
    Kind,
    NotFoundError,
    Object,
    Ref,
)

NAMESPACE = "test"

# Answers on $HTTP_PORT; /ready says 503 while the file $UNREADY exists, /alive while $DEAD does.
SERVER = textwrap.dedent(
    """
    import http.server, os, pathlib
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            switch = {"/ready": "UNREADY", "/alive": "DEAD"}.get(self.path, "")
            bad = pathlib.Path(os.environ.get(switch) or "/nonexistent").exists()
            self.send_response(503 if bad else 200)
            self.end_headers()
            self.wfile.write(os.environ.get("ANSWER", "").encode())
        def log_message(self, *words):
            pass
    http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["HTTP_PORT"])), Handler).serve_forever()
    """
)


@dataclass(frozen=True)
class Machine:
    """A cluster and the verbs that tests need."""

    cluster: LocalCluster
    folder: Path

    async def get(self, kind: Kind, name: str) -> Object:
        return await self.cluster.get(Ref(kind, name, NAMESPACE))

    async def status(self, kind: Kind, name: str) -> dict[str, Any]:
        return (await self.get(kind, name)).get("status", {})

    async def pods(self, **labels: str) -> list[Object]:
        return list(await self.cluster.list(POD, namespace=NAMESPACE, labels=labels))

    async def ready_ports(self) -> set[int]:
        slices = await self.cluster.list(ENDPOINT_SLICE, namespace=NAMESPACE)
        return {item["ports"][0]["port"] for item in slices}

    async def events(self, reason: str) -> list[Object]:
        return [item for item in await self.cluster.list(EVENT) if item["reason"] == reason]

    async def pod(self, *containers: Object, name: str = "p", **spec: Any) -> Object:
        item = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE}}
        item["metadata"]["finalizers"] = ["enginewright.io/node-agent"]
        return await self.cluster.create(item | {"spec": {"containers": list(containers), **spec}})

    async def deployment(self, container: Object, *, name: str = "d", pod: Object | None = None, **spec: Any) -> Object:
        template = {
            "metadata": {"labels": {"app": name}},
            "spec": {"containers": [container], "terminationGracePeriodSeconds": 5, **(pod or {})},
        }
        return await self.cluster.apply(
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": name, "namespace": NAMESPACE},
                "spec": {"selector": {"matchLabels": {"app": name}}, "template": template, **spec},
            }
        )

    async def service(self, name: str = "d", **annotations: str) -> Object:
        return await self.cluster.apply(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": name, "namespace": NAMESPACE, "annotations": annotations},
                "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
            }
        )

    async def job(self, container: Object, *, name: str = "j", **spec: Any) -> Object:
        pod = {"restartPolicy": "Never", "containers": [container], "terminationGracePeriodSeconds": 2}
        return await self.cluster.apply(
            {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "metadata": {"name": name, "namespace": NAMESPACE},
                "spec": {"backoffLimit": 0, "template": {"spec": pod}, **spec},
            }
        )

    async def delete(self, kind: Kind, name: str) -> None:
        await self.cluster.delete(Ref(kind, name, NAMESPACE))

    async def phase(self, name: str, wanted: str) -> Object:
        async def reached() -> bool:
            return (await self.status(POD, name)).get("phase") == wanted

        await until(reached, f"pod {name} is {wanted}")
        return await self.get(POD, name)

    async def available(self, count: int, name: str = "d") -> None:
        async def reached() -> bool:
            status = await self.status(DEPLOYMENT, name)
            wanted = {"availableReplicas": count, "updatedReplicas": count, "replicas": count}
            return all(status.get(key) == value for key, value in wanted.items())

        await until(reached, f"{count} of {name} available")
        if await self.cluster.list(SERVICE, namespace=NAMESPACE):
            await self.endpoints(count)  # they follow the pods' readiness

    async def endpoints(self, count: int) -> None:
        async def reached() -> bool:
            return len(await self.cluster.list(ENDPOINT_SLICE, namespace=NAMESPACE)) == count

        await until(reached, f"{count} endpoints")

    async def job_condition(self, kind: str, name: str = "j") -> Object:
        async def reached() -> bool:
            conditions = (await self.status(JOB, name)).get("conditions", [])
            return any(item["type"] == kind and item["status"] == "True" for item in conditions)

        await until(reached, f"job {name} is {kind}")
        return await self.get(JOB, name)

    async def gone(self, kind: Kind, name: str) -> None:
        async def reached() -> bool:
            try:
                await self.get(kind, name)
            except NotFoundError:
                return True
            return False

        await until(reached, f"{kind.kind} {name} is gone")

    @asynccontextmanager
    async def agent(self) -> AsyncIterator[None]:
        ready = asyncio.Event()
        task = asyncio.create_task(Agent(self.cluster, stop_seconds=3).run(ready.set))
        waiting = asyncio.create_task(ready.wait())
        try:
            await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED, timeout=20)
            if task.done():
                await task
            yield
        finally:
            waiting.cancel()
            task.cancel()
            await asyncio.gather(task, waiting, return_exceptions=True)


async def until(holds: Callable[[], Awaitable[bool]], what: str, seconds: float = 30) -> None:
    try:
        async with asyncio.timeout(seconds):
            while not await holds():  # noqa: ASYNC110 - processes tell nobody
                await asyncio.sleep(0.03)
    except TimeoutError:
        raise AssertionError(f"not within {seconds} s: {what}") from None


def alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def python(code: str, *, name: str = "c", env: dict[str, str] | None = None, **fields: Any) -> Object:
    variables = [{"name": key, "value": value} for key, value in (env or {}).items()]
    return {"name": name, "image": "none", "command": [sys.executable, "-c", code], "env": variables, **fields}


def server(*, env: dict[str, str] | None = None, **fields: Any) -> Object:
    # A busy machine answers late, and one late answer would already be a failure.
    check = {"path": "/ready", "port": "http"}
    probe = {"httpGet": check, "periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 10}
    ports = [{"name": "http", "containerPort": 8000}]
    return python(SERVER, name="server", env=env, ports=ports, readinessProbe=probe, **fields)


@pytest.fixture
async def idle_machine(tmp_path: Path) -> AsyncIterator[Machine]:
    """No agent yet."""
    cluster = LocalCluster(tmp_path / "state")
    yield Machine(cluster, tmp_path)
    await cluster.close()


@pytest.fixture
async def machine(idle_machine: Machine) -> AsyncIterator[Machine]:
    """With a running agent."""
    async with idle_machine.agent():
        yield idle_machine
