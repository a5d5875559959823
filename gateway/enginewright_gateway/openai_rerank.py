"""POST /v1/rerank: a query and texts in, the texts by how well they answer it out.

Request and answer are those that Jina, Cohere, vLLM and Hugging Face's text-embeddings-inference share; OpenAI has no
such endpoint.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Annotated

import grpc.aio
import numpy as np
import numpy.typing as npt
import orjson
from pydantic import BaseModel, ConfigDict, Field

from .errors import NotNowError, RefusedError
from .exchange import Exchange
from .grpc_errors import from_server
from .openai_embeddings import PARALLEL_BATCHES, read_body
from .routes import ServedModel
from .service import Gateway
from .wire import numeric_outputs, text_request

MAX_DOCUMENTS = 1000
"""Cohere's own bound on the documents of one request."""

Scores = npt.NDArray[np.float64]


class Document(BaseModel):
    """A text in the form of an object."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    text: str = Field(description="The text.")


class RerankRequest(BaseModel):
    """Body of the request. Unknown fields are refused rather than ignored."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    model: Annotated[str, Field(min_length=1, max_length=512)] = Field(description="Name, or namespace/name.")
    query: Annotated[str, Field(min_length=1)] = Field(description="What is asked.")
    documents: Annotated[list[str | Document], Field(min_length=1, max_length=MAX_DOCUMENTS)] = Field(
        description="Texts to rank, 1 to 1000."
    )
    top_n: Annotated[int, Field(ge=1)] | None = Field(default=None, description="Answer with the best only.")
    return_documents: bool = Field(default=False, description="Repeat the texts in the answer.")

    @property
    def texts(self) -> list[str]:
        """The documents' texts, in the order of the request."""
        return [document if isinstance(document, str) else document.text for document in self.documents]


def parse_rerank(body: bytes) -> RerankRequest:
    """The request. Raises RefusedError 400 naming the field."""
    return read_body(RerankRequest, body, {"documents": f"must be a list of 1 to {MAX_DOCUMENTS} texts"})


async def rank(
    gateway: Gateway, model: ServedModel, wanted: RerankRequest, exchange: Exchange, deadline: float | None
) -> tuple[Scores, int]:
    """One score a document, higher is better, and tokens in all, in batches that the engine accepts."""
    query, texts, size = wanted.query.encode(), [text.encode() for text in wanted.texts], model.max_batch_size
    room = asyncio.Semaphore(PARALLEL_BATCHES)

    async def one(batch: list[bytes]) -> tuple[Scores, int]:
        async with room:
            body = text_request(model.name, [query] * len(batch), batch)
            try:
                answer = await gateway.infer(model, exchange, "ModelInfer", body, deadline=deadline)
            except grpc.aio.AioRpcError as error:
                raise from_server(model, error) from error
            return _scores(model, answer, len(batch))

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(texts[start : start + size])) for start in range(0, len(texts), size)]
    except* (RefusedError, NotNowError) as failures:
        raise failures.exceptions[0] from None
    parts = [task.result() for task in tasks]
    return np.concatenate([scores for scores, _ in parts]), sum(tokens for _, tokens in parts)


def _scores(model: ServedModel, answer: bytes, count: int) -> tuple[Scores, int]:
    outputs = numeric_outputs(answer)
    scores, tokens = outputs.get("scores"), outputs.get("tokens")
    if scores is None or tokens is None or scores.shape != (count, 1):
        raise NotNowError(502, "MalformedAnswer", f"model {model.id}: the server's answer lacks scores or tokens")
    return scores[:, 0].astype(np.float64), int(tokens.sum())


def rerank_body(wanted: RerankRequest, scores: Scores, tokens: int) -> bytes:
    """The answer, best first, equal scores in the order of the request.

    `relevance_score` is the logistic function of the model's score: between 0 and 1, in the same order.
    """
    order = np.argsort(-scores, kind="stable")[: wanted.top_n]
    relevance = 1.0 / (1.0 + np.exp(-np.clip(scores, -500, 500)))
    texts = wanted.texts
    results = []
    for index in order.tolist():
        result: dict[str, object] = {"index": index, "relevance_score": float(relevance[index])}
        if wanted.return_documents:
            result["document"] = {"text": texts[index]}
        results.append(result)
    return orjson.dumps(
        {
            "id": f"rerank-{secrets.token_hex(12)}",
            "object": "list",
            "model": wanted.model,
            "results": results,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    )
