"""bundle, unbundle: artifacts, chart and images in one file, for clusters without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from enginewright_api.errors import DeterministicError
from enginewright_cli.options import StateOption, state_directory
from enginewright_cli.output import console
from enginewright_store import open_store
from enginewright_store.bundle import (
    ARTIFACT_TYPE,
    CHART_TYPE,
    REF_NAME,
    LayoutReader,
    LayoutWriter,
    add_artifact,
    add_chart,
    install_artifacts,
)
from enginewright_store.garbage import HoldingKind, inventory
from enginewright_store.store import Store

StoreOption = Annotated[str | None, typer.Option("--store", help="Artifact store; the local one when left out.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (bundle, unbundle):
        app.command()(command)


def bundle(
    output_file: Annotated[Path, typer.Option("--output-file", help="The bundle: an OCI image layout as tar archive.")],
    key: Annotated[
        list[str] | None,
        typer.Option("--key", help="Artifact by the first digits of its build key; all when left out."),
    ] = None,
    chart: Annotated[list[Path] | None, typer.Option("--chart", help="Chart made by `helm package`.")] = None,
    image: Annotated[
        list[Path] | None,
        typer.Option("--image", help="Image as OCI archive: skopeo copy docker://NAME oci-archive:FILE:NAME"),
    ] = None,
    store: StoreOption = None,
    state: StateOption = None,
) -> None:
    """Write what a cluster without a network needs into one file."""
    opened = open_store(store or state_directory(state).store_uri)
    keys = _keys(opened, key or [])
    partial = output_file.with_name(f".{output_file.name}.partial")
    try:
        with LayoutWriter(partial) as archive:
            for chosen in keys:
                manifest = add_artifact(archive, opened, chosen)
                size, builder = f"{manifest.size_bytes / 2**20:.1f} MiB", manifest.toolchain.digest
                console.print(f"artifact {chosen} ({size}, made by {builder})", markup=False, soft_wrap=True)
            for package in chart or []:
                add_chart(archive, package)
            for file in image or []:
                archive.merge(file)
        with LayoutReader(partial) as written:
            _tell(written)
        partial.replace(output_file)
    finally:
        partial.unlink(missing_ok=True)
    console.print(f"{output_file} ({output_file.stat().st_size / 2**20:.1f} MiB)", markup=False)


def unbundle(
    file: Annotated[Path, typer.Argument(help="The bundle.", show_default=False)],
    store: StoreOption = None,
    state: StateOption = None,
) -> None:
    """Put a bundle's artifacts into a store. Images and chart go to a registry by skopeo, see docs/airgap.md."""
    with LayoutReader(file) as archive:
        for key in install_artifacts(archive, open_store(store or state_directory(state).store_uri)):
            console.print(f"artifact {key}", markup=False)
        _tell(archive)


def _tell(archive: LayoutReader) -> None:
    """Chart and images by name and digest: what the cluster on the other side will be told to run."""
    for item in archive.manifests:
        kind = {ARTIFACT_TYPE: "artifact", CHART_TYPE: "chart"}.get(item.get("artifactType", ""), "image")
        if kind != "artifact":
            name = item.get("annotations", {}).get(REF_NAME, "without a name")
            console.print(f"{kind} {name} {item['digest']}", markup=False, soft_wrap=True)


def _keys(store: Store, wanted: list[str]) -> list[str]:
    held = [item.key for item in inventory(store) if item.kind is HoldingKind.ARTIFACT]
    chosen = []
    for digits in wanted:
        found = [key for key in held if key.startswith(digits.removeprefix("eb-"))]
        if len(found) != 1:
            raise DeterministicError("NotFound", f"{store.uri}: {len(found)} artifacts have a key that begins {digits}")
        chosen += found
    return sorted(set(chosen)) if wanted else sorted(held)
