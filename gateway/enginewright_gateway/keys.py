"""API keys: hashes in a folder (a mounted Secret), each scoped to models.

One file a key; its name says who it is: `{"sha256": "<64 hex>", "models": ["search/*"]}`. Patterns match
`namespace/name`. The key itself is nowhere stored.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import time
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from enginewright_api.errors import DeterministicError

from .errors import RefusedError
from .routes import ServedModel

_RELOAD_SECONDS = 5.0
_MAX_FILE_BYTES = 16 * 1024

logger = logging.getLogger("enginewright.gateway.keys")


class KeyFile(BaseModel):
    """One key as it stands in its file."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] = Field(description="SHA-256 of the key.")
    models: Annotated[list[str], Field(min_length=1, max_length=256)] = Field(
        description="Patterns of namespace/name; * stands for any text."
    )


class Caller(BaseModel):
    """Who asks, and what they may see."""

    model_config = ConfigDict(frozen=True)
    name: str
    patterns: tuple[str, ...]

    def may_use(self, model: ServedModel) -> bool:
        """Whether the key's scope covers the model."""
        return any(fnmatchcase(model.id, pattern) for pattern in self.patterns)

    def visible(self, models: Sequence[ServedModel]) -> list[ServedModel]:
        """Those the key covers."""
        return [model for model in models if self.may_use(model)]


ANONYMOUS = Caller(name="anonymous", patterns=("*",))


def read_keys(folder: Path) -> dict[str, KeyFile]:
    """Keys by name. Raises DeterministicError naming the file that is wrong.

    Kubernetes mounts a Secret as links beside folders called `..data`: names that begin with a dot are not keys.
    """
    keys: dict[str, KeyFile] = {}
    if not folder.is_dir():
        raise DeterministicError("KeysUnreadable", f"{folder}: no such folder of API keys; mount the Secret there")
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not path.is_file():
            continue
        try:
            with path.open("rb") as file:
                keys[path.name] = KeyFile.model_validate_json(file.read(_MAX_FILE_BYTES))
        except (OSError, ValidationError) as error:
            where = error.errors(include_input=False)[0] if isinstance(error, ValidationError) else error
            raise DeterministicError(
                "KeysUnreadable",
                f'{path}: must hold {{"sha256": "64 hex digits", "models": ["namespace/name pattern"]}}: {where}',
            ) from error
    return keys


class KeyRing:
    """Finds the caller of a request. `folder=None` lets everybody in."""

    def __init__(self, folder: Path | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._clock = clock
        self._keys = read_keys(folder) if folder is not None else {}
        self._read_at = clock()

    def caller(self, authorization: str | None) -> Caller:
        """From the value of the Authorization header. Raises RefusedError 401."""
        if self._folder is None:
            return ANONYMOUS
        self._reload(self._folder)
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise RefusedError(401, "InvalidKey", "no API key: send it as `Authorization: Bearer KEY`")
        digest = hashlib.sha256(key.strip().encode("utf-8", "surrogateescape")).hexdigest()
        found: Caller | None = None
        for name, candidate in self._keys.items():
            # Every key is compared, in constant time: how long it takes says nothing.
            if hmac.compare_digest(digest, candidate.sha256):
                found = Caller(name=name, patterns=tuple(candidate.models))
        if found is None:
            raise RefusedError(401, "InvalidKey", "this API key is not known here; ask whoever runs this gateway")
        return found

    def _reload(self, folder: Path) -> None:
        if self._clock() - self._read_at < _RELOAD_SECONDS:
            return
        self._read_at = self._clock()
        try:
            self._keys = read_keys(folder)
        except DeterministicError as error:
            logger.error("keys not reloaded, the former ones stay: %s", error.message)
