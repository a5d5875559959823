"""The OpenAI surface: /v1/embeddings, /v1/models, and a clear no for the rest."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from .errors import RefusedError
from .exchange import Exchange
from .headers import deadline, find_model, identify
from .inbound import Inbound, unless_left
from .openai_embeddings import EmbeddingRequest, answer_body, check_task, embed, parse, shorten
from .routes import ServedModel, short_ids
from .service import Gateway

_NOT_HERE = (
    "chat/completions", "completions", "responses", "rerank", "audio/speech", "audio/transcriptions",
    "audio/translations", "images/generations", "images/edits", "moderations", "files", "batches", "fine_tuning/jobs",
    "assistants", "threads", "vector_stores", "uploads",
)  # fmt: skip
"""OpenAI's other endpoints: known, but nothing here answers them."""

_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


def openai_router(gateway: Gateway) -> APIRouter:
    """Routes below /v1."""
    router = APIRouter(prefix="/v1")
    schema = {"requestBody": {"content": {"application/json": {"schema": EmbeddingRequest.model_json_schema()}}}}

    @router.post("/embeddings", openapi_extra=schema)
    async def embeddings(request: Request) -> Response:
        """Vectors for texts."""
        exchange: Exchange = request.scope["enginewright.exchange"]
        exchange.inference = True
        caller = identify(gateway, request.headers, exchange)
        until = deadline(gateway, request.headers)
        # What is read is decoded and kept, so a repeat needs nothing of the body.
        inbound = Inbound(request.receive, max_body_bytes=gateway.settings.max_body_bytes, max_replay_bytes=2**62)
        wanted, texts = parse(await inbound.read())
        model = find_model(gateway, request.headers, caller, wanted.model, exchange)
        check_task(model)
        vectors, tokens = await unless_left(inbound, embed(gateway, model, texts, exchange, until))
        exchange.prompt_tokens = tokens
        body = answer_body(wanted.model, shorten(vectors, wanted.dimensions), tokens, wanted.encoding_format)
        return Response(body, media_type="application/json")

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
            501, "NotAvailable", f"{request.url.path} is not available here; this gateway has /v1/embeddings, "
            "/v1/models and the KServe v2 protocol below /v2",
        )  # fmt: skip

    for path in _NOT_HERE:
        router.add_api_route(f"/{path}", not_here, methods=_METHODS, include_in_schema=False)
        router.add_api_route(f"/{path}/{{rest:path}}", not_here, methods=_METHODS, include_in_schema=False)
    return router


def _model(name: str, model: ServedModel) -> dict[str, object]:
    return {"id": name, "object": "model", "created": model.created, "owned_by": model.namespace}
