"""An engine with an early exit: three graphs of one backend, below first/, head/ and rest/."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from enginewright_api.engine_description import HIDDEN_STATES, EngineDescription, ExitPart
from enginewright_api.optimization import Quantization
from enginewright_builder.toolchain.inputs import Feed
from enginewright_builder.toolchain.onnxruntime_backend import ONNXRuntimeBackend
from enginewright_builder.toolchain.openvino_backend import OpenVINOBackend

_THREADS = 2
_BY_MODULE = "sensitivity"


class ExitingBackend:
    """Implements backends.EngineBackend by one that does."""

    def __init__(self, backend: OpenVINOBackend | ONNXRuntimeBackend) -> None:
        self.backend = backend
        self.entry = f"{ExitPart.FIRST.value}/{backend.entry}"
        self.package = backend.package

    def export(self, checkpoint: Path, description: EngineDescription, into: Path) -> dict[str, object]:
        """Three graphs in float32. Raises as the backend."""
        told: dict[str, dict[str, Any]] = {}
        for part in ExitPart:
            (into / part.value).mkdir()
            told[part.value] = self.backend.export(checkpoint, description.exit_part(part), into / part.value) or {}
        return _together(told)

    def quantize(
        self,
        graph: Path,
        description: EngineDescription,
        quantization: Quantization,
        calibration: Sequence[Feed],
        into: Path,
    ) -> dict[str, object]:
        """First and rest in the wanted format; the rest is measured on what the first gives. The head is small.

        Excluded modules are no part of it: names of layers start anew in the rest.
        """
        first = description.exit_part(ExitPart.FIRST)
        states = self.backend.answers(graph / ExitPart.FIRST.value, first, calibration, _THREADS)
        going_on = [
            {HIDDEN_STATES: state, "attention_mask": feed["attention_mask"]}
            for state, feed in zip(states, calibration, strict=True)
        ]
        told: dict[str, dict[str, Any]] = {}
        for part, measured in ((ExitPart.FIRST, calibration), (ExitPart.REST, going_on)):
            (into / part.value).mkdir()
            told[part.value] = self.backend.quantize(
                graph / part.value, description.exit_part(part), quantization, measured, into / part.value
            )
        shutil.copytree(graph / ExitPart.HEAD.value, into / ExitPart.HEAD.value)
        return _together(told)

    def compile(self, graph: Path, description: EngineDescription, into: Path) -> None:
        """Each of the three."""
        for part in ExitPart:
            (into / part.value).mkdir()
            self.backend.compile(graph / part.value, description.exit_part(part), into / part.value)

    def answers(
        self, engine: Path, description: EngineDescription, feeds: Iterable[Feed], threads: int
    ) -> Iterator[Any]:
        """Means of the head's and of the last answer: a number that is none shows, whichever gave it."""
        given = list(feeds)

        def part(name: ExitPart, values: Iterable[Feed]) -> Iterator[Any]:
            return self.backend.answers(engine / name.value, description.exit_part(name), values, threads)

        going_on = [
            {HIDDEN_STATES: states, "attention_mask": feed["attention_mask"]}
            for feed, states in zip(given, part(ExitPart.FIRST, given), strict=True)
        ]
        for head, last in zip(part(ExitPart.HEAD, going_on), part(ExitPart.REST, going_on), strict=True):
            yield (head + last) / 2


def _together(told: Mapping[str, Mapping[str, Any]]) -> dict[str, object]:
    """What was told of each part under the part's name, sensitivities in one list; what is empty is left out."""
    modules = [
        {**one, "module": f"{part}: {one['module']}"}
        for part, found in told.items()
        for one in found.get(_BY_MODULE, ())
    ]
    kept: dict[str, object] = {
        part: {name: value for name, value in found.items() if value and name != _BY_MODULE}
        for part, found in told.items()
    }
    return {name: found for name, found in (kept | {_BY_MODULE: modules}).items() if found}
