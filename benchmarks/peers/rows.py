"""What is told of a contest: which peer each of our engines is held against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.peers.contender import OURS
from benchmarks.peers.contest import SHAPES, Score

BUDGET_COSINE = 0.99
"""Mean cosine to eager PyTorch: the default budget of the gate."""
EXACT_COSINE = 0.9999
"""On every text."""


def rows(model: str, scores: Sequence[Score], disturbed: dict[str, float]) -> list[dict[str, Any]]:
    """For each shape: our fastest engine of a quality against the fastest such peer, then our INT8 against all."""
    (int8,) = (score for score in scores if score.contender.contender == OURS)
    peers = [score for score in scores if not score.contender.contender.ours]
    equal = [score for score in scores if score.cosine_mean >= BUDGET_COSINE]
    exact = [score for score in scores if score.cosine_min >= EXACT_COSINE]
    found = []
    for shape in SHAPES:

        def row(case: str, ours: Score, peer: Score, *, shape: str = shape) -> dict[str, Any]:
            return {
                "case": f"{model}/{shape}{case}",
                "engine": ours.contender.contender.name,
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

        for case, among in (("", equal), ("/exact", exact)):
            fastest = sorted(among, key=lambda one: one.milliseconds(shape))
            ours = next((one for one in fastest if one.contender.contender.ours), None)
            peer = next((one for one in fastest if not one.contender.contender.ours), None)
            if ours is not None and peer is not None:
                found.append(row(case, ours, peer))
        for peer in peers:
            name = peer.contender.contender.name.lower().replace(", ", "-").replace(" ", "-")
            found.append(row(f"/{name}", int8, peer))
    return found
