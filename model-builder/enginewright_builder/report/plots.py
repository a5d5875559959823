"""Plots as SVG text, to be put into a page as they are."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from enginewright_api.evidence import Measurement, QualityEvidence, Verdict
from enginewright_api.optimization import Profile
from enginewright_builder.report.facts import ModelFacts

_ENGINE, _BASELINE, _BUDGET, _SOFT = "#0f766e", "#94a3b8", "#b91c1c", "#64748b"
_VERDICTS = {Verdict.PASSED: _ENGINE, Verdict.FAILED: _BUDGET, Verdict.INCONCLUSIVE: "#b45309"}
_GOALS = {
    Profile.LATENCY: "times the baseline's speed at batch 1",
    Profile.THROUGHPUT: "times the baseline's inputs a second",
    Profile.SIZE: "times smaller than the baseline",
}
_LARGEST_AREA = 900.0
_MODULES_MOST = 40


def latency_plot(measurements: Sequence[Measurement]) -> str:
    """Median latency of engine and baseline by shape, logarithmic; whiskers reach to the 95th percentile."""
    figure, axes = _axes(width=7.2, height=3.2)
    names = [f"batch {one.batch_size}\n{one.tokens} tokens" for one in measurements]
    places = range(len(measurements))
    for offset, name, colour, medians, tails in (
        (-0.2, "baseline (PyTorch eager)", _BASELINE, [one.baseline_p50_milliseconds for one in measurements],
         [one.baseline_p95_milliseconds for one in measurements]),
        (0.2, "engine", _ENGINE, [one.p50_milliseconds for one in measurements],
         [one.p95_milliseconds for one in measurements]),
    ):  # fmt: skip
        whiskers = [[0.0] * len(medians), [max(tail - mid, 0.0) for mid, tail in zip(medians, tails, strict=True)]]
        axes.bar(
            [place + offset for place in places],
            medians,
            0.36,
            yerr=whiskers,
            label=name,
            color=colour,
            ecolor=_SOFT,
            capsize=2.5,
            error_kw={"linewidth": 0.9},
        )
        for place, middle, tail in zip(places, medians, tails, strict=True):
            axes.annotate(
                f"{middle:.1f}", (place + offset, max(middle, tail)), xytext=(0, 3), textcoords="offset points",
                ha="center", fontsize=7.5, color="#334155",
            )  # fmt: skip
    every = [value for one in measurements for value in (one.p50_milliseconds, one.baseline_p50_milliseconds)]
    highest = max(max(one.p95_milliseconds, one.baseline_p95_milliseconds) for one in measurements)
    axes.set_yscale("log")
    axes.set_ylim(min(every) / 2, highest * 1.8)
    axes.set_xticks(list(places), names, fontsize=8)
    axes.set_ylabel("milliseconds: p50, whisker to p95", fontsize=8)
    axes.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2, ncols=2)
    return _svg(figure, "latency")


def quality_plot(quality: QualityEvidence) -> str:
    """Upper bound of the drop by confidence, against the budget."""
    figure, axes = _axes(width=7.2, height=2.7)
    confidences = [0.50 + step / 100 for step in range(len(quality.bounds))]
    axes.plot(confidences, quality.bounds, color=_ENGINE, linewidth=1.8, label="upper bound of the drop")
    axes.axhline(quality.drop, color=_SOFT, linewidth=1.0, linestyle=":", label="measured drop")
    axes.axhline(quality.max_drop, color=_BUDGET, linewidth=1.2, linestyle="--", label="budget (maxDrop)")
    axes.plot([quality.confidence], [quality.drop_upper_bound], "o", color=_ENGINE, markersize=6)
    axes.annotate(
        f"{quality.drop_upper_bound:.4f}", (quality.confidence, quality.drop_upper_bound), xytext=(-6, 6),
        textcoords="offset points", ha="right", fontsize=8, color=_ENGINE,
    )  # fmt: skip
    highest = max(quality.max_drop, *quality.bounds, quality.drop)
    axes.set_ylim(bottom=min(0.0, quality.drop), top=highest * 1.15 or 1.0)
    axes.set_xlabel("one-sided confidence", fontsize=8)
    axes.set_ylabel(f"drop of {quality.metric.value}", fontsize=8)
    axes.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2, ncols=3)
    return _svg(figure, "quality")


def pareto_plot(facts: ModelFacts) -> str:
    """Goal against quality bound, the area a size; numbers are those of the table, a line joins the front."""
    figure, axes = _axes(width=7.2, height=3.6)
    points = [
        (number, item, result)
        for number, item in enumerate(facts.candidates, 1)
        if (result := item.result(facts.goal)) is not None
    ]
    largest = max(-result.size for _, _, result in points)
    front = facts.front()
    budget = next(item.quality.max_drop for _, item, _ in points if item.quality is not None)
    for number, item, result in points:
        assert item.verdict is not None  # noqa: S101 - what was measured was judged
        colour, bound, chosen = _VERDICTS[item.verdict], -result.quality, item.engine_build == facts.chosen_build
        area = max(40.0, _LARGEST_AREA * -result.size / largest)
        axes.scatter(
            [result.gain], [bound], s=area, facecolor=colour if item.engine_build in front else "none",
            edgecolor=colour, alpha=0.9 if chosen else 0.55, linewidth=2.2 if chosen else 1.0, zorder=3,
        )  # fmt: skip
        axes.annotate(
            f"{number} chosen" if chosen else str(number), (result.gain, bound), textcoords="offset points",
            xytext=(0, 3 + area**0.5 / 2), ha="center", fontsize=8, fontweight="bold" if chosen else "normal", zorder=4,
        )  # fmt: skip
    line = sorted((result.gain, -result.quality) for _, item, result in points if item.engine_build in front)
    axes.plot(*zip(*line, strict=True), color=_SOFT, linewidth=0.9, linestyle=":", zorder=2)
    axes.axhline(budget, color=_BUDGET, linewidth=1.2, linestyle="--", label="budget (maxDrop)")
    axes.axvline(1.0, color=_BASELINE, linewidth=1.0, label="baseline")
    bounds = [-result.quality for _, _, result in points]
    # Bounds span orders of magnitude and may be zero or below.
    axes.set_yscale("symlog", linthresh=max(budget / 4, 1e-6))
    axes.set_ylim(min(-budget / 8, *bounds) * 1.2, max(budget, *bounds) * 2.5)
    gains = [result.gain for _, _, result in points]
    axes.set_xlim(min(0.9, *gains) * 0.85, max(1.1, *gains) * 1.12)
    axes.set_xlabel(_GOALS[facts.goal], fontsize=8)
    axes.set_ylabel("upper bound of the drop", fontsize=8)
    # Above the plot: points may lie in any corner.
    axes.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2, ncols=2)
    return _svg(figure, "pareto")


def sensitivity_plot(sensitivity: Sequence[Mapping[str, Any]]) -> str:
    """Error that quantising each module alone adds; the most sensitive first, coloured by the format it was given."""
    shown = sorted(sensitivity, key=lambda item: -float(item["error"]))[:_MODULES_MOST]
    figure, axes = _axes(width=7.2, height=0.6 + 0.19 * len(shown), grid="x")
    formats = sorted({str(item.get("format", "")) for item in shown})
    palette = dict(zip(formats, (_ENGINE, "#0369a1", "#7c3aed", "#b45309", _SOFT) * len(formats), strict=False))
    for name in formats:
        rows = [(place, item) for place, item in enumerate(shown) if str(item.get("format", "")) == name]
        axes.barh([place for place, _ in rows], [float(item["error"]) for _, item in rows], color=palette[name],
                  height=0.7, label=name or "error")  # fmt: skip
    axes.set_yticks(range(len(shown)), [str(item["module"]) for item in shown], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("change of the model's answer, this module alone quantised", fontsize=8)
    if len(formats) > 1:
        axes.legend(frameon=False, fontsize=8, loc="lower right")
    return _svg(figure, "sensitivity")


def _axes(*, width: float, height: float, grid: Literal["x", "y"] = "y") -> tuple[Any, Any]:
    # Figure without pyplot: no global state, no display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.grid(axis=grid, color="#e2e8f0", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _svg(figure: Any, name: str) -> str:
    """Without addresses of any kind, sized by the page, with ids of its own: several stand in one document."""
    from matplotlib import rc_context

    stream = io.StringIO()
    # Equal figures give equal text: ids are salted and dated otherwise.
    with rc_context({"svg.hashsalt": "enginewright", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href=", "href=")
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    return re.sub(r'(<svg[^>]*?) width="[^"]*"', r'\1 width="100%" aria-hidden="true"', text, count=1)
