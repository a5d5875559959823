"""KServe v2 over gRPC: a generic service whose handlers see bytes and read the model's name, nothing else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc
import grpc.aio

from . import wire
from .errors import NotNowError, RefusedError, grpc_status
from .exchange import Exchange, finish
from .grpc_errors import http_code, server_code
from .headers import TRACE, check_answers_whole, find_model, identify
from .kserve_stream import Opening, relay_stream
from .service import Gateway
from .upstream import SERVICE

_MODEL_CALLS = ("ModelInfer", "ModelMetadata", "ModelConfig", "ModelStatistics")

Unary = Callable[[bytes, Any, Exchange], Awaitable[bytes]]


def metadata_of(context: Any) -> Mapping[str, str]:
    """The call's text metadata; of a repeated name the last value."""
    return {name: value for name, value in context.invocation_metadata() or () if isinstance(value, str)}


def passed_on(metadata: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Metadata that the server is told."""
    return tuple((name, metadata[name]) for name in TRACE if name in metadata)


class InferenceService(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no type information
    """GRPCInferenceService without its message types."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """Handler of a method; every name is answered, so that a missing one says what there is."""
        prefix, _, method = details.method.rpartition("/")
        if prefix != f"/{SERVICE}":
            return None
        if method == "ModelStreamInfer":
            return grpc.stream_stream_rpc_method_handler(self._stream)
        return grpc.unary_unary_rpc_method_handler(self._unary(method))

    def _unary(self, method: str) -> Callable[[bytes, Any], Awaitable[bytes]]:
        answers: dict[str, Unary] = {
            "ServerLive": self._live,
            "ServerReady": self._ready,
            "ServerMetadata": self._metadata,
            "ModelReady": self._model_ready,
        }

        async def handle(message: bytes, context: Any) -> bytes:
            exchange = Exchange(protocol="grpc", method=method[:64], path="", inference=method == "ModelInfer")
            with_model = method in _MODEL_CALLS

            async def answer() -> bytes:
                if method in answers:
                    return await answers[method](message, context, exchange)
                if with_model:
                    return await self._pass_on(method, message, context, exchange)
                raise RefusedError(501, "NotAvailable", f"{method} is not available through the gateway")

            result: bytes = await self._guarded(exchange, context, answer)
            return result

        return handle

    async def _stream(self, _requests: Any, context: Any) -> None:
        exchange = Exchange(protocol="grpc", method="ModelStreamInfer", path="")

        async def answer() -> None:
            metadata = metadata_of(context)
            caller = identify(self._gateway, metadata, exchange)
            await relay_stream(self._gateway, context, Opening(caller, metadata, passed_on(metadata)))

        await self._guarded(exchange, context, answer)

    async def _guarded(self, exchange: Exchange, context: Any, answer: Callable[[], Awaitable[Any]]) -> Any:
        """Answer; errors become status codes; one log line and one count."""
        began = self._gateway.clock()
        status = grpc.StatusCode.CANCELLED
        try:
            result = await answer()
            status = grpc.StatusCode.OK
            return result
        except RefusedError as error:
            status = grpc_status(error)
            await context.abort(status, error.message)
        except NotNowError as error:
            status = grpc_status(error)
            after = error.retry_after_seconds
            # The name that gRPC retry policies read, in milliseconds.
            pushback = () if after is None else (("grpc-retry-pushback-ms", str(int(after * 1000))),)
            await context.abort(status, error.message, pushback)
        except grpc.aio.AioRpcError as error:
            status = server_code(error)
            await context.abort(status, error.details() or "")
        finally:
            finish(exchange, self._gateway.metrics, http_code(status), self._gateway.clock() - began)

    async def _live(self, _message: bytes, _context: Any, _exchange: Exchange) -> bytes:
        return wire.true_field(1)

    async def _ready(self, _message: bytes, _context: Any, _exchange: Exchange) -> bytes:
        return wire.true_field(1) if self._gateway.table.synced and not self._gateway.draining else b""

    async def _metadata(self, _message: bytes, context: Any, exchange: Exchange) -> bytes:
        identify(self._gateway, metadata_of(context), exchange)
        return (
            wire.string_field(1, "enginewright")
            + wire.string_field(2, "2")
            + wire.string_field(3, "model_configuration")
        )

    async def _model_ready(self, message: bytes, context: Any, exchange: Exchange) -> bytes:
        metadata = metadata_of(context)
        caller = identify(self._gateway, metadata, exchange)
        asked = wire.first_string(message)
        model = find_model(self._gateway, metadata, caller, asked, exchange)
        if not model.all_endpoints:
            return b""
        return await self._gateway.infer(model, exchange, "ModelReady", wire.renamed(message, asked, model.name))

    async def _pass_on(self, method: str, message: bytes, context: Any, exchange: Exchange) -> bytes:
        metadata = metadata_of(context)
        caller = identify(self._gateway, metadata, exchange)
        asked = wire.first_string(message)
        model = find_model(self._gateway, metadata, caller, asked, exchange)
        if exchange.inference:
            check_answers_whole(model)
        left: float | None = context.time_remaining()
        return await self._gateway.infer(
            model, exchange, method, wire.renamed(message, asked, model.name),
            deadline=None if left is None else self._gateway.clock() + left, metadata=passed_on(metadata),
        )  # fmt: skip


def grpc_server(gateway: Gateway) -> grpc.aio.Server:
    """The server, not started and without a port."""
    limit = gateway.settings.max_body_bytes
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", limit),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_metadata_size", gateway.settings.max_header_bytes),
            ("grpc.so_reuseport", 0),
        ]
    )
    server.add_generic_rpc_handlers((InferenceService(gateway),))
    return server
