"""Whose turn it is where builds are limited: namespaces in rotation, within one the oldest first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from enginewright_api.engine_build import BuildPhase
from enginewright_api.names import LABEL_BUILD_KEY, engine_build_name

from .conditions import CLOCK_SKEW_SECONDS
from .effects import Object
from .reading import mapping
from .settings import BuildLimits

_OVER = (BuildPhase.SUCCEEDED, BuildPhase.FAILED)
_TOLD_EXACTLY = 10
"""Longer queues are not counted out: each step forward would be a write for every build that waits."""

BuildName = tuple[str, str]
"""Namespace and name."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Why a build does not begin yet."""

    before: int
    """Builds that begin or end before it."""
    message: str


def line(
    builds: Iterable[Object], jobs: Iterable[Object], limits: BuildLimits, now: datetime
) -> dict[BuildName, Wait | None]:
    """Every build that would begin an attempt now: None for those that may, all at once.

    A build counts from its Job on; one that pauses after a failure keeps nobody waiting.
    """
    running = {_build_of(job) for job in jobs if not is_over(job)}
    at_work: dict[str, int] = defaultdict(int)
    for namespace, _ in running:
        at_work[namespace] += 1
    ready = [build for build in builds if _name(build) not in running and would_begin(build, limits, now)]
    ready.sort(key=lambda build: (str(build["metadata"].get("creationTimestamp", "")), _name(build)))
    turns: list[tuple[int, int, BuildName]] = []
    found: dict[BuildName, Wait | None] = {}
    asked: dict[str, int] = defaultdict(int)
    for place, build in enumerate(ready):
        namespace, _ = name = _name(build)
        turn = at_work[namespace] + asked[namespace]
        asked[namespace] += 1
        if limits.most_per_namespace is not None and turn >= limits.most_per_namespace:
            before = turn - limits.most_per_namespace + 1
            found[name] = Wait(before, _told(before, limits.most_per_namespace, f"in namespace {namespace}"))
        else:
            turns.append((turn, place, name))
            found[name] = None
    if limits.most_at_once is not None:
        for place, (_, _, name) in enumerate(sorted(turns)):
            before = len(running) + place - limits.most_at_once + 1
            if before > 0:
                found[name] = Wait(before, _told(before, limits.most_at_once, "in the cluster"))
    return found


def is_over(job: Object) -> bool:
    """Whether a Job has ended, or is about to."""
    ended = ("Complete", "Failed", "FailureTarget")
    conditions = job.get("status", {}).get("conditions", [])
    return any(item.get("type") in ended and item.get("status") == "True" for item in conditions)


def _build_of(job: Object) -> BuildName:
    metadata = job["metadata"]
    return metadata["namespace"], engine_build_name(metadata.get("labels", {}).get(LABEL_BUILD_KEY, ""))


def _name(build: Object) -> BuildName:
    return build["metadata"]["namespace"], build["metadata"]["name"]


def would_begin(build: Object, limits: BuildLimits, now: datetime) -> bool:
    """Whether a build without a Job wants one now: it is not judged and does not pause."""
    status = mapping(build, "status")
    # Evidence may be asked for after the verdict: then the verdict is of another generation.
    judged = status.get("phase") in _OVER and status.get("observedGeneration") == build["metadata"].get("generation")
    return not judged and not _pauses(status.get("retryAfter"), limits, now)


def _pauses(stamp: object, limits: BuildLimits, now: datetime) -> bool:
    """After a failure; a moment further off than any pause is of a clock that was wrong."""
    try:
        left = (datetime.fromisoformat(str(stamp)) - now).total_seconds()
    except ValueError:
        return False
    return 0 < left <= limits.retry_most_seconds + CLOCK_SKEW_SECONDS


def _told(before: int, most: int, where: str) -> str:
    """`3 builds come before it: at most 2 at once in the cluster`."""
    if before > _TOLD_EXACTLY:
        return f"more than {_TOLD_EXACTLY} builds come before it: at most {most} at once {where}"
    come = "build comes" if before == 1 else "builds come"
    return f"{before} {come} before it: at most {most} at once {where}"
