"""report.html: verdict first, then what it rests on. One file, no network; tables say all that plots show."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files

import jinja2

from enginewright_api.evidence import QualityEvidence, Verdict, judge, rows_wanted
from enginewright_api.goals import goal
from enginewright_builder.provenance import SOURCE
from enginewright_builder.report.changes import Change, changes, sensitivity
from enginewright_builder.report.facts import CandidateFacts, ModelFacts, ReportFacts
from enginewright_builder.report.plots import latency_plot, pareto_plot, quality_plot, sensitivity_plot

_SENTENCES = {
    Verdict.PASSED: "The engine may replace the baseline: the drop is within the budget.",
    Verdict.FAILED: "The engine loses more than the budget allows.",
}
_CONFIDENCES = (0.5, 0.8, 0.9, 0.95, 0.99)
_GOALS = {"Latency": "speed at batch 1", "Throughput": "inputs a second", "Size": "smaller"}


@dataclass(frozen=True, slots=True)
class Bound:
    """The gate at one confidence."""

    confidence: float
    bound: float
    passed: bool


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the candidates' table."""

    facts: CandidateFacts
    chosen: bool
    on_front: bool
    gain: float | None


def render_report(facts: ReportFacts) -> str:
    """HTML of one build."""
    quality = facts.evidence.quality
    return _render(
        title=_source_name(facts),
        subtitle=f"{facts.description.backend.value} · {_format_name(facts)} · {facts.request.recipe.task.value}",
        created=facts.created,
        verdict=quality.verdict.value,
        headline=quality.verdict.value,
        sentence=_sentence(quality),
        model=None,
        build=facts,
    )


def _sentence(quality: QualityEvidence) -> str:
    if quality.verdict is not Verdict.INCONCLUSIVE:
        return _SENTENCES[quality.verdict]
    return f"It counts as failed: {quality.samples} rows are too few to tell; {rows_wanted(quality)} would be needed."


def render_model(facts: ModelFacts) -> str:
    """HTML of all candidates of a model, with the chosen one in full."""
    searched = f"search for {facts.profile.value.lower()}" if facts.profile is not None else "ladder"
    task = f" · {facts.build.request.recipe.task.value}" if facts.build is not None else ""
    return _render(
        title=facts.name,
        subtitle=f"{searched} over {len(facts.candidates)} candidates{task}",
        created=facts.created,
        verdict=(Verdict.PASSED if facts.served else Verdict.FAILED).value,
        headline="An engine keeps the promise" if facts.served else "No engine may be deployed",
        sentence=facts.sentence,
        model=facts,
        build=facts.build,
    )


def _render(*, model: ModelFacts | None, build: ReportFacts | None, **given: str) -> str:
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FunctionLoader(lambda name: files(__package__).joinpath(name).read_text(encoding="utf-8")),
    )
    environment.filters |= {"mib": lambda size: f"{size / 2**20:.1f} MiB", "short": _short}
    rows = _rows(model) if model is not None else []
    built = [row for row in rows if row.facts.seconds is not None]
    measured = any(row.gain is not None for row in rows)
    return environment.get_template("report.html.j2").render(
        **given,
        model=model,
        rows=built,
        unbuilt=_unbuilt(row for row in rows if row.facts.seconds is None),
        goal_name=_GOALS[model.goal.value] if model is not None and model.profile is not None else "",
        pareto_svg=pareto_plot(model) if model is not None and measured else "",
        facts=build,
        **_details(build),
    )


def _short(number: int) -> str:
    """22.71 M, 2.72 G."""
    return f"{number / 1e9:.2f} G" if number >= 10**9 else f"{number / 1e6:.2f} M"


def _details(facts: ReportFacts | None) -> dict[str, object]:
    if facts is None:
        return {}
    quality, benchmark = facts.evidence.quality, facts.evidence.benchmark
    modules = sensitivity(facts.results)
    done: list[Change] = changes(facts.results)
    return {
        "quality": quality,
        "benchmark": benchmark,
        "source": _source_name(facts),
        "materials": [material for material in facts.materials if material.name != SOURCE],
        "format": _format_name(facts),
        "recipe": _recipe(facts),
        "bounds": _bounds(quality),
        "changes": done,
        "sensitivity": modules,
        "cached": [stage for stage in facts.stages if stage.state.value == "Cached"],
        "seconds": sum(stage.seconds for stage in facts.stages),
        "latency_svg": latency_plot(benchmark.measurements) if benchmark.measurements else "",
        "quality_svg": quality_plot(quality) if quality.bounds else "",
        "sensitivity_svg": sensitivity_plot(modules) if modules else "",
    }


def _rows(model: ModelFacts) -> list[Row]:
    front = model.front()
    return [
        Row(
            facts=item,
            chosen=item.engine_build == model.chosen_build,
            on_front=item.engine_build in front,
            gain=goal(model.goal, item.benchmark) if item.benchmark is not None else None,
        )
        for item in model.candidates
    ]


def _unbuilt(rows: Iterable[Row]) -> list[tuple[str, list[str]]]:
    """Candidates that were not built, by reason."""
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(row.facts.message, []).append(row.facts.title)
    return list(found.items())


def _bounds(quality: QualityEvidence) -> list[Bound]:
    """The gate at other confidences, as a changed spec would be judged without measuring anything."""
    found = []
    for confidence in sorted({*_CONFIDENCES, quality.confidence}) if quality.bounds else ():
        fitting = sorted(
            bound
            for bound in {quality.drop_upper_bound, *quality.bounds}
            if judge(quality, max_drop=bound, confidence=confidence) is Verdict.PASSED
        )
        passed = judge(quality, max_drop=quality.max_drop, confidence=confidence) is Verdict.PASSED
        found.append(Bound(confidence, fitting[0], passed))
    return found


def _recipe(facts: ReportFacts) -> dict[str, object]:
    """Blocks of the recipe that do something."""
    recipe = facts.request.recipe.wire()
    names = ("distillation", "pruning", "lowRank", "quantization", "training")
    return {name: recipe[name] for name in names if recipe.get(name)}


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
