"""The port to a cluster: objects in, objects out. Three adapters: Kubernetes, Local (SQLite) and Fake (tests)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from enginewright_api.errors import DeterministicError, TransientError

Object = dict[str, Any]
"""A Kubernetes object as JSON: apiVersion, kind, metadata, spec, status ..."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of object. `namespaced=False` for cluster-scoped ones."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True


OPTIMIZED_MODEL = Kind("enginewright.io/v1alpha1", "OptimizedModel", "optimizedmodels")
ENGINE_BUILD = Kind("enginewright.io/v1alpha1", "EngineBuild", "enginebuilds")
ACCELERATOR_CLASS = Kind("enginewright.io/v1alpha1", "AcceleratorClass", "acceleratorclasses", namespaced=False)
JOB = Kind("batch/v1", "Job", "jobs")
DEPLOYMENT = Kind("apps/v1", "Deployment", "deployments")
LEADER_WORKER_SET = Kind("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet", "leaderworkersets")
"""Groups of pods over several nodes (sigs.k8s.io/lws): an add-on that a cluster may lack."""
POD = Kind("v1", "Pod", "pods")
SERVICE = Kind("v1", "Service", "services")
CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps")
SECRET = Kind("v1", "Secret", "secrets")
EVENT = Kind("v1", "Event", "events")
NODE = Kind("v1", "Node", "nodes", namespaced=False)
NAMESPACE = Kind("v1", "Namespace", "namespaces", namespaced=False)
ENDPOINT_SLICE = Kind("discovery.k8s.io/v1", "EndpointSlice", "endpointslices")
POD_DISRUPTION_BUDGET = Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
LEASE = Kind("coordination.k8s.io/v1", "Lease", "leases")

KINDS: tuple[Kind, ...] = (
    OPTIMIZED_MODEL, ENGINE_BUILD, ACCELERATOR_CLASS, JOB, DEPLOYMENT, LEADER_WORKER_SET, POD, SERVICE, CONFIG_MAP,
    SECRET, EVENT, NODE, NAMESPACE, ENDPOINT_SLICE, POD_DISRUPTION_BUDGET, LEASE,
)  # fmt: skip


def kind_of(manifest: Mapping[str, Any]) -> Kind:
    """Kind of a manifest; DeterministicError when we do not handle it."""
    for kind in KINDS:
        if (kind.api_version, kind.kind) == (manifest.get("apiVersion"), manifest.get("kind")):
            return kind
    raise DeterministicError(
        "UnknownKind", f"{manifest.get('apiVersion')} {manifest.get('kind')} is not a kind that Enginewright handles"
    )


@dataclass(frozen=True, slots=True)
class Ref:
    """Address of one object."""

    kind: Kind
    name: str
    namespace: str | None = None


class EventType(StrEnum):
    """What a watch reports."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One change; on (re)start every existing object comes as ADDED first."""

    type: EventType
    object: Object


class NotFoundError(DeterministicError):
    """The object does not exist (404)."""


class ConflictError(TransientError):
    """Somebody wrote in between, or the precondition (uid, resourceVersion, field owner) does not hold (409)."""


@dataclass(frozen=True, slots=True, order=True)
class OwnedField:
    """A field, and who set it last: a field manager."""

    manager: str
    field: str
    """As people write it: `.spec.template.spec.containers[name="server"].image`."""


class FieldConflictError(ConflictError):
    """An apply without force would change what others have set (409). Nothing happened."""

    def __init__(self, message: str, owned: Sequence[OwnedField]) -> None:
        super().__init__("Conflict", message)
        self.owned = tuple(owned)


class InvalidError(DeterministicError):
    """The object breaks the schema or a rule (422, 400); the message names the field."""


class UnavailableError(TransientError):
    """The cluster did not answer, or answered 429 or 5xx; whether a write happened is unknown."""


class Cluster(Protocol):
    """Objects of one cluster. Every method may raise UnavailableError; writes may have happened all the same."""

    async def get(self, ref: Ref) -> Object:
        """Fresh read. Raises NotFoundError."""
        ...

    async def list(
        self,
        kind: Kind,
        *,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        name: str | None = None,
    ) -> Sequence[Object]:
        """Objects of a kind, in all namespaces when `namespace` is None, filtered by equality of labels and by name.

        The list of one name needs no right to read objects by name.
        """
        ...

    async def apply(self, manifest: Object, *, field_manager: str = "enginewright", force: bool = True) -> Object:
        """Server-side apply: create, or merge by field ownership. Never touches status.

        Raises InvalidError; FieldConflictError for fields of others when not forced; ConflictError for a stated uid or
        resourceVersion."""
        ...

    async def create(self, manifest: Object) -> Object:
        """Plain create. Raises ConflictError when it exists."""
        ...

    async def patch_status(
        self,
        ref: Ref,
        status: Mapping[str, Any],
        *,
        uid: str | None = None,
        version: str | None = None,
        field_manager: str = "enginewright",
    ) -> Object:
        """JSON merge patch on the status subresource. `version`: the resource version that was read last, where it is
        known; when it is still the newest, nothing has to be read to make sure of the uid.

        Raises NotFoundError, InvalidError; ConflictError for another uid."""
        ...

    async def patch(self, ref: Ref, patch: Mapping[str, Any], *, uid: str | None = None) -> Object:
        """JSON merge patch on the object itself (metadata such as finalizers and annotations, or spec)."""
        ...

    async def scale(self, ref: Ref, replicas: int) -> None:
        """Write spec.replicas through the scale subresource."""
        ...

    async def delete(self, ref: Ref, *, uid: str | None = None) -> None:
        """Background deletion; a missing object is not an error. ConflictError for another uid."""
        ...

    def watch(
        self,
        kind: Kind,
        *,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        present: Callable[[], None] | None = None,
    ) -> AsyncIterator[WatchEvent]:
        """Endless stream of changes, first the present; reconnects and relists by itself (deletions missed across a
        relist are reported as DELETED, with type and metadata only). `present` is called once: all that there is has
        been told, what follows are changes."""
        ...

    async def logs(self, ref: Ref, *, container: str | None = None, tail_lines: int | None = None) -> str:
        """Log text of a pod."""
        ...

    async def close(self) -> None:
        """Release connections."""
        ...
