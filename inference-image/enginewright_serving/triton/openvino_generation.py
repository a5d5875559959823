"""OpenVINO GenAI on CPU: continuous batching over a paged key-value cache with shared prefixes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from enginewright_api.engine_description import TOKENS_A_STEP, EngineDescription
from enginewright_api.errors import DeterministicError
from enginewright_serving.triton.generation_runner import LENGTH, STOP, NewTokens, RunnerLoad
from enginewright_serving.triton.sampling import Sampling, generation_of

_BLOCK_TOKENS = 32
"""Tokens in one block of the CPU plugin's paged cache."""

_SHARED_PREFIX_ROOM = 0.25
"""Blocks kept for prefixes of finished answers, as a share of what full occupation needs."""

_LONGEST_NGRAM = 3
"""Tokens at an answer's end that are looked for in what came before, fewer where these are not found."""


@dataclass(slots=True)
class _Answer:
    """One answer under way."""

    prompt: Sequence[int]
    sampling: Sampling
    handle: Any
    left: int
    """Tokens it may still generate."""
    begun: bool = False


class OpenVinoGenerationRunner:
    """One pipeline. The cache holds `limits.maxBatchSize` requests at full length, so none is ever pushed out.

    With `speculativeDecoding` each step reads several tokens after an answer's last one, and keeps as much of them as
    the model itself would have said: the same answer in fewer steps. NGram takes what followed the same few tokens
    earlier in the prompt or text (prompt lookup, Saxena 2023), DraftModel what a smaller model says first (Leviathan
    2023); that one has a cache of its own, with as many blocks.
    """

    def __init__(self, entry: Path, engine: EngineDescription, threads: int) -> None:
        self._model = entry.parent
        if entry.name != "openvino_model.xml":
            raise DeterministicError(
                "InvalidEngine", f"engine.json: entry {engine.entry}: a text generation engine is openvino_model.xml"
            )
        generation = generation_of(engine)
        self._full_length = min(
            generation.max_context_tokens, engine.limits.max_input_tokens + engine.limits.max_output_tokens
        )
        self._longest_prompt = engine.limits.max_input_tokens
        self._max_requests = engine.limits.max_batch_size
        drafting = generation.speculative_decoding
        self._draft_tokens = drafting.draft_tokens if drafting is not None else 0
        drafter = generation.draft_entry
        self._drafter = self._model / PurePosixPath(drafter).parent if drafter is not None else None
        self._drafted = self._accepted = 0
        self._settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": engine.precision_hint,
            "INFERENCE_NUM_THREADS": threads,
        }
        if generation.kv_cache_precision:
            self._settings["KV_CACHE_PRECISION"] = generation.kv_cache_precision
        self._pipeline = self._load(self._max_requests, share_prefixes=True)
        self._scoring: Any = None
        self._answers: dict[int, _Answer] = {}
        self._dropped = False
        """Whether the pipeline still holds answers that are no longer wanted: it lets go of them in its next step."""
        self._ids = 0

    def add(self, key: int, prompt: Sequence[int], sampling: Sampling) -> None:
        try:
            handle = self._begin(prompt, sampling)
        except RuntimeError as error:
            raise DeterministicError("InvalidParameter", f"the engine refuses the request: {error}") from error
        self._answers[key] = _Answer(prompt, sampling, handle, sampling.max_tokens)

    def _begin(self, prompt: Sequence[int], sampling: Sampling) -> Any:
        import openvino

        self._ids += 1
        tokens = openvino.Tensor(np.array([prompt], np.int64))
        return self._pipeline.add_request(self._ids, tokens, _generation_config(sampling, self._draft_tokens))

    def step(self) -> list[NewTokens]:
        import openvino_genai

        dropped, self._dropped = self._dropped, False
        self._pipeline.step()
        news = []
        for key, answer in list(self._answers.items()):
            handle = answer.handle
            token_ids: list[int] = []
            logprobs: list[float] = []
            finish_reason = ""
            while handle.can_read():
                for output in handle.read().values():
                    token_ids += output.generated_ids
                    logprobs += output.generated_log_probs
                    finish_reason = _FINISH[output.finish_reason.name]
            error = ""
            if handle.get_status() == openvino_genai.GenerationStatus.IGNORED:
                if dropped and not answer.begun:
                    # Where prompts are read whole, the library takes a step in which only answers that were dropped
                    # had a place for a lack of memory, and gives up those that wait for one (2026.4).
                    answer.handle = self._begin(answer.prompt, answer.sampling)
                    continue
                error = "the key-value cache has no room for this request; lower engine.limits or send it again"
            self._count_drafts(answer, len(token_ids))
            if finish_reason or error:
                del self._answers[key]
            if token_ids or finish_reason or error:
                news.append(NewTokens(key, tuple(token_ids), tuple(logprobs), finish_reason, error))
        return news

    def drop(self, key: int) -> None:
        answer = self._answers.pop(key, None)
        if answer is not None:
            answer.handle.cancel()
            self._dropped = True

    def busy(self) -> bool:
        return bool(self._pipeline.has_non_finished_requests())

    def score(self, prompt: Sequence[int]) -> list[float]:
        # A pipeline that shares prefixes returns no log-probabilities for the shared part, and one that also
        # generates mixes up the rows of both (openvino.genai, _fill_prompt_log_probs). So scoring has its own,
        # loaded when first asked for; the key-value cache has the same format.
        import openvino
        import openvino_genai

        if self._scoring is None:
            self._scoring = self._load(1, share_prefixes=False)
        config = _with_ends(openvino_genai.GenerationConfig(), frozenset())
        config.max_new_tokens, config.echo, config.logprobs, config.do_sample = 0, True, 1, False
        self._ids += 1
        handle = self._scoring.add_request(self._ids, openvino.Tensor(np.array([prompt], np.int64)), config)
        scores: list[float] = []
        while self._scoring.has_non_finished_requests():
            self._scoring.step()
            while handle.can_read():
                for output in handle.read().values():
                    scores += output.generated_log_probs
        if len(scores) != len(prompt):
            raise DeterministicError("ScoringFailed", f"{len(scores)} scores for {len(prompt)} tokens")
        return [0.0, *scores[1:]]

    def load(self) -> RunnerLoad:
        metrics = self._pipeline.get_metrics()
        active = len(self._answers)
        running = min(active, metrics.scheduled_requests) if active else 0
        usage = metrics.cache_usage / 100 if active else 0.0
        return RunnerLoad(running, active - running, usage, drafted=self._drafted, accepted=self._accepted)

    def _count_drafts(self, answer: _Answer, tokens: int) -> None:
        """Places that a step had for drafts, and how many it kept: all its tokens but the last are drafts."""
        if tokens and answer.begun:
            self._drafted += min(self._draft_tokens, answer.left - 1)
            self._accepted += tokens - 1
        answer.begun = answer.begun or tokens > 0
        answer.left -= tokens

    def _load(self, requests: int, *, share_prefixes: bool) -> Any:
        import openvino_genai

        scheduling = openvino_genai.SchedulerConfig()
        drafts = self._draft_tokens if share_prefixes else 0
        blocks = math.ceil((self._full_length + drafts) / _BLOCK_TOKENS) * requests
        scheduling.num_kv_blocks = blocks + (math.ceil(blocks * _SHARED_PREFIX_ROOM) if share_prefixes else 1)
        scheduling.max_num_seqs = requests
        scheduling.max_num_batched_tokens = max(TOKENS_A_STEP, requests * (1 + drafts))
        scheduling.dynamic_split_fuse = True
        if drafts and self._drafter is not None:
            # Prompts are read whole: beside a prompt that is read in parts the library mixes the two models up, and
            # other answers come out (openvino.genai 2026.4).
            scheduling.max_num_batched_tokens += self._longest_prompt
            scheduling.dynamic_split_fuse = False
        scheduling.enable_prefix_caching = share_prefixes
        settings = self._settings | (self._drafting() if drafts else {})
        return openvino_genai.ContinuousBatchingPipeline(str(self._model), scheduling, "CPU", settings)

    def _drafting(self) -> dict[str, Any]:
        """What the pipeline is to draft with. A draft without settings of its own has the model's."""
        import openvino_genai

        if self._drafter is None:
            return {"prompt_lookup": True}
        return {"draft_model": openvino_genai.draft_model(self._drafter, "CPU")}


_FINISH = {"NONE": "", "STOP": STOP, "LENGTH": LENGTH, "TOOL_CALL": STOP}


def _generation_config(sampling: Sampling, draft_tokens: int) -> Any:
    import openvino_genai

    config = openvino_genai.GenerationConfig()
    config.max_new_tokens = sampling.max_tokens
    config.logprobs = int(sampling.logprobs)
    if draft_tokens:
        # Beside a draft model no n-grams are looked for, but with a size the library keeps a draft only where the model
        # draws the same token. Without it, sampled answers drift from the model's distribution (it weighs the draft's
        # probability against that of another token) and steps fail where prefixes are shared (2026.4).
        config.num_assistant_tokens, config.max_ngram_size = draft_tokens, _LONGEST_NGRAM
    config.frequency_penalty = sampling.frequency_penalty
    config.presence_penalty = sampling.presence_penalty
    config.do_sample = sampling.temperature > 0
    if sampling.temperature > 0:
        config.temperature = sampling.temperature
        config.top_p = sampling.top_p
        config.rng_seed = sampling.seed
        if sampling.top_k:
            config.top_k = sampling.top_k
    return _with_ends(config, sampling.eos_token_ids)


def _with_ends(config: Any, eos_token_ids: frozenset[int]) -> Any:
    """With the tokens that end an answer. The library refuses to have none, so then one is named and ignored."""
    config.ignore_eos = not eos_token_ids
    config.stop_token_ids = set(eos_token_ids) or {0}
    config.eos_token_id = min(config.stop_token_ids)
    return config
