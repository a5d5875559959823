"""Which token has which number: models can only share tokens where they agree on all of them."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from enginewright_builder.sources.checkpoint import TOKENIZER


def vocabulary(checkpoint: Path) -> dict[str, int]:
    """Token → id, added tokens included."""
    found: dict[str, int] = Tokenizer.from_file(str(checkpoint / TOKENIZER)).get_vocab()
    return found
