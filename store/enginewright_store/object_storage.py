"""A store in a bucket through fsspec: s3:// (s3fs), gs:// (gcsfs), az:// (adlfs)."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from enginewright_api.errors import DeterministicError, TransientError
from enginewright_store.medium import Entry, NotInStoreError

_DRIVERS = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs"}
# botocore's names for credentials that are missing or incomplete; they are not OSErrors.
_NO_CREDENTIALS = frozenset(
    {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "CredentialRetrievalError"}
)
_REFUSED_STATUS = frozenset({401, 403})
_REFUSED_CODES = frozenset({"XAdminUserNotFound"})  # versitygw's answer to an unknown access key, with status 404


class Bucket:
    """Medium in a bucket, below a prefix. `root` is bucket/prefix, `options` go to the fsspec driver."""

    def __init__(self, scheme: str, root: str, options: dict[str, Any]) -> None:
        import fsspec

        self._root = root
        self._where = f"{scheme}://{root}"
        try:
            self._files = fsspec.filesystem(scheme, skip_instance_cache=True, use_listings_cache=False, **options)
        except ImportError as error:
            driver = _DRIVERS[scheme]
            raise DeterministicError(
                "FeatureNotAvailable",
                f"{self._where}: needs the Python package {driver}; install it (pip install {driver})",
            ) from error
        self._files.retries = 1  # s3fs's own five attempts, times Store's, would take half a minute to say "down"

    def read(self, path: str) -> bytes:
        with self._translated(path):
            return bytes(self._files.cat_file(self._at(path)))

    def read_range(self, path: str, start: int, stop: int) -> bytes:
        with self._translated(path):
            return bytes(self._files.cat_file(self._at(path), start=start, end=stop))

    def put(self, path: str, data: bytes) -> None:
        with self._translated(path):
            self._files.pipe_file(self._at(path), data)

    def put_new(self, path: str, data: bytes) -> bool:
        with self._translated(path):
            try:
                self._files.pipe_file(self._at(path), data, mode="create")
            except FileExistsError:
                return False
            return True

    def upload(self, local: Path, path: str) -> None:
        with self._translated(path):
            self._files.put_file(str(local), self._at(path))

    def size(self, path: str) -> int | None:
        with self._translated(path):
            try:
                found = self._files.info(self._at(path))
            except FileNotFoundError as error:
                if _code(error) == "NoSuchBucket":
                    raise
                return None
            return int(found["size"]) if found["type"] == "file" else None

    def list(self, prefix: str) -> list[str]:
        with self._translated(prefix):
            found = self._files.find(self._at(prefix) if prefix else self._root)
            return sorted(str(name).removeprefix(self._root + "/") for name in found)

    def entries(self, prefix: str) -> Sequence[Entry]:
        with self._translated(prefix):
            found = self._files.find(self._at(prefix) if prefix else self._root, detail=True)
            return [
                Entry(str(name).removeprefix(self._root + "/"), int(item["size"]), _modified(item))
                for name, item in sorted(found.items())
            ]

    def delete(self, prefix: str) -> None:
        with self._translated(prefix):
            names = self._files.find(self._at(prefix))
            if names:
                self._files.rm(names)

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}"

    @contextlib.contextmanager
    def _translated(self, path: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            if _code(error) == "NoSuchBucket":
                raise DeterministicError(
                    "StoreNotFound", f"{self._where}: the bucket does not exist; create it"
                ) from error
            raise NotInStoreError(path, self._where) from error
        except PermissionError as error:
            raise self._refused(error) from error
        except (DeterministicError, TransientError):
            raise
        except Exception as error:  # drivers raise botocore, aiohttp and google errors that share no base class
            refused = _status(error) in _REFUSED_STATUS or _code(error) in _REFUSED_CODES
            if refused or type(error).__name__ in _NO_CREDENTIALS:
                raise self._refused(error) from error
            if isinstance(error, OSError) and error.errno == errno.EINVAL:
                raise DeterministicError("InvalidStoreRequest", f"{self._where}/{path}: {error}") from error
            raise TransientError(
                "StoreUnavailable", f"{self._where}/{path}: {type(error).__name__}: {error}"
            ) from error

    def _refused(self, error: BaseException) -> DeterministicError:
        return DeterministicError(
            "StoreAccessDenied", f"{self._where}: {error}; check the credentials and what they may do there"
        )


def _modified(item: Mapping[str, Any]) -> datetime:
    """When an object was written: each driver has a name of its own for it."""
    for name in ("LastModified", "last_modified", "mtime", "updated"):
        if (found := item.get(name)) is not None:
            return found if isinstance(found, datetime) else datetime.fromisoformat(str(found))
    raise TransientError("StoreUnavailable", f"{item.get('name')}: the listing does not say when it was written")


def _code(error: BaseException) -> str:
    """The S3 error code, such as NoSuchBucket, of an error or what caused it; empty when there is none."""
    return str(_response(error).get("Error", {}).get("Code", ""))


def _status(error: BaseException) -> int:
    """HTTP status of the answer behind an error, 0 when there was none."""
    return int(_response(error).get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _response(error: BaseException | None) -> dict[str, Any]:
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            return response
        error = error.__cause__
    return {}
