"""The demo's steps in order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from enginewright_api.engine_build import EngineBuild
from enginewright_api.errors import DeterministicError, EnginewrightError
from enginewright_api.optimized_model import OptimizedModel
from enginewright_api.recipe import Task
from enginewright_cli.demo import chat
from enginewright_cli.demo.answers import (
    ARTICLES,
    QUESTIONS,
    Vectors,
    nearest,
    over_kserve_grpc,
    over_kserve_http,
    over_openai,
)
from enginewright_cli.demo.comparison import comparison
from enginewright_cli.demo.load import watch_scaling
from enginewright_cli.demo.progress import Follower
from enginewright_cli.documents import read_documents
from enginewright_cli.local import daemon
from enginewright_cli.local.artifacts import read_file
from enginewright_cli.local.control_plane import Options, open_cluster
from enginewright_cli.output import console
from enginewright_cli.state import StateDirectory
from enginewright_cluster.port import ENGINE_BUILD, OPTIMIZED_MODEL, Ref

NAMESPACE = "default"
_RETRY_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Demo:
    """One run of the demo."""

    state: StateDirectory
    options: Options
    filename: Path
    timeout_seconds: float

    def run(self, *, load: bool) -> None:
        """All steps; raises the error that stops it."""
        (document,) = [item for item in read_documents(str(self.filename)) if item["kind"] == "OptimizedModel"]
        task = document["spec"].get("task")
        if task not in ("Embedding", "TextGeneration"):
            raise DeterministicError(
                "Usage", f"{self.filename}: the demo asks models of task Embedding or TextGeneration, not {task}"
            )
        if load and task != "Embedding":
            raise DeterministicError("Usage", "--load: only for embedding models")
        running = daemon.start(self.state, self.options)
        _step("control plane", running.sentence)
        asyncio.run(self._apply_and_show(document, running))
        if load:
            asyncio.run(self._load(document["metadata"]["name"], running))
        _step("stop", f"{self.state.down_command}   (objects and the engine stay; the next demo builds nothing)")

    async def _load(self, name: str, running: daemon.Running) -> None:
        cluster = open_cluster(self.state)
        try:
            await watch_scaling(cluster, self._url(running), name, NAMESPACE)
        finally:
            await cluster.close()

    async def _apply_and_show(self, document: dict[str, Any], running: daemon.Running) -> None:
        name = document["metadata"]["name"]
        document["metadata"].setdefault("namespace", NAMESPACE)
        cluster = open_cluster(self.state)
        try:
            started = time.monotonic()
            before = await _generation(cluster, name)
            applied = await cluster.apply(document, field_manager="enginewright-cli")
            unchanged = before == applied["metadata"]["generation"]
            _step("apply", f"OptimizedModel {name} {'unchanged' if unchanged else 'applied'} ({self.filename})")
            follower = Follower(cluster, console, name, NAMESPACE)
            model = await follower.until_ready(timeout_seconds=self.timeout_seconds)
            build = EngineBuild.of(await cluster.get(Ref(ENGINE_BUILD, _engine(model), NAMESPACE)))
            await asyncio.to_thread(_first_answer, self._url(running), model)
            seconds = time.monotonic() - started
            how = "built here" if follower.built_here else "the engine was in the store already, nothing was built"
            _step("first answer", f"{seconds:.1f} s after apply; {how}")
        finally:
            await cluster.close()
        self._show(model, build, running)

    def _show(self, model: OptimizedModel, build: EngineBuild, running: daemon.Running) -> None:
        name = model.metadata.name
        self._show_comparison(model, build)
        if _chats(model):
            self._show_chat(name, running)
        else:
            self._show_answers(name, running)
        report = self.state.root / "reports" / f"{build.metadata.name}.html"
        report.parent.mkdir(mode=0o700, exist_ok=True)
        report.write_bytes(read_file(self.state.store_uri, build.spec.key, "report.html"))
        _step("report", str(report))
        for line in _how_to_ask(self._url(running), model):
            _step("ask it", line)

    def _show_comparison(self, model: OptimizedModel, build: EngineBuild) -> None:
        active = model.status.active
        label = f"{active.backend} {active.format}" if active else "engine"
        evidence = build.status.evidence[0]
        console.print()
        console.print(comparison(evidence, engine=label))
        benchmark = evidence.benchmark
        how = f"{benchmark.threads} threads of {benchmark.machine}"
        console.print(f"measured through the server, side by side, {how}", style="dim")

    def _show_answers(self, name: str, running: daemon.Running) -> None:
        url, grpc = self._url(running), f"127.0.0.1:{running.grpc_port}"
        texts = [*QUESTIONS, *ARTICLES]
        protocols: dict[str, Callable[[], Vectors]] = {
            "OpenAI /v1/embeddings": lambda: over_openai(url, name, texts),
            "KServe v2 HTTP": lambda: over_kserve_http(url, name, texts),
            "KServe v2 gRPC": lambda: over_kserve_grpc(grpc, name, texts),
        }
        answers = {protocol: ask() for protocol, ask in protocols.items()}
        first = answers["OpenAI /v1/embeddings"]
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for column in ("question", "nearest article", "cosine"):
            table.add_column(column)
        for found in nearest(QUESTIONS, first[: len(QUESTIONS)], ARTICLES, first[len(QUESTIONS) :]):
            table.add_row(found.text, found.nearest, f"{found.cosine:.3f}")
        console.print()
        console.print(table)
        for protocol, vectors in answers.items():
            apart = float(np.abs(vectors - first).max())
            console.print(
                f"{protocol}: {vectors.shape[0]} vectors of {vectors.shape[1]}, at most {apart:.1e} from OpenAI's",
                style="dim",
            )
        console.print()

    def _show_chat(self, name: str, running: daemon.Running) -> None:
        for question in chat.QUESTIONS:
            console.print()
            console.print(f"> {question}", style="bold", markup=False)
            spoken = chat.ask(self._url(running), name, question, _show_piece)
            console.print()
            console.print(
                f"{spoken.tokens} tokens; the first after {spoken.first_token_seconds * 1000:.0f} ms, "
                f"then {spoken.tokens_per_second:.0f} a second",
                style="dim",
            )
        console.print()

    def _url(self, running: daemon.Running) -> str:
        return f"http://127.0.0.1:{running.http_port}"


def _show_piece(text: str) -> None:
    console.print(text, end="", markup=False, highlight=False, soft_wrap=True)


def _chats(model: OptimizedModel) -> bool:
    return model.spec.task is Task.TEXT_GENERATION


def _how_to_ask(url: str, model: OptimizedModel) -> list[str]:
    name = model.metadata.name
    if not _chats(model):
        return [f'curl {url}/v1/embeddings -d \'{{"model": "{name}", "input": "hello"}}\'']
    body = f'{{"model": "{name}", "stream": true, "messages": [{{"role": "user", "content": "hello"}}]}}'
    python = f'OpenAI(base_url="{url}/v1", api_key="any").chat.completions.create(model="{name}", messages=[...])'
    return [f"curl -N {url}/v1/chat/completions -d '{body}'", python]


def _step(name: str, text: str) -> None:
    console.print(f"[green]✓[/green] [bold]{name}[/bold]  ", end="")
    console.print(text, markup=False, soft_wrap=True)


def _engine(model: OptimizedModel) -> str:
    if model.status.active is None:
        raise DeterministicError("NoEngine", f"{model.metadata.name} is Ready without an active engine")
    return model.status.active.engine_build


async def _generation(cluster: Any, name: str) -> int | None:
    try:
        item = await cluster.get(Ref(OPTIMIZED_MODEL, name, NAMESPACE))
    except EnginewrightError:
        return None
    return int(item["metadata"]["generation"])


def _first_answer(url: str, model: OptimizedModel) -> None:
    """Ready means that it answers; the gateway may hear of it a moment later."""
    end = time.monotonic() + 10.0
    while True:
        try:
            if _chats(model):
                chat.ask(url, model.metadata.name, "hello", lambda _: None, max_tokens=1)
            else:
                over_openai(url, model.metadata.name, ["hello"])
        except EnginewrightError:
            if time.monotonic() > end:
                raise
            time.sleep(_RETRY_SECONDS)
        else:
            return
