"""The cluster port on a Kubernetes API server."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .kubernetes_access import Access
from .kubernetes_connection import Connection, Observer, decoded
from .kubernetes_errors import Target, another_uid
from .kubernetes_watch import Selection, cleaned, listed, watched
from .objects.metadata import normal, ref_of
from .port import ConflictError, InvalidError, Kind, NotFoundError, Object, Ref, WatchEvent
from .rate_limit import RateLimit

_MERGE = "application/merge-patch+json"
_APPLY = "application/apply-patch+yaml"
_TRIES_AGAINST_WRITERS = 5


class KubernetesCluster:
    """`Cluster` on a real API server. Objects come without `metadata.managedFields`."""

    def __init__(self, access: Access, *, observe: Observer | None = None, limit: RateLimit | None = None) -> None:
        """`observe` is told of each call: verb, plural, code, seconds. `limit`: of requests; watches do not count."""
        self._connection = Connection(access, observe, limit)

    @classmethod
    async def auto(
        cls,
        path: Path | None = None,
        context: str | None = None,
        *,
        observe: Observer | None = None,
        limit: RateLimit | None = None,
    ) -> KubernetesCluster:
        """By the pod's service account where there is one and no kubeconfig or context is asked for."""
        if path is None and context is None and Access.has_service_account():
            return await cls.in_cluster(observe=observe, limit=limit)
        return await cls.from_kubeconfig(path, context, observe=observe, limit=limit)

    @classmethod
    async def from_kubeconfig(
        cls,
        path: Path | None = None,
        context: str | None = None,
        *,
        observe: Observer | None = None,
        limit: RateLimit | None = None,
    ) -> KubernetesCluster:
        """By a kubeconfig: `path`, else $KUBECONFIG, else ~/.kube/config. Raises DeterministicError naming the file."""
        return cls(await Access.from_kubeconfig(path, context), observe=observe, limit=limit)

    @classmethod
    async def in_cluster(cls, *, observe: Observer | None = None, limit: RateLimit | None = None) -> KubernetesCluster:
        """By the pod's service account. Raises DeterministicError outside a pod."""
        return cls(await Access.in_cluster(), observe=observe, limit=limit)

    async def get(self, ref: Ref) -> Object:
        """See `Cluster.get`."""
        return await self._object(_target("get", ref), "GET")

    async def list(
        self,
        kind: Kind,
        *,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        name: str | None = None,
    ) -> Sequence[Object]:
        """See `Cluster.list`."""
        return await listed(self._connection, Selection(kind, namespace, labels, name))

    async def apply(self, manifest: Object, *, field_manager: str = "enginewright", force: bool = True) -> Object:
        """See `Cluster.apply`."""
        query = {"fieldManager": field_manager, "force": "true" if force else "false"}
        # Some built-in kinds would take a status on creation.
        body = {key: value for key, value in manifest.items() if key != "status"}
        target, uid = _target("apply", ref_of(manifest)), manifest["metadata"].get("uid")
        return await self._object(target, "PATCH", query=query, body=body, content_type=_APPLY, uid=uid)

    async def create(self, manifest: Object) -> Object:
        """See `Cluster.create`."""
        metadata = manifest.get("metadata", {})
        # The server completes metadata.generateName; the address only needs the namespace.
        ref = ref_of({**manifest, "metadata": {"name": metadata.get("generateName"), **metadata}})
        target = Target("create", ref.kind, ref.namespace)
        return await self._object(target, "POST", query={"fieldManager": "enginewright"}, body=manifest)

    async def patch_status(
        self,
        ref: Ref,
        status: Mapping[str, Any],
        *,
        uid: str | None = None,
        version: str | None = None,
        field_manager: str = "enginewright",
    ) -> Object:
        """See `Cluster.patch_status`.

        For custom resources the API server ignores a uid that is sent with a status, but heeds a resource version: so
        the object is read first unless its version is known, and again when somebody wrote in between.
        """
        if uid is None:
            return await self._merge_status(ref, {"status": status}, field_manager)
        if version is not None:
            with contextlib.suppress(ConflictError):
                body = {"status": status, "metadata": {"resourceVersion": version}}
                return await self._merge_status(ref, body, field_manager)
        tries = 0
        while True:
            tries += 1
            metadata = (await self.get(ref))["metadata"]
            if metadata["uid"] != uid:
                raise another_uid(_target("patch", ref), uid)
            body = {"status": status, "metadata": {"resourceVersion": metadata["resourceVersion"]}}
            try:
                return await self._merge_status(ref, body, field_manager)
            except ConflictError:
                if tries == _TRIES_AGAINST_WRITERS:
                    raise

    async def patch(self, ref: Ref, patch: Mapping[str, Any], *, uid: str | None = None) -> Object:
        """See `Cluster.patch`. A `metadata.resourceVersion` in the patch is a precondition too."""
        return await self._object(
            _target("patch", ref),
            "PATCH",
            query={"fieldManager": "enginewright"},
            body=_with_uid(patch, uid),
            content_type=_MERGE,
            uid=uid,
        )

    async def scale(self, ref: Ref, replicas: int) -> None:
        """See `Cluster.scale`."""
        target, body = _target("patch", ref), {"spec": {"replicas": replicas}}
        await self._connection.request(target, "PATCH", subresource="scale", body=body, content_type=_MERGE)

    async def delete(self, ref: Ref, *, uid: str | None = None) -> None:
        """See `Cluster.delete`."""
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        try:
            await self._connection.request(_target("delete", ref), "DELETE", body=options)
        except NotFoundError:
            return

    def watch(
        self,
        kind: Kind,
        *,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        present: Callable[[], None] | None = None,
    ) -> AsyncIterator[WatchEvent]:
        """See `Cluster.watch`. Raises DeterministicError only when the very first list is refused."""
        return watched(self._connection, Selection(kind, namespace, labels), present)

    async def logs(self, ref: Ref, *, container: str | None = None, tail_lines: int | None = None) -> str:
        """See `Cluster.logs`."""
        query = {} if container is None else {"container": container}
        if tail_lines is not None:
            query["tailLines"] = str(tail_lines)
        text = await self._connection.request(_target("get", ref), "GET", subresource="log", query=query)
        return text.decode(errors="replace")

    async def close(self) -> None:
        """See `Cluster.close`."""
        await self._connection.close()

    async def _merge_status(self, ref: Ref, body: Mapping[str, Any], field_manager: str) -> Object:
        return await self._object(
            _target("patch", ref),
            "PATCH",
            subresource="status",
            query={"fieldManager": field_manager},
            body=body,
            content_type=_MERGE,
        )

    async def _object(self, target: Target, method: str, **request: Any) -> Object:
        return cleaned(decoded(target, await self._connection.request(target, method, **request)))


def _target(verb: str, ref: Ref) -> Target:
    address = normal(ref)
    if address.name in {".", ".."} or not {"/", "%"}.isdisjoint(address.name):
        raise InvalidError("Invalid", f"{ref.kind.kind} {ref.name!r}: metadata.name: cannot be part of a path")
    return Target(verb, address.kind, address.namespace, address.name)


def _with_uid(patch: Mapping[str, Any], uid: str | None) -> dict[str, Any]:
    """The patch, which only the object of this uid may take."""
    if uid is None:
        return dict(patch)
    return {**patch, "metadata": {**patch.get("metadata", {}), "uid": uid}}
