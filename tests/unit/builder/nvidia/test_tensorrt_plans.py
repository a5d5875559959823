"""Profiles, command line and Triton model of encoders on TensorRT."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
from google.protobuf import text_format
from syrupy.assertion import SnapshotAssertion
from tritonclient.grpc.model_config_pb2 import ModelConfig

from enginewright_api.engine_description import EngineDescription
from enginewright_api.errors import DeterministicError
from enginewright_api.serving_spec import Limits
from enginewright_builder.tensorrt.plan import encoder_plan_of
from enginewright_builder.tensorrt.profiles import fitting, length_buckets, profiles
from enginewright_builder.tensorrt.repository import render_plan_config
from tests.unit.builder.nvidia.recipes import encoder


@pytest.mark.parametrize(
    ("longest", "bounds"),
    [(16, [16]), (32, [32]), (128, [32, 128]), (384, [32, 128, 384]), (8192, [32, 128, 512, 2048, 8192])],
)
def test_length_buckets(longest: int, bounds: list[int]) -> None:
    assert length_buckets(longest) == bounds


@pytest.mark.parametrize("limits", [Limits(), Limits(max_batch_size=1), Limits(max_batch_size=64, max_input_tokens=17)])
def test_every_shape_within_the_limits_fits_a_profile(limits: Limits) -> None:
    found = profiles(limits)
    assert len(found) == len(set(found)), "each costs memory on the GPU"
    for batch in range(1, limits.max_batch_size + 1):
        for tokens in (1, 31, 33, limits.max_input_tokens):
            fitting = [
                one
                for one in found
                if batch <= one.largest[0] and min(tokens, limits.max_input_tokens) <= one.largest[1]
            ]
            assert fitting, (batch, tokens)
    assert max(one.largest for one in found) == (limits.max_batch_size, limits.max_input_tokens)
    assert all(one.smallest <= one.tuned <= one.largest for one in found)


def test_the_smallest_profile_that_fits_is_taken() -> None:
    found = profiles(Limits(max_batch_size=8, max_input_tokens=128))
    assert [found[fitting(found, shape)].largest for shape in ((1, 5), (2, 32), (1, 33), (8, 128))] == [
        (1, 32), (8, 32), (1, 128), (8, 128),
    ]  # fmt: skip
    with pytest.raises(DeterministicError, match="no profile takes 9 × 5"):
        fitting(found, (9, 5))


def test_plan(golden: SnapshotAssertion) -> None:
    plan = asdict(encoder_plan_of(encoder(limits={"maxBatchSize": 8, "maxInputTokens": 128})))
    assert plan == golden


def test_a_short_input_alone_has_kernels_of_its_own() -> None:
    assert (1, 32) in {one.tuned for one in profiles(Limits())}


def engine(**changes: Any) -> EngineDescription:
    return EngineDescription.model_validate(
        {
            "task": "Embedding",
            "backend": "TensorRT",
            "entry": "model.plan",
            "inputs": ["input_ids", "attention_mask"],
            "output": "embedding",
            "outputDimension": 384,
            "limits": {"maxBatchSize": 8, "maxInputTokens": 128},
            "runtimePackage": "tensorrt",
            "runtimeVersion": "26.07",
        }
        | changes
    )


def test_the_model_of_the_plan() -> None:
    found = text_format.Parse(render_plan_config("minilm", engine()), ModelConfig())
    assert (found.name, found.platform, found.max_batch_size) == ("minilm_engine", "tensorrt_plan", 8)
    assert [one.name for one in found.input] == ["input_ids", "attention_mask"]
    assert [list(one.dims) for one in found.output] == [[384]]
    (group,) = found.instance_group
    assert list(group.profile) == [str(number) for number in range(len(profiles(engine().limits)))]
    assert not found.HasField("dynamic_batching"), "the model in front batches"
