"""What the chart passes to a program is what that program takes: its own parser reads it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import typer
import typer.main

import enginewright_autoscaler.main
import enginewright_cli.main
import enginewright_gateway.main
import enginewright_operator.main
from tests.chart.rendering import CHART, VARIANTS, Object, Render

PROGRAMS = {
    "enginewright-operator": enginewright_operator.main.app,
    "enginewright-gateway": enginewright_gateway.main.cli,
    "enginewright-autoscaler": enginewright_autoscaler.main.cli,
    "enginewright": enginewright_cli.main.application("gc"),
}


def documented() -> dict[str, str]:
    """Component to the option that the comment above its `extraArgs` in values.yaml gives as an example."""
    found: dict[str, str] = {}
    component = ""
    lines = (CHART / "values.yaml").read_text().splitlines()
    for above, line in zip(["", *lines], lines, strict=False):
        if head := re.match(r"(\w+):", line):
            component = head[1]
        if line.strip() == "extraArgs: []":
            (found[component],) = re.findall(r"such as (--[a-z=-]+)", above)
    return found


def test_each_component_documents_an_option() -> None:
    assert documented().keys() == {"operator", "gateway", "autoscaler", "gc"}


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())
def test_every_program_takes_its_arguments(render: Render, options: tuple[str, ...]) -> None:
    values = [f"--set={component}.extraArgs={{{option}}}" for component, option in documented().items()]
    lines = [line for item in render(*options, *values) for line in _command_lines(item)]
    assert lines
    for line in lines:
        parsed = _parsed(line)
        extra = documented()["gc" if line[0] == "enginewright" else line[0].removeprefix("enginewright-")]
        name, _, value = extra.removeprefix("--").partition("=")
        assert parsed[name.replace("-", "_")] == (value or True)


@pytest.mark.parametrize("program", ["operator", "gateway", "autoscaler"])
def test_a_level_that_there_is_not_is_refused_by_name(program: str) -> None:
    needed = ["--builder-image=b@sha256:1", "--serving-image=s", "--store=s3://a"] if program == "operator" else []
    with pytest.raises(typer.TyperException, match="'loud' is not one of 'debug', 'info'"):
        _parsed([f"enginewright-{program}", "run", *needed, "--log-level=loud"])


def _command_lines(item: Object) -> Iterator[list[str]]:
    """Of the containers of Deployments and CronJobs that run a program of ours."""
    spec = item.get("spec", {})
    pod = (spec.get("jobTemplate", {}).get("spec", {}) or spec).get("template", {})
    for container in pod.get("spec", {}).get("containers", ()) if isinstance(pod, dict) else ():
        assert container["command"][0] in PROGRAMS
        yield [*container["command"], *(container.get("args") or ())]


def _parsed(line: Sequence[str]) -> dict[str, Any]:
    """Values of the options. TyperException as the program would print it."""
    program, *arguments = line
    group: Any = typer.main.get_command(PROGRAMS[program])
    context = group.make_context(program, list(arguments), resilient_parsing=False)
    name, command, rest = group.resolve_command(context, list(arguments))
    values: dict[str, Any] = command.make_context(name, rest, parent=context).params
    return values
