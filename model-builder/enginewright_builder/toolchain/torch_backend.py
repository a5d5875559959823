"""PyTorch ahead of time: torch.export, then AOTInductor writes C++ and compiles it for this machine's processor.

The engine is one `.pt2` file with code and weights; the server loads it without Python code of the model. TorchScript,
which older servers load, lies beside it where the model can be traced.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from enginewright_api.engine_description import EngineDescription
from enginewright_api.errors import DeterministicError
from enginewright_api.optimization import Quantization
from enginewright_builder.toolchain.graph import example_inputs, load_encoder
from enginewright_builder.toolchain.inputs import Feed

GRAPH = "exported.pt2"
ENTRY = "model.pt2"
SCRIPT = "model.torchscript.pt"
PACKAGE = "torch"
_SHORTEST = 2
"""torch.export takes 0 and 1 for constants; a text has at least its two special tokens."""

_LARGEST_BATCH = 4096
_ANY_LENGTH = 4096
"""For models without a table of positions."""
_OFFSET = {"roberta": 2, "xlm-roberta": 2, "camembert": 2, "mpnet": 2}
"""Positions that models of this family count but never use."""


class TorchBackend:
    """Engines for CPUs that PyTorch knows, compiled by the machine's C++ compiler."""

    graph = GRAPH
    entry = ENTRY
    package = PACKAGE

    def export(self, checkpoint: Path, description: EngineDescription, into: Path) -> None:
        """An exported program in float32 with dynamic batch and tokens, and its TorchScript."""
        import torch

        encoder = load_encoder(checkpoint, description)
        example = tuple(example_inputs(description).values())
        batch = torch.export.Dim("batch", min=1, max=_LARGEST_BATCH)
        tokens = torch.export.Dim("tokens", min=_SHORTEST, max=_positions(encoder.model.config))
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                program = torch.export.export(
                    encoder, example, dynamic_shapes=(tuple({0: batch, 1: tokens} for _ in example),), strict=False
                )
                torch.export.save(program, into / GRAPH)
                torch.jit.save(torch.jit.trace(encoder, example, check_trace=False), into / SCRIPT)
        except (torch._dynamo.exc.UserError, RuntimeError, ValueError) as error:
            first = str(error).strip().splitlines()[0]
            raise DeterministicError("UnsupportedOperator", f"torch.export refuses the model: {first}") from error

    def quantize(
        self,
        graph: Path,
        description: EngineDescription,
        quantization: Quantization,
        calibration: Sequence[Feed],
        into: Path,
    ) -> dict[str, object]:
        """Raises DeterministicError FormatNotSupported: other backends quantise."""
        raise DeterministicError(
            "FormatNotSupported", f"engine.backend: Torch has no {quantization.format.value}; use OpenVINO"
        )

    def compile(self, graph: Path, description: EngineDescription, into: Path) -> None:
        """Raises DeterministicError ToolchainMissing without a C++ compiler."""
        import torch

        compiler = os.environ.get("CXX", "g++")
        if shutil.which(compiler) is None:
            raise DeterministicError(
                "ToolchainMissing",
                f"engine.backend: Torch needs a C++ compiler and {compiler} is not there; use a builder image that has"
                " one, or backend OpenVINO",
            )
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.load(graph / GRAPH)
            torch._inductor.aoti_compile_and_package(program, package_path=str(into / ENTRY))
        shutil.copyfile(graph / SCRIPT, into / SCRIPT)

    def answers(
        self, engine: Path, description: EngineDescription, feeds: Iterable[Feed], threads: int
    ) -> Iterator[Any]:
        """Outputs, as the server gives them."""
        import torch

        torch.set_num_threads(threads)
        model = torch._inductor.aoti_load_package(str(engine / ENTRY))
        for feed in feeds:
            with torch.inference_mode():
                answer = model(*(torch.from_numpy(feed[name]) for name in description.inputs)).numpy()
            yield answer


def _positions(config: Any) -> int:
    """Most tokens of one text. The graph holds for all of them: limits are kept by the server."""
    found = int(getattr(config, "max_position_embeddings", 0) or 0)
    return found - _OFFSET.get(str(config.model_type), 0) if found > 0 else _ANY_LENGTH
