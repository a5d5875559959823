"""Bodies of POST /v1/chat/completions and /v1/completions: what is taken, what is refused by name, what is sent on."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .errors import RefusedError
from .wire import Input

Wanted = TypeVar("Wanted", bound="GenerationRequest")

MAX_PROMPTS = 16
"""Prompts of one completion request."""

MAX_STOPS = 16
"""Texts that may end an answer."""

_COMPLETION_TOKENS = 16
"""OpenAI's default of max_tokens for completions."""

_Penalty = Annotated[float, Field(ge=-2, le=2)]
_Stop = Annotated[str, Field(min_length=1)]

_TEXTS = {
    "prompt": f"must be a text or a list of 1 to {MAX_PROMPTS} texts; token ids are not accepted",
    "stop": f"must be a text or a list of up to {MAX_STOPS} texts, none of them empty",
}
"""What fields take that hold one text or several."""

_NOT_AVAILABLE = (
    "logit_bias", "functions", "function_call", "audio", "modalities", "prediction", "reasoning_effort",
    "web_search_options", "store", "suffix", "echo", "top_logprobs", "verbosity", "prompt_cache_key",
)  # fmt: skip
"""Fields of OpenAI's API that nothing here acts on; refused unless null, false, empty or zero."""


class StreamOptions(BaseModel):
    """`stream_options`."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    include_usage: bool = Field(default=False, description="Send one last chunk with the usage.")


class GenerationRequest(BaseModel):
    """Fields of both endpoints. Unknown ones are refused rather than ignored; null means left out."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    model: Annotated[str, Field(min_length=1, max_length=512)] = Field(description="Name, or namespace/name.")
    max_tokens: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = Field(default=None, description="Longest answer.")
    temperature: Annotated[float, Field(ge=0, le=2)] | None = Field(default=None, description="1 when left out.")
    top_p: Annotated[float, Field(gt=0, le=1)] | None = Field(default=None, description="Nucleus to draw from.")
    top_k: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = Field(
        default=None, description="Likeliest tokens to draw from; 0 for all. Not OpenAI's."
    )
    n: Annotated[int, Field(ge=1, le=16)] | None = Field(default=None, description="Answers to each prompt.")
    stop: _Stop | Annotated[list[_Stop], Field(max_length=MAX_STOPS)] | None = Field(
        default=None, description="Texts that end an answer; not part of it."
    )
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = Field(
        default=None, description="The same seed draws the same answer."
    )
    frequency_penalty: _Penalty | None = Field(default=None, description="Against tokens by how often they came.")
    presence_penalty: _Penalty | None = Field(default=None, description="Against tokens that came at all.")
    stream: bool | None = Field(default=None, description="Server-sent events instead of one answer.")
    stream_options: StreamOptions | None = Field(default=None, description="Only with stream.")
    user: str | None = Field(default=None, description="Taken for compatibility; neither kept nor passed on.")

    @property
    def answers(self) -> int:
        """Answers to each prompt."""
        return self.n or 1

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with its usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def with_logprobs(self) -> bool:
        """Whether log-probabilities are wanted."""
        raise NotImplementedError

    @property
    def longest(self) -> int | None:
        """Tokens of an answer, None for as many as the engine generates."""
        return self.max_tokens

    def sampling_inputs(self) -> list[Input]:
        """Tensors that say how to draw."""
        temperature = 1.0 if self.temperature is None else self.temperature
        inputs = [
            Input.number("streaming", "BOOL", True),
            Input.number("sampling_param_temperature", "FP32", temperature),
            Input.number("sampling_param_n", "INT32", self.answers),
            Input.number("sampling_param_logprobs", "INT32", int(self.with_logprobs)),
        ]
        if self.longest is not None:
            inputs.append(Input.number("sampling_param_max_tokens", "INT32", self.longest))
        if self.top_p is not None:
            inputs.append(Input.number("sampling_param_top_p", "FP32", self.top_p))
        if self.top_k:
            inputs.append(Input.number("sampling_param_top_k", "INT32", self.top_k))
        if self.seed is not None:
            inputs.append(Input.number("sampling_param_seed", "UINT64", self.seed % 2**64))
        if self.frequency_penalty:
            inputs.append(Input.number("sampling_param_frequency_penalty", "FP32", self.frequency_penalty))
        if self.presence_penalty:
            inputs.append(Input.number("sampling_param_presence_penalty", "FP32", self.presence_penalty))
        stops = [self.stop] if isinstance(self.stop, str) else self.stop
        if stops:
            inputs.append(Input.text("sampling_param_stop", orjson.dumps(stops)))
        return inputs


class ChatRequest(GenerationRequest):
    """Body of /v1/chat/completions."""

    messages: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=4096)] = Field(description="The chat.")
    max_completion_tokens: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = Field(
        default=None, description="OpenAI's newer name of max_tokens."
    )
    logprobs: bool | None = Field(default=None, description="Log-probabilities of the answer's tokens.")
    tools: list[dict[str, Any]] | None = Field(
        default=None, description="Given to the model's chat template; calls in the answer are left as text."
    )
    tool_choice: Literal["auto", "none"] | None = Field(default=None, description="none leaves the tools out.")
    response_format: dict[str, Any] | None = Field(default=None, description="Only of type text.")

    @property
    def with_logprobs(self) -> bool:
        """Whether log-probabilities are wanted."""
        return bool(self.logprobs)

    @property
    def longest(self) -> int | None:
        """Tokens of an answer."""
        return self.max_completion_tokens or self.max_tokens

    def prompts(self) -> list[list[Input]]:
        """Tensors of the one prompt."""
        messages = [_plain(at, message) for at, message in enumerate(self.messages)]
        inputs = [Input.text("messages", orjson.dumps(messages))]
        if self.tools and self.tool_choice != "none":
            inputs.append(Input.text("tools", orjson.dumps(self.tools)))
        return [inputs]


class CompletionRequest(GenerationRequest):
    """Body of /v1/completions."""

    prompt: str | Annotated[list[str], Field(min_length=1, max_length=MAX_PROMPTS)] = Field(description="One or more.")
    logprobs: Annotated[int, Field(ge=0, le=0)] | None = Field(
        default=None, description="0: log-probabilities of the answer's own tokens."
    )
    best_of: int | None = Field(default=None, description="Only the value of n.")

    @property
    def with_logprobs(self) -> bool:
        """Whether log-probabilities are wanted."""
        return self.logprobs is not None

    @property
    def longest(self) -> int | None:
        """Tokens of an answer."""
        return self.max_tokens or _COMPLETION_TOKENS

    def prompts(self) -> list[list[Input]]:
        """Tensors of each prompt."""
        texts = [self.prompt] if isinstance(self.prompt, str) else self.prompt
        return [[Input.text("text_input", text.encode())] for text in texts]


def parse_chat(body: bytes) -> ChatRequest:
    """Raises RefusedError 400 naming the field."""
    request = _validated(body, ChatRequest)
    if request.max_tokens is not None and request.max_completion_tokens is not None:
        raise _refused("max_tokens", "give either max_tokens or max_completion_tokens, not both")
    if request.response_format is not None and request.response_format.get("type") != "text":
        raise _refused("response_format", "only type text is available; this engine does not constrain its answers")
    return request


def parse_completion(body: bytes) -> CompletionRequest:
    """Raises RefusedError 400 naming the field."""
    request = _validated(body, CompletionRequest)
    if request.best_of is not None and request.best_of != request.answers:
        raise _refused("best_of", "is only available with the value of n")
    return request


def _validated(body: bytes, kind: type[Wanted]) -> Wanted:
    try:
        raw = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RefusedError(400, "MalformedJson", f"the body is not valid JSON: {error.msg} at {error.pos}") from error
    if not isinstance(raw, dict):
        raise RefusedError(400, "MalformedJson", "the body must be a JSON object")
    for name in _NOT_AVAILABLE:
        if raw.pop(name, None):
            raise _refused(name, "is not available here; leave it out")
    try:
        request = kind.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = str(first["loc"][0]) if first["loc"] else "body"
        # Of fields that take a text or a list, pydantic names the kind that it tried first as well.
        path = field if field in _TEXTS else ".".join(str(part) for part in first["loc"])
        raise _refused(field, _sentence(first), path=path) from error
    if request.stream_options is not None and not request.stream:
        raise _refused("stream_options", "is only for stream: true")
    return request


def _refused(field: str, sentence: str, *, path: str = "") -> RefusedError:
    return RefusedError(400, "InvalidRequest", f"{path or field}: {sentence}", param=field)


def _sentence(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return "is not a field of this request"
    if error["type"] == "missing":
        return "is missing"
    if error["loc"] and error["loc"][0] in _TEXTS:
        return _TEXTS[error["loc"][0]]
    return str(error["msg"]).lower()


def _plain(at: int, message: dict[str, Any]) -> dict[str, Any]:
    """A message as chat templates take it: content is one text."""
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or not role:
        raise _refused("messages", "is missing", path=f"messages.{at}.role")
    if content is None and message.get("tool_calls"):
        return {**message, "content": ""}
    if isinstance(content, str):
        return message
    if not isinstance(content, list):
        raise _refused("messages", "must be a text or a list of parts", path=f"messages.{at}.content")
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            kind = part.get("type") if isinstance(part, dict) else type(part).__name__
            raise _refused(
                "messages", f"parts of type {kind} are not available, only text", path=f"messages.{at}.content"
            )
    return {**message, "content": "".join(part["text"] for part in content)}
