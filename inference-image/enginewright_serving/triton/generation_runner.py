"""What generates tokens: one Protocol, one file a backend, loaded late so that only one toolchain is imported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from enginewright_api.engine_description import EngineDescription
from enginewright_api.errors import DeterministicError
from enginewright_api.serving_spec import Backend
from enginewright_serving.triton.sampling import Sampling

STOP = "stop"
LENGTH = "length"


@dataclass(frozen=True, slots=True)
class NewTokens:
    """What one step added to one answer. The token that ends an answer (end of sequence) is the last of its ids."""

    key: int
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """Natural logarithms, of the model's distribution before temperature; empty unless asked for."""
    finish_reason: str = ""
    """Empty while it goes on, else `stop` or `length`."""
    error: str = ""
    """Why the answer ends without an end; one sentence."""


@dataclass(frozen=True, slots=True)
class RunnerLoad:
    """How busy a runner is."""

    running: int
    waiting: int
    kv_cache_usage: float
    """Share of the key-value cache in use, 0 to 1."""
    steps: int = 0
    """Steps made since the start; counted by who calls `step`."""
    drafted: int = 0
    """Places for drafted tokens since the start, with speculative decoding: steps × drafts, whether filled or not."""
    accepted: int = 0
    """Drafted tokens that the model kept, since the start."""


class GenerationRunner(Protocol):
    """Generates for many prompts at the same time, a step at a time. One thread uses it."""

    def add(self, key: int, prompt: Sequence[int], sampling: Sampling) -> None:
        """Queue a prompt (at least one token). `key` names it from here on. Raises DeterministicError."""
        ...

    def step(self) -> list[NewTokens]:
        """Advance what is running; may return nothing, for instance while a long prompt is read in parts."""
        ...

    def drop(self, key: int) -> None:
        """Stop generating for a key and free its cache. Unknown keys are fine: it may just have finished."""
        ...

    def busy(self) -> bool:
        """Whether another step would do something."""
        ...

    def score(self, prompt: Sequence[int]) -> list[float]:
        """Log-probability of each token of the prompt given those before it; the first is 0 as nothing precedes it."""
        ...

    def load(self) -> RunnerLoad:
        """How busy it is now."""
        ...


def load_generation_runner(folder: Path, engine: EngineDescription, threads: int) -> GenerationRunner:
    """The runner of the engine's backend. `folder` holds engine.json and engine/."""
    entry = folder / "engine" / engine.entry
    if engine.backend is Backend.OPENVINO:
        from enginewright_serving.triton.openvino_generation import OpenVinoGenerationRunner

        return OpenVinoGenerationRunner(entry, engine, threads)
    if engine.backend is Backend.TORCH:
        from enginewright_serving.triton.torch_generation import TorchGenerationRunner

        return TorchGenerationRunner(entry, engine, threads)
    raise DeterministicError(
        "FeatureNotAvailable", f"engine.json: backend {engine.backend.value} generates no text here"
    )
