"""One request for text as the served model takes it: tensors in, checked values out. Knows nothing of Triton."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Encoding, Tokenizer, models

from enginewright_api.engine_description import EngineDescription
from enginewright_api.errors import DeterministicError
from enginewright_serving.triton.chat_template import ChatTemplate
from enginewright_serving.triton.sampling import (
    MAX_ANSWERS,
    MAX_STOPS,
    Sampling,
    check_sampling,
    generation_of,
    longest_prompt,
    room_for_answer,
)

Read = Callable[[str], Any]
"""Value of an optional input by name: bytes, bool, int or float; None when it was not sent."""

_SHORTENING = 4
"""Most bytes of a text that normalising makes one of, rounded up: a Hangul syllable has 3 bytes, its parts have 9."""


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """A prompt and how it is to be answered."""

    prompt: Sequence[int]
    sampling: Sampling
    answers: int
    stops: tuple[str, ...]
    streaming: bool
    echo: bool

    def sampling_of(self, index: int) -> Sampling:
        """Parameters of one of the answers: each draws with a seed of its own, the first with the one given."""
        if index == 0:
            return self.sampling
        fields = {name: getattr(self.sampling, name) for name in Sampling.__dataclass_fields__}
        return Sampling(**(fields | {"seed": (self.sampling.seed + index) % 2**63}))


class RequestReader:
    """Turns requests into GenerationRequests for one engine."""

    def __init__(self, engine: EngineDescription, tokenizer: Tokenizer, template: ChatTemplate | None) -> None:
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._engine = engine
        self._tokenizer = tokenizer
        self._template = template
        self._eos = frozenset(generation_of(engine).eos_token_ids)
        longest = _longest_token_bytes(tokenizer)
        self._most_tokens = longest_prompt(engine)
        self._most_bytes = None if longest is None else self._most_tokens * longest * _SHORTENING

    def read(self, value: Read) -> GenerationRequest:
        """Raises DeterministicError naming the input that is wrong."""
        prompt = self._prompt(value)
        echo = bool(value("echo"))
        wanted = value("sampling_param_max_tokens")
        if wanted == 0 and not echo:
            raise DeterministicError("InvalidParameter", "max_tokens: 0 is only for echo")
        answers = _or(value("sampling_param_n"), 1)
        if not 1 <= answers <= MAX_ANSWERS:
            raise DeterministicError("InvalidParameter", f"n: {answers} is not from 1 to {MAX_ANSWERS}")
        seed = value("sampling_param_seed")
        sampling = Sampling(
            max_tokens=room_for_answer(self._engine, len(prompt), wanted),
            temperature=_or(value("sampling_param_temperature"), 0.0),
            top_k=_or(value("sampling_param_top_k"), 0),
            top_p=_or(value("sampling_param_top_p"), 1.0),
            seed=secrets.randbits(63) if seed is None else int(seed) % 2**63,
            frequency_penalty=_or(value("sampling_param_frequency_penalty"), 0.0),
            presence_penalty=_or(value("sampling_param_presence_penalty"), 0.0),
            logprobs=bool(_or(value("sampling_param_logprobs"), 0)) or echo,
            eos_token_ids=self._eos,
        )
        check_sampling(sampling)
        return GenerationRequest(prompt, sampling, answers, _stops(value), bool(value("streaming")), echo)

    def _prompt(self, value: Read) -> list[int]:
        text, messages = value("text_input"), value("messages")
        if (text is None) == (messages is None):
            raise DeterministicError("InvalidParameter", "exactly one of text_input and messages must be given")
        if text is not None:
            if value("tools") is not None:
                raise DeterministicError("InvalidParameter", "tools: only together with messages")
            encoding = self._encoded(_utf8("text_input", text))
        else:
            if self._template is None:
                raise DeterministicError(
                    "NoChatTemplate", "messages: this model's tokenizer has no chat template; send a plain prompt"
                )
            rendered = self._template.render(_list("messages", messages), _optional_list("tools", value("tools")))
            encoding = self._encoded(rendered, add_special_tokens=False)
        ids: list[int] = encoding.ids
        if not ids:
            raise DeterministicError("InvalidParameter", "the prompt is empty")
        return ids

    def _encoded(self, text: str, *, add_special_tokens: bool = True) -> Encoding:
        """What cannot fit is not read: megabytes take seconds. A batch lets other answers go on, `encode` does not."""
        size = len(text.encode())
        if self._most_bytes is not None and size > self._most_bytes:
            raise DeterministicError(
                "PromptTooLong",
                f"the prompt has {size} bytes, more than the {self._most_tokens} tokens that this engine takes can hold"
                " (engine.limits.maxInputTokens)",
            )
        (encoding,) = self._tokenizer.encode_batch([text], add_special_tokens=add_special_tokens)
        return encoding


def _longest_token_bytes(tokenizer: Tokenizer) -> int | None:
    """The most bytes of a text that one token stands for; None where one may stand for any number of them."""
    model = tokenizer.model
    if not isinstance(model, models.BPE) or (model.fuse_unk and not model.byte_fallback):
        return None
    return max(len(token.encode()) for token in tokenizer.get_vocab())


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _utf8(name: str, raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DeterministicError("InvalidParameter", f"{name}: not valid UTF-8 at byte {error.start}") from error


def _list(name: str, raw: bytes) -> list[Mapping[str, Any]]:
    try:
        found = json.loads(_utf8(name, raw))
    except (ValueError, RecursionError) as error:
        raise DeterministicError("InvalidParameter", f"{name}: not valid JSON") from error
    if not isinstance(found, list) or not found or not all(isinstance(entry, dict) for entry in found):
        raise DeterministicError("InvalidParameter", f"{name}: must be a JSON list of objects, with one at least")
    return found


def _optional_list(name: str, raw: bytes | None) -> list[Mapping[str, Any]] | None:
    return None if raw is None else _list(name, raw)


def _stops(value: Read) -> tuple[str, ...]:
    raw = value("sampling_param_stop")
    if raw is None:
        return ()
    try:
        found = json.loads(_utf8("stop", raw))
    except ValueError as error:
        raise DeterministicError("InvalidParameter", "stop: not valid JSON") from error
    if (
        not isinstance(found, list)
        or len(found) > MAX_STOPS
        or not all(isinstance(stop, str) and stop for stop in found)
    ):
        raise DeterministicError(
            "InvalidParameter", f"stop: must be a JSON list of at most {MAX_STOPS} texts, none empty"
        )
    return tuple(found)
