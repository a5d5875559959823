"""Which peer an engine of ours is held against."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from benchmarks.peers.contender import EAGER, OURS, OURS_EXACT, PEERS, Contender
from benchmarks.peers.contest import SHAPES, Score
from benchmarks.peers.rows import rows


def score(contender: Contender, milliseconds: float, mean: float, least: float) -> Score:
    running: Any = SimpleNamespace(contender=contender, versions={"torch": "2"})
    seconds = {shape: [milliseconds / 1000] * 3 for shape in SHAPES}
    return Score(running, mean, least, seconds)


def test_only_peers_of_equal_quality_are_the_reference() -> None:
    compiled, onnx, dynamic, openvino, *_ = PEERS
    found = rows(
        "minilm",
        [
            score(EAGER, 20.0, 1.0, 1.0),
            score(OURS, 5.0, 0.998, 0.99),
            score(OURS_EXACT[0], 10.0, 1.0, 1.0),
            score(OURS_EXACT[1], 6.0, 1.0, 0.999),  # slower than INT8, not exact
            score(compiled, 15.0, 1.0, 0.99999),
            score(onnx, 12.0, 1.0, 1.0),
            score(dynamic, 4.0, 0.95, 0.8),  # fast and wrong
            score(openvino, 8.0, 0.9995, 0.999),  # good enough for the budget, not exact
        ],
        dict.fromkeys(SHAPES, 0.0),
    )
    by_case = {item["case"]: item for item in found}
    within, exact = by_case["minilm/b1s128"], by_case["minilm/b1s128/exact"]
    assert (within["against"], within["ratio"]) == (openvino.name, 1.6)
    assert (exact["against"], exact["ratio"]) == (onnx.name, 1.2)
    assert (within["engine"], exact["engine"]) == (OURS.name, OURS_EXACT[0].name)
    assert by_case["minilm/b1s128/optimum-onnx-runtime-dynamic-int8"]["ratio"] == 0.8
    assert len(found) == len(SHAPES) * (2 + 5)


def test_without_a_peer_of_equal_quality_there_is_no_case() -> None:
    found = rows("m", [score(OURS, 5.0, 0.998, 0.99), score(PEERS[0], 4.0, 0.9, 0.5)], dict.fromkeys(SHAPES, 0.0))
    assert {item["case"].count("/") for item in found} == {2}
