"""Eager PyTorch: the untouched model, which every speed-up is measured against. It gets what it would get from a
careful user: inference mode, fused attention, all threads, the whole batch at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from enginewright_api.engine_description import EngineDescription, Pooling
from enginewright_api.errors import DeterministicError
from enginewright_api.recipe import Task
from enginewright_serving.model_config import SCORE_TASKS
from enginewright_serving.triton.feeds import feed
from enginewright_serving.triton.runner import Tensors, Vectors

_DTYPES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}


class TorchRunner:
    """A Hugging Face checkpoint in safetensors, pooled as engine.json says."""

    def __init__(self, entry: Path, engine: EngineDescription, threads: int) -> None:
        import torch

        if engine.precision_hint not in _DTYPES:
            raise DeterministicError(
                "InvalidEngine", f"engine.json: precisionHint {engine.precision_hint}: not one of {', '.join(_DTYPES)}"
            )
        torch.set_num_threads(threads)
        model = _kind(engine.task).from_pretrained(
            str(entry),
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=getattr(torch, _DTYPES[engine.precision_hint]),
        )
        self._torch = torch
        self._model = model.eval()
        self._engine = engine

    def run(self, tensors: Tensors) -> Vectors:
        torch = self._torch
        fed = feed(self._engine.inputs, tensors)
        with torch.inference_mode():
            outputs = self._model(**{name: torch.from_numpy(values) for name, values in fed.items()})
            vectors = self._vectors(outputs, torch.from_numpy(tensors["attention_mask"])).float()
            if self._engine.normalize:
                vectors = torch.nn.functional.normalize(vectors, dim=-1)
            result: Vectors = np.ascontiguousarray(vectors.numpy())
            return result

    def _vectors(self, outputs: Any, attention_mask: Any) -> Any:
        if self._engine.task is not Task.EMBEDDING:
            return outputs.logits
        states = outputs.last_hidden_state
        if self._engine.pooling is Pooling.CLS:
            return states[:, 0]
        if self._engine.pooling is Pooling.MEAN:
            weights = attention_mask.unsqueeze(-1).to(states.dtype)
            return (states * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
        raise DeterministicError("InvalidEngine", "engine.json: pooling: a Torch embedding engine needs Mean or Cls")


def _kind(task: Task) -> Any:
    import transformers

    if task is Task.TOKEN_CLASSIFICATION:
        return transformers.AutoModelForTokenClassification
    return transformers.AutoModelForSequenceClassification if task in SCORE_TASKS else transformers.AutoModel
