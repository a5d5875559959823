"""What stands in a manifest's place while its artifact is removed.

Readers take it for "not published", publishers for "try again later": so nobody begins to use an artifact that goes.
Until the first file is deleted the tombstone holds the manifest, and a reference that came meanwhile brings it back.
"""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Literal

from pydantic import Field, ValidationError

from enginewright_api.errors import DeterministicError, TransientError, first_problem
from enginewright_api.identity import canonical_json
from enginewright_api.model_base import ApiModel

_MARK = "tombstone"


class Removal(StrEnum):
    """How far it is."""

    CONDEMNED = "Condemned"
    """All files are there still."""
    DELETING = "Deleting"
    """Some may be gone: it can only be built again."""


class Tombstone(ApiModel):
    """The document."""

    tombstone: Literal[1] = Field(default=1, description="Layout version; no manifest has this field.")
    state: Removal
    manifest: str = Field(default="", description="The manifest's text as it was, while it can be brought back.")

    def content(self) -> bytes:
        """As it lies in the store."""
        return canonical_json(self.wire())


class BeingRemovedError(TransientError):
    """The artifact of this key is being removed; after that the key is free again."""

    def __init__(self, uri: str) -> None:
        super().__init__(
            "ArtifactBeingRemoved",
            f"{uri}: is being removed as unused; try again later (a removal that was cut off: enginewright gc ends it)",
        )


def read_tombstone(data: bytes) -> Tombstone | None:
    """The tombstone in a manifest's place, None when it is something else. DeterministicError InvalidTombstone."""
    try:
        document = json.loads(data)
    except ValueError:
        return None
    if not isinstance(document, dict) or _MARK not in document:
        return None
    try:
        return Tombstone.model_validate(document)
    except ValidationError as error:
        raise DeterministicError("InvalidTombstone", f"tombstone: {first_problem(error)}") from error
