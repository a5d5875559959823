"""What is told of a contest: which peer each of our engines is held against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.peers.contender import OURS, OURS_EXACT
from benchmarks.peers.contest import SHAPES, Score

BUDGET_COSINE = 0.99
"""Mean cosine to eager PyTorch: the default budget of the gate."""
EXACT_COSINE = 0.9999
"""On every text."""


def rows(model: str, scores: Sequence[Score], disturbed: dict[str, float]) -> list[dict[str, Any]]:
    """For each shape: our engines against the best of equal quality, then our INT8 engine against everybody."""
    by_name = {score.contender.contender: score for score in scores}
    peers = [score for score in scores if not score.contender.contender.ours]
    equal = [peer for peer in peers if peer.cosine_mean >= BUDGET_COSINE]
    exact = [peer for peer in peers if peer.cosine_min >= EXACT_COSINE]
    found = []
    for shape in SHAPES:

        def row(case: str, ours: Score, peer: Score, *, shape: str = shape) -> dict[str, Any]:
            return {
                "case": f"{model}/{shape}{case}",
                "ours": round(ours.milliseconds(shape), 3),
                "reference": round(peer.milliseconds(shape), 3),
                "ratio": round(peer.milliseconds(shape) / ours.milliseconds(shape), 3),
                "unit": "ms p50",
                "against": peer.contender.contender.name,
                "cosine": round(ours.cosine_mean, 5),
                "cosineMinimum": round(ours.cosine_min, 5),
                "referenceCosine": round(peer.cosine_mean, 5),
                "referenceCosineMinimum": round(peer.cosine_min, 5),
                "rounds": len(peer.seconds[shape]),
                "disturbance": disturbed[shape],
                "versions": peer.contender.versions,
            }

        for case, ours, among in (("", OURS, equal), ("/exact", OURS_EXACT, exact)):
            if ours in by_name and among:
                found.append(row(case, by_name[ours], min(among, key=lambda one: one.milliseconds(shape))))
        for peer in peers:
            name = peer.contender.contender.name.lower().replace(", ", "-").replace(" ", "-")
            found.append(row(f"/{name}", by_name[OURS], peer))
    return found
