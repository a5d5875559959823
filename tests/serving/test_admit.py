"""`enginewright-serving admit` on a published artifact of a real engine."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from enginewright_api.manifest import Manifest
from enginewright_serving.node import cpu_level
from enginewright_store import Store, open_store
from enginewright_store.artifact import Published, file_path
from enginewright_store.signing import SigningKey, generate_key
from tests.s3.fixtures import S3Server
from tests.serving.artifacts import published
from tests.serving.servers import PROGRAM, run_cli, serving


@dataclass
class Place:
    """A store with an artifact, and where to admit it to."""

    folder: Path
    store: Store
    key: SigningKey
    artifact: Published

    def arguments(self, *options: str, dest: str = "models") -> list[str]:
        given = ["--artifact", self.artifact.uri, "--digest", f"sha256:{self.artifact.digest}"]
        given += ["--dest", str(self.folder / dest), "--model-name", "minilm"]
        return ["admit", *given, *(options or ("--public-key", str(self.folder / "key.pem.pub")))]

    def admit(self, *options: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
        env = {"TERMINATION_MESSAGE_PATH": str(self.folder / "termination")}
        return run_cli(*self.arguments(*options, **kwargs), env=env)

    def refusal(self) -> dict[str, str]:
        told: dict[str, str] = json.loads((self.folder / "termination").read_text())
        return told

    @property
    def cached(self) -> tuple[str, ...]:
        return ("--public-key", str(self.folder / "key.pem.pub"), "--cache-dir", str(self.folder / "cache"))


@pytest.fixture
def place(tmp_path: Path, openvino_engine: Path) -> Place:
    return _place(tmp_path, openvino_engine)


def _place(folder: Path, engine: Path, **changes: Any) -> Place:
    key, store = generate_key(folder / "key.pem"), open_store((folder / "store").as_uri())
    return Place(folder, store, key, published(store, engine, key, **changes))


def test_an_admitted_engine_serves(place: Place) -> None:
    batching = place.folder / "batching.json"
    batching.write_text('{"mode": "Dynamic", "maxBatchSize": 8, "maxQueueDelayMicroseconds": 100}')
    done = place.admit(*place.cached, "--batching", str(batching), "--accelerator-class", "laptop")
    assert done.returncode == 0, done.stderr
    assert "max_batch_size: 8" in (place.folder / "models/minilm/config.pbtxt").read_text()
    with serving(place.folder / "models", "minilm", place.folder) as server:
        assert server.infer(["hello"])["embedding"]["shape"] == [1, 384]


def test_admission_again_uses_the_cache_and_survives_a_lost_store(place: Place) -> None:
    assert place.admit(*place.cached).returncode == 0
    place.store.delete("artifacts")
    again = place.admit(*place.cached)
    assert again.returncode == 0, again.stderr
    assert '"fetched_bytes": 0' in again.stderr
    assert (place.folder / "models/minilm/1/engine/engine/openvino.bin").stat().st_size > 80_000_000


def test_a_damaged_cache_costs_a_download_not_a_wrong_engine(place: Place) -> None:
    assert place.admit(*place.cached).returncode == 0
    damaged = place.folder / "cache" / place.artifact.digest / _file(place.artifact.manifest, "openvino.bin").sha256
    damaged.chmod(0o644)
    with damaged.open("r+b") as file:
        file.write(b"damage")
    again = place.admit(*place.cached)
    assert again.returncode == 0, again.stderr
    assert "cache-damaged" in again.stderr
    with (place.folder / "models/minilm/1/engine/engine/openvino.bin").open("rb") as served:
        assert served.read(6) != b"damage"


def test_pods_that_admit_at_once_share_one_download(place: Place) -> None:
    running = [
        subprocess.Popen([PROGRAM, *place.arguments(*place.cached, dest=f"pod{n}")], stderr=subprocess.PIPE, text=True)
        for n in range(4)
    ]
    logs = [process.communicate(timeout=120)[1] for process in running]
    assert [process.returncode for process in running] == [0] * 4, logs
    assert sum('"fetched_bytes": 0' in log for log in logs) == 3
    for n in range(4):
        assert (place.folder / f"pod{n}/minilm/config.pbtxt").exists()


@pytest.mark.parametrize("damage", ["changed", "truncated"])
def test_damaged_files_are_refused_by_name(place: Place, damage: str) -> None:
    file = _file(place.artifact.manifest, "openvino.bin")
    stored = place.folder / "store" / file_path(place.artifact.manifest.key, file)
    if damage == "changed":
        with stored.open("r+b") as content:
            content.seek(1000)
            content.write(b"damage")
    else:
        os.truncate(stored, file.size // 2)
    done = place.admit()
    assert done.returncode == 20
    assert place.refusal()["reason"] == "CorruptedArtifact"
    assert not (place.folder / "models/minilm/config.pbtxt").exists()


def test_another_manifest_under_the_key_is_refused(place: Place) -> None:
    manifest = place.artifact.manifest.wire() | {"created": "2030-01-01T00:00:00Z"}
    place.store.put(f"artifacts/{place.artifact.manifest.key}/manifest.json", json.dumps(manifest).encode())
    assert place.admit().returncode == 20
    assert place.refusal()["reason"] == "DigestMismatch"


def test_an_artifact_that_is_not_there_is_named(place: Place) -> None:
    place.store.delete("artifacts")
    assert place.admit().returncode == 20
    assert place.refusal()["reason"] == "ArtifactMissing"


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [("unsigned", "SignatureMissing"), ("other-key", "UntrustedKey"), ("garbage", "InvalidSignature")],
)
def test_signatures_that_do_not_hold_are_refused(place: Place, prepare: str, reason: str) -> None:
    signature = f"artifacts/{place.artifact.manifest.key}/{place.artifact.digest}/model.sig"
    options: tuple[str, ...] = ()
    if prepare == "unsigned":
        place.store.delete(signature)
    elif prepare == "garbage":
        place.store.put(signature, b"garbage")
    else:
        generate_key(place.folder / "other.pem")
        options = ("--public-key", str(place.folder / "other.pem.pub"))
    assert place.admit(*options).returncode == 20
    assert place.refusal()["reason"] == reason


def test_signatures_are_optional_only_when_said(place: Place) -> None:
    place.store.delete(f"artifacts/{place.artifact.manifest.key}/{place.artifact.digest}")
    assert place.admit("--require-signature").returncode == 20
    assert place.refusal()["reason"] == "NoTrustedKeys"
    assert place.admit("--no-require-signature").returncode == 0


def test_a_key_that_is_no_longer_trusted_refuses_what_is_cached(place: Place) -> None:
    assert place.admit(*place.cached).returncode == 0
    generate_key(place.folder / "new.pem")
    options = ("--public-key", str(place.folder / "new.pem.pub"), "--cache-dir", str(place.folder / "cache"))
    assert place.admit(*options).returncode == 20
    assert place.refusal()["reason"] == "UntrustedKey"


def test_any_key_of_the_file_is_enough(place: Place) -> None:
    generate_key(place.folder / "new.pem")
    trusted = place.folder / "public.pem"
    trusted.write_text("".join((place.folder / f"{name}.pem.pub").read_text() for name in ("new", "key")))
    assert place.admit("--public-key", str(trusted)).returncode == 0


@pytest.mark.parametrize(
    ("changes", "reason", "field"),
    [
        (
            {"accelerator": {"acceleratorClass": "x", "vendor": "cpu", "architecture": "s390x"}},
            "AcceleratorMismatch",
            f"accelerator.architecture: the engine needs s390x, this node (class lab) has {cpu_level()}",
        ),
        (
            {"accelerator": {"acceleratorClass": "x", "vendor": "nvidia", "computeCapability": "99.0"}},
            "AcceleratorMismatch",
            "accelerator.",
        ),
        (
            {"runtime": {"backend": "OpenVINO", "package": "openvino", "version": "1999.1"}},
            "RuntimeMismatch",
            "runtime.version: the engine was built with openvino 1999.1",
        ),
        (
            {"runtime": {"backend": "TensorRT", "package": "not-installed", "version": "1"}},
            "RuntimeMismatch",
            "runtime.package: not-installed",
        ),
    ],
)
def test_what_does_not_fit_here_is_refused_by_field(
    tmp_path: Path, openvino_engine: Path, changes: dict[str, Any], reason: str, field: str
) -> None:
    place = _place(tmp_path, openvino_engine, **changes)
    done = place.admit("--public-key", str(tmp_path / "key.pem.pub"), "--accelerator-class", "lab")
    assert done.returncode == 20
    assert place.refusal()["reason"] == reason
    assert field in place.refusal()["message"]


def test_a_store_that_does_not_answer_is_a_transient_failure(place: Place) -> None:
    env = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_REGION": "us-east-1",
        "TERMINATION_MESSAGE_PATH": str(place.folder / "termination"),
    }
    arguments = place.arguments()
    arguments[2] = f"s3://bucket/artifacts/{place.artifact.manifest.key}"
    assert run_cli(*arguments, env=env).returncode == 22
    assert place.refusal()["class"] == "Transient"


def test_admission_from_a_bucket(
    tmp_path: Path, openvino_engine: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    key, store = generate_key(tmp_path / "key.pem"), open_store(f"s3://{s3_server.bucket}/engines")
    place = Place(tmp_path, store, key, published(store, openvino_engine, key))
    done = place.admit()
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "models/minilm/1/engine/engine/openvino.bin").stat().st_size > 80_000_000


def _file(manifest: Manifest, name: str) -> Any:
    (found,) = [file for file in manifest.files if file.path.endswith(name)]
    return found
