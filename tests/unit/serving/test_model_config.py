"""config.pbtxt as the server reads it: golden files, refusals."""

from __future__ import annotations

from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion

from enginewright_api.engine_description import EngineDescription
from enginewright_api.errors import DeterministicError
from enginewright_api.serving_spec import Batching
from enginewright_serving.model_config import render_model_config

GENERATES = {"task": "TextGeneration", "generation": {"maxContextTokens": 512}}


def engine(**changes: Any) -> EngineDescription:
    fields: dict[str, Any] = {
        "task": "Embedding",
        "backend": "OpenVINO",
        "entry": "openvino.xml",
        "inputs": ["input_ids", "attention_mask"],
        "output": "output",
        "outputDimension": 384,
        "limits": {"maxBatchSize": 32, "maxInputTokens": 256},
        "runtimePackage": "openvino",
        "runtimeVersion": "1",
    }
    return EngineDescription.model_validate(fields | changes)


@pytest.mark.parametrize(
    ("case", "changes", "batching"),
    [
        ("defaults", {}, {}),
        ("unbatched", {}, {"mode": "None"}),
        (
            "all fields",
            {},
            {
                "mode": "Dynamic",
                "maxBatchSize": 16,
                "preferredBatchSizes": [4, 16],
                "maxQueueDelayMicroseconds": 500,
                "maxQueueSize": 64,
                "queueTimeoutMilliseconds": 250,
            },
        ),
        ("classification", {"task": "Classification", "outputDimension": 3, "labels": ["a", "b", "c"]}, {}),
        (
            "token classification",
            {"task": "TokenClassification", "output": "token_scores", "outputDimension": 3, "labels": ["O", "B", "I"]},
            {},
        ),
        ("reranking", {"task": "Reranking", "output": "scores", "outputDimension": 1}, {}),
        ("text generation", GENERATES, {"mode": "Continuous", "maxBatchSize": 8, "maxQueueSize": 16}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_config(case: str, changes: dict[str, Any], batching: dict[str, Any], snapshot: SnapshotAssertion) -> None:
    """Update with: pytest tests/unit/serving/test_model_config.py --snapshot-update"""
    assert render_model_config("minilm", engine(**changes), Batching.model_validate(batching)) == snapshot(name=case)


@pytest.mark.parametrize(
    ("changes", "batching", "says"),
    [
        (GENERATES | {"backend": "ONNXRuntime"}, {}, "backend ONNXRuntime"),
        (GENERATES, {"mode": "Dynamic"}, "batching.mode"),
        (GENERATES, {"maxBatchSize": 64}, "batching.maxBatchSize: 64"),
        (GENERATES, {"preferredBatchSizes": [4]}, "batching.preferredBatchSizes"),
        (GENERATES, {"maxQueueDelayMicroseconds": 5}, "batching.maxQueueDelayMicroseconds"),
        ({"backend": "TensorRT"}, {}, "backend TensorRT"),
        ({}, {"mode": "Continuous"}, "batching.mode"),
        ({}, {"maxBatchSize": 64}, "batching.maxBatchSize: 64"),
        ({}, {"preferredBatchSizes": [48]}, "batching.preferredBatchSizes: 48"),
    ],
)
def test_what_cannot_be_served_is_refused_by_field(
    changes: dict[str, Any], batching: dict[str, Any], says: str
) -> None:
    with pytest.raises(DeterministicError) as caught:
        render_model_config("minilm", engine(**changes), Batching.model_validate(batching))
    assert says in caught.value.message
