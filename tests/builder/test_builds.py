"""Real builds of MiniLM: what comes out, twice the same, after a kill, in a race, and when an engine is bad."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file, save_file

from enginewright_api.errors import FailureClass
from enginewright_api.evidence import Verdict
from enginewright_api.identity import sha256_hex
from enginewright_api.manifest import Manifest
from enginewright_api.outcome import BuildOutcome, StageLine
from enginewright_builder.settings import SECONDS_A_SHAPE
from enginewright_store import open_store
from enginewright_store.artifact import read_evidence, read_manifest, read_signature, verify_signature
from enginewright_store.signing import generate_key
from tests.builder.building import OPENVINO_INT8, ORT_DYNAMIC, Builder, request, states

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    """One machine whose stage cache the tests of this file share, as rungs of a ladder would."""
    root = tmp_path_factory.mktemp("machine")
    return Builder(root, root / "store")


@pytest.fixture
def fresh(tmp_path: Path) -> Builder:
    return Builder(tmp_path / "machine", tmp_path / "store")


def published(builder: Builder, outcome: BuildOutcome) -> Manifest:
    assert outcome.failure is None, outcome.failure.message
    found = read_manifest(open_store(builder.store.as_uri()), outcome.key)
    assert found is not None
    assert outcome.artifact is not None, outcome.failure
    assert found[1] == outcome.artifact.digest
    return found[0]


def materials(manifest: Manifest) -> list[str]:
    """Names of what the provenance says the engine follows from."""
    predicate: Any = manifest.provenance["predicate"]
    return [item["name"] for item in predicate["buildDefinition"]["resolvedDependencies"]]


def engine_files(manifest: Manifest) -> dict[str, str]:
    return {file.path: file.sha256 for file in manifest.files if not file.path.startswith("report.")}


def test_openvino_static_int8(shared: Builder) -> None:
    key = shared.root / "signing.pem"
    signer = generate_key(key)
    wanted = request("OpenVINO", OPENVINO_INT8)
    outcome, reports, code = shared.run(wanted, "--signing-key", str(key))
    assert (code, outcome.failure) == (0, None)
    manifest = published(shared, outcome)
    assert set(states(reports).values()) == {"Succeeded"}
    order = list(dict.fromkeys(report.name for report in reports if report.name != "reference"))
    assert order == ["fetch", "baseline", "export", "quantize", "compile", "verify", "benchmark", "package", "publish"]
    assert {"engine.json", "engine/openvino.xml", "engine/openvino.bin", "tokenizer/tokenizer.json", "report.json",
            "report.html"} <= {file.path for file in manifest.files}  # fmt: skip
    assert outcome.evidence is not None
    quality, benchmark = outcome.evidence.quality, outcome.evidence.benchmark
    assert quality.verdict is Verdict.PASSED
    assert quality.samples == 64
    assert 0.99 < quality.optimized < 1.0
    assert quality.minimum is not None
    assert 0.9 < quality.minimum <= quality.optimized
    assert len(quality.bounds) == 50
    assert {(one.batch_size, one.tokens) for one in benchmark.measurements} == {(1, 16), (1, 64), (8, 64)}
    assert benchmark.size_bytes < benchmark.baseline_size_bytes / 3
    (timed,) = [report.seconds for report in reports if (report.name, report.state.value) == ("benchmark", "Succeeded")]
    assert timed < 3 * SECONDS_A_SHAPE, "three shapes, each as long as `Builder` says, not as long as by default"
    assert outcome.peak_memory_bytes > 100 * 2**20
    store = open_store(shared.store.as_uri())
    assert outcome.artifact is not None
    bundle = read_signature(store, manifest.key, outcome.artifact.digest)
    verify_signature(bundle, manifest, outcome.artifact.digest, [signer.public])
    assert outcome.artifact.signature == signer.public.identity
    subjects: Any = manifest.provenance["subject"]
    assert {subject["name"] for subject in subjects} == {file.path for file in manifest.files}
    assert materials(manifest) == ["source", "calibration-rows", "toolchain"]
    (report,) = [file.sha256 for file in manifest.files if file.path == "report.html"]
    page = store.read(f"artifacts/{manifest.key}/files/{report}").decode()
    assert "<dt>Calibration rows</dt><dd>builtin:news-en" in page


def test_what_its_class_cannot_hold_is_refused_and_the_sizes_are_told(fresh: Builder) -> None:
    outcome, reports, code = fresh.run(request("OpenVINO", OPENVINO_INT8, memory_gib=0.25))
    assert code == 20
    assert outcome.failure is not None
    assert (outcome.failure.reason, outcome.failure.retryable) == ("WillNotFit", False)
    assert "accelerator class cpu has 0.25 GiB" in outcome.failure.message
    assert set(states(reports)) == {"fetch"}, "nothing heavy was begun"
    sizes = outcome.checkpoint
    assert sizes is not None
    assert (sizes.layers, sizes.width, sizes.vocabulary) == (6, 384, 30522)
    assert isinstance(reports[-1], StageLine)
    assert reports[-1].checkpoint == sizes, "before the build has ended"


def test_a_second_build_of_a_key_does_nothing(shared: Builder) -> None:
    wanted = request("OpenVINO", OPENVINO_INT8)
    first = shared.run(wanted)[0]
    begun = time.monotonic()
    second, reports, code = shared.run(wanted)
    assert (code, reports) == (0, [])
    assert second.artifact == first.artifact
    assert second.evidence == first.evidence
    assert time.monotonic() - begun < 30


def test_new_evidence_measures_the_published_engine_and_builds_nothing(shared: Builder) -> None:
    first = shared.run(request("OpenVINO", OPENVINO_INT8))[0]
    wanted = request("OpenVINO", OPENVINO_INT8, samples=32)
    outcome, reports, code = shared.run(wanted)
    assert code == 0
    assert outcome.artifact == first.artifact or outcome.artifact is not None
    assert not {"export", "quantize", "compile", "publish"} & set(states(reports))
    found = read_evidence(open_store(shared.store.as_uri()), wanted.key, wanted.evidence)
    assert found is not None
    assert found.quality.samples == 32
    assert outcome.evidence == found


def test_onnx_runtime_dynamic_int8_shares_what_it_can(shared: Builder) -> None:
    outcome, reports, code = shared.run(request("ONNXRuntime", ORT_DYNAMIC))
    assert (code, outcome.failure) == (0, None)
    told = states(reports)
    assert (told["fetch"], told["baseline"], told["reference"]) == ("Cached", "Cached", "Cached")
    (export,) = [report for report in reports if (report.name, report.state.value) == ("export", "Succeeded")]
    assert "6 MultiHeadAttention" in export.message
    assert {"engine.json", "engine/model.onnx"} <= set(engine_files(published(shared, outcome)))
    assert outcome.evidence is not None
    assert outcome.evidence.quality.verdict is Verdict.PASSED
    assert outcome.evidence.benchmark.size_bytes < outcome.evidence.benchmark.baseline_size_bytes


@pytest.mark.parametrize(
    ("backend", "quantization"),
    [
        ("OpenVINO", None),
        ("ONNXRuntime", None),
        ("OpenVINO", {"format": "FP16"}),
        ("ONNXRuntime", {"format": "INT8", "method": "Percentile", "calibration": {"samples": 16, "maxTokens": 32}}),
    ],
    ids=["openvino-fp32", "onnx-fp32", "openvino-fp16", "onnx-percentile"],
)
def test_other_formats(shared: Builder, backend: str, quantization: dict[str, Any] | None) -> None:
    outcome, _, code = shared.run(request(backend, quantization))
    assert (code, outcome.failure) == (0, None)
    assert outcome.evidence is not None
    quality, benchmark = outcome.evidence.quality, outcome.evidence.benchmark
    assert quality.minimum is not None
    assert benchmark.speedup > 0
    if quantization is None:
        assert quality.minimum > 0.99999
    elif quantization["format"] == "FP16":
        assert quality.minimum > 0.999
        assert benchmark.size_bytes < benchmark.baseline_size_bytes * 0.55


@pytest.mark.parametrize(
    ("backend", "quantization"), [("OpenVINO", OPENVINO_INT8), ("ONNXRuntime", ORT_DYNAMIC)], ids=["openvino", "onnx"]
)
def test_two_builds_from_nothing_give_the_same_bytes(
    shared: Builder, fresh: Builder, backend: str, quantization: dict[str, Any]
) -> None:
    wanted = request(backend, quantization)
    one = engine_files(published(shared, shared.run(wanted)[0]))
    other = engine_files(published(fresh, fresh.run(wanted)[0]))
    assert one == other


def test_excluded_modules_keep_their_precision(shared: Builder) -> None:
    wanted = request("ONNXRuntime", ORT_DYNAMIC | {"exclude": ["encoder.layer.0", "*.intermediate.dense"]})
    all_int8 = published(shared, shared.run(request("ONNXRuntime", ORT_DYNAMIC))[0])
    outcome, _, code = shared.run(wanted)
    assert code == 0
    sizes = [
        next(file.size for file in manifest.files if file.path == "engine/model.onnx")
        for manifest in (all_int8, published(shared, outcome))
    ]
    hidden, inner = 384, 1536
    kept = 6 * hidden * inner + (4 * hidden * hidden + hidden * inner)
    assert sizes[1] - sizes[0] == pytest.approx(3 * kept, rel=0.02), "three more bytes a weight"
    nothing, _, code = shared.run(request("ONNXRuntime", ORT_DYNAMIC | {"exclude": ["no.such.module"]}))
    assert code == 20
    assert nothing.failure is not None
    assert nothing.failure.reason == "PatternMatchesNothing"


def read_until(process: subprocess.Popen[str], stage: str, state: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        told = json.loads(line)
        if (told["name"], told["state"]) == (stage, state):
            return
    raise AssertionError(f"{stage} never was {state}: {process.stderr.read() if process.stderr else ''}")


def left_over(root: Path) -> list[str]:
    """Processes that were started for this folder and still run."""
    found = []
    for process in psutil.process_iter():
        try:
            command = " ".join(process.cmdline())
            given = process.environ().get("TERMINATION_MESSAGE_PATH", "")
            if str(root) in command or str(root) in given:
                found.append(command[:200])
        except psutil.Error:
            continue
    return found


def await_none_left(root: Path) -> None:
    deadline = time.monotonic() + 20
    while left_over(root) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left_over(root) == []


def test_a_build_that_was_killed_goes_on_after_its_last_stage(fresh: Builder) -> None:
    wanted = request("OpenVINO", OPENVINO_INT8)
    process = fresh.start(wanted)
    read_until(process, "quantize", "Running")
    time.sleep(1.0)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    await_none_left(fresh.root)
    assert read_manifest(open_store(fresh.store.as_uri()), wanted.key) is None
    outcome, reports, code = fresh.run(wanted)
    assert (code, outcome.failure) == (0, None)
    told = states(reports)
    assert (told["fetch"], told["export"], told["quantize"]) == ("Cached", "Cached", "Succeeded")
    await_none_left(fresh.root)


def test_sigterm_ends_everything_within_seconds(fresh: Builder) -> None:
    process = fresh.start(request("OpenVINO", OPENVINO_INT8))
    read_until(process, "export", "Running")
    time.sleep(2.0)
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    outcome, reports, code = fresh.finish(process)
    assert time.monotonic() - begun < 15
    assert code == 22
    said = {report.name: report.message for report in reports if report.state.value == "Failed"}
    assert said.keys() >= {"export"}
    assert all("was told to stop" in message for message in said.values()), said
    assert outcome.failure is not None
    assert (outcome.failure.reason, outcome.failure.failure_class) == ("Interrupted", FailureClass.TRANSIENT)
    assert outcome.failure.retryable
    await_none_left(fresh.root)


def test_two_builders_racing_end_with_one_artifact_and_no_error(shared: Builder, tmp_path: Path) -> None:
    wanted = request("OpenVINO", None, samples=40)
    store = tmp_path / "store"
    machines = [Builder(tmp_path / name, store) for name in ("one", "two")]
    running = [machine.start(wanted) for machine in machines]
    outcomes = [machine.finish(process) for machine, process in zip(machines, running, strict=True)]
    assert [code for _, _, code in outcomes] == [0, 0]
    artifacts = [outcome.artifact for outcome, _, _ in outcomes]
    assert artifacts[0] is not None
    assert artifacts[1] is not None
    assert artifacts[0].digest == artifacts[1].digest
    assert sha256_hex((store / "artifacts" / wanted.key / "manifest.json").read_bytes()) == artifacts[0].digest


def poisoned(folder: Path, builder: Builder, value: float) -> dict[str, Any]:
    """MiniLM with one weight of its last layer replaced; as an objectStore source."""
    (fetched,) = [
        path.parent
        for path in builder.work.glob("stages/*/files/config.json")
        if json.loads((path.parent.parent / "stage.json").read_text())["name"] == "fetch"
    ][:1]
    shutil.copytree(fetched, folder)
    weights = load_file(fetched / "model.safetensors")
    name = "encoder.layer.5.output.LayerNorm.weight"
    weights[name] = np.full_like(weights[name], value)
    if value == 0.0:
        weights["encoder.layer.5.output.LayerNorm.bias"][:] = 1.0
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return {"objectStore": {"uri": folder.as_uri()}}


@pytest.mark.parametrize(("value", "reason"), [(np.nan, "NotFinite"), (0.0, "ConstantOutput")], ids=["nan", "constant"])
def test_a_model_that_says_nothing_is_refused(shared: Builder, tmp_path: Path, value: float, reason: str) -> None:
    shared.run(request("ONNXRuntime", ORT_DYNAMIC))
    wanted = request("ONNXRuntime", ORT_DYNAMIC, source=poisoned(tmp_path / "weights", shared, value))
    outcome, _, code = shared.run(wanted)
    assert code == 20
    assert outcome.failure is not None
    assert (outcome.failure.reason, outcome.failure.retryable) == (reason, False)
    assert read_manifest(open_store(shared.store.as_uri()), wanted.key) is None


def test_a_bad_engine_is_caught_by_the_gate_although_it_runs(shared: Builder) -> None:
    """One scale a tensor for weights and activations harms MiniLM: published, with the verdict Failed."""
    calibration = {"samples": 8, "maxTokens": 16}
    quantization = {"format": "INT8", "method": "MinMax", "granularity": "PerTensor", "calibration": calibration}
    outcome, _, code = shared.run(request("ONNXRuntime", quantization))
    assert (code, outcome.failure) == (0, None)
    assert outcome.evidence is not None
    assert outcome.evidence.quality.verdict is Verdict.FAILED
    assert outcome.evidence.quality.drop > 0.02
    report = next(file for file in published(shared, outcome).files if file.path == "report.html")
    assert report.size > 10_000


def test_what_is_not_available_is_refused_before_anything_runs(fresh: Builder) -> None:
    outcome, reports, code = fresh.run(request("OpenVINO", {"format": "FP8"}))
    assert (code, reports) == (20, [])
    assert outcome.failure is not None
    assert outcome.failure.reason == "FeatureNotAvailable"
    assert "optimization.quantization.format" in outcome.failure.message
