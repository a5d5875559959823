"""The store of artifacts: a medium with checked paths, retries and checked content. Synchronous: call it in threads."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from enginewright_api.errors import DeterministicError
from enginewright_store.download import download
from enginewright_store.folder import Folder
from enginewright_store.guard import check_host
from enginewright_store.medium import Entry, Medium
from enginewright_store.object_storage import Bucket
from enginewright_store.paths import checked, checked_prefix
from enginewright_store.retrying import RetryPolicy

CONNECT_SECONDS = 5.0
SILENCE_SECONDS = 30.0
"""A bucket that sends nothing for this long, in an answer or before one, counts as away."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """S3 credentials given by the user; what is empty comes from the standard AWS variables and files."""

    access_key_id: str = ""
    secret_access_key: str = field(default="", repr=False)
    session_token: str = field(default="", repr=False)
    endpoint_url: str = ""
    region: str = ""


class Store:
    """Content by path. Every method may raise TransientError (StoreUnavailable) once its retries are used up, and
    DeterministicError when retrying cannot help (StoreAccessDenied, StoreNotFound, UnsafePath)."""

    def __init__(self, uri: str, medium: Medium, retry: RetryPolicy | None = None) -> None:
        self.uri = uri
        self._medium = medium
        self._retry = retry or RetryPolicy()

    def read(self, path: str) -> bytes:
        """Whole content. Raises NotInStoreError."""
        return self._retry.run(lambda: self._medium.read(checked(path)))

    def put(self, path: str, data: bytes, *, if_absent: bool = False) -> bool:
        """Write; with `if_absent` only where nothing is, and False when something was.

        After a lost reply a conditional write that did happen answers False too: compare contents where it matters.
        """
        if if_absent:
            return self._retry.run(lambda: self._medium.put_new(checked(path), data))
        self._retry.run(lambda: self._medium.put(checked(path), data))
        return True

    def upload(self, local: Path, path: str) -> None:
        """Write a file's content."""
        if not local.is_file():
            raise DeterministicError("FileMissing", f"{local}: no such file to upload")
        self._retry.run(lambda: self._medium.upload(local, checked(path)))

    def download(self, path: str, local: Path, *, size: int, sha256: str) -> None:
        """Fetch into `local`, which appears only complete and checked; a cut download is resumed."""
        self._retry.run(lambda: download(self._medium, checked(path), local, size=size, sha256=sha256))

    def size(self, path: str) -> int | None:
        """Bytes stored, None when nothing is."""
        return self._retry.run(lambda: self._medium.size(checked(path)))

    def exists(self, path: str) -> bool:
        """Whether content is stored under exactly this path."""
        return self.size(path) is not None

    def list(self, prefix: str = "") -> list[str]:
        """Paths of all content below a folder, sorted."""
        return self._retry.run(lambda: self._medium.list(checked_prefix(prefix)))

    def entries(self, prefix: str = "") -> Sequence[Entry]:
        """All content below a folder with size and time, sorted by path."""
        return self._retry.run(lambda: self._medium.entries(checked_prefix(prefix)))

    def delete(self, prefix: str) -> None:
        """Remove the content at and below a path; nothing there is not an error."""
        self._retry.run(lambda: self._medium.delete(checked(prefix.rstrip("/"))))


def open_store(uri: str, *, credentials: Credentials | None = None, retry: RetryPolicy | None = None) -> Store:
    """The store at `uri`: file:///folder, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix.

    Nothing is contacted yet. S3 takes the standard AWS variables and files, AWS_ENDPOINT_URL among them.
    """
    parts = urlsplit(uri)
    if parts.query or parts.fragment or parts.password is not None:
        raise DeterministicError(
            "InvalidStoreURI", f"{parts.scheme}://{parts.hostname or ''}: no query, fragment or password in a store URI"
        )
    if parts.scheme == "file":
        return Store(uri.rstrip("/"), _folder(uri, parts.netloc, unquote(parts.path)), retry)
    if parts.scheme == "oci":
        raise DeterministicError(
            "FeatureNotAvailable", f"{uri}: oci:// stores are not available yet; use file://, s3://, gs:// or az://"
        )
    if parts.scheme not in ("s3", "gs", "az"):
        raise DeterministicError("InvalidStoreURI", f"{uri}: must begin with file://, s3://, gs:// or az://")
    if not parts.netloc or "@" in parts.netloc:
        raise DeterministicError("InvalidStoreURI", f"{uri}: needs the form {parts.scheme}://bucket/prefix")
    prefix = checked_prefix(parts.path.strip("/"))
    options = _s3_options(credentials or Credentials(), os.environ) if parts.scheme == "s3" else {}
    root = f"{parts.netloc}/{prefix}".rstrip("/")
    return Store(uri.rstrip("/"), Bucket(parts.scheme, root, options), retry)


def _folder(uri: str, host: str, path: str) -> Medium:
    if host not in ("", "localhost") or not path.startswith("/") or ".." in path.split("/"):
        raise DeterministicError("InvalidStoreURI", f"{uri}: needs the form file:///absolute/folder")
    return Folder(Path(path))


def _s3_options(credentials: Credentials, environment: Mapping[str, str]) -> dict[str, Any]:
    endpoint = (
        credentials.endpoint_url
        or environment.get("AWS_ENDPOINT_URL_S3", "")
        or environment.get("AWS_ENDPOINT_URL", "")
    )
    client: dict[str, Any] = {}
    options: dict[str, Any] = {
        "config_kwargs": {
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": SILENCE_SECONDS,
            "retries": {"max_attempts": 1},
        },
        "client_kwargs": client,
    }
    if endpoint:
        target = urlsplit(endpoint)
        if target.scheme not in ("http", "https"):
            raise DeterministicError("InvalidStoreURI", f"S3 endpoint {endpoint}: must begin with http:// or https://")
        check_host(target.hostname or "", where="S3 endpoint")
        options["endpoint_url"] = endpoint
        options["config_kwargs"]["s3"] = {"addressing_style": "path"}  # other servers rarely have a name per bucket
    if credentials.region:
        client["region_name"] = credentials.region
    if credentials.access_key_id:
        options |= {"key": credentials.access_key_id, "secret": credentials.secret_access_key}
        options |= {"token": credentials.session_token} if credentials.session_token else {}
    return options
