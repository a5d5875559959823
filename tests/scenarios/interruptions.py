"""A cluster whose callers are cut off: the process dies after a write, or the reply is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from enginewright_cluster.port import Cluster, UnavailableError

WRITES = frozenset({"apply", "create", "patch", "patch_status", "delete", "scale"})


class Killed(Exception):  # noqa: N818 - what happens to a process
    """The process is gone; nothing in it may catch this as an error of the cluster."""


class Interrupted:
    """The Cluster port of one process, with `after(n)` called when its n-th write has happened."""

    def __init__(self, cluster: Cluster, after: Callable[[int], None]) -> None:
        self._cluster = cluster
        self._after = after
        self.written = 0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._cluster, name)
        if name not in WRITES:
            return method

        async def write(*given: Any, **named: Any) -> Any:
            result = await method(*given, **named)
            self.written += 1
            self._after(self.written)
            return result

        return write


def killed_after(number: int) -> Callable[[int], None]:
    """The process dies right after its n-th write."""

    def after(written: int) -> None:
        if written == number:
            raise Killed

    return after


def losing_replies(every: int) -> Callable[[int], None]:
    """The reply to every n-th write is lost."""

    def after(written: int) -> None:
        if written % every == 0:
            raise UnavailableError("Unavailable", "the reply was lost")

    return after
