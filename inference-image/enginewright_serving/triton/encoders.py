"""Which encoder answers for a task, loaded from an engine folder."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from enginewright_api.engine_description import EngineDescription
from enginewright_api.recipe import Task
from enginewright_serving.triton.runner import load_runner
from enginewright_serving.triton.text_encoder import TextEncoder
from enginewright_serving.triton.token_encoder import TokenEncoder


def load_encoder(folder: Path, engine: EngineDescription, threads: int) -> TextEncoder | TokenEncoder:
    """`folder` holds engine.json, engine/ and tokenizer/."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer" / "tokenizer.json"))
    kind = TokenEncoder if engine.task is Task.TOKEN_CLASSIFICATION else TextEncoder
    return kind(engine, tokenizer, load_runner(folder, engine, threads))
