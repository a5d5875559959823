"""Texts to vectors: tokenise, pad by length, run, put back in order. Knows nothing of Triton."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from enginewright_api.engine_description import EngineDescription
from enginewright_serving.triton.padding import groups, padded
from enginewright_serving.triton.runner import Runner, Vectors, load_runner

Counts = npt.NDArray[np.int32]
Text = str | tuple[str, str]
"""A text, or a query and a text that is ranked for it."""


class TextEncoder:
    """One engine with its tokenizer."""

    def __init__(self, engine: EngineDescription, tokenizer: Tokenizer, runner: Runner) -> None:
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_length=engine.limits.max_input_tokens)
        self._engine = engine
        self._tokenizer = tokenizer
        self._runner = runner

    @classmethod
    def load(cls, folder: Path, threads: int) -> TextEncoder:
        """From an engine folder: engine.json, engine/, tokenizer/."""
        engine = EngineDescription.model_validate_json((folder / "engine.json").read_bytes())
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer" / "tokenizer.json"))
        return cls(engine, tokenizer, load_runner(folder, engine, threads))

    def encode(self, texts: Sequence[Text]) -> tuple[Vectors, Counts]:
        """[texts, dimension] and the number of tokens of each text, or of both texts of a pair, as run."""
        encodings = self._tokenizer.encode_batch_fast(list(texts))
        lengths = [len(encoding.ids) for encoding in encodings]
        columns = {"input_ids": [encoding.ids for encoding in encodings]}
        if any(isinstance(text, tuple) for text in texts):
            columns["token_type_ids"] = [encoding.type_ids for encoding in encodings]
        vectors = np.empty((len(texts), self._engine.output_dimension), np.float32)
        for group in groups(lengths):
            width = min(padded(max(lengths[index] for index in group)), self._engine.limits.max_input_tokens)
            sizes = np.array([lengths[index] for index in group])
            tensors = {"attention_mask": (np.arange(width) < sizes[:, None]).astype(np.int64)}
            for name, values in columns.items():
                filler = self._engine.pad_token_id if name == "input_ids" else 0
                tensors[name] = np.full((len(group), width), filler, np.int64)
                for row, index in enumerate(group):
                    tensors[name][row, : lengths[index]] = values[index]
            vectors[group] = self._runner.run(tensors)
        return vectors, np.array(lengths, np.int32)
