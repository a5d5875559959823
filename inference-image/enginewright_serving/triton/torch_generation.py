"""Eager PyTorch: the untouched model, which every speed-up is measured against.

It gets what it would get from a careful user: inference mode, fused attention, a key-value cache, and all requests of
a moment decoded together in one padded batch, which others join and leave at any step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from enginewright_api.engine_description import EngineDescription
from enginewright_api.errors import DeterministicError
from enginewright_serving.triton.generation_runner import LENGTH, STOP, NewTokens, RunnerLoad
from enginewright_serving.triton.sampling import Sampling

_DTYPES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}


@dataclass(slots=True)
class _Row:
    """One answer under way."""

    key: int
    prompt: Sequence[int]
    sampling: Sampling
    generator: Any
    tokens: list[int] = field(default_factory=list)


class TorchGenerationRunner:
    """A Hugging Face checkpoint in safetensors. Rows of the batch are padded on the left to the longest."""

    def __init__(self, entry: Path, engine: EngineDescription, threads: int) -> None:
        import torch
        import transformers

        if engine.precision_hint not in _DTYPES:
            raise DeterministicError(
                "InvalidEngine", f"engine.json: precisionHint {engine.precision_hint}: not one of {', '.join(_DTYPES)}"
            )
        torch.set_num_threads(threads)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            str(entry),
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=getattr(torch, _DTYPES[engine.precision_hint]),
        )
        self._torch = torch
        self._transformers = transformers
        self._model = model.eval()
        self._max_rows = engine.limits.max_batch_size
        self._waiting: deque[_Row] = deque()
        self._rows: list[_Row] = []
        self._cache: Any = None
        """Keys and values of each layer, [rows, heads, tokens, dimension]; None without rows."""
        self._mask: Any = None
        """[rows, tokens], 0 where a row is padded."""

    def add(self, key: int, prompt: Sequence[int], sampling: Sampling) -> None:
        generator = self._torch.Generator().manual_seed(sampling.seed)
        self._waiting.append(_Row(key, prompt, sampling, generator))

    def step(self) -> list[NewTokens]:
        with self._torch.inference_mode():
            if self._waiting and len(self._rows) < self._max_rows:
                return [self._join(self._waiting.popleft())]
            return self._decode() if self._rows else []

    def drop(self, key: int) -> None:
        self._waiting = deque(row for row in self._waiting if row.key != key)
        self._keep([row.key != key for row in self._rows])

    def busy(self) -> bool:
        return bool(self._rows or self._waiting)

    def score(self, prompt: Sequence[int]) -> list[float]:
        torch = self._torch
        ids = torch.tensor([prompt])
        with torch.inference_mode():
            logits = self._model(input_ids=ids, use_cache=False).logits[0, :-1].float()
            chosen = torch.log_softmax(logits, -1).gather(1, ids[0, 1:, None])[:, 0]
        return [0.0, *chosen.tolist()]

    def load(self) -> RunnerLoad:
        running = len(self._rows)
        return RunnerLoad(running, len(self._waiting), running / self._max_rows)

    def _join(self, row: _Row) -> NewTokens:
        """Read the prompt and put the row into the batch."""
        torch = self._torch
        cache = self._transformers.DynamicCache()
        output = self._model(
            input_ids=torch.tensor([row.prompt]), past_key_values=cache, use_cache=True, logits_to_keep=1
        )
        mask = torch.ones((1, len(row.prompt)), dtype=torch.int64)
        if self._rows:
            width = max(self._mask.shape[1], mask.shape[1])
            for old, new in zip(self._cache.layers, cache.layers, strict=True):
                new.keys = torch.cat([_widen(torch, old.keys, width), _widen(torch, new.keys, width)])
                new.values = torch.cat([_widen(torch, old.values, width), _widen(torch, new.values, width)])
            mask = torch.cat([_pad_left(torch, self._mask, width), _pad_left(torch, mask, width)])
        self._cache, self._mask = cache, mask
        self._rows.append(row)
        news = self._draw(row, output.logits[0, -1])
        self._keep([not news.finish_reason or other is not row for other in self._rows])
        return news

    def _decode(self) -> list[NewTokens]:
        """One more token for every row."""
        torch = self._torch
        self._mask = torch.cat([self._mask, torch.ones((len(self._rows), 1), dtype=torch.int64)], dim=1)
        output = self._model(
            input_ids=torch.tensor([[row.tokens[-1]] for row in self._rows]),
            attention_mask=self._mask,
            position_ids=self._mask.sum(1, keepdim=True) - 1,
            past_key_values=self._cache,
            use_cache=True,
        )
        news = [self._draw(row, logits) for row, logits in zip(self._rows, output.logits[:, -1], strict=True)]
        self._keep([not new.finish_reason for new in news])
        return news

    def _draw(self, row: _Row, logits: Any) -> NewTokens:
        torch, sampling = self._torch, row.sampling
        logits = logits.float()
        scores = self._penalized(row, logits.clone())[None]
        if sampling.temperature > 0:
            scores = scores / sampling.temperature
            if sampling.top_k:
                scores = self._transformers.TopKLogitsWarper(sampling.top_k)(None, scores)
            if sampling.top_p < 1:
                scores = self._transformers.TopPLogitsWarper(sampling.top_p)(None, scores)
            token = int(torch.multinomial(torch.softmax(scores, -1), 1, generator=row.generator))
        else:
            token = int(scores.argmax())
        logprobs = (float(torch.log_softmax(logits, -1)[token]),) if sampling.logprobs else ()
        row.tokens.append(token)
        ended = token in sampling.eos_token_ids
        finish = STOP if ended else LENGTH if len(row.tokens) >= sampling.max_tokens else ""
        return NewTokens(row.key, (token,), logprobs, finish)

    def _penalized(self, row: _Row, scores: Any) -> Any:
        """OpenAI's formula: minus frequency × times generated, minus presence where generated at all."""
        sampling = row.sampling
        if row.tokens and (sampling.frequency_penalty or sampling.presence_penalty):
            tokens, counts = self._torch.tensor(row.tokens).unique(return_counts=True)
            scores[tokens] -= sampling.frequency_penalty * counts + sampling.presence_penalty
        return scores

    def _keep(self, wanted: Sequence[bool]) -> None:
        """Take rows out of the batch, and the columns that only they needed."""
        if all(wanted):
            return
        self._rows = [row for row, keep in zip(self._rows, wanted, strict=True) if keep]
        if not self._rows:
            self._cache, self._mask = None, None
            return
        index = self._torch.tensor([at for at, keep in enumerate(wanted) if keep])
        self._mask = self._mask[index]
        first = int(self._mask.sum(0).nonzero()[0])
        self._mask = self._mask[:, first:]
        for layer in self._cache.layers:
            layer.keys, layer.values = layer.keys[index, :, first:], layer.values[index, :, first:]


def _widen(torch: Any, states: Any, width: int) -> Any:
    """[rows, heads, tokens, dimension] with empty tokens on the left up to `width`."""
    return torch.nn.functional.pad(states, (0, 0, width - states.shape[2], 0))


def _pad_left(torch: Any, mask: Any, width: int) -> Any:
    return torch.nn.functional.pad(mask, (width - mask.shape[1], 0))
