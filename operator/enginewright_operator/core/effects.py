"""What a plan may ask for. Effects are data: the shell executes them in order, each is safe to repeat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reference:
    """Address of one object."""

    api_version: str
    kind: str
    name: str
    namespace: str | None = None

    @classmethod
    def to(cls, manifest: Mapping[str, Any]) -> Reference:
        """Address of an object that is at hand."""
        metadata = manifest["metadata"]
        return cls(manifest["apiVersion"], manifest["kind"], metadata["name"], metadata.get("namespace"))


@dataclass(frozen=True, slots=True)
class Apply:
    """Server-side apply of a child."""

    manifest: Object


@dataclass(frozen=True, slots=True)
class Create:
    """Create, once: an object that exists already is somebody's who came first, and the plan starts over."""

    manifest: Object


@dataclass(frozen=True, slots=True)
class Patch:
    """JSON merge patch; with `resource_version`, only if nobody wrote in between."""

    reference: Reference
    patch: Mapping[str, Any]
    uid: str | None
    resource_version: str | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """Background deletion of exactly the object that was seen."""

    reference: Reference
    uid: str | None


@dataclass(frozen=True, slots=True)
class Emit:
    """A Kubernetes Event. `occasion` names the transition, so that a repeated plan does not tell it twice."""

    about: Object
    type: Literal["Normal", "Warning"]
    reason: str
    message: str
    occasion: str


@dataclass(frozen=True, slots=True)
class PatchStatus:
    """JSON merge patch of the status; only what differs.

    One that `may_wait` is left out where another visit follows at once: it says the same, and what has come since.
    """

    reference: Reference
    patch: Mapping[str, Any]
    uid: str | None
    events: tuple[Emit, ...] = ()
    """Told before it is written: what it says that the former one did not."""
    may_wait: bool = False


@dataclass(frozen=True, slots=True)
class RequeueAfter:
    """Look again, though nothing may happen until then."""

    seconds: float


Effect = Apply | Create | Patch | PatchStatus | Delete | Emit | RequeueAfter
"""Everything that a plan may ask for."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Effects in the order in which they are to happen."""

    effects: tuple[Effect, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    """For logs, beside what the object says of itself: build key, phase."""
    generation: int | None = None
    """Of the model that it was made for; once that has another spec, nothing more of it is executed."""

    @property
    def writes(self) -> tuple[Effect, ...]:
        """All effects that write to the cluster; empty in a steady state."""
        return tuple(effect for effect in self.effects if not isinstance(effect, RequeueAfter))
