"""OpenVINO on CPU."""

from __future__ import annotations

from pathlib import Path

from enginewright_api.engine_description import EngineDescription
from enginewright_serving.triton.feeds import feed
from enginewright_serving.triton.runner import Ids, Vectors


class OpenVinoRunner:
    """One inference request, reused; inputs and outputs are shared with it, not copied.

    The precision comes from engine.json: OpenVINO's own default is bf16 where the CPU has it, which is another model
    than the one whose quality was measured.
    """

    def __init__(self, entry: Path, engine: EngineDescription, threads: int) -> None:
        import openvino

        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": engine.precision_hint,
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
        }
        compiled = openvino.Core().compile_model(str(entry), "CPU", settings)
        self._inputs = engine.inputs
        self._request = compiled.create_infer_request()
        self._output = compiled.output(engine.output)

    def run(self, input_ids: Ids, attention_mask: Ids) -> Vectors:
        results = self._request.infer(
            feed(self._inputs, input_ids, attention_mask), share_inputs=True, share_outputs=True
        )
        vectors: Vectors = results[self._output]
        return vectors
