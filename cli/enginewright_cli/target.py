"""Which cluster a command talks to: the local control plane, or a Kubernetes context."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from enginewright_api.errors import DeterministicError
from enginewright_cli.local.control_plane import open_cluster
from enginewright_cli.local.daemon import running_pid
from enginewright_cli.output import errors
from enginewright_cli.state import StateDirectory
from enginewright_cluster.port import (
    ACCELERATOR_CLASS,
    DEPLOYMENT,
    ENGINE_BUILD,
    EVENT,
    JOB,
    KINDS,
    OPTIMIZED_MODEL,
    POD,
    SERVICE,
    Cluster,
    Kind,
)

T = TypeVar("T")

_SHORT_NAMES = {
    "om": OPTIMIZED_MODEL, "model": OPTIMIZED_MODEL, "models": OPTIMIZED_MODEL,
    "eb": ENGINE_BUILD, "build": ENGINE_BUILD, "builds": ENGINE_BUILD,
    "ac": ACCELERATOR_CLASS, "class": ACCELERATOR_CLASS, "classes": ACCELERATOR_CLASS,
    "deploy": DEPLOYMENT, "po": POD, "svc": SERVICE, "ev": EVENT, "job": JOB,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Target:
    """Where to, in which namespace. `context` None is local mode; empty is the kubeconfig's current context."""

    state: StateDirectory
    namespace: str
    context: str | None

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Cluster]:
        """The cluster; closed at the end."""
        cluster: Cluster
        if self.context is None:
            cluster = open_cluster(self.state)
            if running_pid(self.state) is None:
                errors.print(
                    "note: the control plane is not running, nothing changes until: enginewright up --detach",
                    markup=False,
                    soft_wrap=True,
                )
        else:
            from enginewright_cluster.kubernetes import KubernetesCluster

            cluster = await KubernetesCluster.from_kubeconfig(context=self.context or None)
        try:
            yield cluster
        finally:
            await cluster.close()

    def run(self, work: Callable[[Cluster], Coroutine[Any, Any, T]]) -> T:
        """Run one coroutine against the cluster."""

        async def connected() -> T:
            async with self.connect() as cluster:
                return await work(cluster)

        return asyncio.run(connected())


def kind_named(text: str) -> Kind:
    """`om`, `optimizedmodel`, `OptimizedModels`, `pods` ..."""
    wanted = text.lower().split(".", 1)[0]
    if wanted in _SHORT_NAMES:
        return _SHORT_NAMES[wanted]
    for kind in KINDS:
        if wanted in {kind.plural, kind.kind.lower()}:
            return kind
    known = ", ".join(sorted({kind.plural for kind in KINDS}))
    raise DeterministicError("Usage", f"{text!r} is not a kind; known are {known}")


def name_and_kind(words: list[str]) -> tuple[Kind, str | None]:
    """`om/NAME`, `om NAME` or `om`. DeterministicError `Usage` for anything else."""
    kind, *names = words[0].split("/", 1) if len(words) == 1 else words
    if len(names) > 1 or not all(names) or any("/" in name for name in names):
        raise DeterministicError("Usage", f"{' '.join(words)!r}: say KIND/NAME, KIND NAME or KIND")
    return kind_named(kind), names[0] if names else None
