"""OpenVINO on CPU."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from enginewright_api.engine_description import DIVIDED_BYTES, EngineDescription
from enginewright_serving.triton.feeds import feed
from enginewright_serving.triton.runner import Tensors, Vectors

if TYPE_CHECKING:
    import openvino

DIVIDED_TOKENS = 128
"""A batch of fewer, padding included, is not worth dividing."""
_MAX_IDLE = 0.05
"""Share of the cores' time that a division may leave unused, because some parts have a text less than others."""


class OpenVinoRunner:
    """Inference requests, reused; inputs and outputs are shared with them, not copied.

    The precision comes from engine.json: OpenVINO's own default is bf16 where the CPU has it, which is another model
    than the one whose quality was measured.

    The graph is compiled for each way of using the cores. One text at a time: all cores in each operator. A batch: a
    part of the texts for each core, which then wait for each other once and not after every operator. Kernels and
    answers are the same; weights are packed once more, which large models are spared.

    With a fast path the graph is compiled again, for one text of exactly that many tokens: the plugin then plans
    memory and picks kernels once, where dynamic shapes make it do so for every node of every request. Shorter texts
    are padded to that shape.
    """

    def __init__(self, entry: Path, engine: EngineDescription, threads: int) -> None:
        import openvino

        settings = {"INFERENCE_PRECISION_HINT": engine.precision_hint, "INFERENCE_NUM_THREADS": threads}
        together = {**settings, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
        core = openvino.Core()
        model = core.read_model(str(entry))  # once: what is compiled from it shares the mapped file
        self._inputs = engine.inputs
        self._pad = engine.pad_token_id
        self._short = engine.fast_path_tokens
        self._short_request: openvino.InferRequest | None = None
        if self._short:
            short = model.clone()
            short.reshape(dict.fromkeys(engine.inputs, openvino.PartialShape([1, self._short])))
            self._short_request = core.compile_model(short, "CPU", together).create_infer_request()
        self._request = core.compile_model(model, "CPU", together).create_infer_request()
        self._streams: list[openvino.InferRequest] = []
        small = entry.with_suffix(".bin").stat().st_size <= DIVIDED_BYTES
        if threads > 1 and engine.limits.max_batch_size > 1 and small:
            apart = {**settings, "PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": threads}
            compiled = core.compile_model(model, "CPU", apart)
            self._streams = [compiled.create_infer_request() for _ in range(threads)]

    def run(self, tensors: Tensors) -> Vectors:
        batch, tokens = tensors["attention_mask"].shape
        if self._short_request is not None and batch == 1 and tokens <= self._short:
            missing = ((0, 0), (0, self._short - tokens))
            fillers = {"input_ids": self._pad}
            short = {
                name: np.pad(values, missing, constant_values=fillers.get(name, 0)) for name, values in tensors.items()
            }
            return self._infer(self._short_request, short)
        sizes = parts(batch, tokens, len(self._streams))
        if len(sizes) > 1:
            return self._infer_apart(tensors, sizes)
        return self._infer(self._request, tensors)

    def _infer(self, request: openvino.InferRequest, tensors: Tensors) -> Vectors:
        fed = feed(self._inputs, tensors)
        vectors: Vectors = request.infer(fed, share_inputs=True, share_outputs=True)[0]
        return vectors

    def _infer_apart(self, tensors: Tensors, sizes: Sequence[int]) -> Vectors:
        fed = feed(self._inputs, tensors)
        asked = self._streams[: len(sizes)]
        start = 0
        with ExitStack() as running:  # all are waited for, also where one fails: the next batch needs them idle
            for request, size in zip(asked, sizes, strict=True):
                own = {name: values[start : start + size] for name, values in fed.items()}
                request.start_async(own, share_inputs=True)
                running.callback(request.wait)
                start += size
        return np.concatenate([request.get_output_tensor(0).data for request in asked])


def parts(batch: int, tokens: int, streams: int) -> list[int]:
    """How many of `batch` texts of `tokens` tokens each of the streams gets; the whole batch where one is enough.

    Where the parts would be too unequal, all cores work on each operator of the whole: nobody waits for the last.
    """
    if streams < 2 or batch < streams or batch * tokens < DIVIDED_TOKENS:
        return [batch]
    least, more = divmod(batch, streams)
    if more and 1.0 - batch / (streams * (least + 1)) > _MAX_IDLE:
        return [batch]
    return [least + 1] * more + [least] * (streams - more)
