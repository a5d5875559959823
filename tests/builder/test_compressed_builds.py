"""Builds that change the model itself before they quantise it, by the real builder on real weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from enginewright_api.evidence import Verdict
from enginewright_api.recipe import BuildRequest, build_key
from tests.builder.building import OPENVINO_INT8, Builder, request

pytestmark = pytest.mark.timeout(900)
HALF = {"granularity": "HeadsAndNeurons", "criterion": "Gradient", "sparsity": 0.5, "recoverySteps": 16}


def changed(wanted: BuildRequest, **blocks: Any) -> BuildRequest:
    """The same request with more blocks in its recipe."""
    recipe = type(wanted.recipe).model_validate(wanted.recipe.wire() | blocks)
    fields = wanted.wire() | {
        "recipe": recipe.wire(),
        "key": build_key(recipe, wanted.toolchain, wanted.accelerator),
    }
    return BuildRequest.model_validate(fields)


def test_half_the_heads_and_neurons_then_int8(tmp_path: Path) -> None:
    builder = Builder(tmp_path / "machine", tmp_path / "store")
    outcome, reports, code = builder.run(changed(request("OpenVINO", OPENVINO_INT8, maxDrop=0.5), pruning=HALF))
    assert (code, outcome.failure) == (0, None)
    done = {report.name: report.message for report in reports if report.state.value == "Succeeded"}
    assert "22.7 M → 17.4 M parameters" in done["prune"]
    assert list(done)[:2] == ["fetch", "baseline"]
    assert list(done).index("prune") < list(done).index("export") < list(done).index("quantize")
    assert outcome.evidence is not None
    quality, benchmark = outcome.evidence.quality, outcome.evidence.benchmark
    assert quality.verdict is Verdict.PASSED
    assert 0.5 < quality.optimized < 0.98
    # A byte a weight makes a quarter of the baseline; only fewer weights make less.
    assert benchmark.size_bytes < 0.21 * benchmark.baseline_size_bytes
    assert {(one.batch_size, one.tokens) for one in benchmark.measurements} == {(1, 16), (1, 64), (8, 64)}
