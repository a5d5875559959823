"""Contenders: who they are, and one of them as a running process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enginewright_builder.processes import Children
from enginewright_builder.toolchain.environments import DEFAULT, Told, locked_python, python_of

HERE = Path(__file__).parent
_OURS = "enginewright"


@dataclass(frozen=True, slots=True)
class Contender:
    """Who takes part."""

    name: str
    module: str
    """In contenders/."""
    variant: str
    environment: str = DEFAULT
    """The builder's own or one of its toolchains; else the name of a lock file beside this one."""
    padded: bool = False
    """Texts of the quality check are padded to one length: another shape would be compiled anew."""

    @property
    def ours(self) -> bool:
        """Whether Enginewright built it."""
        return self.module == _OURS


EAGER = Contender("PyTorch eager", "pytorch", "eager")
OURS = Contender("Enginewright INT8", _OURS, "int8")
OURS_EXACT = (Contender("Enginewright FP32", _OURS, "fp32"), Contender("Enginewright BF16", _OURS, "bf16"))
"""The second where the processor multiplies bf16."""
PEERS = (
    Contender("torch.compile", "pytorch", "compile", padded=True),
    Contender("Optimum, ONNX Runtime fp32", "optimum_onnxruntime", "fp32", "optimum-onnx"),
    Contender("Optimum, ONNX Runtime dynamic INT8", "optimum_onnxruntime", "int8-dynamic", "optimum-onnx"),
    Contender("Optimum, OpenVINO default", "optimum_openvino", "default", "optimum-openvino"),
    Contender("Optimum, OpenVINO fp32", "optimum_openvino", "fp32", "optimum-openvino"),
    Contender("Optimum, OpenVINO INT8 weights", "optimum_openvino", "int8-weights", "optimum-openvino"),
    Contender("Optimum, OpenVINO full INT8", "optimum_openvino", "int8-full", "optimum-openvino"),
    Contender("Olive INT8", "olive_recipe", "int8", "olive"),
    Contender("Olive dynamic INT8", "olive_recipe", "int8-dynamic", "olive"),
)


@dataclass(frozen=True, slots=True)
class Reply:
    """Seconds of the runtime alone; vectors of length one where they were asked for."""

    seconds: float
    vectors: list[list[float]]


class ContenderFailedError(Exception):
    """It could not be installed, or raised."""


class Running:
    """A contender that has its model loaded."""

    def __init__(
        self, contender: Contender, checkpoint: Path, folder: Path, *, threads: int, children: Children, told: Told
    ) -> None:
        """Returns when it is ready. `folder` keeps what it makes of the checkpoint; ours is given its engine there.

        Raises ContenderFailedError with what it said.
        """
        self.contender = contender
        python = _python(contender.environment, children, told)
        folder.mkdir(parents=True, exist_ok=True)
        self._log = folder / f"{contender.variant}.log"
        path = os.pathsep.join([str(python.parent), os.environ.get("PATH", "")])  # some look for their programs there
        with self._log.open("wb") as log:
            self._process = children.start(
                [str(python), str(HERE / "contenders" / "answering.py"), contender.module, contender.variant,
                 str(checkpoint), str(folder), str(threads)],
                environment={
                    "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error",
                    "OLIVE_DISABLE_TELEMETRY": "1", "PATH": path,
                },
                cwd=folder,  # some leave caches where they are started
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )  # fmt: skip
        self.versions: dict[str, str] = self._reply()["versions"]

    def ask(self, ids: Sequence[Sequence[int]], mask: Sequence[Sequence[int]], *, vectors: bool = False) -> Reply:
        """One batch. Raises ContenderFailedError."""
        assert self._process.stdin is not None
        line = json.dumps({"ids": ids, "mask": mask, "vectors": vectors}) + "\n"
        try:
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            raise ContenderFailedError(f"it ended; its log is {self._log}") from None
        found = self._reply()
        return Reply(found["seconds"], found["vectors"] or [])

    def _reply(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        found: dict[str, Any] = json.loads(line) if line else {"failure": f"it ended; its log is {self._log}"}
        if "failure" in found:
            raise ContenderFailedError(found["failure"])
        return found


def _python(environment: str, children: Children, told: Told) -> Path:
    lock = HERE / f"{environment}.lock"
    if not lock.is_file():
        return python_of(environment, children, told) if environment != DEFAULT else Path(sys.executable)
    return locked_python(f"peer-{environment}", lock, children, told)
