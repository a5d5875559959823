"""Chat messages to a prompt, by the Jinja template that the tokenizer comes with.

Rendered as Hugging Face does (transformers, `apply_chat_template`): the same sandbox, the same extra names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import jinja2
from jinja2 import meta
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from enginewright_api.errors import DeterministicError

_SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")


class ChatTemplate:
    """One template with the special tokens it may name."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = lambda shape: datetime.now().strftime(shape)
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise DeterministicError("InvalidEngine", f"tokenizer/: the chat template is invalid: {error}") from error
        self._special_tokens = dict(special_tokens)
        self._takes_tools = "tools" in meta.find_undeclared_variables(environment.parse(source))

    @classmethod
    def load(cls, tokenizer: Path) -> ChatTemplate | None:
        """From a tokenizer's folder (chat_template.jinja, else tokenizer_config.json); None where there is none."""
        config: dict[str, Any] = {}
        if (tokenizer / "tokenizer_config.json").is_file():
            config = json.loads((tokenizer / "tokenizer_config.json").read_bytes())
        source = config.get("chat_template")
        if isinstance(source, list):  # several by name
            source = {entry["name"]: entry["template"] for entry in source}.get("default")
        if (tokenizer / "chat_template.jinja").is_file():
            source = (tokenizer / "chat_template.jinja").read_text()
        if not isinstance(source, str):
            return None
        return cls(source, {name: text for name in _SPECIAL_TOKENS if (text := _content(config.get(name)))})

    def render(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None = None) -> str:
        """The prompt, ending where the answer begins. Raises DeterministicError for messages the template refuses."""
        if tools and not self._takes_tools:
            raise DeterministicError("InvalidMessages", "tools: this model's chat template has no place for tools")
        try:
            return self._template.render(
                messages=messages, tools=tools, add_generation_prompt=True, **self._special_tokens
            )
        except (jinja2.TemplateError, TypeError, KeyError, ValueError, AttributeError) as error:
            raise DeterministicError(
                "InvalidMessages", f"messages: the model's chat template refuses them: {error}"
            ) from error


def _content(token: Any) -> str:
    """A special token's text; the configuration has it plain or as an object."""
    return str(token.get("content", "")) if isinstance(token, dict) else str(token or "")


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)
