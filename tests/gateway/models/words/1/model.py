"""A tiny encoder with the interface of a served one: vectors derived from the text, one token a word.

Words that steer it: `sleep=SECONDS` waits; `wait-for-cancel=FILE` waits until the request is cancelled and says so in
FILE, having made FILE.begun; `fail` raises.
"""

import hashlib
import pathlib
import time

import numpy as np
import triton_python_backend_utils as pb

DIMENSION = 384


def _vector(text: bytes) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(text).digest()[:4], "big")
    vector = np.random.default_rng(seed).standard_normal(DIMENSION).astype(np.float32)
    return vector / np.linalg.norm(vector)


def _obey(text: bytes, request) -> None:
    for word in text.decode("utf-8").split():
        if word.startswith("sleep="):
            time.sleep(float(word.removeprefix("sleep=")))
        elif word.startswith("wait-for-cancel="):
            told = pathlib.Path(word.removeprefix("wait-for-cancel="))
            told.with_suffix(".begun").touch()
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:
                if request.is_cancelled():
                    told.write_text("cancelled")
                    return
                time.sleep(0.02)
        elif word == "fail":
            raise ValueError("asked to fail")


class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            texts = pb.get_input_tensor_by_name(request, "text").as_numpy().reshape(-1)
            try:
                for text in texts:
                    _obey(text, request)
            except ValueError as error:
                responses.append(pb.InferenceResponse(error=pb.TritonError(f"model failed: {error}")))
                continue
            vectors = np.stack([_vector(text) for text in texts])
            tokens = np.array([[len(text.split())] for text in texts], dtype=np.int32)
            responses.append(pb.InferenceResponse([pb.Tensor("embedding", vectors), pb.Tensor("tokens", tokens)]))
        return responses
