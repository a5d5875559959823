"""OpenVINO on CPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from enginewright_api.engine_description import EngineDescription
from enginewright_serving.triton.feeds import feed
from enginewright_serving.triton.runner import Tensors, Vectors

if TYPE_CHECKING:
    import openvino


class OpenVinoRunner:
    """One inference request, reused; inputs and outputs are shared with it, not copied.

    The precision comes from engine.json: OpenVINO's own default is bf16 where the CPU has it, which is another model
    than the one whose quality was measured.

    With a fast path the graph is compiled a second time, for one text of exactly that many tokens: the plugin then
    plans memory and picks kernels once, where dynamic shapes make it do so for every node of every request. Shorter
    texts are padded to that shape.
    """

    def __init__(self, entry: Path, engine: EngineDescription, threads: int) -> None:
        import openvino

        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": engine.precision_hint,
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
        }
        core = openvino.Core()
        compiled = core.compile_model(str(entry), "CPU", settings)
        self._inputs = engine.inputs
        self._pad = engine.pad_token_id
        self._short = engine.fast_path_tokens
        self._short_request: openvino.InferRequest | None = None
        if self._short:
            model = core.read_model(str(entry))
            model.reshape(dict.fromkeys(engine.inputs, openvino.PartialShape([1, self._short])))
            self._short_request = core.compile_model(model, "CPU", settings).create_infer_request()
        self._request = compiled.create_infer_request()

    def run(self, tensors: Tensors) -> Vectors:
        batch, tokens = tensors["attention_mask"].shape
        if self._short_request is not None and batch == 1 and tokens <= self._short:
            missing = ((0, 0), (0, self._short - tokens))
            fillers = {"input_ids": self._pad}
            short = {
                name: np.pad(values, missing, constant_values=fillers.get(name, 0)) for name, values in tensors.items()
            }
            return self._infer(self._short_request, short)
        return self._infer(self._request, tensors)

    def _infer(self, request: openvino.InferRequest, tensors: Tensors) -> Vectors:
        fed = feed(self._inputs, tensors)
        vectors: Vectors = request.infer(fed, share_inputs=True, share_outputs=True)[0]
        return vectors
