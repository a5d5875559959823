"""Batching of text generation: the engine batches by itself, so what forms batches before it is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from enginewright_api.optimized_model import OptimizedModelSpec
from enginewright_api.recipe import Recipe
from enginewright_operator.core.availability import _batching, unused_settings


def spec(**batching: Any) -> OptimizedModelSpec:
    return OptimizedModelSpec.model_validate(
        {
            "source": {"package": {"name": "weights", "version": "1.0.0"}},
            "task": "TextGeneration",
            "hardware": {"acceleratorClasses": ["cpu"]},
            "batching": batching,
        }
    )


@pytest.mark.parametrize("mode", ["Auto", "Continuous"])
def test_what_the_engine_and_the_gateway_act_on_is_accepted(mode: str) -> None:
    assert _batching(spec(mode=mode, maxBatchSize=8, maxQueueSize=16, queueTimeoutMilliseconds=5)) == []


@pytest.mark.parametrize(
    ("batching", "field"),
    [
        ({"mode": "Dynamic"}, "batching.mode"),
        ({"mode": "None"}, "batching.mode"),
        ({"preferredBatchSizes": [4]}, "batching.preferredBatchSizes"),
        ({"maxQueueDelayMicroseconds": 9}, "batching.maxQueueDelayMicroseconds"),
    ],
)
def test_what_only_dynamic_batching_has_is_refused(batching: dict[str, Any], field: str) -> None:
    ((found, sentence),) = _batching(spec(**batching))
    assert found == field and sentence


@pytest.mark.parametrize(("backend", "fields"), [("OpenVINO", []), ("TensorRTLLM", ["batching.streamInterval"])])
def test_an_interval_that_no_server_keeps_is_refused(backend: str, fields: list[str]) -> None:
    given = spec(streamInterval=4)
    recipe = Recipe.model_validate(
        {"source": given.source.wire(), "task": "TextGeneration", "backend": backend, "limits": {}}
    )
    assert [field for field, _ in unused_settings(given, [recipe])] == fields
    assert unused_settings(spec(), [recipe]) == []
