"""build, report: one ladder without a control plane, and what a build found out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from enginewright_api.engine_build import EngineBuild
from enginewright_api.errors import DeterministicError
from enginewright_api.validation import problems
from enginewright_cli.describing import print_rungs
from enginewright_cli.documents import read_documents
from enginewright_cli.local.artifacts import read_file
from enginewright_cli.local.keys import ensure_keys
from enginewright_cli.local.ladder import climb
from enginewright_cli.local.settings import operator_settings
from enginewright_cli.options import (
    DEFAULT_NAMESPACE,
    ContextOption,
    FileOption,
    NamespaceOption,
    OutputOption,
    StateOption,
    state_directory,
    target,
)
from enginewright_cli.output import Format, console, errors, print_data
from enginewright_cli.rehearsal import rehearse
from enginewright_cluster.port import ENGINE_BUILD, OPTIMIZED_MODEL, Cluster, NotFoundError, Ref


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (build, report):
        app.command()(command)


def build(
    filename: FileOption,
    store: Annotated[str | None, typer.Option("--store", help="Artifact store; the local one when left out.")] = None,
    output: OutputOption = Format.TABLE,
    state: StateOption = None,
) -> None:
    """Build a model's ladder here and now, without a control plane. Exit code 1 when no rung may be deployed."""
    where = state_directory(state)
    where.prepare()
    ensure_keys(where)
    rehearsals = rehearse(_checked(filename), namespace=DEFAULT_NAMESPACE, settings=operator_settings(where))
    stalled = False
    for rehearsal in rehearsals:
        result = climb(rehearsal, store_uri=store or where.store_uri, state=where, quiet=output is not Format.TABLE)
        stalled = stalled or result.chosen is None
        if output is not Format.TABLE:
            chosen = result.chosen.wire() if result.chosen else None
            print_data(
                {"model": rehearsal.name, "artifact": chosen, "rungs": [rung.wire() for rung in result.rungs]}, output
            )
            continue
        print_rungs([rung.wire() for rung in result.rungs])
        if result.chosen is not None:
            console.print(
                f"artifact {result.chosen.uri}\ndigest   {result.chosen.digest}", markup=False, soft_wrap=True
            )
        else:
            errors.print(f"enginewright: {rehearsal.name}: {result.sentence}", markup=False, soft_wrap=True)
    if stalled:
        raise typer.Exit(1)


def _checked(filename: str) -> list[dict[str, Any]]:
    documents = read_documents(filename)
    found = [problem for document in documents for problem in problems(document)]
    if found:
        raise DeterministicError("Invalid", f"{filename}: " + "; ".join(found))
    return documents


def report(
    name: Annotated[str, typer.Argument(help="Model, or eb/NAME for one build.", show_default=False)],
    output_file: Annotated[Path | None, typer.Option("--output-file", help="Where to write the HTML.")] = None,
    namespace: NamespaceOption = DEFAULT_NAMESPACE,
    context: ContextOption = None,
    state: StateOption = None,
) -> None:
    """Write the HTML report of the engine that a model uses."""

    async def work(cluster: Cluster) -> EngineBuild:
        build_name = name.removeprefix("eb/")
        if build_name == name:
            model = await cluster.get(Ref(OPTIMIZED_MODEL, name.removeprefix("om/"), namespace))
            status = model.get("status") or {}
            engine = status.get("active") or status.get("target")
            if engine is None:
                raise NotFoundError("NotFound", f"model {name} has no engine yet")
            build_name = engine["engineBuild"]
        return EngineBuild.of(await cluster.get(Ref(ENGINE_BUILD, build_name, namespace)))

    found = target(namespace, context, state).run(work)
    if found.status.artifact is None:
        raise DeterministicError("NotFound", f"{found.metadata.name} has published no artifact yet")
    store_uri = found.status.artifact.uri.split("/artifacts/", 1)[0]
    page = read_file(store_uri, found.spec.key, "report.html")
    path = output_file or Path(f"{found.metadata.name}.html")
    path.write_bytes(page)
    console.print(f"{path.absolute()} ({len(page) / 1024:.0f} KiB, opens offline)", markup=False)
