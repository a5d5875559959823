"""Helm, and the chart rendered by it: each set of values once."""

from __future__ import annotations

import copy
import functools
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.chart.rendering import CHART, KUBERNETES, SMALLEST, Object, RefusedError, Render


@pytest.fixture(scope="session")
def render(helm: Path) -> Render:
    """See `Render`."""

    @functools.cache
    def text(options: tuple[str, ...]) -> tuple[Object, ...]:
        values = [f"--set={name}={value}" for name, value in SMALLEST.items()]
        command = [str(helm), "template", "release", str(CHART), "--namespace=system", f"--kube-version={KUBERNETES}.0"]
        values.append("--set=crds.enabled=false")
        done = subprocess.run([*command, *values, *options], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RefusedError(done.stderr)
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        return tuple(item for item in yaml.load_all(done.stdout, Loader=loader) if item)

    def rendered(*options: str) -> list[Object]:
        return copy.deepcopy(list(text(options)))

    return rendered
