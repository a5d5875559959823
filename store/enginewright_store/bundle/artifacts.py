"""Artifacts in a bundle: one OCI artifact each, whose layers are the store's files by their path in the store."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from enginewright_api.errors import DeterministicError
from enginewright_api.identity import sha256_hex
from enginewright_api.manifest import SIGNATURE_NAME, Manifest, artifact_prefix
from enginewright_store.artifact import file_path, manifest_path, parse_manifest, read_manifest, read_signature
from enginewright_store.bundle.layout import TITLE, Descriptor, LayoutReader, LayoutWriter
from enginewright_store.store import Store

ARTIFACT_TYPE = "application/vnd.enginewright.artifact.v1"
_CONTENT_TYPE = "application/octet-stream"


def add_artifact(bundle: LayoutWriter, store: Store, key: str) -> Manifest:
    """An artifact with its signature and all evidence. Raises DeterministicError NotFound."""
    found = read_manifest(store, key)
    if found is None:
        raise DeterministicError("NotFound", f"{store.uri}: no artifact with key {key}")
    manifest, digest = found
    layers = []
    with tempfile.TemporaryDirectory(prefix="enginewright-bundle-") as folder:
        for file in manifest.files:
            local = Path(folder) / file.sha256
            store.download(file_path(key, file), local, size=file.size, sha256=file.sha256)
            layers.append(bundle.file(local, _CONTENT_TYPE, {TITLE: file_path(key, file)}))
            local.unlink()
    small = store.list(f"evidence/{key}")
    if read_signature(store, key, digest) is not None:
        small.append(f"{artifact_prefix(key)}/{digest}/{SIGNATURE_NAME}")
    # The manifest last, as it is published: who installs layer by layer never shows half an artifact.
    layers += [bundle.blob(store.read(path), _CONTENT_TYPE, **{TITLE: path}) for path in (*small, manifest_path(key))]
    bundle.artifact(f"{artifact_prefix(key)}", ARTIFACT_TYPE, layers, None)
    return manifest


def install_artifacts(bundle: LayoutReader, store: Store) -> Sequence[str]:
    """Put every artifact of the bundle into a store; the keys. What is there already is kept.

    Every blob is checked against its digest, and what is written against the manifest. Whether the signature is by a
    trusted key is checked where it counts: by the pod that loads the engine.
    """
    found = [item for item in bundle.manifests if item.get("artifactType") == ARTIFACT_TYPE]
    return [_install(bundle, store, bundle.manifest(item)["layers"]) for item in found]


def _install(bundle: LayoutReader, store: Store, layers: Sequence[Descriptor]) -> str:
    by_path = {str(layer.get("annotations", {}).get(TITLE, "")): layer for layer in layers}
    path = next((path for path in by_path if path.endswith("/manifest.json")), "")
    data = bundle.read(by_path[path]) if path else b""
    manifest = parse_manifest(data, path or "bundle")
    key = manifest.key
    wanted = {file_path(key, file) for file in manifest.files}
    signature = f"{artifact_prefix(key)}/{sha256_hex(data)}/{SIGNATURE_NAME}"
    missing = wanted - by_path.keys()
    if path != manifest_path(key) or missing:
        raise DeterministicError(
            "InvalidBundle", f"artifact {key[:16]}: {len(missing)} files of its manifest are missing"
        )
    with tempfile.TemporaryDirectory(prefix="enginewright-bundle-") as folder:
        local = Path(folder) / "file"
        for name, layer in by_path.items():
            # Nothing else is taken: a bundle writes below the keys of its artifacts, and nowhere else.
            if name in wanted or name == signature or name.startswith(f"evidence/{key}/"):
                bundle.extract(layer, local)
                store.upload(local, name)
    store.put(path, data, if_absent=True)
    return key
