"""init, validate, plan, render: what can be said about a file without anything running."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from enginewright_api.errors import DeterministicError
from enginewright_api.optimization import Search
from enginewright_api.validation import problems
from enginewright_builder.sources.field import DRAFT
from enginewright_cli.documents import read_documents
from enginewright_cli.gpu_builds import gpu_build, gpu_build_text
from enginewright_cli.initializing import init
from enginewright_cli.local.accelerators import detect_cpu
from enginewright_cli.local.artifacts import lookup
from enginewright_cli.local.settings import operator_settings
from enginewright_cli.options import (
    DEFAULT_NAMESPACE,
    FileOption,
    NamespaceOption,
    OutputOption,
    StateOption,
    state_directory,
)
from enginewright_cli.output import Format, console, errors, print_data, print_table
from enginewright_cli.platform import Platform, read_platform
from enginewright_cli.preflight import Preflight, model_of, preflight, sentences
from enginewright_cli.rehearsal import Rehearsal, rehearse
from enginewright_cli.state import StateDirectory
from enginewright_operator.core.candidates import Pool
from enginewright_operator.core.draft import Rung

ClassFile = Annotated[
    str | None,
    typer.Option("--classes", help="File or folder with AcceleratorClasses; `cpu` is this machine unless it is there."),
]

PlatformFile = Annotated[
    str | None,
    typer.Option(
        "--platform",
        help="Speak for a cluster instead of this machine, by its operator's settings and its classes: what "
        "`helm template` of the chart prints with its values, or `kubectl get deployments,acceleratorclasses -o yaml`.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (init, validate, plan, render):
        app.command()(command)


def validate(filename: FileOption, output: OutputOption = Format.TABLE) -> None:
    """Check files as the API server would, and for what it never sees (duplicate keys, `y` read as a boolean)."""
    documents = read_documents(filename)
    found = [(_title(document), problem) for document in documents for problem in problems(document)]
    if output is not Format.TABLE:
        print_data([{"object": title, "problem": problem} for title, problem in found], output)
    else:
        for title, problem in found:
            errors.print(f"{title}: {problem}", markup=False, soft_wrap=True)
        if not found:
            console.print(
                f"{filename}: {len(documents)} object{'s' if len(documents) != 1 else ''} valid", markup=False
            )
    if found:
        raise typer.Exit(1)


def plan(
    filename: FileOption,
    classes: ClassFile = None,
    platform: PlatformFile = None,
    namespace: NamespaceOption = DEFAULT_NAMESPACE,
    output: OutputOption = Format.TABLE,
    state: StateOption = None,
) -> None:
    """What would be built for a file and why; needs nothing running."""
    where = state_directory(state)
    rehearsals = _rehearsals(filename, classes, platform, namespace, where)
    rungs = [(rehearsal.name, rung) for rehearsal in rehearsals for rung in rehearsal.rungs]
    estimates = [
        preflight(rung, found, draft)
        for rehearsal in rehearsals
        for recipe in [rehearsal.rungs[0].recipe]
        for found in [model_of(recipe.source)]
        for draft in [model_of(recipe.draft_source, DRAFT) if recipe.draft_source else None]
        for rung in rehearsal.rungs
    ]
    looked_up = {rung.key: "unless the store has it" if platform else _looked_up(rung, where) for _, rung in rungs}
    planned = [
        _planned(name, rung, found, looked_up[rung.key]) for (name, rung), found in zip(rungs, estimates, strict=True)
    ]
    on_gpu = [gpu_build(rung.recipe) for _, rung in rungs]
    if output is not Format.TABLE:
        print_data([row | ({"onGpu": gpu} if gpu else {}) for row, gpu in zip(planned, on_gpu, strict=True)], output)
        return
    print_table([name.upper() for name in planned[0]], [list(row.values()) for row in planned])
    for sentence in dict.fromkeys(
        told for (_, rung), found in zip(rungs, estimates, strict=True) for told in sentences(rung, found)
    ):
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)
    for rehearsal in rehearsals:
        if len(rehearsal.manifest["spec"]["hardware"]["acceleratorClasses"]) > 1:
            told = f"{rehearsal.name}: {rehearsal.accepted}."
            console.print(told, markup=False, highlight=False, soft_wrap=True)
    if any(rehearsal.pool is None for rehearsal in rehearsals):
        console.print("Rungs are tried in order; the first that passes its gate and beats the baseline is served.")
    for rehearsal in rehearsals:
        if rehearsal.pool is not None:
            console.print(_search_sentence(rehearsal.name, rehearsal.pool), markup=False, soft_wrap=True)
    for row, gpu in zip(planned, on_gpu, strict=True):
        if gpu is not None:
            told = f"\n{row['engineBuild']} runs on a GPU node:\n{gpu_build_text(gpu)}"
            console.print(told, markup=False, highlight=False, soft_wrap=True)


def _search_sentence(name: str, pool: Pool) -> str:
    budget = pool.spec.optimization.search or Search()
    steps = "; ".join(step.title for chain in pool.chains for step in chain)
    on_top = f" On the best of them: {steps}." if steps else ""
    return (
        f"{name}: searched in this order, where evidence does not make a candidate pointless.{on_top}"
        f" At most {budget.max_builds} builds, {budget.max_minutes} minutes; the best that passes its gate is served."
    )


def _looked_up(rung: Rung, state: StateDirectory) -> str:
    exists = lookup(state.store_uri, rung.key) is not None
    return "none, the engine is in the store" if exists else "needed"


def _planned(model: str, rung: Rung, estimate: Preflight, build: str) -> dict[str, str]:
    evidence = rung.evidence
    return {
        "model": model,
        "rung": str(rung.number + 1),
        "recipe": rung.title,
        "class": rung.accelerator.accelerator_class,
        "engineBuild": rung.build_name,
        "build": build,
        "time": estimate.time,
        "memory": estimate.memory,
        "gate": f"{evidence.metric.value} drop ≤ {evidence.max_drop:g} at confidence {evidence.confidence:g}",
    }


def render(
    filename: FileOption,
    classes: ClassFile = None,
    platform: PlatformFile = None,
    namespace: NamespaceOption = DEFAULT_NAMESPACE,
    state: StateOption = None,
) -> None:
    """The objects that the operator of --platform, or else of this machine, would create first, as YAML.

    What depends on the built engine comes later.
    """
    rehearsals = _rehearsals(filename, classes, platform, namespace, state_directory(state))
    print_data([child for rehearsal in rehearsals for child in rehearsal.children], Format.YAML)


def _rehearsals(
    filename: str, classes: str | None, platform: str | None, namespace: str, state: StateDirectory
) -> list[Rehearsal]:
    cluster = read_platform(platform) if platform else Platform(operator_settings(state), (detect_cpu(),))
    documents = read_documents(filename) + (read_documents(classes) if classes else [])
    found = [
        f"{_title(document)}: {problem}"
        for document in [*documents, *cluster.classes]
        for problem in problems(document)
    ]
    if found:
        raise DeterministicError("Invalid", "; ".join(found))
    return rehearse(documents, namespace=namespace, settings=cluster.settings, classes=cluster.classes)


def _title(document: dict[str, Any]) -> str:
    metadata = document.get("metadata")
    return f"{document.get('kind', 'object')} {metadata.get('name', '?') if isinstance(metadata, dict) else '?'}"
