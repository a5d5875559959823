#!/usr/bin/env python3
"""Make a one-layer container image (a docker-archive) from local files, without a builder.

mkimage.py NAME OUT.tar [--user UID[:GID]] [--entrypoint WORD]... [--link PATH=TARGET]... SOURCE:PATH...
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import platform
import tarfile
from pathlib import Path, PurePosixPath

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class Layer:
    """A tar of root-owned files without times, so that equal content has an equal digest."""

    def __init__(self) -> None:
        self._buffer = io.BytesIO()
        self._tar = tarfile.open(fileobj=self._buffer, mode="w")  # noqa: SIM115 - close() ends it
        self._folders = {PurePosixPath("/")}
        self.folder(PurePosixPath("/tmp"), 0o1777)
        self.folder(PurePosixPath("/etc"))

    def folder(self, path: PurePosixPath, mode: int = 0o755) -> None:
        """Add a folder, after its parents, once."""
        if path in self._folders:
            return
        self.folder(path.parent)
        entry = self._entry(path, mode)
        entry.type = tarfile.DIRTYPE
        self._tar.addfile(entry)
        self._folders.add(path)

    def file(self, source: Path, path: PurePosixPath) -> None:
        """Add an executable file."""
        self.folder(path.parent)
        entry = self._entry(path, 0o755)
        entry.size = source.stat().st_size
        with source.open("rb") as content:
            self._tar.addfile(entry, content)

    def link(self, path: PurePosixPath, target: str) -> None:
        """Add a symbolic link."""
        self.folder(path.parent)
        entry = self._entry(path, 0o777)
        entry.type, entry.linkname = tarfile.SYMTYPE, target
        self._tar.addfile(entry)

    def close(self) -> bytes:
        self._tar.close()
        return self._buffer.getvalue()

    @staticmethod
    def _entry(path: PurePosixPath, mode: int) -> tarfile.TarInfo:
        entry = tarfile.TarInfo(str(path).lstrip("/"))
        entry.mode = mode
        return entry


def image_config(layer: bytes, user: str, entrypoint: list[str]) -> bytes:
    """The image's configuration, whose digest is the image's id."""
    config = {
        "architecture": ARCHITECTURES[platform.machine()],
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {
            "Entrypoint": entrypoint or None,
            "User": user,
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        },
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
    }
    return json.dumps(config).encode()


def write_archive(out: Path, name: str, layer: bytes, config: bytes) -> None:
    """Write the three files that docker-archive readers look for."""
    config_name = hashlib.sha256(config).hexdigest() + ".json"
    manifest = [{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]
    members = {config_name: config, "layer.tar": layer, "manifest.json": json.dumps(manifest).encode()}
    with tarfile.open(out, "w") as archive:
        for member, content in members.items():
            entry = tarfile.TarInfo(member)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("out", type=Path)
    parser.add_argument("files", nargs="+", metavar="SOURCE:PATH")
    parser.add_argument("--user", default="")
    parser.add_argument("--entrypoint", action="append", default=[])
    parser.add_argument("--link", action="append", default=[], metavar="PATH=TARGET")
    arguments = parser.parse_args()

    layer = Layer()
    for pair in arguments.files:
        source, _, path = pair.rpartition(":")
        layer.file(Path(source), PurePosixPath(path))
    for pair in arguments.link:
        path, _, target = pair.partition("=")
        layer.link(PurePosixPath(path), target)
    content = layer.close()
    config = image_config(content, arguments.user, arguments.entrypoint)
    write_archive(arguments.out, arguments.name, content, config)


if __name__ == "__main__":
    main()
