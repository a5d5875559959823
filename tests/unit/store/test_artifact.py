"""Publishing: whole or not at all, first come first served."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from enginewright_api.errors import DeterministicError
from enginewright_store import Store, open_store
from enginewright_store.artifact import (
    Published,
    describe_files,
    file_path,
    publish,
    publish_files,
    publish_manifest,
    read_evidence,
    read_manifest,
    read_signature,
    split_artifact_uri,
    verify_signature,
    write_evidence,
)
from enginewright_store.signing import generate_key
from tests.serving.artifacts import KEY, manifest_of


def engine(folder: Path, weights: bytes = b"weights") -> Path:
    (folder / "engine").mkdir(parents=True)
    (folder / "engine" / "openvino.bin").write_bytes(weights)
    (folder / "engine.json").write_text(
        '{"task":"Embedding","backend":"OpenVINO","limits":{},"runtimePackage":"openvino","runtimeVersion":"1"}'
    )
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store((tmp_path / "store").as_uri())


def test_a_published_artifact_is_found_with_its_files(store: Store, tmp_path: Path) -> None:
    folder = engine(tmp_path / "engine")
    done = publish(store, manifest_of(folder), folder)
    found = read_manifest(store, KEY)
    assert found == (done.manifest, done.digest)
    assert done.ours
    assert split_artifact_uri(done.uri) == (store.uri, KEY)
    assert {store.read(file_path(KEY, file)) for file in done.manifest.files} == {
        b"weights",
        (folder / "engine.json").read_bytes(),
    }


def test_nothing_is_seen_before_the_manifest(store: Store, tmp_path: Path) -> None:
    folder = engine(tmp_path / "engine")
    manifest = manifest_of(folder)
    publish_files(store, KEY, folder, manifest.files)
    assert read_manifest(store, KEY) is None


def test_builders_that_race_end_with_one_whole_artifact(store: Store, tmp_path: Path) -> None:
    """Their engines differ in a byte: whichever manifest stands, its own bytes are there."""
    start = threading.Barrier(6)

    def build(number: int) -> Published:
        folder = engine(tmp_path / f"engine{number}", weights=b"weights %d" % number)
        start.wait()
        return publish(store, manifest_of(folder, created=f"2026-01-01T00:00:0{number}Z"), folder)

    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(build, range(6)))
    assert len({result.digest for result in results}) == 1
    assert [result.ours for result in results].count(True) == 1
    for file in results[0].manifest.files:
        store.download(file_path(KEY, file), tmp_path / "out", size=file.size, sha256=file.sha256)


def test_a_cut_upload_is_completed(store: Store, tmp_path: Path) -> None:
    folder = engine(tmp_path / "engine")
    manifest = manifest_of(folder)
    store.put(file_path(KEY, manifest.files[0]), b"cut")
    publish(store, manifest, folder)
    file = manifest.files[0]
    store.download(file_path(KEY, file), tmp_path / "out", size=file.size, sha256=file.sha256)


def test_the_same_manifest_again_is_still_ours(store: Store, tmp_path: Path) -> None:
    """A lost reply makes the conditional put look lost."""
    manifest = manifest_of(engine(tmp_path / "engine"))
    assert publish_manifest(store, manifest).ours
    assert publish_manifest(store, manifest).ours


def test_the_signature_belongs_to_the_manifest_that_won(store: Store, tmp_path: Path) -> None:
    key, folder = generate_key(tmp_path / "key.pem"), engine(tmp_path / "engine")
    winner = publish(store, manifest_of(folder), folder, signing_key=key)
    loser = publish_manifest(store, manifest_of(folder, created="2027-01-01T00:00:00Z"), signing_key=key)
    assert (loser.digest, loser.ours) == (winner.digest, False)
    bundle = read_signature(store, KEY, winner.digest)
    assert verify_signature(bundle, winner.manifest, winner.digest, [key.public]) == key.public
    with pytest.raises(DeterministicError, match="SignatureMissing"):
        verify_signature(read_signature(store, KEY, "0" * 64), winner.manifest, "0" * 64, [key.public])


def test_links_are_not_published(tmp_path: Path) -> None:
    folder = engine(tmp_path / "engine")
    (folder / "engine" / "link").symlink_to("/etc/passwd")
    with pytest.raises(DeterministicError, match="link"):
        describe_files(folder)


def test_a_manifest_of_another_layout_is_refused_by_field(store: Store) -> None:
    store.put(f"artifacts/{KEY}/manifest.json", b'{"schemaVersion": 2}')
    with pytest.raises(DeterministicError, match="schemaVersion") as caught:
        read_manifest(store, KEY)
    assert caught.value.reason == "InvalidManifest"


@pytest.mark.parametrize("uri", ["file:///x", f"file:///x/artifacts/{KEY}/files", "s3://b/artifacts/short", KEY])
def test_only_artifact_addresses_are_split(uri: str) -> None:
    with pytest.raises(DeterministicError, match="needs the form"):
        split_artifact_uri(uri)


def test_evidence_for_another_request_is_kept_beside_it(store: Store, tmp_path: Path) -> None:
    from enginewright_api.evidence import EvidenceRequest

    request = EvidenceRequest.model_validate(
        {
            "dataset": {"builtin": {"name": "lee"}},
            "metric": "CosineSimilarity",
            "maxDrop": 0.01,
            "confidence": 0.95,
            "samples": 10,
        }
    )
    assert read_evidence(store, KEY, request) is None
    evidence = manifest_of(engine(tmp_path / "engine")).evidence.model_copy(update={"request_digest": request.digest})
    write_evidence(store, KEY, evidence)
    assert read_evidence(store, KEY, request) == evidence
