"""The Node object of this machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from datetime import datetime
from typing import Any

from ..objects.metadata import timestamp
from ..port import NODE, Cluster, Ref
from .names import COMPONENT, NODE_ADDRESS, NODE_NAME


async def report_node(cluster: Cluster, now: Callable[[], datetime], *, ready: bool) -> None:
    """Write the Node `local` with its capacity; Ready as long as the agent runs."""
    await cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": NODE_NAME,
                "labels": {
                    "kubernetes.io/hostname": NODE_NAME,
                    "kubernetes.io/os": platform.system().lower(),
                    "kubernetes.io/arch": {"x86_64": "amd64", "aarch64": "arm64"}.get(
                        platform.machine(), platform.machine()
                    ),
                },
            },
        },
        field_manager=COMPONENT,
    )
    await cluster.patch_status(Ref(NODE, NODE_NAME), _status(now(), ready=ready))


def _status(now: datetime, *, ready: bool) -> dict[str, Any]:
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    capacity = {
        "cpu": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory_bytes // 1024}Ki",
        "pods": "110",
    }
    return {
        "capacity": capacity,
        "allocatable": capacity,
        "addresses": [{"type": "InternalIP", "address": NODE_ADDRESS}],
        "conditions": [
            {
                "type": "Ready",
                "status": "True" if ready else "False",
                "reason": "AgentReady" if ready else "AgentStopped",
                "message": "the node agent runs" if ready else "the node agent was stopped",
                "lastTransitionTime": timestamp(now),
            }
        ],
    }
