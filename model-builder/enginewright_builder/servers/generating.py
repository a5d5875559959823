"""Prompts to likelihoods and text through KServe v2 over gRPC: the only protocol with several responses a request."""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from enginewright_api.engine_description import ENGINE_DESCRIPTION, EngineDescription
from enginewright_api.errors import DeterministicError, TransientError
from enginewright_builder.datasets.rows import Text
from enginewright_builder.servers.asking import Answers
from enginewright_builder.servers.server import Server

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_TIMEOUT_SECONDS = 300.0
_AT_ONCE = 8
_STREAMED = ("text_output", "finish_reason", "completion_tokens")
"""Outputs of a streamed answer: each costs the server something with every chunk."""
_TYPES: Mapping[type, str] = {bytes: "BYTES", bool: "BOOL", int: "INT32", float: "FP32"}


@dataclass(frozen=True, slots=True)
class Generated:
    """One answer. Seconds count from the request."""

    tokens: int
    first_token_seconds: float
    seconds: float


@dataclass(slots=True)
class _Reply:
    """What one request brought so far."""

    begun: float
    first_seconds: float = 0.0
    seconds: float = 0.0
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    prompt_tokens: int = 0
    completion_tokens: int = 0
    error: str = ""


class GenerationClient:
    """One stream to one server; many requests on it at a time."""

    def __init__(self, server: Server) -> None:
        from tokenizers import Tokenizer
        from tritonclient import grpc as triton

        self._triton = triton
        self._server = server
        self._engine = EngineDescription.model_validate_json((server.engine / ENGINE_DESCRIPTION).read_bytes())
        self._tokenizer = Tokenizer.from_file(str(server.engine / "tokenizer" / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._numbers = itertools.count(1)
        self._replies: dict[str, _Reply] = {}
        self._lock = threading.Lock()
        self._done: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._client = triton.InferenceServerClient(f"127.0.0.1:{server.ports.grpc}")
        self._client.start_stream(self._received)

    def __enter__(self) -> GenerationClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.stop_stream(cancel_requests=True)
        self._client.close()

    def ask_all(self, texts: Sequence[Text], *, batch: int) -> Answers:
        """One row a text, in the columns of gate.generation: mean negative log-likelihood a token (nats), tokens
        predicted, then the next token chosen greedily after the first half and after the whole text.

        Texts longer than the engine's limit are cut at a token. A text of one token predicts nothing: 0, 0.
        """
        import numpy as np

        cut = [self._cut(text if isinstance(text, str) else " ".join(text)) for text in texts]
        asked = [
            wish
            for whole, half in cut
            for wish in (
                {"text_input": half.encode(), "sampling_param_max_tokens": 1, "sampling_param_logprobs": 1},
                {"text_input": whole.encode(), "sampling_param_max_tokens": 1, "echo": True},
            )
        ]
        replies = self._ask(asked, at_once=min(_AT_ONCE, batch))
        rows = [_row(half, whole) for half, whole in zip(replies[::2], replies[1::2], strict=True)]
        return Answers(np.array(rows), np.array([reply.prompt_tokens for reply in replies[1::2]], np.int32))

    def generate(self, texts: Sequence[str], *, max_tokens: int) -> list[Generated]:
        """All at the same time, greedily, streamed. One answer a text, in order."""
        wishes = [
            {"text_input": text.encode(), "sampling_param_max_tokens": max_tokens, "streaming": True} for text in texts
        ]
        replies = self._ask(wishes, at_once=len(wishes), outputs=_STREAMED)
        return [
            Generated(reply.completion_tokens, reply.first_seconds - reply.begun, reply.seconds - reply.begun)
            for reply in replies
        ]

    def _cut(self, text: str) -> tuple[str, str]:
        """The text within the engine's limits, and its first half."""
        ends = [stop for _, stop in self._tokenizer.encode(text).offsets]
        generation = self._engine.generation
        most = self._engine.limits.max_input_tokens
        if generation is not None:
            most = min(most, generation.max_context_tokens - 1)
        whole = text if len(ends) <= most else text[: ends[most - 1]]
        half = text[: ends[(min(len(ends), most) - 1) // 2]]
        return whole, half

    def _ask(self, wishes: Sequence[Mapping[str, Any]], *, at_once: int, outputs: Sequence[str] = ()) -> list[_Reply]:
        names = [self._send(wish, outputs) for wish in wishes[:at_once]]
        for _ in wishes:
            try:
                done = self._done.get(timeout=_TIMEOUT_SECONDS)
            except queue.Empty:
                raise TransientError(
                    "ServerGone", f"engine {self._server.name} gave no answer within {_TIMEOUT_SECONDS:.0f} s"
                ) from None
            if done not in self._replies:
                raise TransientError("ServerGone", f"engine {self._server.name}: connection lost ({done})")
            error = self._replies[done].error
            if error:
                raise DeterministicError(
                    "EngineFailed", f"engine {self._server.name} failed on a request: {error}"[:500]
                )
            if len(names) < len(wishes):
                names.append(self._send(wishes[len(names)], outputs))
        with self._lock:
            return [self._replies.pop(name) for name in names]

    def _send(self, wish: Mapping[str, Any], outputs: Sequence[str]) -> str:
        name = str(next(self._numbers))
        with self._lock:
            self._replies[name] = _Reply(begun=time.perf_counter())
        inputs = [self._input(key, value) for key, value in wish.items()]
        wanted = [self._triton.InferRequestedOutput(output) for output in outputs] or None
        self._client.async_stream_infer(self._server.name, inputs, outputs=wanted, request_id=name)
        return name

    def _input(self, name: str, value: object) -> Any:
        import numpy as np

        types = {bytes: np.object_, bool: np.bool_, int: np.int32, float: np.float32}
        given = self._triton.InferInput(name, [1], _TYPES[type(value)])
        given.set_data_from_numpy(np.array([value], dtype=types[type(value)]))
        return given

    def _received(self, result: Any, error: Any) -> None:
        """Called by the library's thread for every response."""
        now = time.perf_counter()
        if result is None:
            # The library does not say which request an error belongs to, unless the response carries it.
            self._failed(error)
            return
        name = result.get_response().id
        reply = self._replies.get(name)
        finish = result.as_numpy("finish_reason")
        if reply is None or finish is None:
            return
        reply.first_seconds = reply.first_seconds or now
        reply.token_ids += _numbers(result.as_numpy("token_ids"))
        reply.logprobs += _numbers(result.as_numpy("logprobs"))
        (reply.prompt_tokens,) = _numbers(result.as_numpy("prompt_tokens")) or (0,)
        (reply.completion_tokens,) = _numbers(result.as_numpy("completion_tokens"))
        if finish[0]:
            reply.seconds = now
            self._done.put(name)

    def _failed(self, error: Any) -> None:
        """A model's error carries no status; one that does is the connection's, and ends every request."""
        message = str(error.message())
        with self._lock:
            waiting = [name for name, reply in self._replies.items() if not reply.seconds]
            for name in waiting[:1] if error.status() is None else ():
                self._replies[name].error = message
                self._replies[name].seconds = time.perf_counter()
        self._done.put(waiting[0] if waiting and error.status() is None else message)


def _row(half: _Reply, whole: _Reply) -> list[float]:
    scores = whole.logprobs[1 : whole.prompt_tokens]
    nll = -sum(scores) / len(scores) if scores else 0.0
    return [nll, float(len(scores)), float(half.token_ids[-1]), float(whole.token_ids[-1])]


def _numbers(values: NDArray[np.generic] | None) -> tuple[Any, ...]:
    return () if values is None else tuple(values.reshape(-1).tolist())
