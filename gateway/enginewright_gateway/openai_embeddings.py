"""POST /v1/embeddings: OpenAI's request in, tensors to the server, OpenAI's answer out."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

import grpc.aio
import numpy as np
import numpy.typing as npt
import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .errors import NotNowError, RefusedError
from .exchange import Exchange
from .grpc_errors import from_server
from .routes import ServedModel
from .service import Gateway
from .wire import numeric_outputs, text_request

MAX_INPUTS = 2048
"""OpenAI's own bound on the inputs of one request."""

PARALLEL_BATCHES = 8

Vectors = npt.NDArray[np.float32]
Body = TypeVar("Body", bound=BaseModel)


class EmbeddingRequest(BaseModel):
    """Body of the request. Unknown fields are refused rather than ignored."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    model: Annotated[str, Field(min_length=1, max_length=512)] = Field(description="Name, or namespace/name.")
    input: str | list[str] = Field(description="One text or up to 2048.")
    encoding_format: Literal["float", "base64"] = Field(default="float", description="How vectors are written.")
    dimensions: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Keep this many leading dimensions and scale back to length one."
    )
    user: str | None = Field(default=None, description="Taken for compatibility; neither kept nor passed on.")


def parse(body: bytes) -> tuple[EmbeddingRequest, list[bytes]]:
    """The request and its texts in UTF-8. Raises RefusedError 400 naming the field."""
    raw = _object(body)
    if _holds_token_ids(raw.get("input")):
        raise RefusedError(
            400, "TokenIdsNotAccepted",
            "input: arrays of token ids are not accepted, the model's own tokenizer must be used; send texts "
            "(LangChain: check_embedding_ctx_length=False)", param="input",
        )  # fmt: skip
    request = _validated(EmbeddingRequest, raw, {"input": "must be a text or a list of texts"})
    texts = [request.input] if isinstance(request.input, str) else request.input
    if not texts or len(texts) > MAX_INPUTS:
        raise RefusedError(
            400, "InvalidRequest", f"input: needs 1 to {MAX_INPUTS} texts, has {len(texts)}", param="input"
        )
    empty = next((index for index, text in enumerate(texts) if not text), None)
    if empty is not None:
        raise RefusedError(400, "InvalidRequest", f"input: text {empty} is empty", param="input")
    return request, [text.encode() for text in texts]


def read_body(kind: type[Body], body: bytes, sentences: Mapping[str, str]) -> Body:
    """A request body. Raises RefusedError 400 naming the field, with its own sentence where there is one."""
    return _validated(kind, _object(body), sentences)


def _object(body: bytes) -> dict[str, Any]:
    try:
        raw = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RefusedError(400, "MalformedJson", f"the body is not valid JSON: {error.msg} at {error.pos}") from error
    if not isinstance(raw, dict):
        raise RefusedError(400, "MalformedJson", "the body must be a JSON object")
    return raw


def _validated(kind: type[Body], raw: dict[str, Any], sentences: Mapping[str, str]) -> Body:
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = str(first["loc"][0]) if first["loc"] else "body"
        sentence = _sentence(first, sentences.get(field))
        raise RefusedError(400, "InvalidRequest", f"{field}: {sentence}", param=field) from error


def _holds_token_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], (int, list)) and value[0] is not True


def _sentence(error: Any, own: str | None) -> str:
    if error["type"] == "extra_forbidden":
        return "is not a field of this request"
    if error["type"] == "missing":
        return "is missing"
    return own or str(error["msg"]).lower()


async def embed(
    gateway: Gateway, model: ServedModel, texts: list[bytes], exchange: Exchange, deadline: float | None
) -> tuple[Vectors, int]:
    """Vectors [texts, dimension] and tokens in all, in batches that the engine accepts."""
    size = model.max_batch_size
    batches = [texts[start : start + size] for start in range(0, len(texts), size)]
    if len(batches) == 1:
        return await _embed_batch(gateway, model, texts, exchange, deadline)
    room = asyncio.Semaphore(PARALLEL_BATCHES)

    async def one(batch: list[bytes]) -> tuple[Vectors, int]:
        async with room:
            return await _embed_batch(gateway, model, batch, exchange, deadline)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(batch)) for batch in batches]
    except* (RefusedError, NotNowError) as failures:
        raise failures.exceptions[0] from None
    parts = [task.result() for task in tasks]
    return np.concatenate([vectors for vectors, _ in parts]), sum(tokens for _, tokens in parts)


async def _embed_batch(
    gateway: Gateway, model: ServedModel, texts: list[bytes], exchange: Exchange, deadline: float | None
) -> tuple[Vectors, int]:
    try:
        answer = await gateway.infer(model, exchange, "ModelInfer", text_request(model.name, texts), deadline=deadline)
    except grpc.aio.AioRpcError as error:
        raise from_server(model, error) from error
    outputs = numeric_outputs(answer)
    vectors, tokens = outputs.get("embedding"), outputs.get("tokens")
    if vectors is None or tokens is None or vectors.ndim != 2 or vectors.shape[0] != len(texts):
        raise NotNowError(502, "MalformedAnswer", f"model {model.id}: the server's answer lacks embedding or tokens")
    return vectors.astype(np.float32, copy=False), int(tokens.sum())


def shorten(vectors: Vectors, dimensions: int | None) -> Vectors:
    """Leading dimensions, scaled back to length one. Raises RefusedError 400 when there are not that many."""
    if dimensions is None:
        return vectors
    if dimensions > vectors.shape[1]:
        raise RefusedError(
            400, "InvalidRequest", f"dimensions: the model has {vectors.shape[1]}, {dimensions} were asked for",
            param="dimensions",
        )  # fmt: skip
    cut = vectors[:, :dimensions]
    lengths = np.linalg.norm(cut, axis=1, keepdims=True)
    return np.divide(cut, lengths, out=np.zeros_like(cut), where=lengths > 0)


def answer_body(model_id: str, vectors: Vectors, tokens: int, encoding_format: str) -> bytes:
    """The answer in OpenAI's shape."""
    rows: list[Any]
    if encoding_format == "base64":
        rows = [base64.b64encode(row.astype("<f4", copy=False).tobytes()).decode() for row in vectors]
    else:
        rows = [np.ascontiguousarray(row) for row in vectors]
    return orjson.dumps(
        {
            "object": "list",
            "data": [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(rows)],
            "model": model_id,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        },
        option=orjson.OPT_SERIALIZE_NUMPY,
    )
