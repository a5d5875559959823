"""A packaged Helm chart in a bundle, as Helm itself stores charts in registries."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import yaml

from enginewright_api.errors import DeterministicError
from enginewright_api.identity import canonical_json
from enginewright_store.bundle.layout import LayoutWriter

CHART_TYPE = "application/vnd.cncf.helm.config.v1+json"
CONTENT_TYPE = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"


def add_chart(bundle: LayoutWriter, package: Path) -> str:
    """A chart from `helm package`; its name and version. Raises DeterministicError InvalidChart."""
    facts = _facts(package)
    name = f"charts/{facts['name']}:{facts['version']}"
    config = bundle.blob(canonical_json(facts), CHART_TYPE)
    bundle.artifact(name, CHART_TYPE, [bundle.file(package, CONTENT_TYPE, {})], config)
    return name


def _facts(package: Path) -> dict[str, Any]:
    """Chart.yaml, which lies in the chart's own folder in the archive."""
    try:
        with tarfile.open(package, "r:gz") as archive:
            member = next(item for item in archive if item.isfile() and item.name.count("/") == 1
                          and item.name.endswith("/Chart.yaml"))  # fmt: skip
            source = archive.extractfile(member)
            found = yaml.safe_load(source.read()) if source is not None else None
    except (tarfile.TarError, OSError, StopIteration, yaml.YAMLError) as error:
        raise DeterministicError("InvalidChart", f"{package}: not a chart made by `helm package`") from error
    if not isinstance(found, dict) or not {"name", "version"} <= found.keys():
        raise DeterministicError("InvalidChart", f"{package}: Chart.yaml has no name and version")
    return found
