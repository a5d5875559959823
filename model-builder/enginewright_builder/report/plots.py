"""Plots as SVG text, to be put into a page as they are."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

from enginewright_api.evidence import Measurement, QualityEvidence

_ENGINE, _BASELINE, _BUDGET = "#0f766e", "#94a3b8", "#b91c1c"


def latency_plot(measurements: Sequence[Measurement]) -> str:
    """Median latency of engine and baseline by shape, logarithmic; whiskers reach to the 95th percentile."""
    figure, axes = _axes(width=7.2, height=3.1)
    names = [f"batch {one.batch_size}\n{one.tokens} tokens" for one in measurements]
    places = range(len(measurements))
    for offset, name, colour, medians, tails in (
        (-0.2, "baseline (PyTorch eager)", _BASELINE, [one.baseline_p50_milliseconds for one in measurements],
         [one.baseline_p95_milliseconds for one in measurements]),
        (0.2, "engine", _ENGINE, [one.p50_milliseconds for one in measurements],
         [one.p95_milliseconds for one in measurements]),
    ):  # fmt: skip
        whiskers = [[0.0] * len(medians), [max(tail - mid, 0.0) for mid, tail in zip(medians, tails, strict=True)]]
        bars = axes.bar(
            [place + offset for place in places],
            medians,
            0.38,
            yerr=whiskers,
            label=name,
            color=colour,
            ecolor="#64748b",
            capsize=2,
            error_kw={"linewidth": 0.8},
        )
        axes.bar_label(bars, labels=[f"{value:.1f}" for value in medians], padding=2, fontsize=7.5, label_type="center")
    axes.set_yscale("log")
    axes.set_ylim(bottom=min(one.p50_milliseconds for one in measurements) / 3)
    axes.set_xticks(list(places), names, fontsize=8)
    axes.set_ylabel("milliseconds (p50, to p95)", fontsize=8)
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    return _svg(figure)


def quality_plot(quality: QualityEvidence) -> str:
    """Upper bound of the drop by confidence, against the budget."""
    figure, axes = _axes(width=7.2, height=2.5)
    confidences = [0.50 + step / 100 for step in range(len(quality.bounds))]
    axes.plot(confidences, quality.bounds, color=_ENGINE, linewidth=1.8, label="upper bound of the drop")
    axes.axhline(quality.drop, color=_BASELINE, linewidth=1.0, linestyle=":", label="measured drop")
    axes.axhline(quality.max_drop, color=_BUDGET, linewidth=1.2, linestyle="--", label="budget (maxDrop)")
    axes.plot([quality.confidence], [quality.drop_upper_bound], "o", color=_ENGINE, markersize=6)
    axes.set_ylim(bottom=min(0.0, quality.drop), top=max(quality.max_drop, *quality.bounds, quality.drop) * 1.15)
    axes.set_xlabel("one-sided confidence", fontsize=8)
    axes.set_ylabel("drop", fontsize=8)
    axes.legend(frameon=False, fontsize=8, loc="center left")
    return _svg(figure)


def _axes(*, width: float, height: float) -> tuple[Any, Any]:
    # Figure without pyplot: no global state, no display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.grid(axis="y", color="#e2e8f0", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _svg(figure: Any) -> str:
    from matplotlib import rc_context

    stream = io.StringIO()
    # Equal figures give equal text: ids are salted and dated otherwise.
    with rc_context({"svg.hashsalt": "enginewright", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    return re.sub(
        r'(<svg[^>]*?) width="[^"]*"', r'\1 width="100%"', re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text)
    )
