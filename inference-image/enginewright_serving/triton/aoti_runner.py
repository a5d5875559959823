"""PyTorch compiled ahead of time (AOTInductor): machine code and weights in one file, no Python code of the model."""

from __future__ import annotations

from pathlib import Path

from enginewright_api.engine_description import EngineDescription
from enginewright_serving.triton.feeds import feed
from enginewright_serving.triton.runner import Tensors, Vectors


class AotiRunner:
    """One compiled model; all threads go into one execution."""

    def __init__(self, entry: Path, engine: EngineDescription, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self._torch = torch
        self._model = torch._inductor.aoti_load_package(str(entry))
        self._inputs = engine.inputs

    def run(self, tensors: Tensors) -> Vectors:
        torch = self._torch
        fed = feed(self._inputs, tensors)
        with torch.inference_mode():
            vectors: Vectors = self._model(*(torch.from_numpy(values) for values in fed.values())).numpy()
        return vectors
