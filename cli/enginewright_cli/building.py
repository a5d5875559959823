"""build, report: one ladder or search without a control plane, and what builds found out."""

from __future__ import annotations

import signal
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from enginewright_api.engine_build import EngineBuild
from enginewright_api.errors import DeterministicError, TransientError
from enginewright_api.optimized_model import OptimizedModel
from enginewright_api.validation import problems
from enginewright_cli.describing import print_rungs
from enginewright_cli.documents import read_documents
from enginewright_cli.local.accelerators import detect_cpu
from enginewright_cli.local.artifacts import read_file
from enginewright_cli.local.keys import ensure_keys
from enginewright_cli.local.ladder import Climbed, climb
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
from enginewright_cli.rehearsal import Rehearsal, rehearse
from enginewright_cli.reporting import facts_of_climb, facts_of_model, write_report
from enginewright_cli.search_table import print_search
from enginewright_cluster.port import ENGINE_BUILD, OPTIMIZED_MODEL, Cluster, Ref


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (build, report):
        app.command()(command)


def build(
    filename: FileOption,
    store: Annotated[str | None, typer.Option("--store", help="Artifact store; the local one when left out.")] = None,
    report_file: Annotated[
        Path | None, typer.Option("--report", help="Where to write the HTML report; in the state folder when left out.")
    ] = None,
    output: OutputOption = Format.TABLE,
    state: StateOption = None,
) -> None:
    """Build a model's ladder, or search its recipe, here and now.

    Exit code 1 when no engine may be deployed, 22 when store or hub stayed away: run it again later.
    """
    signal.signal(signal.SIGTERM, _terminated)
    where = state_directory(state)
    where.prepare()
    ensure_keys(where)
    rehearsals = rehearse(
        _checked(filename), namespace=DEFAULT_NAMESPACE, settings=operator_settings(where), classes=[detect_cpu()]
    )
    stalled = False
    table = output is Format.TABLE
    for rehearsal in rehearsals:
        told = _tell if table else _silent
        store_uri = store or where.store_uri
        try:
            result = climb(rehearsal, store_uri=store_uri, state=where, quiet=not table, told=told)
        except TransientError as error:
            errors.print(f"enginewright: {rehearsal.name}: {error.message}", markup=False, soft_wrap=True)
            raise typer.Exit(error.exit_code) from error
        stalled = stalled or result.chosen is None
        page = report_file or where.reports / f"{rehearsal.name}.html"
        write_report(facts_of_climb(rehearsal, result), page)
        if table:
            _print_climbed(rehearsal, result, page)
            continue
        chosen = result.chosen.wire() if result.chosen else None
        rungs = [rung.wire() for rung in result.rungs]
        print_data(
            {"model": rehearsal.name, "artifact": chosen, "rungs": rungs, "report": str(page.absolute())}, output
        )
    if stalled:
        raise typer.Exit(1)


def _terminated(number: int, frame: FrameType | None) -> None:
    """As ^C does it: the builder and the work folder go as well."""
    raise SystemExit(128 + number)


def _tell(message: str) -> None:
    """Before the builder writes to the same stream."""
    console.print(message, style="bold", markup=False, soft_wrap=True)
    console.file.flush()


def _silent(message: str) -> None:
    """JSON and YAML stand alone on standard output."""
    del message


def _print_climbed(rehearsal: Rehearsal, result: Climbed, page: Path) -> None:
    profile = rehearsal.pool.spec.optimization.profile if rehearsal.pool is not None else None
    if result.search is not None and profile is not None:
        print_search(result.search, profile)
        console.print("→ chosen   * on the Pareto front of goal, quality bound and size", markup=False)
    else:
        print_rungs([rung.wire() for rung in result.rungs])
    if result.chosen is not None:
        console.print(f"artifact {result.chosen.uri}\ndigest   {result.chosen.digest}", markup=False, soft_wrap=True)
    else:
        errors.print(f"enginewright: {rehearsal.name}: {result.sentence}", markup=False, soft_wrap=True)
    console.print(f"report   {page.absolute()}", markup=False, soft_wrap=True)


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
    """Write the HTML report of a model, with all rungs or candidates, or of one build."""
    where = target(namespace, context, state)
    bare = name.removeprefix("eb/").removeprefix("om/")
    path = output_file or Path(f"{bare}.html")
    if name.startswith("eb/"):
        size = path.write_bytes(_build_page(where.run(partial(_engine_build, name=bare, namespace=namespace))))
    else:
        model, builds = where.run(partial(_model_and_builds, name=bare, namespace=namespace))
        if not model.status.rungs:
            raise DeterministicError("NotFound", f"model {bare} has no builds yet")
        size = write_report(facts_of_model(model, builds), path)
    console.print(f"{path.absolute()} ({size / 1024:.0f} KiB, opens offline)", markup=False)


async def _engine_build(cluster: Cluster, *, name: str, namespace: str) -> EngineBuild:
    return EngineBuild.of(await cluster.get(Ref(ENGINE_BUILD, name, namespace)))


async def _model_and_builds(
    cluster: Cluster, *, name: str, namespace: str
) -> tuple[OptimizedModel, dict[str, EngineBuild]]:
    model = OptimizedModel.of(await cluster.get(Ref(OPTIMIZED_MODEL, name, namespace)))
    wanted = {rung.engine_build for rung in model.status.rungs}
    found = await cluster.list(ENGINE_BUILD, namespace=namespace)
    return model, {
        item["metadata"]["name"]: EngineBuild.of(item) for item in found if item["metadata"]["name"] in wanted
    }


def _build_page(found: EngineBuild) -> bytes:
    if found.status.artifact is None:
        raise DeterministicError("NotFound", f"{found.metadata.name} has published no artifact yet")
    store_uri = found.status.artifact.uri.split("/artifacts/", 1)[0]
    return read_file(store_uri, found.spec.key, "report.html")
