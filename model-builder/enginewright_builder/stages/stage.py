"""What a stage is, and where its result is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Output:
    """Result of a stage: files and a small JSON object."""

    key: str
    folder: Path
    result: Mapping[str, Any]


class Stage(Protocol):
    """A step of a build. Its inputs are its fields; everything the result depends on is in its key."""

    @property
    def name(self) -> str:
        """As reported."""

    @property
    def shared(self) -> bool:
        """Whether the result is worth sending to the store, for other machines and other rungs."""

    def key(self) -> str:
        """Digest of everything the result follows from."""

    def run(self, into: Path) -> dict[str, Any]:
        """Write files into an empty folder; what is returned is the result's JSON object.

        `message`, if there, is what people are told about it.
        """
