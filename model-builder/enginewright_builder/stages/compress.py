"""Export, quantize, compile: checkpoint → graph → quantised graph → engine folder. The work is the toolchain's."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enginewright_api.engine_description import ENGINE_DESCRIPTION, EngineDescription
from enginewright_api.errors import DeterministicError
from enginewright_api.identity import canonical_json, digest_of
from enginewright_api.optimization import Quantization, QuantizationMethod
from enginewright_api.recipe import Task
from enginewright_builder.datasets.draw import Drawn
from enginewright_builder.datasets.rows import Text, texts_of_rows
from enginewright_builder.description import EAGER
from enginewright_builder.drafting import place_draft
from enginewright_builder.sources.checkpoint import TOKENIZER_FILES
from enginewright_builder.stages.stage import Output
from enginewright_builder.toolchain.client import Toolchain
from enginewright_builder.toolchain.tasks import CompileTask, ExportTask, QuantizeTask

_PROBES = 4


@dataclass(frozen=True, slots=True)
class Export:
    """Checkpoint to the backend's graph, float32, pooling and normalisation inside."""

    checkpoint: Output
    description: EngineDescription
    toolchain_digest: str
    toolchain: Toolchain
    name: str = "export"
    shared: bool = True

    def key(self) -> str:
        """Limits are no part of it: the graph's shapes are dynamic. Nor is what only the server reads."""
        graph = self.description.model_copy(update={"precision_hint": "f32", "fast_path_tokens": 0}).wire()
        del graph["limits"]
        graph.pop("generation", None)
        return digest_of(
            {
                "stage": self.name,
                "source": self.checkpoint.result["sourceDigest"],
                "graph": graph,
                "toolchain": self.toolchain_digest,
            }
        )

    def run(self, into: Path) -> dict[str, Any]:
        """Result: fused (nodes by operator), where the exporter fuses.

        Raises DeterministicError: UnsupportedArchitecture, UnsupportedOperator, InvalidCheckpoint.
        """
        found = self.toolchain.perform(
            ExportTask(checkpoint=self.checkpoint.folder, description=self.description, into=into)
        )
        told = f"{self.description.backend.value} graph, {_mib(into)}"
        fused = found.get("fused")
        if isinstance(fused, dict):
            nodes = ", ".join(f"{count} {name}" for name, count in sorted(fused.items()))
            told += f"; fused {nodes}" if nodes else "; nothing fused"
        return {**found, "message": told}


@dataclass(frozen=True, slots=True)
class Quantize:
    """Graph to graph in the wanted format, measured on calibration rows."""

    checkpoint: Output
    graph: Output
    description: EngineDescription
    quantization: Quantization
    calibration: Drawn
    leaked: int
    toolchain: Toolchain
    name: str = "quantize"
    shared: bool = True

    def key(self) -> str:
        """By graph, settings and the calibration rows themselves."""
        return digest_of(
            {
                "stage": self.name,
                "graph": self.graph.key,
                "settings": self.quantization.wire(),
                "rows": self.calibration.digest,
                "limit": self.description.limits.max_input_tokens,
            }
        )

    def run(self, into: Path) -> dict[str, Any]:
        """Result: format, method, calibrationRows, leakedRows, excluded; for weights alone averageBits, storedBits."""
        settings = self.quantization
        found = self.toolchain.perform(
            QuantizeTask(
                graph=self.graph.folder,
                tokenizer=self.checkpoint.folder,
                description=self.description,
                quantization=settings,
                texts=_read(self.calibration, self.description.task),
                into=into,
            )
        )
        scaled = settings.method is not QuantizationMethod.AUTO
        told = f"{settings.format.value} {settings.method.value}" if scaled else settings.format.value
        if self.calibration.rows:
            told += f" on {len(self.calibration.rows)} rows of {self.calibration.name}"
        if self.leaked:
            told += f"; {self.leaked} rows left out because the gate judges on them"
        told += bits_told(found)
        return {
            "format": settings.format.value,
            "method": settings.method.value,
            "calibrationRows": len(self.calibration.rows),
            "calibrationDataset": self.calibration.name,
            "leakedRows": self.leaked,
            **found,
            "message": f"{told}, {_mib(into)}",
        }


@dataclass(frozen=True, slots=True)
class Compile:
    """Graph to what the server loads: engine.json, engine/, tokenizer/. It must load and answer here first."""

    checkpoint: Output
    graph: Output
    description: EngineDescription
    probe: Drawn
    toolchain: Toolchain
    draft: Output | None = None
    """Graph of the model that drafts."""
    name: str = "compile"
    shared: bool = True

    def key(self) -> str:
        """By graphs and description."""
        draft = {"draft": self.draft.key} if self.draft is not None else {}
        return digest_of({"stage": self.name, "graph": self.graph.key, "description": self.description.wire(), **draft})

    def run(self, into: Path) -> dict[str, Any]:
        """Result: sizeBytes of engine/."""
        engine = into / "engine"
        engine.mkdir()
        copy_tokenizer(self.checkpoint.folder, into / "tokenizer")
        if self.description.entry == EAGER:
            link_checkpoint(self.checkpoint.folder, engine / self.description.entry)
        else:
            if self.draft is not None:
                place_draft(self.draft.folder, self.graph.folder, engine)
            self.toolchain.perform(
                CompileTask(
                    graph=self.graph.folder,
                    tokenizer=into / "tokenizer",
                    description=self.description,
                    probe=_read(self.probe.first(_PROBES), self.description.task),
                    into=engine,
                )
            )
        write_description(into, self.description)
        size = folder_bytes(engine)
        return {"sizeBytes": size, "message": f"{self.description.backend.value} engine, {_mib(engine)}"}


def _read(drawn: Drawn, task: Task) -> list[Text]:
    """First texts, or pairs for a reranker."""
    return texts_of_rows(drawn.rows, task)[: len(drawn.rows)]


def bits_told(found: Mapping[str, object]) -> str:
    """`; 5.2 bits a weight, 5.9 with scales: 4 bits in 20 modules, 8 in 16` of weights stored in few bits, else empty.

    Modules are counted where they differ (format Mixed).
    """
    if "averageBits" not in found:
        return ""
    told = f"; {found['averageBits']:g} bits a weight, {found['storedBits']:g} with scales"
    by_module = found.get("bits")
    if isinstance(by_module, Mapping):
        counts = sorted(Counter(by_module.values()).items())
        told += ": " + ", ".join(f"{bits} bits in {count} modules" for bits, count in counts)
    return told


def write_description(folder: Path, description: EngineDescription) -> None:
    """engine.json."""
    (folder / ENGINE_DESCRIPTION).write_bytes(canonical_json(description.wire()))


def copy_tokenizer(checkpoint: Path, into: Path) -> None:
    """The tokenizer's files and nothing else."""
    into.mkdir()
    for name in TOKENIZER_FILES:
        if (checkpoint / name).is_file():
            shutil.copyfile(checkpoint / name, into / name)


def link_checkpoint(checkpoint: Path, into: Path) -> None:
    """The checkpoint as the eager baseline loads it; hard links, for it is large and never written to."""
    into.mkdir(parents=True)
    for path in sorted(checkpoint.iterdir()):
        if path.is_file():
            (into / path.name).hardlink_to(path)


def folder_bytes(folder: Path) -> int:
    """Size of all files below a folder."""
    found = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if not found:
        raise DeterministicError("EmptyEngine", f"{folder.name}/ holds nothing after its stage")
    return found


def _mib(folder: Path) -> str:
    return f"{folder_bytes(folder) / 2**20:.1f} MiB"
