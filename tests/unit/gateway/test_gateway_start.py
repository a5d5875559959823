"""What callers of a gateway that has just started are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import httpx
import pytest

from enginewright_cluster.port import Kind, Object, WatchEvent
from enginewright_gateway.app import Listening, serve
from enginewright_gateway.settings import GatewaySettings


class SlowCluster:
    """A cluster without objects, which tells so when it is let."""

    def __init__(self) -> None:
        self.answers = asyncio.Event()

    async def list(self, kind: Kind, *, namespace: str | None = None) -> Sequence[Object]:
        await self.answers.wait()
        return []

    async def watch(self, kind: Kind, *, namespace: str | None = None) -> AsyncIterator[WatchEvent]:
        await asyncio.Event().wait()
        yield  # type: ignore[misc]  # never reached; it makes this a generator


@pytest.mark.parametrize(("patience", "status", "code"), [(30.0, 404, "model_not_found"), (0.05, 503, "starting")])
async def test_nobody_is_told_that_a_model_is_not_there_before_the_models_are_known(
    patience: float, status: int, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("enginewright_gateway.app._SYNC_SECONDS", patience)
    cluster, stop = SlowCluster(), asyncio.Event()
    listening: asyncio.Future[Listening] = asyncio.get_running_loop().create_future()
    settings = GatewaySettings(address="127.0.0.1", http_port=0, grpc_port=0, allow_anonymous=True)
    serving = asyncio.ensure_future(serve(cluster, settings, stop=stop, listening=listening))  # type: ignore[arg-type]  # the part that it uses
    asyncio.get_running_loop().call_later(0.2 if status == 404 else 60.0, cluster.answers.set)
    opened = await listening
    async with httpx.AsyncClient() as client:
        answer = await client.post(
            f"http://127.0.0.1:{opened.http_port}/v1/embeddings", json={"model": "words", "input": "a"}
        )
    stop.set()
    await serving
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert (answer.headers.get("retry-after") == "1") == (status == 503)
