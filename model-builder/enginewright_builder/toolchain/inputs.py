"""Texts to token ids, as the server does it: truncated, padded to the longest of the batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from enginewright_api.engine_description import EngineDescription
from enginewright_builder.datasets.rows import Text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Feed = dict[str, "NDArray[np.int64]"]


def feeds(
    texts: Sequence[Text], tokenizer_folder: Path, description: EngineDescription, *, max_tokens: int
) -> Iterator[Feed]:
    """One input of batch 1 a text or pair, unpadded: padding would count as activations while ranges are measured."""
    import numpy as np
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    tokenizer.enable_truncation(min(max_tokens, description.limits.max_input_tokens))
    tokenizer.no_padding()
    for text in texts:
        encoding = tokenizer.encode(text) if isinstance(text, str) else tokenizer.encode(*text)
        columns = {
            "input_ids": encoding.ids,
            "attention_mask": encoding.attention_mask,
            "token_type_ids": encoding.type_ids,
            "position_ids": range(len(encoding.ids)),
        }
        yield {name: np.asarray([columns[name]], dtype=np.int64) for name in description.inputs}
