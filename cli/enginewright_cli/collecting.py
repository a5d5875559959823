"""gc: removes from an artifact store what no object uses any more."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from typing import Annotated

import typer

from enginewright_api.errors import DeterministicError
from enginewright_cli.options import OutputOption, StateOption, state_directory
from enginewright_cli.output import Format, console, print_data, print_table
from enginewright_cli.references import used_keys
from enginewright_cli.state import StateDirectory
from enginewright_cluster.port import Cluster
from enginewright_store import open_store
from enginewright_store.garbage import Collection, Decision, Retention, collect

ContextsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--context",
        help="kubeconfig context of a cluster that uses the store (`current` takes the current one, in a pod its"
        " own). Name EVERY cluster that shares it: what none of them uses goes. Left out: this machine.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(gc)


def gc(
    store: Annotated[
        str | None,
        typer.Option("--store", help="Artifact store; the local one when neither it nor a context is given."),
    ] = None,
    context: ContextsOption = None,
    keep: Annotated[int, typer.Option("--keep", min=0, help="Newest artifacts kept of each model, used or not.")] = 3,
    grace_hours: Annotated[
        float, typer.Option("--grace-hours", min=0, help="Goes this long after a run first found it unused.")
    ] = 24.0,
    stage_days: Annotated[
        float, typer.Option("--stage-days", min=0, help="Results of the builder's stage cache are kept this long.")
    ] = 14.0,
    stage_gib: Annotated[
        float | None, typer.Option("--stage-gib", min=0, help="The stage cache may be this large; the oldest go first.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would go; change nothing.")] = False,
    output: OutputOption = Format.TABLE,
    state: StateOption = None,
) -> None:
    """Remove artifacts that no object uses, and old results of the stage cache.

    Safe beside builds and operators. With a grace time (one day by default) a first run only notes what is unused, and
    a later one removes it: run it daily.
    """
    where = state_directory(state)
    if context and store is None:
        raise DeterministicError("Usage", "--context needs --store: the URI that these clusters' operators were given")
    retention = Retention(
        artifacts=keep,
        grace=timedelta(hours=grace_hours),
        stages=timedelta(days=stage_days),
        stage_bytes=None if stage_gib is None else int(stage_gib * 2**30),
    )
    collection = collect(
        open_store(store or where.store_uri),
        partial(_references, where, tuple(context or ())),
        retention,
        holder=f"{socket.gethostname()}/{os.getpid()}",
        dry_run=dry_run,
    )
    if output is Format.TABLE:
        _print(collection, dry_run=dry_run)
    else:
        print_data(_facts(collection, dry_run=dry_run), output)


def _references(state: StateDirectory, contexts: Sequence[str]) -> frozenset[str]:
    """Read afresh from all clusters; in local mode with no control plane ever started there are no objects."""

    async def read() -> frozenset[str]:
        async with AsyncExitStack() as stack:
            clusters = [await _cluster(state, context) for context in contexts or (None,)]
            present = [cluster for cluster in clusters if cluster is not None]
            for cluster in present:
                stack.push_async_callback(cluster.close)
            return await used_keys(present)

    return asyncio.run(read())


async def _cluster(state: StateDirectory, context: str | None) -> Cluster | None:
    if context is None:
        from enginewright_cli.local.control_plane import database, open_cluster

        return open_cluster(state) if database(state).exists() else None
    from enginewright_cluster.kubernetes import KubernetesCluster

    # In a pod the cluster that it is in, by its service account.
    return await KubernetesCluster.auto(context=None if context == "current" else context)


def _facts(collection: Collection, *, dry_run: bool) -> dict[str, object]:
    return {
        "dryRun": dry_run,
        "holdings": [_row(decision) for decision in collection.decisions],
        "removed": [holding.key for holding in collection.removed],
        "removedBytes": collection.removed_bytes,
        "restored": [holding.key for holding in collection.restored],
        "left": [holding.key for holding in collection.left],
    }


def _row(decision: Decision) -> dict[str, object]:
    holding = decision.holding
    return {
        "verdict": decision.verdict.value,
        "kind": holding.kind.value,
        "key": holding.key,
        "title": holding.title,
        "sizeBytes": holding.size_bytes,
        "written": holding.modified.isoformat(timespec="seconds"),
        "reason": decision.reason,
    }


def _print(collection: Collection, *, dry_run: bool) -> None:
    decisions = collection.decisions
    print_table(
        ["VERDICT", "KIND", "KEY", "SIZE", "WRITTEN", "WHAT", "WHY"],
        [
            [
                decision.verdict.value,
                decision.holding.kind.value,
                decision.holding.key[:16],
                _mebibytes(decision.holding.size_bytes),
                decision.holding.modified.strftime("%Y-%m-%d %H:%M"),
                decision.holding.title,
                decision.reason,
            ]
            for decision in decisions
        ],
    )
    if dry_run:
        going = [decision.holding for decision in decisions if decision.verdict == "Remove"]
        size = sum(holding.size_bytes for holding in going)
        console.print(f"{len(going)} of {len(decisions)} would go, {_mebibytes(size)}", markup=False)
        return
    size = collection.removed_bytes
    console.print(f"{len(collection.removed)} of {len(decisions)} removed, {_mebibytes(size)}", markup=False)
    for holding in collection.restored:
        console.print(f"{holding.key[:16]} came into use meanwhile and stays", markup=False)
    if collection.left:
        console.print(f"{len(collection.left)} are left for the next run: time was up", markup=False)


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
