"""The Triton model of text generation: a prompt or chat messages in, text out, in one response or as it comes.

Decoupled: `execute` only reads the requests; the engine's threads send the responses. Names of inputs and outputs are
those of TensorRT-LLM's `llmapi` model, so that what calls it need not know what runs it. Beside them, with
`sampling_param_logprobs`, `token_bytes`: the bytes of each of `token_ids`.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from tokenizers import Tokenizer

from enginewright_api.engine_description import EngineDescription
from enginewright_api.errors import DeterministicError, EnginewrightError
from enginewright_api.names import CALLERS_FAULT
from enginewright_serving.activity import ACTIVITY_VARIABLE, Activity
from enginewright_serving.model_config import MAX_QUEUE_SIZE, MAX_REQUESTS, STREAM_INTERVAL
from enginewright_serving.threads import engine_threads
from enginewright_serving.triton.answers import Answer, Chunk, Metrics, tokens_a_chunk
from enginewright_serving.triton.chat_template import ChatTemplate
from enginewright_serving.triton.generation_engine import GenerationEngine
from enginewright_serving.triton.generation_metrics import GenerationMetrics
from enginewright_serving.triton.generation_request import GenerationRequest, RequestReader
from enginewright_serving.triton.generation_runner import load_generation_runner
from enginewright_serving.triton.sampling import generation_of
from enginewright_serving.triton.token_text import TokenBytes, TokenText

_WARM_UP = {"text_input": b"Warm up.", "sampling_param_max_tokens": 2}


class TritonPythonModel:
    """Loaded by tritonserver's Python backend."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the engine and generate once, so that the first request does not pay for it."""
        if int(np.__version__.partition(".")[0]) >= 2:
            raise DeterministicError("NumpyTooNew", f"numpy {np.__version__}: this server needs numpy < 2")
        folder = Path(args["model_repository"], args["model_version"], "engine")
        engine = EngineDescription.model_validate_json((folder / "engine.json").read_bytes())
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer" / "tokenizer.json"))
        self._token_bytes = TokenBytes(self._tokenizer, frozenset(generation_of(engine).eos_token_ids))
        self._reader = RequestReader(engine, self._tokenizer, ChatTemplate.load(folder / "tokenizer"))
        self._metrics = GenerationMetrics(pb_utils, args["model_name"])
        self._under_way = _UnderWay(Activity(os.environ.get(ACTIVITY_VARIABLE, "")))
        parameters = json.loads(args["model_config"])["parameters"]
        max_requests = int(parameters[MAX_REQUESTS]["string_value"])
        self._most_answers = max_requests + int(parameters[MAX_QUEUE_SIZE]["string_value"])
        self._stream_interval = int(parameters[STREAM_INTERVAL]["string_value"])  # 0: by the answers under way
        limits = engine.limits.model_copy(update={"max_batch_size": max_requests})
        engine = engine.model_copy(update={"limits": limits})
        runner = load_generation_runner(folder, engine, engine_threads(os.environ))
        self._engine = GenerationEngine(runner, self._metrics.load)
        self._warm_up()

    def execute(self, requests: Sequence[Any]) -> None:
        """Queue each request; what is wrong with one is answered at once."""
        for request in requests:
            asked = frozenset(request.requested_output_names())
            sender = _Sender(request.get_response_sender(), self._token_bytes, asked)
            self._under_way.add()  # reading a long prompt is work too: nobody is to be taken for dead meanwhile
            try:
                wanted = self._reader.read(partial(_value, request))
                self._begin(wanted, sender)
            except DeterministicError as error:
                sender.fail(f"{CALLERS_FAULT}{error.message}", pb_utils.TritonError.INVALID_ARG)
            except EnginewrightError as error:
                sender.fail(error.message, pb_utils.TritonError.UNAVAILABLE)
            finally:
                self._under_way.remove()

    def finalize(self) -> None:
        """End the engine's threads."""
        self._engine.close()

    def _begin(self, wanted: GenerationRequest, sender: _Sender) -> None:
        if self._engine.answers + wanted.answers > self._most_answers:
            # The words of Triton's own scheduler, which the gateway understands.
            sender.fail("Exceeds maximum queue size", pb_utils.TritonError.UNAVAILABLE)
            return
        self._under_way.add()
        sender.ended = self._under_way.remove
        sender.open = wanted.answers
        if not wanted.echo:
            self._generate(wanted, sender, ())
            return

        def scored(done: Future[list[float]]) -> None:
            try:
                self._generate(wanted, sender, tuple(done.result()))
            except Exception as error:  # a callback's exception would be lost and the client wait for ever
                sender.fail(f"the engine failed: {type(error).__name__}: {error}")

        self._engine.score(wanted.prompt).add_done_callback(scored)

    def _generate(
        self,
        wanted: GenerationRequest,
        sender: _Sender,
        scores: tuple[float, ...],
        *,
        metrics: Metrics | None = None,
    ) -> None:
        began = time.monotonic()
        for index in range(wanted.answers):
            answer = Answer(
                index=index,
                prompt=wanted.prompt,
                prompt_text=self._tokenizer.decode(list(wanted.prompt)) if wanted.echo else "",
                prompt_logprobs=scores,
                sampling=wanted.sampling,
                text=TokenText(self._tokenizer, wanted.stops),
                stream_interval=self._tokens_a_chunk if wanted.streaming else None,
                began_seconds=began,
                sender=sender,
                metrics=metrics or self._metrics,
            )
            if wanted.sampling.max_tokens == 0:
                answer.scored()
            else:
                self._engine.submit(wanted.prompt, wanted.sampling_of(index), answer)

    def _tokens_a_chunk(self) -> int:
        return self._stream_interval or tokens_a_chunk(self._engine.answers)

    def _warm_up(self) -> None:
        wanted = self._reader.read(_WARM_UP.get)
        sender = _Discard()
        self._under_way.add()
        sender.ended = self._under_way.remove
        self._generate(wanted, sender, (), metrics=_Uncounted())
        if not sender.done.wait(600) or sender.failure:
            raise DeterministicError("EngineLoadFailed", f"the engine does not generate: {sender.failure or 'no end'}")


class _UnderWay:
    """Keeps the activity byte while requests are under way."""

    def __init__(self, activity: Activity) -> None:
        self._activity = activity
        self._lock = threading.Lock()
        self._requests = 0

    def add(self) -> None:
        with self._lock:
            self._requests += 1
            self._activity.set(working=True)

    def remove(self) -> None:
        with self._lock:
            self._requests -= 1
            self._activity.set(working=self._requests > 0)


class _Sender:
    """Sends a request's responses; the last one closes it. All of a request's answers share it."""

    def __init__(self, sender: Any, token_bytes: TokenBytes, asked: frozenset[str]) -> None:
        self._sender = sender
        self._token_bytes = token_bytes
        self._asked = asked
        """Names of the outputs that the client wants: all of them where it named none."""
        self._closed = False
        self.open = 1
        """Answers that have not ended."""
        self.ended: Callable[[], None] = lambda: None

    def send(self, chunk: Chunk) -> None:
        """One response."""
        if self._closed:
            return
        last = bool(chunk.finish_reason) and self.open == 1
        self._send(pb_utils.InferenceResponse(self._tensors(chunk)), last=last)
        if chunk.finish_reason:
            self.open -= 1
        if last:
            self._close()

    def fail(self, message: str, code: int | None = None) -> None:
        """An error in place of what is missing."""
        if self._closed:
            return
        kind = pb_utils.TritonError.INTERNAL if code is None else code
        self._send(pb_utils.InferenceResponse(error=pb_utils.TritonError(message, kind)), last=True)
        self._close()

    def cancelled(self) -> bool:
        """Whether the client left. The request is closed then."""
        if self._closed:
            return True
        if not self._sender.is_cancelled():
            return False
        self.fail("cancelled", pb_utils.TritonError.CANCELLED)
        return True

    def _send(self, response: Any, *, last: bool) -> None:
        self._sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL if last else 0)

    def _close(self) -> None:
        self._closed = True
        self.ended()

    def _tensors(self, chunk: Chunk) -> list[Any]:
        texts = {"text_output": chunk.text, "finish_reason": chunk.finish_reason}
        numbers = {
            "index": (chunk.index,),
            "prompt_tokens": (chunk.prompt_tokens,),
            "completion_tokens": (chunk.completion_tokens,),
            "cached_tokens": (chunk.cached_tokens,),
            "token_ids": chunk.token_ids,
        }
        tensors = [_bytes(name, [text.encode()]) for name, text in texts.items() if name in self._asked]
        tensors += [_int(name, values) for name, values in numbers.items() if name in self._asked]
        if chunk.with_logprobs and "logprobs" in self._asked:
            tensors.append(pb_utils.Tensor("logprobs", np.array(chunk.logprobs, np.float32)))
        if chunk.with_logprobs and "token_bytes" in self._asked:
            tensors.append(_bytes("token_bytes", [self._token_bytes.of(token) for token in chunk.token_ids]))
        return tensors


class _Discard(_Sender):
    """Takes the warm-up's answer."""

    def __init__(self) -> None:
        self._closed = False
        self.open = 1
        self.ended: Callable[[], None] = lambda: None
        self.done = threading.Event()
        self.failure = ""

    def send(self, chunk: Chunk) -> None:
        if chunk.finish_reason:
            self.ended()
            self.done.set()

    def fail(self, message: str, code: int | None = None) -> None:
        self.failure = message
        self.ended()
        self.done.set()

    def cancelled(self) -> bool:
        return False


class _Uncounted:
    """Metrics of the warm-up: nobody asked for it."""

    def began(self, prompt_tokens: int, seconds: float) -> None: ...

    def generated(self, tokens: int) -> None: ...

    def ended(self, completion_tokens: int, seconds_after_first: float) -> None: ...


def _bytes(name: str, values: Sequence[bytes]) -> Any:
    return pb_utils.Tensor(name, np.array(values, dtype=np.object_))


def _int(name: str, values: Sequence[int]) -> Any:
    return pb_utils.Tensor(name, np.array(values, np.int32))


def _value(request: Any, name: str) -> Any:
    """Value of an input of one element; None when it was not sent."""
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    if tensor is None:
        return None
    values = tensor.as_numpy().reshape(-1)
    if len(values) != 1:
        raise DeterministicError("InvalidParameter", f"{name}: has {len(values)} values, one is wanted")
    value = values[0]
    return value if isinstance(value, bytes) else value.item()
