"""The Triton model of encoders: `text` (and a reranker's `text_pair`) in, the outputs of its task and `tokens` out.

All requests of one execution run together; a request whose text is malformed gets an error of its own.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from enginewright_api.engine_description import EngineDescription
from enginewright_api.errors import DeterministicError
from enginewright_serving.activity import ACTIVITY_VARIABLE, Activity
from enginewright_serving.model_config import input_names
from enginewright_serving.threads import engine_threads
from enginewright_serving.triton.cutting import Text
from enginewright_serving.triton.encoders import load_encoder


class TritonPythonModel:
    """Loaded by tritonserver's Python backend."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the engine and run it once, so that the first request does not pay for it."""
        if int(np.__version__.partition(".")[0]) >= 2:
            raise DeterministicError("NumpyTooNew", f"numpy {np.__version__}: this server needs numpy < 2")
        folder = Path(args["model_repository"], args["model_version"], "engine")
        engine = EngineDescription.model_validate_json((folder / "engine.json").read_bytes())
        self._encoder: Any = load_encoder(folder, engine, engine_threads(os.environ))
        self._inputs = input_names(engine.task)
        self._encoder.answer(_together([["warm up"]] * len(self._inputs)))
        self._activity = Activity(os.environ.get(ACTIVITY_VARIABLE, ""))

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response a request, in order."""
        with self._activity:
            return self._responses(requests)

    def _responses(self, requests: Sequence[Any]) -> list[Any]:
        texts: list[Text] = []
        spans: list[tuple[int, int] | None] = []
        responses: list[Any] = []
        for request in requests:
            try:
                found = _together([_texts(request, name) for name in self._inputs])
            except ValueError as error:
                spans.append(None)
                responses.append(_failed(str(error), pb_utils.TritonError.INVALID_ARG))
                continue
            spans.append((len(texts), len(texts) + len(found)))
            responses.append(None)
            texts += found
        if not texts:
            return responses
        try:
            answers = self._encoder.answer(texts)
        except Exception as error:  # whatever a runtime raises must not take the whole process down with it
            message = f"the engine failed: {type(error).__name__}: {error}"
            return [response or _failed(message, pb_utils.TritonError.INTERNAL) for response in responses]
        for index, span in enumerate(spans):
            if span is not None:
                wanted = requests[index].requested_output_names()
                responses[index] = pb_utils.InferenceResponse(
                    [pb_utils.Tensor(name, values) for name, values in answers.tensors(*span, wanted).items()]
                )
        return responses


def _together(columns: list[list[str]]) -> list[Text]:
    """Texts, or pairs of texts, from one column an input."""
    return list(columns[0]) if len(columns) == 1 else list(zip(columns[0], columns[1], strict=True))


def _texts(request: Any, name: str) -> list[str]:
    """Texts of one input of a request. ValueError says what is wrong with them."""
    tensor = pb_utils.get_input_tensor_by_name(request, name).as_numpy()
    texts = []
    for position, value in enumerate(tensor.reshape(-1)):
        try:
            texts.append(value.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise ValueError(f"{name}[{position}]: not valid UTF-8 at byte {error.start}") from error
    return texts


def _failed(message: str, code: int) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
