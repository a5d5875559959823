"""Ask a served embedding model over its three protocols."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt

from enginewright_api.errors import TransientError

Vectors = npt.NDArray[np.float32]

QUESTIONS = (
    "How do I reset my password?",
    "The invoice shows the wrong amount.",
    "Where is my parcel?",
    "The app crashes when I open the camera.",
)
ARTICLES = (
    "Changing or recovering your account credentials",
    "Correcting billing errors and requesting a refund",
    "Tracking a delivery and what to do when it is late",
    "Troubleshooting crashes on phones and tablets",
    "Opening hours of our shops on public holidays",
    "Recycling your old device",
)


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A text, the nearest of the others, and the cosine of the two."""

    text: str
    nearest: str
    cosine: float


def over_openai(base_url: str, model: str, texts: Sequence[str], *, timeout_seconds: float = 30.0) -> Vectors:
    """`POST /v1/embeddings`; float32 [texts, dimension]. TransientError when it does not answer."""
    body: dict[str, object] = {"model": model, "input": list(texts)}
    data = _post(f"{base_url}/v1/embeddings", body, timeout_seconds)["data"]
    return np.array([row["embedding"] for row in sorted(data, key=lambda row: row["index"])], dtype=np.float32)


def over_kserve_http(base_url: str, model: str, texts: Sequence[str], *, timeout_seconds: float = 30.0) -> Vectors:
    """`POST /v2/models/MODEL/infer` with JSON tensors."""
    body: dict[str, object] = {
        "inputs": [{"name": "text", "datatype": "BYTES", "shape": [len(texts), 1], "data": list(texts)}],
        "outputs": [{"name": "embedding"}],
    }
    answer = _post(f"{base_url}/v2/models/{model}/infer", body, timeout_seconds)
    (output,) = [output for output in answer["outputs"] if output["name"] == "embedding"]
    return np.array(output["data"], dtype=np.float32).reshape(output["shape"])


def over_kserve_grpc(address: str, model: str, texts: Sequence[str], *, timeout_seconds: float = 30.0) -> Vectors:
    """`GRPCInferenceService/ModelInfer` with the official client."""
    from tritonclient import grpc as triton
    from tritonclient.utils import InferenceServerException

    tensor = triton.InferInput("text", [len(texts), 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[text.encode()] for text in texts], dtype=np.object_))
    client = triton.InferenceServerClient(address)
    try:
        result = client.infer(
            model, [tensor], outputs=[triton.InferRequestedOutput("embedding")], client_timeout=timeout_seconds
        )
    except InferenceServerException as error:
        raise TransientError("NoAnswer", f"grpc://{address}: {error.message()}") from error
    finally:
        client.close()
    return np.asarray(result.as_numpy("embedding"), dtype=np.float32)


def nearest(texts: Sequence[str], vectors: Vectors, others: Sequence[str], other_vectors: Vectors) -> list[Neighbour]:
    """For each text the nearest of the others by cosine."""
    cosines = _unit(vectors) @ _unit(other_vectors).T
    best = cosines.argmax(axis=1)
    return [
        Neighbour(text, others[index], float(cosines[row, index]))
        for row, (text, index) in enumerate(zip(texts, best, strict=True))
    ]


def _unit(vectors: Vectors) -> Vectors:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def _post(url: str, body: dict[str, object], timeout_seconds: float) -> dict[str, Any]:
    try:
        response = httpx.post(url, json=body, timeout=timeout_seconds, trust_env=False)
    except httpx.HTTPError as error:
        raise TransientError("NoAnswer", f"{url}: {error or type(error).__name__}") from error
    if response.status_code != 200:
        raise TransientError("NoAnswer", f"{url}: {response.status_code} {response.text[:300]}")
    answer: dict[str, Any] = response.json()
    return answer
