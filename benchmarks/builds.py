"""Builds that benchmarks time: the real builder as a program, with a work folder that the next run finds again."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from enginewright_api.evidence import EvidenceRequest
from enginewright_api.identity import digest_of
from enginewright_api.outcome import BuildOutcome
from enginewright_api.recipe import AcceleratorFacts, BuildRequest, Recipe, Toolchain, build_key
from enginewright_builder.places import Places
from enginewright_builder.progress import JsonLines
from enginewright_builder.stages.cache import StageCache
from enginewright_builder.stages.publish import Restore, find_published
from enginewright_cli.local.accelerators import detect_cpu
from enginewright_store import open_store

_COMPILERS = ("openvino", "nncf", "torch", "transformers", "onnxruntime", "onnx")


def build_request(recipe: dict[str, Any], evidence: dict[str, Any]) -> BuildRequest:
    """What the operator would write for such a model on this machine's class."""
    resolved = Recipe.model_validate(recipe)
    versions = {name: importlib.metadata.version(name) for name in _COMPILERS}
    toolchain = Toolchain(image="local", digest=digest_of(versions))
    architecture = detect_cpu()["spec"]["architecture"]
    accelerator = AcceleratorFacts(accelerator_class="cpu", vendor="cpu", architecture=architecture)
    key = build_key(resolved, toolchain, accelerator)
    asked = EvidenceRequest.model_validate(evidence)
    return BuildRequest(key=key, recipe=resolved, toolchain=toolchain, accelerator=accelerator, evidence=asked)


def run_build(wanted: BuildRequest, workdir: Path, threads: int) -> BuildOutcome:
    """Run the builder as a program; a published artifact is found again. Failures are outcomes too."""
    workdir.mkdir(parents=True, exist_ok=True)
    recipe, message = workdir / f"{wanted.key[:16]}.recipe.json", workdir / f"{wanted.key[:16]}.outcome.json"
    recipe.write_text(json.dumps(wanted.wire()))
    program = Path(sys.executable).with_name("enginewright-builder")
    subprocess.run(
        [str(program), "run", "--recipe", str(recipe), "--store", (workdir / "store").as_uri(),
         "--workdir", str(workdir / "work"), "--threads", str(threads)],
        env={**os.environ, "TERMINATION_MESSAGE_PATH": str(message)},
        stdout=sys.stderr,
        check=False,
    )  # fmt: skip
    return BuildOutcome.model_validate_json(message.read_bytes())


def built_engine(wanted: BuildRequest, workdir: Path, threads: int, *, name: str) -> Path:
    """Folder of the published engine: engine.json, engine/, tokenizer/. Ends the program when the build fails."""
    outcome = run_build(wanted, workdir, threads)
    if outcome.failure is not None:
        sys.exit(f"{name}: {outcome.failure.reason}: {outcome.failure.message}")
    places, store = Places(workdir / "work", workdir, workdir, workdir), open_store((workdir / "store").as_uri())
    published = find_published(store, wanted.key)
    assert published is not None, "the builder reported success but published nothing"
    return StageCache(places, store, JsonLines(sys.stderr), []).run(Restore(published, store)).folder
