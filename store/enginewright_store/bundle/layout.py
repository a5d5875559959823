"""An OCI image layout in a tar archive (`oci-archive:` of skopeo, buildah and podman): written once, read by digest.

Source: OCI image specification 1.1, image-layout.md and manifest.md.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from enginewright_api.errors import DeterministicError
from enginewright_api.identity import canonical_json, sha256_hex

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
REF_NAME = "org.opencontainers.image.ref.name"
TITLE = "org.opencontainers.image.title"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
_EMPTY = b"{}"
_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{64})")
_CHUNK = 2**20
_MOST_JSON_BYTES = 4 * 2**20

Descriptor = dict[str, Any]


class LayoutWriter:
    """Adds blobs and manifests; the index is written at the end. Equal blobs are stored once."""

    def __init__(self, path: Path) -> None:
        self._archive = tarfile.open(path, "w")  # noqa: SIM115 - closed by __exit__
        self._blobs: set[str] = set()
        self._manifests: list[Descriptor] = []

    def __enter__(self) -> LayoutWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._archive:
            if error is None:
                self._add("oci-layout", canonical_json({"imageLayoutVersion": "1.0.0"}))
                self._add("index.json", canonical_json({"schemaVersion": 2, "manifests": self._manifests}))

    def blob(self, data: bytes, media_type: str, **annotations: str) -> Descriptor:
        """A small blob; its descriptor."""
        digest = sha256_hex(data)
        if digest not in self._blobs:
            self._add(f"blobs/sha256/{digest}", data)
            self._blobs.add(digest)
        return _descriptor(media_type, digest, len(data), annotations)

    def file(self, path: Path, media_type: str, annotations: Mapping[str, str]) -> Descriptor:
        """A blob from a file."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.seek(0, io.SEEK_END)
            file.seek(0)
            if digest not in self._blobs:
                self._stream(digest, size, file)
        return _descriptor(media_type, digest, size, annotations)

    def artifact(self, name: str, artifact_type: str, layers: Sequence[Descriptor], config: Descriptor | None) -> None:
        """A manifest under a name; without a config it gets the empty one, as the specification advises."""
        manifest: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": config or self.blob(_EMPTY, EMPTY_TYPE),
            "layers": list(layers),
        }
        if config is None:
            manifest["artifactType"] = artifact_type
        found = self.blob(canonical_json(manifest), MANIFEST_TYPE)
        self._manifests.append({**found, "artifactType": artifact_type, "annotations": {REF_NAME: name}})

    def merge(self, archive: Path) -> Sequence[str]:
        """Everything of another OCI archive, such as an image of `skopeo copy ... oci-archive:FILE:NAME`; its names."""
        with LayoutReader(archive) as other:
            for digest, size in other.blobs():
                if digest not in self._blobs:
                    self._stream(digest, size, other.open(digest))
            self._manifests += other.manifests
            return [item.get("annotations", {}).get(REF_NAME, item["digest"]) for item in other.manifests]

    def _stream(self, digest: str, size: int, content: IO[bytes]) -> None:
        entry = tarfile.TarInfo(f"blobs/sha256/{digest}")
        entry.size = size
        self._archive.addfile(entry, content)
        self._blobs.add(digest)

    def _add(self, name: str, data: bytes) -> None:
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        self._archive.addfile(entry, io.BytesIO(data))


class LayoutReader:
    """Reads blobs by digest, checked; nothing is unpacked by name, so no path in the archive can lead anywhere."""

    def __init__(self, path: Path) -> None:
        """Raises DeterministicError InvalidBundle."""
        self._path = path
        try:
            self._archive = tarfile.open(path, "r:")  # noqa: SIM115 - closed by __exit__
            self._members = {item.name.removeprefix("./"): item for item in self._archive.getmembers() if item.isfile()}
        except (tarfile.TarError, OSError) as error:
            raise _invalid(path, f"not a tar archive that can be read ({error})") from error
        index = self._json("index.json")
        self.manifests: list[Descriptor] = list(index.get("manifests", []))

    def __enter__(self) -> LayoutReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._archive.close()

    def blobs(self) -> Iterator[tuple[str, int]]:
        """Digest and size of all."""
        for name, item in self._members.items():
            if (match := _BLOB.fullmatch(name)) is not None:
                yield match[1], item.size

    def manifest(self, descriptor: Descriptor) -> dict[str, Any]:
        """A manifest, its digest checked."""
        data = self.read(descriptor)
        found: dict[str, Any] = json.loads(data)
        return found

    def read(self, descriptor: Descriptor) -> bytes:
        """A small blob, checked."""
        if descriptor["size"] > _MOST_JSON_BYTES:
            raise _invalid(self._path, f"{descriptor['digest']} is larger than a manifest may be")
        data = self.open(_hex(descriptor)).read()
        if sha256_hex(data) != _hex(descriptor):
            raise _invalid(self._path, f"{descriptor['digest']} has other content than its name says")
        return data

    def extract(self, descriptor: Descriptor, local: Path) -> None:
        """A blob into a file, checked while it is copied."""
        digest = hashlib.sha256()
        source = self.open(_hex(descriptor))
        with local.open("wb") as target:
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                target.write(chunk)
        if digest.hexdigest() != _hex(descriptor):
            raise _invalid(self._path, f"{descriptor['digest']} has other content than its name says")

    def open(self, digest: str) -> IO[bytes]:
        """A blob's content, not checked."""
        item = self._members.get(f"blobs/sha256/{digest}")
        found = self._archive.extractfile(item) if item is not None else None
        if found is None:
            raise _invalid(self._path, f"blob sha256:{digest} is missing")
        return found

    def _json(self, name: str) -> dict[str, Any]:
        item = self._members.get(name)
        source = self._archive.extractfile(item) if item is not None and item.size <= _MOST_JSON_BYTES else None
        if source is None:
            raise _invalid(self._path, f"no {name}: not an OCI image layout")
        try:
            found: dict[str, Any] = json.load(source)
        except ValueError as error:
            raise _invalid(self._path, f"{name} is not JSON") from error
        return found


def _descriptor(media_type: str, digest: str, size: int, annotations: Mapping[str, str]) -> Descriptor:
    found: Descriptor = {"mediaType": media_type, "digest": f"sha256:{digest}", "size": size}
    return found | ({"annotations": dict(annotations)} if annotations else {})


def _hex(descriptor: Descriptor) -> str:
    return str(descriptor["digest"]).removeprefix("sha256:")


def _invalid(path: Path, what: str) -> DeterministicError:
    return DeterministicError("InvalidBundle", f"{path}: {what}; make the bundle again")
