"""`admit`: from an artifact's address and digest to a Triton repository here, or a refusal that names the field.

Order: what is cheap and decides comes first: manifest, digest, signature, accelerator, runtime; then the files.
"""

from __future__ import annotations

import errno
import importlib.metadata
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from enginewright_api.errors import DeterministicError, ResourceError
from enginewright_api.identity import sha256_hex
from enginewright_api.manifest import MANIFEST_NAME, SIGNATURE_NAME, ArtifactFile, Manifest
from enginewright_serving import node
from enginewright_serving.admission import check_accelerator, check_description, check_digest, check_runtime
from enginewright_serving.engine_cache import EngineCache
from enginewright_serving.events import log
from enginewright_serving.repository import engine_folder, read_batching, read_description, write_model
from enginewright_store import NotInStoreError, Store, open_store
from enginewright_store.artifact import (
    file_digest,
    file_path,
    manifest_path,
    parse_manifest,
    read_signature,
    split_artifact_uri,
    verify_signature,
)
from enginewright_store.signing import PublicKey
from enginewright_store.tombstone import BeingRemovedError, read_tombstone

_FILES_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Admission:
    """One request for admission, as the command line gives it."""

    artifact_uri: str
    digest: str
    dest: Path
    model: str
    batching: Path | None
    accelerator_class: str
    public_keys: tuple[Path, ...]
    require_signature: bool
    cache: Path | None
    cache_bytes: int


def admit(request: Admission) -> None:
    """Write the repository. Raises DeterministicError (refused), ResourceError, TransientError (try again)."""
    begun = time.monotonic()
    batching = read_batching(request.batching)
    keys = [key for file in request.public_keys for key in PublicKey.load_all(file)]
    if request.require_signature and not keys:
        raise DeterministicError(
            "NoTrustedKeys", "--public-key: needed to verify the signature; give one or say --no-require-signature"
        )
    store_uri, key = split_artifact_uri(request.artifact_uri)
    digest = request.digest.removeprefix("sha256:")
    store = open_store(store_uri)
    place = engine_folder(request.dest, request.model)
    shutil.rmtree(request.dest / request.model, ignore_errors=True)  # of an attempt that was cut
    own_cache = request.dest / f".fetch-{request.model}"
    cache = EngineCache(request.cache or own_cache, request.cache_bytes)
    with cache.entry(digest) as entry:
        manifest = _manifest(store, key, digest, entry)
        _verify(store, manifest, digest, keys, entry, required=request.require_signature)
        check_accelerator(manifest, node.cpu_level(), node.gpus, request.accelerator_class)
        check_runtime(manifest, _installed)
        fetched = _fetch(store, cache, manifest, entry)
        for file in manifest.files:
            _place(entry / file.sha256, place / file.path)
    shutil.rmtree(own_cache, ignore_errors=True)
    check_description(manifest, read_description(place))
    write_model(request.dest, request.model, batching)
    log(
        "admitted",
        model=request.model,
        artifact=digest,
        size_bytes=manifest.size_bytes,
        fetched_bytes=fetched,
        seconds=round(time.monotonic() - begun, 3),
    )


def _manifest(store: Store, key: str, digest: str, entry: Path) -> Manifest:
    """From the cache when it is the wanted one there, so that a pod can start while the store is down."""
    kept = entry / MANIFEST_NAME
    data = kept.read_bytes() if kept.exists() else b""
    if sha256_hex(data) != digest:
        try:
            data = store.read(manifest_path(key))
        except NotInStoreError as error:
            raise DeterministicError(
                "ArtifactMissing", f"{store.uri}/{manifest_path(key)}: not published; build it again"
            ) from error
        if read_tombstone(data) is not None:
            raise BeingRemovedError(f"{store.uri}/{manifest_path(key)}")
        check_digest(sha256_hex(data), digest)
        _keep(kept, data)
    manifest = parse_manifest(data, f"{store.uri}/{manifest_path(key)}")
    if manifest.key != key:
        raise DeterministicError("DigestMismatch", f"manifest.json: key is {manifest.key}, the address says {key}")
    return manifest


def _verify(
    store: Store, manifest: Manifest, digest: str, keys: list[PublicKey], entry: Path, *, required: bool
) -> None:
    kept = entry / SIGNATURE_NAME
    # Only a signature that was verified is kept, yet it is verified again: the keys trusted today decide.
    bundle = kept.read_bytes() if kept.exists() else read_signature(store, manifest.key, digest)
    if not keys or (bundle is None and not required):
        log("unverified", artifact=digest, signed=bundle is not None)
        return
    try:
        signer = verify_signature(bundle, manifest, digest, keys)
    except DeterministicError:
        kept.unlink(missing_ok=True)
        raise
    _keep(kept, bundle or b"")
    log("verified", artifact=digest, key=signer.identity)


def _fetch(store: Store, cache: EngineCache, manifest: Manifest, entry: Path) -> int:
    """All files into the cache entry, checked; bytes that had to be downloaded."""
    distinct = list({file.sha256: file for file in manifest.files}.values())
    with ThreadPoolExecutor(_FILES_AT_ONCE, thread_name_prefix="fetch") as pool:
        good = list(pool.map(lambda file: _is_good(entry / file.sha256, file), distinct))
        missing = [file for file, present in zip(distinct, good, strict=True) if not present]
        cache.require_space(sum(file.size for file in missing))

        def fetch(file: ArtifactFile) -> None:
            target = entry / file.sha256
            store.download(file_path(manifest.key, file), target, size=file.size, sha256=file.sha256)
            target.chmod(0o444)

        list(pool.map(fetch, missing))
    return sum(file.size for file in missing)


def _is_good(kept: Path, file: ArtifactFile) -> bool:
    if not kept.exists():
        return False
    if kept.stat().st_size == file.size and file_digest(kept) == file.sha256:
        return True
    log("cache-damaged", file=file.path)
    return False


def _place(kept: Path, target: Path) -> None:
    """A hard link where cache and repository share a file system, a copy otherwise: eviction never reaches it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(kept, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EACCES):
            raise ResourceError("DiskFull", f"{target}: {error.strerror}") from error
        try:
            shutil.copyfile(kept, target)
        except OSError as failure:
            raise ResourceError("DiskFull", f"{target}: {failure.strerror}; enlarge the volume") from failure


def _keep(file: Path, data: bytes) -> None:
    partial = file.with_name(file.name + ".part")
    partial.write_bytes(data)
    partial.replace(file)


def _installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
