"""Baseline, reference, verify, benchmark: the compiled engine beside the untouched model, both behind the server."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enginewright_api.engine_description import EngineDescription
from enginewright_api.evidence import BenchmarkEvidence, Measurement
from enginewright_api.identity import digest_of
from enginewright_api.recipe import Task
from enginewright_builder.datasets.draw import Drawn
from enginewright_builder.datasets.rows import Text, texts_of_rows
from enginewright_builder.gate.generation import check_same_likelihood, summary
from enginewright_builder.gate.sanity import check_equal, check_finite
from enginewright_builder.machine import Disturbance, describe_machine
from enginewright_builder.servers.pair import Pair
from enginewright_builder.speed import generating
from enginewright_builder.speed.interleaved import geometric_mean, measure, measurement, shapes_within
from enginewright_builder.speed.texts import pairs_of, texts_of
from enginewright_builder.stages.compress import copy_tokenizer, folder_bytes, link_checkpoint, write_description
from enginewright_builder.stages.stage import Output

ANSWERS = "answers.npy"
_BATCH = 32
_BATCHES_A_SHAPE = 4

Told = Callable[[float, str], None]


@dataclass(frozen=True, slots=True)
class Baseline:
    """The untouched model as an engine: Torch, eager, its own precision."""

    checkpoint: Output
    description: EngineDescription
    name: str = "baseline"
    shared: bool = False

    def key(self) -> str:
        """By source and description."""
        return digest_of(
            {
                "stage": self.name,
                "source": self.checkpoint.result["sourceDigest"],
                "description": self.description.wire(),
            }
        )

    def run(self, into: Path) -> dict[str, Any]:
        """Result: sizeBytes of the weights."""
        copy_tokenizer(self.checkpoint.folder, into / "tokenizer")
        link_checkpoint(self.checkpoint.folder, into / "engine" / self.description.entry)
        write_description(into, self.description)
        weights = sum(path.stat().st_size for path in self.checkpoint.folder.glob("*.safetensors"))
        return {"sizeBytes": weights, "message": f"eager PyTorch, {weights / 2**20:.1f} MiB of weights"}


@dataclass(frozen=True, slots=True)
class Reference:
    """The baseline's answers on the evaluation rows: asked once, used by every rung."""

    baseline: Output
    rows: Drawn
    description: EngineDescription
    servers: Pair
    toolchain_digest: str
    name: str = "reference"
    shared: bool = True

    def key(self) -> str:
        """By baseline and rows."""
        return digest_of(
            {
                "stage": self.name,
                "baseline": self.baseline.key,
                "rows": self.rows.digest,
                "toolchain": self.toolchain_digest,
            }
        )

    def run(self, into: Path) -> dict[str, Any]:
        """File: answers.npy. Raises DeterministicError when the model itself gives NaN."""
        import numpy as np

        with self.servers.alone("reference", self.baseline.folder, self.description.output) as client:
            answers = client.ask_all(_asked(self.rows, self.description), batch=_batch(self.description))
        check_finite(answers.vectors, who="the baseline")
        np.save(into / ANSWERS, answers.vectors, allow_pickle=False)
        return {"message": f"{len(self.rows.rows)} rows of {self.rows.name}"}


@dataclass(frozen=True, slots=True)
class Verify:
    """The compiled engine's answers on the evaluation rows, checked for sanity."""

    engine: Output
    reference: Output
    rows: Drawn
    description: EngineDescription
    compressed: bool
    servers: Pair
    name: str = "verify"
    shared: bool = True

    def key(self) -> str:
        """By engine and rows."""
        return digest_of({"stage": self.name, "engine": self.engine.key, "reference": self.reference.key})

    def run(self, into: Path) -> dict[str, Any]:
        """File: answers.npy. Result: maxError against eager. Raises NotFinite, ConstantOutput, NumericalMismatch."""
        import numpy as np

        with self.servers.answering("engine", self.description.output) as client:
            answers = client.ask_all(_asked(self.rows, self.description), batch=_batch(self.description))
        check_finite(answers.vectors, who="the engine")
        baseline = np.load(self.reference.folder / ANSWERS, allow_pickle=False)
        result: dict[str, Any] = {"message": f"{len(self.rows.rows)} rows of {self.rows.name} through the server"}
        if self.description.generation is not None:
            result["message"] += f": {summary(answers.vectors, baseline)}"
        if not self.compressed:
            check = check_equal if self.description.generation is None else check_same_likelihood
            result["maxError"] = check(answers.vectors, baseline)
        np.save(into / ANSWERS, answers.vectors, allow_pickle=False)
        return result


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Latency by shape, interleaved."""

    engine: Output
    baseline: Output
    description: EngineDescription
    material: Drawn
    threads: int
    seconds_a_shape: float
    servers: Pair
    told: Told
    name: str = "benchmark"
    # True of this machine only.
    shared: bool = False

    def key(self) -> str:
        """By both engines and the machine."""
        return digest_of(
            {
                "stage": self.name,
                "engine": self.engine.key,
                "baseline": self.baseline.key,
                "threads": self.threads,
                "secondsAShape": self.seconds_a_shape,
                "machine": describe_machine(),
            }
        )

    def run(self, into: Path) -> dict[str, Any]:
        """Result: evidence (BenchmarkEvidence on the wire)."""
        disturbance = Disturbance([os.getpid()])
        found, peak = self._encoding() if self.description.generation is None else self._generating()
        evidence = BenchmarkEvidence(
            measurements=found,
            speedup=round(geometric_mean([one.speedup for one in found]), 3),
            machine=f"{describe_machine()}; others took {disturbance.share():.0%} of the processor time meanwhile",
            threads=self.threads,
            baseline_size_bytes=int(self.baseline.result["sizeBytes"]),
            size_bytes=folder_bytes(self.engine.folder / "engine"),
            peak_memory_bytes=peak,
        )
        return {"evidence": evidence.wire(), "message": f"{evidence.speedup:.2f} × the baseline"}

    def _encoding(self) -> tuple[list[Measurement], int]:
        shapes = shapes_within(self.description.limits)
        texts = [row.text for row in self.material.rows]
        output, found, peak = self.description.output, [], 0
        drawn = pairs_of if self.description.task is Task.RERANKING else texts_of
        with self.servers.engine(output) as engine, self.servers.baseline(output) as baseline:
            for done, (batch, tokens) in enumerate(shapes):
                self.told(done / len(shapes), f"batch {batch}, {tokens} tokens")
                same_length = drawn(tokens, batch * _BATCHES_A_SHAPE, texts, self.engine.folder / "tokenizer")
                batches = [same_length[start : start + batch] for start in range(0, len(same_length), batch)]
                times = measure(engine.ask, baseline.ask, batches, seconds=self.seconds_a_shape)
                found.append(measurement(times, batch=batch, tokens=tokens))
                peak = max(peak, self.servers.engine_resident_bytes())
        return found, peak

    def _generating(self) -> tuple[list[Measurement], int]:
        shapes = generating.shapes_within(self.description.limits)
        texts = [row.text for row in self.material.rows]
        found, peak = [], 0
        with self.servers.generating("engine") as engine, self.servers.generating("baseline") as baseline:
            for done, shape in enumerate(shapes):
                self.told(done / len(shapes), f"{shape.streams} streams, {shape.output_tokens} tokens each")
                count = shape.streams * generating.MAX_ROUNDS
                prompts = texts_of(shape.prompt_tokens, count, texts, self.engine.folder / "tokenizer")
                runs = generating.measure(
                    engine.generate,
                    baseline.generate,
                    _chunks(prompts, shape.streams),
                    shape,
                    seconds=self.seconds_a_shape,
                )
                found.append(generating.measurement(runs, shape))
                peak = max(peak, self.servers.engine_resident_bytes())
        return found, peak


def _batch(description: EngineDescription) -> int:
    return min(_BATCH, description.limits.max_batch_size)


def _asked(rows: Drawn, description: EngineDescription) -> list[Text]:
    return texts_of_rows(rows.rows, description.task)


def _chunks(texts: Sequence[str], size: int) -> list[Sequence[str]]:
    return [texts[start : start + size] for start in range(0, len(texts), size)]
