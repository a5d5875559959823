"""Follow a model from apply to ready and tell each step once."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.markup import escape

from enginewright_api.engine_build import EngineBuild
from enginewright_api.errors import DeterministicError, TransientError
from enginewright_api.optimized_model import OptimizedModel
from enginewright_api.outcome import StageState
from enginewright_cli.output import condition
from enginewright_cluster.port import ENGINE_BUILD, OPTIMIZED_MODEL, Cluster, NotFoundError, Ref, UnavailableError

Object = dict[str, Any]
_TICK_SECONDS = 0.1


@dataclass(slots=True)
class Follower:
    """Prints what happens to one model; remembers what was said."""

    cluster: Cluster
    console: Console
    name: str
    namespace: str
    said: set[str] = field(default_factory=set)
    built_here: bool = False

    async def until_ready(self, *, timeout_seconds: float) -> OptimizedModel:
        """Returns the model when it is Ready.

        Raises DeterministicError with the root cause when it stalls, TransientError when the time is over.
        """
        end = time.monotonic() + timeout_seconds
        with self.console.status("waiting for the operator") as spinner:
            while True:
                item = await self._model()
                if item is not None:
                    await self._builds(item, spinner)
                    ready = condition(item, "Ready")
                    current = ready.get("observedGeneration", -1) >= item["metadata"].get("generation", 0)
                    if current and ready.get("status") == "True":
                        return OptimizedModel.of(item)
                    self._failed(item)
                if time.monotonic() > end:
                    why = condition(item or {}, "Ready")
                    said = f"{why.get('reason')}: {why.get('message')}"
                    raise TransientError("NotReady", f"{self.name} is not ready after {timeout_seconds:g} s; {said}")
                await asyncio.sleep(_TICK_SECONDS)

    async def _model(self) -> Object | None:
        try:
            return await self.cluster.get(Ref(OPTIMIZED_MODEL, self.name, self.namespace))
        except (NotFoundError, UnavailableError):
            return None

    async def _builds(self, model: Object, spinner: Any) -> None:
        ready = condition(model, "Ready")
        text = f"{ready.get('reason', 'waiting')}: {ready.get('message', '')}"
        for rung in (model.get("status") or {}).get("rungs", []):
            if rung.get("message") and rung.get("verdict"):
                mark = "[green]✓[/green]" if rung["verdict"] == "Passed" else "[yellow]✗[/yellow]"
                self._once(f"{mark} rung {rung['format']}: {escape(rung['message'])}")
            name = rung["engineBuild"]
            try:
                build = EngineBuild.of(await self.cluster.get(Ref(ENGINE_BUILD, name, self.namespace)))
            except (NotFoundError, UnavailableError):
                continue
            if build.status.attempts > 0 and build.status.phase.value == "Running":
                self.built_here = True
            for stage in build.status.stages:
                if stage.state is StageState.RUNNING:
                    share = f" {stage.fraction:.0%}" if stage.fraction is not None else ""
                    text = f"build {name}: {stage.name}{share} {stage.message}"
                elif self.built_here or stage.state is StageState.FAILED:
                    note = "from the cache" if stage.state is StageState.CACHED else f"{stage.seconds:.1f} s"
                    self._once(f"  {name} {stage.name:<10} {note}  {escape(stage.message)}")
        spinner.update(escape(text[: max(self.console.width - 4, 40)]))

    def _failed(self, model: Object) -> None:
        stalled = condition(model, "Stalled")
        if stalled.get("status") == "True" and stalled.get("observedGeneration", 0) >= model["metadata"].get(
            "generation", 0
        ):
            failure = (model.get("status") or {}).get("lastFailure") or {}
            detail = f" ({failure['stage']}: {failure['message']})" if failure else ""
            raise DeterministicError(stalled["reason"], f"{self.name}: {stalled['message']}{detail}")

    def _once(self, line: str) -> None:
        if line not in self.said:
            self.said.add(line)
            self.console.print(line)
