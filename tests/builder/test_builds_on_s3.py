"""A build against a bucket: cut off on one machine, finished on another, admitted on a third; and no bucket at all."""

from __future__ import annotations

import os
import secrets
import signal
from functools import partial
from pathlib import Path

import pytest

from enginewright_api.errors import TransientError
from enginewright_api.recipe import BuildRequest, build_key
from enginewright_cli.local import ladder
from enginewright_cli.main import application
from enginewright_serving.node import cpu_level
from enginewright_store import Store, open_store
from enginewright_store.artifact import file_path, read_manifest, read_signature, verify_signature
from enginewright_store.retrying import RetryPolicy
from enginewright_store.signing import generate_key
from tests.builder.building import ORT_DYNAMIC, Builder, request, states
from tests.builder.test_builds import read_until
from tests.s3.fixtures import S3Server
from tests.serving.servers import run_cli

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every process finds the server by the standard AWS variables."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{s3_server.bucket}/{secrets.token_hex(4)}"


def for_this_node(wanted: BuildRequest) -> BuildRequest:
    """Admission refuses engines that were built for another processor."""
    accelerator = wanted.accelerator.model_copy(update={"architecture": cpu_level()})
    key = build_key(wanted.recipe, wanted.toolchain, accelerator)
    return wanted.model_copy(update={"accelerator": accelerator, "key": key})


def test_a_build_goes_on_on_another_machine_and_is_served_on_a_third(bucket: str, tmp_path: Path) -> None:
    first, second = (Builder(tmp_path / name, tmp_path / "unused", bucket=bucket) for name in ("first", "second"))
    key = tmp_path / "signing.pem"
    signer = generate_key(key)
    wanted = for_this_node(request("ONNXRuntime", ORT_DYNAMIC, samples=32))
    process = first.start(wanted, "--signing-key", str(key))
    read_until(process, "quantize", "Running")
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    store: Store = open_store(bucket)  # stays open through minutes of nothing, as the operator's does
    assert read_manifest(store, wanted.key) is None

    outcome, reports, code = second.run(wanted, "--signing-key", str(key))
    assert code == 0, outcome.failure
    told = states(reports)
    assert (told["fetch"], told["export"], told["quantize"]) == ("Succeeded", "Cached", "Succeeded")
    assert not (tmp_path / "unused").exists()

    found = read_manifest(store, wanted.key)
    assert found is not None
    manifest, digest = found
    assert outcome.artifact is not None
    assert (outcome.artifact.uri, outcome.artifact.digest) == (f"{bucket}/artifacts/{wanted.key}", digest)
    assert [store.size(file_path(wanted.key, file)) for file in manifest.files] == [f.size for f in manifest.files]
    verify_signature(read_signature(store, wanted.key, digest), manifest, digest, [signer.public])

    again, nothing, code = first.run(wanted, "--signing-key", str(key))
    assert (code, nothing, again.artifact) == (0, [], outcome.artifact)

    admitted = run_cli(
        "admit", "--artifact", outcome.artifact.uri, "--digest", f"sha256:{digest}", "--dest", tmp_path / "models",
        "--model-name", "minilm", "--public-key", f"{key}.pub",
    )  # fmt: skip
    assert admitted.returncode == 0, admitted.stderr
    engine = next(file for file in manifest.files if file.path == "engine/model.onnx")
    assert (tmp_path / "models/minilm/1/engine/engine/model.onnx").stat().st_size == engine.size


def test_a_store_that_is_away_ends_the_command_and_rejects_no_rung(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setattr(ladder, "attempted", partial(ladder.attempted, policy=RetryPolicy(2, 0.01)))
    model = Path(__file__).parents[2] / "examples" / "minilm" / "model.yaml"
    arguments = ["build", "-f", str(model), "--store", "s3://engines", "--state-dir", str(tmp_path)]
    with pytest.raises(SystemExit) as ended:
        application("build")(arguments)
    assert ended.value.code == TransientError.exit_code
    told = capfd.readouterr()
    assert "attempt 1 of 2: StoreUnavailable" in told.out
    assert "gave up after 2 attempts" in told.err
    assert "Dynamic" not in told.out  # the next rung
