"""What people are told about a stage."""

from __future__ import annotations

import pytest

from enginewright_builder.stages.compress import bits_told
from enginewright_builder.stages.transform import transform_told


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ({"excluded": []}, ""),
        ({"averageBits": 4.0, "storedBits": 4.5}, "; 4 bits a weight, 4.5 with scales"),
        (
            {"averageBits": 6.0, "storedBits": 6.25, "bits": {"a": 8, "b": 4, "c": 8}},
            "; 6 bits a weight, 6.25 with scales: 4 bits in 1 modules, 8 bits in 2 modules",
        ),
    ],
    ids=["activations too", "one format", "mixed"],
)
def test_weights_in_few_bits_are_counted(found: dict[str, object], told: str) -> None:
    assert bits_told(found) == told


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ({"factorized": {}}, ""),
        ({"parametersBefore": 22_713_216, "parameters": 17_388_672}, "22.7 M → 17.4 M parameters"),
        (
            {"lossBefore": 0.05457, "lossAfter": 0.02849, "trainingSteps": 8, "trainingRows": 32},
            "loss 0.0546 → 0.0285 in 8 steps on 32 rows",
        ),
    ],
    ids=["nothing", "a smaller model", "trained quantised"],
)
def test_what_a_transform_tells(found: dict[str, object], told: str) -> None:
    assert transform_told(found) == told
