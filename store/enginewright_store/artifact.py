"""Artifacts in a store: published manifest last, seen whole or not at all, signed.

    artifacts/<key>/manifest.json        conditional, last; its sha256 is the artifact digest
    artifacts/<key>/<digest>/model.sig   signature over that manifest and its files
    artifacts/<key>/files/<sha256>       content of the files that manifests list

Files lie under their content's digest, so builders that race for one key never overwrite each other's: whichever
manifest is there, the bytes it lists are there too. While an artifact is removed a tombstone stands in its manifest's
place (see `tombstone`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from enginewright_api.errors import DeterministicError, first_problem
from enginewright_api.evidence import EvidenceRequest
from enginewright_api.identity import canonical_json, sha256_hex
from enginewright_api.manifest import (
    MANIFEST_NAME,
    SIGNATURE_NAME,
    ArtifactFile,
    Evidence,
    Manifest,
    artifact_prefix,
    evidence_path,
)
from enginewright_store.medium import NotInStoreError
from enginewright_store.signing import PublicKey, SigningKey, sign, verify
from enginewright_store.store import Store
from enginewright_store.tombstone import BeingRemovedError, read_tombstone

_TRANSFERS_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Published:
    """The artifact that is in the store now: ours, or that of whoever was first."""

    manifest: Manifest
    digest: str
    uri: str
    ours: bool


def artifact_uri(store: Store, key: str) -> str:
    """Folder of an artifact as a URI."""
    return f"{store.uri}/{artifact_prefix(key)}"


def split_artifact_uri(uri: str) -> tuple[str, str]:
    """Store URI and build key of an artifact's URI."""
    match = re.fullmatch(r"(?P<store>[a-z0-9]+://.*)/artifacts/(?P<key>[0-9a-f]{64})/?", uri)
    if match is None:
        raise DeterministicError("InvalidArtifactURI", f"{uri}: needs the form <store>/artifacts/<64 hex digits>")
    return match["store"], match["key"]


def read_manifest(store: Store, key: str) -> tuple[Manifest, str] | None:
    """Manifest and artifact digest, or None when nothing is published under the key, or what is there is going."""
    try:
        data = store.read(manifest_path(key))
    except NotInStoreError:
        return None
    if read_tombstone(data) is not None:
        return None
    return parse_manifest(data, f"{store.uri}/{manifest_path(key)}"), sha256_hex(data)


def parse_manifest(data: bytes, where: str) -> Manifest:
    """Manifest from its bytes; DeterministicError InvalidManifest names the field."""
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        problem = first_problem(error)
        raise DeterministicError("InvalidManifest", f"{where}: {problem}; publish the artifact again") from error


def publish_files(store: Store, key: str, folder: Path, files: list[ArtifactFile]) -> None:
    """Upload what the manifest will list, in parallel; what is there already (a cut attempt, an equal file) is kept."""

    def upload(file: ArtifactFile) -> None:
        path = file_path(key, file)
        if store.size(path) != file.size:
            store.upload(folder / file.path, path)

    with ThreadPoolExecutor(_TRANSFERS_AT_ONCE, thread_name_prefix="upload") as pool:
        list(pool.map(upload, files))


def publish_manifest(store: Store, manifest: Manifest, *, signing_key: SigningKey | None = None) -> Published:
    """Make the artifact visible. Call after `publish_files`. Whoever loses a race is given the winner's artifact."""
    data = canonical_json(manifest.wire())
    digest = sha256_hex(data)
    if signing_key is not None:
        bundle = sign(signed_contents(manifest, digest), signing_key, name=manifest.key)
        store.put(_signature_path(manifest.key, digest), bundle)
    uri = artifact_uri(store, manifest.key)
    if store.put(manifest_path(manifest.key), data, if_absent=True):
        return Published(manifest, digest, uri, ours=True)
    winner = read_manifest(store, manifest.key)
    if winner is None:
        raise BeingRemovedError(uri)
    return Published(winner[0], winner[1], uri, ours=winner[1] == digest)


def publish(store: Store, manifest: Manifest, folder: Path, *, signing_key: SigningKey | None = None) -> Published:
    """Files of `folder`, signature, then the manifest. Raises BeingRemovedError while the former one is removed."""
    existing = read_manifest(store, manifest.key)
    if existing is not None:
        return Published(existing[0], existing[1], artifact_uri(store, manifest.key), ours=False)
    publish_files(store, manifest.key, folder, manifest.files)
    published = publish_manifest(store, manifest, signing_key=signing_key)
    if published.ours:
        # A file that was there may have gone with a former artifact before the manifest was; from now on none goes.
        publish_files(store, manifest.key, folder, manifest.files)
    return published


def read_signature(store: Store, key: str, digest: str) -> bytes | None:
    """Bundle over the artifact, None when it was published without a key."""
    try:
        return store.read(_signature_path(key, digest))
    except NotInStoreError:
        return None


def verify_signature(bundle: bytes | None, manifest: Manifest, digest: str, keys: list[PublicKey]) -> PublicKey:
    """The trusted key that signed this artifact. Raises DeterministicError: SignatureMissing or as `signing.verify`."""
    if bundle is None:
        raise DeterministicError("SignatureMissing", f"artifact {digest}: not signed; publish it with a signing key")
    return verify(bundle, signed_contents(manifest, digest), keys)


def signed_contents(manifest: Manifest, digest: str) -> Mapping[str, str]:
    """What the signature covers: the artifact as a folder, path → sha256."""
    return {MANIFEST_NAME: digest, **{f"files/{file.path}": file.sha256 for file in manifest.files}}


def manifest_path(key: str) -> str:
    """Where the manifest is in the store."""
    return f"{artifact_prefix(key)}/{MANIFEST_NAME}"


def file_path(key: str, file: ArtifactFile) -> str:
    """Where a file's content is in the store."""
    return f"{artifact_prefix(key)}/files/{file.sha256}"


def describe_files(folder: Path) -> list[ArtifactFile]:
    """Every file below a folder as a manifest lists it. Links are refused: they could lead out of the folder."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise DeterministicError("UnsafePath", f"{path}: links are not published; replace it by the file")
        if path.is_file():
            digest = file_digest(path)
            found.append(
                ArtifactFile(path=path.relative_to(folder).as_posix(), size=path.stat().st_size, sha256=digest)
            )
    return sorted(found, key=lambda file: file.path)


def read_evidence(store: Store, key: str, request: EvidenceRequest) -> Evidence | None:
    """Evidence measured for a request after publishing, or None."""
    path = evidence_path(key, request.digest)
    try:
        return Evidence.model_validate_json(store.read(path))
    except NotInStoreError:
        return None
    except ValidationError as error:
        raise DeterministicError("InvalidEvidence", f"{store.uri}/{path}: {first_problem(error)}") from error


def write_evidence(store: Store, key: str, evidence: Evidence) -> None:
    """Keep evidence beside the artifact; the latest measurement of one request stands."""
    store.put(evidence_path(key, evidence.request_digest), canonical_json(evidence.wire()))


def file_digest(path: Path) -> str:
    """sha256 hex of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _signature_path(key: str, digest: str) -> str:
    return f"{artifact_prefix(key)}/{digest}/{SIGNATURE_NAME}"
