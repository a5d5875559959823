"""The report's pages: every figure comes from evidence, nothing is fetched, tables say what plots show."""

from __future__ import annotations

import re
from functools import cache
from html.parser import HTMLParser

import pytest

from enginewright_api.engine_description import EngineDescription
from enginewright_api.evidence import BenchmarkEvidence, Measurement, QualityEvidence, Verdict
from enginewright_api.manifest import Evidence
from enginewright_api.operation_spec import Metric
from enginewright_api.optimization import Profile
from enginewright_api.outcome import StageReport, StageState
from enginewright_builder.provenance import Material
from enginewright_builder.report.changes import changes, sensitivity
from enginewright_builder.report.facts import CandidateFacts, ModelFacts, ReportFacts, told_by
from enginewright_builder.report.html import render_model, render_report
from tests.builder.building import request

MEASURED = [(1, 16, 2.317, 8.911), (1, 128, 9.173, 31.77), (8, 128, 44.71, 201.9), (32, 128, 171.3, 803.7)]
RESULTS = {
    "fetch": {"parameters": 22713216},
    "prune": {
        "parameters": 17040000, "parametersBefore": 22713216, "nonZeroParameters": 17040000, "flops": 1480000000,
        "flopsBefore": 2720000000, "sparsity": 0.3333, "layers": [0, 2, 3, 5], "layersBefore": 6, "firstLoss": 0.4127,
        "lastLoss": 0.0213,
    },
    "factorize": {
        "parameters": 16040000, "parametersBefore": 17040000, "flops": 1300000000, "flopsBefore": 1480000000,
        "factorized": {"encoder.layer.0.output.dense": {"rank": 96, "energy": 0.912}},
        "skipped": {"encoder.layer.1.output.dense": {"rank": 300, "reason": "300 × (384 + 1536) weights are no fewer"}},
    },
    "quantize": {
        "format": "INT8", "method": "SmoothQuant", "calibrationRows": 256, "leakedRows": 3,
        "sensitivity": [
            {"module": f"encoder.layer.{layer}.{part}", "format": "INT4" if layer % 2 else "INT8",
             "error": 0.0031 * (layer + 1)}
            for layer in range(6) for part in ("attention.self.query", "output.dense")
        ],
    },
}  # fmt: skip


def quality(drop: float = 0.00431, bound: float = 0.00587, budget: float = 0.0123) -> QualityEvidence:
    verdict = Verdict.PASSED if bound <= budget else Verdict.FAILED
    return QualityEvidence(
        metric=Metric.COSINE_SIMILARITY, baseline=1.0, optimized=1.0 - drop, drop=drop, drop_upper_bound=bound,
        max_drop=budget, confidence=0.95, samples=517, minimum=0.9713, verdict=verdict, dataset="news-en@01234567",
        bounds=[bound - (0.45 - step / 100) * (bound - drop) for step in range(50)],
    )  # fmt: skip


def benchmark(factor: float = 1.0, size_bytes: int = 23_456_789) -> BenchmarkEvidence:
    rows = [
        Measurement(
            batch_size=batch, tokens=tokens, p50_milliseconds=engine * factor, p95_milliseconds=engine * factor * 1.31,
            throughput_per_second=1000 * batch / engine / factor, baseline_p50_milliseconds=baseline,
            baseline_p95_milliseconds=baseline * 1.17, baseline_throughput_per_second=1000 * batch / baseline,
            speedup=round(baseline / engine / factor, 3),
        )
        for batch, tokens, engine, baseline in MEASURED
    ]  # fmt: skip
    return BenchmarkEvidence(
        measurements=rows, speedup=round(4.137 / factor, 3), machine="Test processor, 2 CPUs, avx512_vnni", threads=2,
        baseline_size_bytes=90_876_543, size_bytes=size_bytes, peak_memory_bytes=219_876_543,
    )  # fmt: skip


def build() -> ReportFacts:
    asked = request("OpenVINO", {"format": "INT8", "method": "SmoothQuant"})
    stages = [("fetch", StageState.CACHED, 1.07), ("prune", StageState.SUCCEEDED, 93.4), ("compile", "Succeeded", 7.9)]
    return ReportFacts(
        request=asked,
        description=EngineDescription.model_validate(
            {
                "task": "Embedding", "backend": "OpenVINO", "entry": "openvino.xml", "inputs": ["input_ids"],
                "output": "embedding", "outputDimension": 384, "limits": {"maxBatchSize": 32, "maxInputTokens": 128},
                "runtimePackage": "openvino", "runtimeVersion": "2026.4.1",
            }
        ),
        source_digest="a1b2c3d4" * 8,
        parameters=22713216,
        evidence=Evidence(request_digest="0" * 64, quality=quality(), benchmark=benchmark()),
        stages=tuple(StageReport(name=name, state=StageState(state), seconds=took) for name, state, took in stages),
        results=told_by(RESULTS),
        created="2026-01-01T00:00:00Z",
    )  # fmt: skip


def candidate(number: int, title: str, *, bound: float, factor: float, size: int, message: str = "") -> CandidateFacts:
    judged = quality(bound * 0.8, bound)
    return CandidateFacts(
        title=title, engine_build=f"eb-{number:016d}", message=message or "the other one is better",
        verdict=judged.verdict, quality=judged, benchmark=benchmark(factor, size), seconds=61.5 + number,
    )  # fmt: skip


def model(profile: Profile | None = Profile.LATENCY, *, served: bool = True) -> ModelFacts:
    candidates = (
        candidate(1, "INT8 SmoothQuant on OpenVINO", bound=0.00587, factor=1.0, size=23_456_789, message="won"),
        candidate(2, "INT8 Dynamic on ONNXRuntime", bound=0.00712, factor=1.43, size=22_856_789),
        candidate(3, "FP16 on OpenVINO", bound=0.00012, factor=2.9, size=45_456_789),
        candidate(4, "INT8 SmoothQuant + 50% of the layers removed on OpenVINO", bound=0.0813, factor=0.55,
                  size=17_456_789, message="gate failed"),
        CandidateFacts(title="INT4 AWQ on OpenVINO", engine_build="eb-5", message="build failed: Broken", seconds=3.0),
        CandidateFacts(title="BF16 on OpenVINO", engine_build="eb-6", message="skipped: fewer bits passed"),
        CandidateFacts(title="None on OpenVINO", engine_build="eb-7", message="skipped: fewer bits passed"),
    )  # fmt: skip
    return ModelFacts(
        name="search", profile=profile, served=served, sentence="chosen: INT8 SmoothQuant on OpenVINO",
        candidates=candidates, chosen_build=candidates[0].engine_build if served else "",
        build=build() if served else None, created="2026-01-01T00:00:00Z",
    )  # fmt: skip


class Page(HTMLParser):
    """Visible text, attributes, and whether tags are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.figures: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == [], "every tag is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag == "figure":
            self.figures.append(dict(attrs).get("aria-label") or "")
        if tag not in ("meta", "br"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "svg"} & set(self._open):
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


@cache
def page_of(name: str) -> str:
    """Drawing takes a moment."""
    return PAGES[name]()


PAGES = {
    "build": lambda: render_report(build()),
    "search": lambda: render_model(model()),
    "size": lambda: render_model(model(Profile.SIZE)),
    "ladder": lambda: render_model(model(None)),
    "nothing": lambda: render_model(model(served=False)),
}


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_fetched(name: str) -> None:
    text = page_of(name)
    assert "://" not in text
    page = Page(text)
    linked = [
        (tag, value)
        for tag, attribute, value in page.attributes
        if attribute in ("src", "href", "xlink:href", "srcset", "action", "data") and not value.startswith("#")
    ]
    assert linked == []
    assert not re.search(r"<(script|link|iframe|img|object|embed)\b|@import|url\((?!#)", text)


@pytest.mark.parametrize("name", PAGES)
def test_every_plot_has_words_and_ids_are_unique(name: str) -> None:
    page = Page(page_of(name))
    assert page.figures or name == "nothing"
    assert all(len(label) > 20 for label in page.figures)
    identifiers = [value for _, attribute, value in page.attributes if attribute == "id"]
    assert len(identifiers) == len(set(identifiers))
    scopes = [value for tag, attribute, value in page.attributes if (tag, attribute) == ("th", "scope")]
    headers = sum(1 for tag, attribute, _ in page.attributes if tag == "th" and attribute == "scope")
    assert len(scopes) == headers


def numbers_in(value: object) -> set[float]:
    """Every number in nested JSON."""
    if isinstance(value, bool):
        return set()
    if isinstance(value, int | float):
        return {float(value)}
    if isinstance(value, dict):
        return set().union(*(numbers_in(item) for item in value.values())) if value else set()
    if isinstance(value, list | tuple):
        return set().union(*(numbers_in(item) for item in value)) if value else set()
    return {float(found) for found in re.findall(r"\d+(?:\.\d+)?", value)} if isinstance(value, str) else set()


def derived(facts: ReportFacts) -> set[float]:
    """Figures that follow from evidence by the arithmetic that the page names."""
    measured, judged = facts.evidence.benchmark, facts.evidence.quality
    ratio = measured.baseline_size_bytes / measured.size_bytes
    found = {ratio, 100 * judged.drop_upper_bound / judged.max_drop, sum(stage.seconds for stage in facts.stages)}
    found |= {
        size / 2**20 for size in (measured.size_bytes, measured.baseline_size_bytes, measured.peak_memory_bytes or 0)
    }
    found |= {100 * confidence for confidence in (0.5, 0.8, 0.9, 0.95, 0.99)}
    found |= {facts.parameters / 1e6, float(len(facts.stages)), 1.0}
    for result in facts.results.values():
        for name in ("parameters", "flops"):
            if f"{name}Before" in result:
                before, after = result[f"{name}Before"], result[name]
                found |= {before / 1e6, after / 1e6, before / 1e9, after / 1e9, 100 * after / before}
    found.add(float(len(sensitivity(facts.results))))
    return found


def shown(page: Page) -> list[str]:
    """Decimal figures of the visible text."""
    return re.findall(r"(?<![\w.@-])\d+\.\d+(?![\w.-])", page.text)


def test_every_figure_of_a_build_comes_from_its_facts() -> None:
    facts = build()
    known = numbers_in(facts.wire()) | derived(facts)
    page = Page(page_of("build"))
    figures = shown(page)
    assert len(figures) > 60
    for figure in figures:
        digits = len(figure.partition(".")[2])
        assert any(round(value, digits) == float(figure) for value in known), f"{figure} is nowhere in the facts"


def test_all_that_the_engine_follows_from_is_told_once() -> None:
    given = {"source": "pkg:pypi/a@1", "teacher-1": "s3://models/<teacher>", "training-rows": "builtin:news-en"}
    materials = tuple(Material(name=name, uri=uri, sha256=f"{number}" * 64)
                      for number, (name, uri) in enumerate(given.items(), start=1))  # fmt: skip
    page = render_report(build().model_copy(update={"materials": materials}))
    text = Page(page).text
    provenance = text[text.index("Provenance") :]
    for told in ("Teacher 1", "s3://models/<teacher>", "2" * 64, "Training rows", "builtin:news-en", "3" * 64):
        assert provenance.count(told) == 1
    assert provenance.count("Source") == 1, "the source has its line already"
    assert "<teacher>" not in page, "texts are escaped"


def test_changed_evidence_changes_the_page() -> None:
    plain, facts = page_of("build"), build()
    assert render_report(facts) == plain, "the same facts give the same page"
    worse = facts.model_copy(
        update={"evidence": facts.evidence.model_copy(update={"quality": quality(0.0111, 0.0222)})}
    )
    page = render_report(worse)
    assert page != plain
    assert "The engine loses more than the budget allows." in page
    assert '<section class="verdict Failed"' in page


def test_the_page_of_a_model_lists_every_candidate_with_its_figures_and_reason() -> None:
    facts = model()
    text = Page(page_of("search")).text
    for item in facts.candidates:
        assert item.title in text
        assert item.message in text
        if item.quality is not None and item.benchmark is not None:
            assert f"{item.quality.drop_upper_bound:.4f}" in text
            assert f"{item.benchmark.speedup:.2f} ×" in text
            assert f"{item.benchmark.size_bytes / 2**20:.1f} MiB" in text
    assert text.count("skipped: fewer bits passed") == 1, "equal reasons are said once"
    assert "An engine keeps the promise" in text
    assert "17.04 M" in text, "what pruning left"
    assert "75.0 %" in text


def test_a_model_without_an_engine_says_so_first() -> None:
    page = page_of("nothing")
    assert '<section class="verdict Failed"' in page
    assert "No engine may be deployed" in Page(page).text
    assert "Provenance" not in page, "there is no engine to tell of"


def test_the_front_holds_what_nothing_beats() -> None:
    front = model().front()
    assert front == {f"eb-{number:016d}" for number in (1, 3, 4)} | {f"eb-{2:016d}"}, "2 is the smaller of 1 and 2"
    assert page_of("search").count("Pareto front</span>") == len(front)


def test_changes_are_told_in_the_order_of_the_stages() -> None:
    found = changes(told_by(RESULTS))
    assert [change.title for change in found] == ["Pruning", "Low rank", "Quantisation"]
    assert found[0].parameters == (22713216, 17040000)
    assert found[0].flops == (2720000000, 1480000000)
    assert ("layers", ("0, 2, 3, 5",)) in found[0].notes
    assert any("300 × (384 + 1536)" in line for _, lines in found[1].notes for line in lines), (
        "why a factorisation was skipped"
    )
    assert len(sensitivity(told_by(RESULTS))) == 12
    assert sensitivity({}) == []
