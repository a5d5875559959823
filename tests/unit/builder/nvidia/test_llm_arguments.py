"""LLM arguments that no recipe can ask for yet, and the refusal of keys that do not exist."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from enginewright_api.serving_spec import Limits, Parallelism, SpeculativeDecoding, SpeculativeMethod
from enginewright_builder.tensorrt_llm.llm_arguments import LlmArguments, llm_arguments
from enginewright_builder.tensorrt_llm.llmapi_repository import render_llmapi_config


def arguments(method: SpeculativeMethod | None = None) -> LlmArguments:
    drafted = SpeculativeDecoding(method=method, draft_tokens=3) if method is not None else None
    return llm_arguments(
        model="/model",
        limits=Limits(),
        parallelism=Parallelism(),
        speculative=drafted,
        draft_model="/draft",
    )


@pytest.mark.parametrize(
    ("method", "expected", "overlap_off"),
    [
        (SpeculativeMethod.NGRAM, {"decoding_type": "NGram", "max_draft_len": 3, "max_matching_ngram_size": 4}, True),
        (
            SpeculativeMethod.EAGLE3,
            {"decoding_type": "Eagle", "max_draft_len": 3, "speculative_model": "/draft"},
            False,
        ),
        (
            SpeculativeMethod.DRAFT_MODEL,
            {"decoding_type": "DraftTarget", "max_draft_len": 3, "speculative_model": "/draft"},
            True,
        ),
        (SpeculativeMethod.MTP, {"decoding_type": "MTP", "max_draft_len": 3, "num_nextn_predict_layers": 3}, False),
    ],
)
def test_who_drafts(method: SpeculativeMethod, expected: dict[str, Any], overlap_off: bool) -> None:
    found = arguments(method)
    assert found.speculative_config is not None
    assert found.speculative_config.model_dump(exclude_none=True) == expected
    assert found.disable_overlap_scheduler is overlap_off


def test_an_unknown_key_is_an_error_at_any_depth() -> None:
    good = arguments().model_dump()
    for broken in (
        good | {"max_beam": 2},
        good | {"kv_cache_config": good["kv_cache_config"] | {"fraction": 0.5}},
        good | {"scheduler_config": {"policy": "GUARANTEED_NO_EVICT"}},
    ):
        with pytest.raises(ValidationError, match="Extra inputs"):
            LlmArguments.model_validate(broken)
    assert LlmArguments.model_validate(good) == arguments()


def test_several_instances_name_their_gpus() -> None:
    text = render_llmapi_config(gpus=((0, 1), (2, 3)))
    assert 'string_value: "0,1;2,3"' in text
    assert "count: 2" in text
    assert "gpu_device_ids" not in render_llmapi_config(gpus=((0, 1),))
