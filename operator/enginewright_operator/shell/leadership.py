"""One active replica: a Lease that has to be renewed, as client-go's leader election does it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from enginewright_api.errors import TransientError
from enginewright_cluster.port import LEASE, Cluster, NotFoundError, Object, Ref

log = logging.getLogger(__name__)


class LeadershipLostError(TransientError):
    """The Lease could not be renewed in time: somebody else may be active, so this process has to stop."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Times of the election; the lease outlives several failed renewals."""

    lease_seconds: int = 15
    renew_seconds: float = 10.0
    """Without a renewal for this long the leader gives up, before the lease ends for others."""
    retry_seconds: float = 2.0


class Leadership:
    """Candidate for one Lease. Other holders' clocks are not trusted: a lease has ended when it did not change for
    its duration on our own clock."""

    def __init__(self, cluster: Cluster, lease: Ref, identity: str, terms: Terms | None = None) -> None:
        self._cluster = cluster
        self._lease = lease
        self._identity = identity
        self._terms = terms or Terms()
        self._seen: tuple[str, float] | None = None

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Wait to be leader, then work while renewing. Raises LeadershipLostError."""
        while not await self._try():  # noqa: ASYNC110 - another process gives the lease back, nothing here can wake us
            await asyncio.sleep(self._terms.retry_seconds)
        log.info("leading", extra={"identity": self._identity})
        working = asyncio.ensure_future(work())
        renewing = asyncio.ensure_future(self._renew())
        try:
            done, _ = await asyncio.wait((working, renewing), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (working, renewing):
                task.cancel()
            await asyncio.gather(working, renewing, return_exceptions=True)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._terms.retry_seconds):
                    await self._release()

    async def _renew(self) -> None:
        """A request that hangs counts as a renewal that failed: by the time it ends, somebody else may lead."""
        loop = asyncio.get_running_loop()
        renewed = loop.time()
        while True:
            try:
                async with asyncio.timeout_at(renewed + self._terms.renew_seconds):
                    await asyncio.sleep(self._terms.retry_seconds)
                    asked = loop.time()
                    if await self._try():
                        renewed = asked
            except TimeoutError:
                message = f"lease {self._lease.name} was not renewed for {self._terms.renew_seconds:g} s"
                raise LeadershipLostError("LeadershipLost", message) from None

    async def _try(self) -> bool:
        """Take or renew the lease; False when somebody else holds it or the cluster does not answer."""
        try:
            return await self._take()
        except TransientError as error:
            log.debug("lease not taken", extra={"error": str(error)})
            return False

    async def _take(self) -> bool:
        try:
            present = await self._cluster.get(self._lease)
        except NotFoundError:
            await self._cluster.create(self._object())
            return True
        spec, version = present.get("spec", {}), str(present["metadata"].get("resourceVersion", ""))
        holder = spec.get("holderIdentity", "")
        if holder not in ("", self._identity) and not self._ended(spec, version):
            return False
        patch = {"metadata": {"resourceVersion": version}, "spec": self._spec(holder, spec)}
        await self._cluster.patch(self._lease, patch)
        return True

    def _ended(self, spec: Object, version: str) -> bool:
        now = asyncio.get_running_loop().time()
        if self._seen is None or self._seen[0] != version:
            self._seen = (version, now)
            return False
        return now - self._seen[1] > float(spec.get("leaseDurationSeconds", self._terms.lease_seconds))

    async def _release(self) -> None:
        """Let the next one start at once; if that fails, the lease ends by itself."""
        with contextlib.suppress(TransientError, NotFoundError):
            present = await self._cluster.get(self._lease)
            if present.get("spec", {}).get("holderIdentity") == self._identity:
                version = present["metadata"].get("resourceVersion")
                patch = {"metadata": {"resourceVersion": version}, "spec": {"holderIdentity": ""}}
                await self._cluster.patch(self._lease, patch)

    def _object(self) -> Object:
        return {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.kind,
            "metadata": {"name": self._lease.name, "namespace": self._lease.namespace},
            "spec": self._spec("", {}),
        }

    def _spec(self, holder: str, old: Object) -> Object:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        mine = holder == self._identity
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": self._terms.lease_seconds,
            "acquireTime": old.get("acquireTime", now) if mine else now,
            "renewTime": now,
            "leaseTransitions": int(old.get("leaseTransitions", 0)) + (0 if mine else 1),
        }
