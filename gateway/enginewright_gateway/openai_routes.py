"""The OpenAI surface: text generation, embeddings, models, a rerank endpoint, and a clear no for the rest."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from enginewright_api.recipe import Task

from .errors import RefusedError
from .exchange import Exchange
from .headers import find_model, identify
from .inbound import unless_left
from .openai_call import Call
from .openai_embeddings import EmbeddingRequest, answer_body, embed, parse, shorten
from .openai_generation import ChatRequest, CompletionRequest, parse_chat, parse_completion
from .openai_rerank import RerankRequest, parse_rerank, rank, rerank_body
from .openai_text import TextRequest, answer
from .routes import ServedModel, short_ids
from .service import Gateway

_NOT_HERE = (
    "responses", "audio/speech", "audio/transcriptions",
    "audio/translations", "images/generations", "images/edits", "moderations", "files", "batches", "fine_tuning/jobs",
    "assistants", "threads", "vector_stores", "uploads",
)  # fmt: skip
"""OpenAI's other endpoints: known, but nothing here answers them."""

_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


def openai_router(gateway: Gateway) -> APIRouter:
    """Routes below /v1."""
    router = APIRouter(prefix="/v1")

    @router.post("/embeddings", openapi_extra=_schema(EmbeddingRequest))
    async def embeddings(request: Request) -> Response:
        """Vectors for texts."""
        call = Call(gateway, request)
        wanted, texts = parse(await call.inbound.read())
        model = call.model(wanted.model, Task.EMBEDDING)
        vectors, tokens = await unless_left(call.inbound, embed(gateway, model, texts, call.exchange, call.until))
        call.exchange.prompt_tokens = tokens
        body = answer_body(wanted.model, shorten(vectors, wanted.dimensions), tokens, wanted.encoding_format)
        return Response(body, media_type="application/json")

    @router.post("/rerank", openapi_extra=_schema(RerankRequest))
    async def rerank(request: Request) -> Response:
        """Texts by how well they answer a query."""
        call = Call(gateway, request)
        wanted = parse_rerank(await call.inbound.read())
        model = call.model(wanted.model, Task.RERANKING)
        scores, tokens = await unless_left(call.inbound, rank(gateway, model, wanted, call.exchange, call.until))
        call.exchange.prompt_tokens = tokens
        return Response(rerank_body(wanted, scores, tokens), media_type="application/json")

    async def generate(request: Request, parse_body: Callable[[bytes], ChatRequest | CompletionRequest]) -> Response:
        call = Call(gateway, request)
        wanted = parse_body(await call.inbound.read())
        model = call.model(wanted.model, Task.TEXT_GENERATION)
        text = TextRequest(gateway, model, wanted, call.exchange, request.headers, deadline=call.until)
        return await answer(text, call.inbound, call.exchange, stream=bool(wanted.stream))

    @router.post("/chat/completions", openapi_extra=_schema(ChatRequest))
    async def chat(request: Request) -> Response:
        """The next message of a chat."""
        return await generate(request, parse_chat)

    @router.post("/completions", openapi_extra=_schema(CompletionRequest))
    async def completions(request: Request) -> Response:
        """How a text goes on."""
        return await generate(request, parse_completion)

    @router.get("/models")
    async def models(request: Request) -> dict[str, object]:
        """Models the caller may use."""
        caller = identify(gateway, request.headers, request.scope["enginewright.exchange"])
        listed = short_ids(caller.visible(gateway.table.models()))
        return {"object": "list", "data": [_model(name, model) for name, model in listed.items()]}

    @router.get("/models/{name:path}")
    async def model(request: Request, name: str) -> dict[str, object]:
        """One of them."""
        exchange: Exchange = request.scope["enginewright.exchange"]
        caller = identify(gateway, request.headers, exchange)
        return _model(name, find_model(gateway, request.headers, caller, name, exchange))

    async def not_here(request: Request) -> Response:
        identify(gateway, request.headers, request.scope["enginewright.exchange"])
        raise RefusedError(
            501, "NotAvailable", f"{request.url.path} is not available here; this gateway has /v1/chat/completions, "
            "/v1/completions, /v1/embeddings, /v1/rerank, /v1/models and the KServe v2 protocol below /v2",
        )  # fmt: skip

    for path in _NOT_HERE:
        router.add_api_route(f"/{path}", not_here, methods=_METHODS, include_in_schema=False)
        router.add_api_route(f"/{path}/{{rest:path}}", not_here, methods=_METHODS, include_in_schema=False)
    return router


def _schema(body: type[BaseModel]) -> dict[str, object]:
    return {"requestBody": {"content": {"application/json": {"schema": body.model_json_schema()}}}}


def _model(name: str, model: ServedModel) -> dict[str, object]:
    return {"id": name, "object": "model", "created": model.created, "owned_by": model.namespace}
