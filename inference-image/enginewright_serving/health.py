"""The health port: /readyz and /livez, 200 or 503 with one JSON object that says why."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field

from aiohttp import web

from enginewright_serving.vitality import READY_FOR_SECONDS, Vitality


@dataclass(slots=True)
class Health:
    """The state that both answers are read from; written by the serve loop only."""

    vitality: Vitality = field(default_factory=Vitality)
    draining: bool = False
    server_exit_code: int | None = None
    ready_for_seconds: float = READY_FOR_SECONDS
    """How long one answer counts."""

    def ready(self) -> bool:
        """Whether traffic should come here."""
        return not self.draining and self.server_exit_code is None and self._answers()

    def alive(self) -> bool:
        """Whether waiting can help; if not, the container should be restarted."""
        return self.server_exit_code is None and not self.vitality.dead

    def _answers(self) -> bool:
        return self.vitality.ready(time.monotonic(), within=self.ready_for_seconds)

    def reason(self) -> str:
        """One sentence."""
        if self.server_exit_code is not None:
            return f"tritonserver exited with code {self.server_exit_code}"
        if self.draining:
            return "draining"
        if self.ready():
            return "the model answers"
        return self.vitality.detail or "no recent answer"


async def listen(health: Health, address: str, port: int) -> web.AppRunner:
    """Serve both paths until the runner is cleaned up."""

    async def readyz(_: web.Request) -> web.Response:
        return _answer(health.ready(), health)

    async def livez(_: web.Request) -> web.Response:
        return _answer(health.alive(), health)

    app = web.Application()
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/livez", livez)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, address, port).start()
    return runner


def _answer(good: bool, health: Health) -> web.Response:
    body = json.dumps({"ready": health.ready(), "alive": health.alive(), "reason": health.reason()})
    return web.Response(status=200 if good else 503, text=body, content_type="application/json")
