"""report.html: verdict first, then quality, speed, size, stages, provenance. One file, no network."""

from __future__ import annotations

from importlib.resources import files

import jinja2

from enginewright_api.evidence import QualityEvidence, Verdict, rows_wanted
from enginewright_builder.report.facts import ReportFacts
from enginewright_builder.report.plots import latency_plot, quality_plot


def render_report(facts: ReportFacts) -> str:
    """HTML of a build."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = environment.from_string(files(__package__).joinpath("report.html.j2").read_text(encoding="utf-8"))
    quality, benchmark = facts.evidence.quality, facts.evidence.benchmark
    quantization = facts.request.recipe.quantization
    return template.render(
        facts=facts,
        quality=quality,
        benchmark=benchmark,
        verdict_sentence=_verdict_sentence(quality),
        format=_format_name(facts),
        quantization=quantization.wire() if quantization is not None else None,
        source=_source_name(facts),
        size_ratio=benchmark.baseline_size_bytes / benchmark.size_bytes,
        latency_svg=latency_plot(benchmark.measurements),
        quality_svg=quality_plot(quality) if quality.bounds else "",
    )


def _verdict_sentence(quality: QualityEvidence) -> str:
    if quality.verdict is Verdict.PASSED:
        return "The engine may replace the baseline: the drop is within the budget."
    if quality.verdict is Verdict.FAILED:
        return "The engine loses more than the budget allows."
    return f"{quality.samples} rows are too few to tell; {rows_wanted(quality)} would be needed. Counts as failed."


def _format_name(facts: ReportFacts) -> str:
    quantization = facts.request.recipe.quantization
    if quantization is None or quantization.format.value == "None":
        return "FP32"
    method = quantization.method.value
    return quantization.format.value + ("" if method == "Auto" else f" · {method}")


def _source_name(facts: ReportFacts) -> str:
    source = facts.request.recipe.source
    if source.package is not None:
        return f"package {source.package.name} {source.package.version}"
    if source.hugging_face is not None:
        return f"{source.hugging_face.repository}@{source.hugging_face.revision[:12]}"
    if source.object_store is not None:
        return source.object_store.uri
    if source.persistent_volume_claim is not None:
        return f"volume {source.persistent_volume_claim.claim_name}/{source.persistent_volume_claim.path}"
    return "unknown source"
