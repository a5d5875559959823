"""One class a kind of source. Each names what it will fetch (`key`) and fetches it into an empty folder."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from enginewright_api.errors import DeterministicError
from enginewright_api.identity import digest_of
from enginewright_api.source import ObjectStoreSource, PackageSource, PersistentVolumeClaimSource, Source
from enginewright_builder.places import Places
from enginewright_builder.sources.address import check_bucket
from enginewright_builder.sources.checkpoint import CONFIG, GGUF_SUFFIX, check_source_names, chosen, read_config
from enginewright_builder.sources.gguf_file import config_of
from enginewright_builder.sources.hub import HubOrigin
from enginewright_store import open_store
from enginewright_store.artifact import file_digest
from enginewright_store.medium import NotInStoreError

_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".whl", ".7z")


class Origin(Protocol):
    """Where weights come from."""

    def key(self) -> str:
        """Digest of what will be fetched; equal for equal content."""

    def fetch(self, into: Path) -> None:
        """Copy the files that builds need."""

    def config(self) -> dict[str, Any]:
        """config.json alone, for estimates before anything is fetched."""


def origin_of(source: Source, places: Places) -> Origin:
    """Raises DeterministicError FeatureNotAvailable for OCI sources."""
    if source.package is not None:
        return PackageOrigin(source.package)
    if source.persistent_volume_claim is not None:
        return _on_volume(source.persistent_volume_claim, places)
    if source.object_store is not None:
        return _in_store(source.object_store)
    if source.hugging_face is not None:
        return HubOrigin(source.hugging_face, places)
    raise DeterministicError(
        "FeatureNotAvailable", "source.oci: OCI sources are not available yet; use huggingFace, objectStore or a volume"
    )


@dataclass(frozen=True, slots=True)
class FolderOrigin:
    """A folder that can be read where it is."""

    folder: Path
    where: str

    def key(self) -> str:
        """By content: a folder can change under the same name."""
        return digest_of({"folder": {name: file_digest(self.folder / name) for name in self._names()}})

    def fetch(self, into: Path) -> None:
        """Copies, because the source may change while the build runs."""
        for name in self._names():
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.folder / name, into / name)

    def config(self) -> dict[str, Any]:
        """Of a GGUF file, what its metadata says."""
        names = self._names()
        packed = next((name for name in names if name.endswith(GGUF_SUFFIX)), None)
        if packed is not None:
            return config_of(self.folder / packed)
        return read_config(self.folder)

    def _names(self) -> list[str]:
        if self.folder.is_file() and self.folder.name.endswith(_ARCHIVES):
            raise DeterministicError("ArchiveNotAccepted", f"{self.where}: is an archive; give the unpacked folder")
        if not self.folder.is_dir():
            raise DeterministicError("SourceNotFound", f"{self.where}: no such folder")
        root = self.folder.resolve()
        found = []
        for path in sorted(self.folder.rglob("*")):
            if path.is_file():
                if not path.resolve().is_relative_to(root):
                    raise DeterministicError("UnsafePath", f"{self.where}: {path.name} is a link out of the folder")
                found.append(path.relative_to(self.folder).as_posix())
        check_source_names(found, where=self.where)
        return chosen(found)


@dataclass(frozen=True, slots=True)
class PackageOrigin:
    """Files of an installed distribution, found without importing it (importing would run its code)."""

    source: PackageSource

    def key(self) -> str:
        """An installed version does not change."""
        self._distribution()
        return digest_of({"package": self.source.wire()})

    def fetch(self, into: Path) -> None:
        """Raises DeterministicError: SourceNotFound, SourceVersionMismatch, SourceDigestMismatch."""
        folder = self._folder()
        if self.source.sha256 is not None:
            found = folder_digest(folder)
            if found != self.source.sha256:
                raise DeterministicError(
                    "SourceDigestMismatch",
                    f"source.package.sha256: the files under {self.source.path or 'the package'} have digest {found},"
                    f" not {self.source.sha256}",
                )
        FolderOrigin(folder, f"package {self.source.name}").fetch(into)

    def config(self) -> dict[str, Any]:
        """Read where the package is installed."""
        return FolderOrigin(self._folder(), f"package {self.source.name}").config()

    def _distribution(self) -> importlib.metadata.Distribution:
        try:
            found = importlib.metadata.distribution(self.source.name)
        except importlib.metadata.PackageNotFoundError as error:
            raise DeterministicError(
                "SourceNotFound",
                f"source.package.name: {self.source.name} is not installed where the builder runs; install it there",
            ) from error
        if found.version != self.source.version:
            raise DeterministicError(
                "SourceVersionMismatch",
                f"source.package.version: {self.source.name} {found.version} is installed,"
                f" {self.source.version} is wanted",
            )
        return found

    def _folder(self) -> Path:
        distribution = self._distribution()
        tops = sorted({str(file).split("/")[0] for file in distribution.files or [] if "/" in str(file)})
        packages = [top for top in tops if not top.endswith((".dist-info", ".data")) and top != ".."]
        path = self.source.path.strip("/")
        if ".." in path.split("/"):
            raise DeterministicError("UnsafePath", "source.package.path: must not contain '..'")
        # `path` is inside the package; one that begins with the package's own name is understood as well.
        candidates = [f"{package}/{path}".rstrip("/") for package in packages]
        candidates += [path] if path.split("/")[0] in packages else []
        for candidate in candidates:
            folder = Path(str(distribution.locate_file(candidate)))
            if folder.is_dir():
                return folder
        raise DeterministicError("SourceNotFound", f"source.package.path: {self.source.name} has no folder {path!r}")


@dataclass(frozen=True, slots=True)
class StoreOrigin:
    """A folder in a bucket."""

    uri: str

    def key(self) -> str:
        """By content: objects can be replaced under the same name. Large files count by name and size."""
        store = open_store(self.uri)
        names = self._names()
        weights = (".safetensors", GGUF_SUFFIX)
        small = {name: digest_of(store.read(name).hex()) for name in names if not name.endswith(weights)}
        large = {name: store.size(name) for name in names if name.endswith(weights)}
        return digest_of({"store": self.uri, "small": small, "large": large})

    def fetch(self, into: Path) -> None:
        """Raises DeterministicError SourceNotFound; TransientError when the store cannot be reached."""
        store = open_store(self.uri)
        for name in self._names():
            target = into / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(store.read(name))

    def config(self) -> dict[str, Any]:
        """One small read."""
        try:
            config = json.loads(open_store(self.uri).read(CONFIG))
        except (NotInStoreError, ValueError) as error:
            raise DeterministicError("InvalidCheckpoint", f"{self.uri}/{CONFIG}: is not there or no JSON") from error
        return dict(config) if isinstance(config, dict) else {}

    def _names(self) -> list[str]:
        names = open_store(self.uri).list()
        if not names:
            raise DeterministicError("SourceNotFound", f"source.objectStore.uri: {self.uri} holds no files")
        check_source_names(names, where=self.uri)
        return chosen(names)


def folder_digest(folder: Path) -> str:
    """Digest of {path below the folder: sha256 of the file}; caches of the interpreter do not count."""
    return digest_of(
        {
            path.relative_to(folder).as_posix(): file_digest(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file() and "__pycache__" not in path.parts
        }
    )


def _on_volume(source: PersistentVolumeClaimSource, places: Places) -> FolderOrigin:
    where = f"persistentVolumeClaim {source.claim_name}/{source.path}".rstrip("/")
    root = (places.volumes / source.claim_name).resolve()
    folder = (root / source.path).resolve()
    if not folder.is_relative_to(root):
        raise DeterministicError("UnsafePath", f"{where}: leads out of the volume")
    return FolderOrigin(folder, where)


def _in_store(source: ObjectStoreSource) -> Origin:
    parts = urlsplit(source.uri)
    if source.uri.endswith(_ARCHIVES):
        raise DeterministicError(
            "ArchiveNotAccepted", f"source.objectStore.uri: {source.uri} is an archive; give the unpacked folder"
        )
    check_bucket(parts.netloc, where="source.objectStore.uri")
    if parts.scheme == "file":
        return FolderOrigin(Path(parts.path), f"source.objectStore.uri {source.uri}")
    if parts.scheme != "s3":
        raise DeterministicError(
            "FeatureNotAvailable",
            f"source.objectStore.uri: {parts.scheme}:// is not available yet; use s3:// or file://",
        )
    return StoreOrigin(source.uri)
