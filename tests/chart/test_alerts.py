"""The alerts, run by promtool: each fires on what it is for, and none on a day on which all is well."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.rendering import CHART, MONITORED, RefusedError, Render, named
from tests.required import cannot_run

ALERTS = CHART / "files" / "alerts.yaml"
RUNBOOKS = CHART.parents[1] / "docs" / "runbooks"
OPERATOR, AUTOSCALER = "enginewright_operator", "enginewright_autoscaler"
FAILED = f'{OPERATOR}_reconcile_errors_total{{class="Transient"'


@dataclass(frozen=True)
class Case:
    """Series by the minute, as promtool writes them, and when the alert fires on them."""

    alert: str
    series: dict[str, str]
    quiet_at: str
    """Not yet: the condition does not hold, or not for long enough."""
    fires_at: str
    labels: str = ""
    """Labels of the alert that a person needs, as PromQL prints them."""


CASES = [
    Case("EnginewrightOperatorNotWorking", {f"{OPERATOR}_leading": "1 1 1 0x30"}, "7m", "15m"),
    Case(
        "EnginewrightOperatorFailing",
        {
            f'{FAILED},kind="EngineBuild",error="UnavailableError"}}': "0+5x60",
            f'{FAILED},kind="OptimizedModel",error="ConflictError"}}': "0+50x60",
            f'{OPERATOR}_reconcile_seconds_count{{kind="EngineBuild"}}': "0+5x60",
            f'{OPERATOR}_reconcile_seconds_count{{kind="OptimizedModel"}}': "0+5x60",
        },
        "10m",
        "30m",
        'kind="EngineBuild"',
    ),
    Case("EnginewrightOperatorBehind", {f"{OPERATOR}_queue_oldest_seconds": "0 0 0+60x40"}, "8m", "20m"),
    Case(
        "EnginewrightApiServerFailing",
        {
            f'{OPERATOR}_api_requests_total{{verb="list",resource="pods",code="200"}}': "0+90x60",
            f'{OPERATOR}_api_requests_total{{verb="list",resource="pods",code="0"}}': "0+10x60",
            f'{OPERATOR}_api_requests_total{{verb="patch",resource="pods",code="200"}}': "0+90x60",
            f'{OPERATOR}_api_requests_total{{verb="patch",resource="pods",code="409"}}': "0+90x60",
        },
        "8m",
        "25m",
        'verb="list"',
    ),
    Case(
        "EnginewrightForbidden",
        {f'{OPERATOR}_api_requests_total{{verb="patch",resource="jobs",code="403"}}': "_x5 1+1x60"},
        "8m",
        "20m",
        'resource="jobs", verb="patch"',
    ),
    Case(
        "EnginewrightModelNotReady",
        {
            f'{OPERATOR}_model_not_ready{{model="a/m",reason="Building"}}': "1x40 _x80",
            f'{OPERATOR}_model_not_ready{{model="a/m",reason="BuildFailed"}}': "_x40 1x80",
        },
        "45m",
        "65m",
        'model="a/m"',
    ),
    Case("EnginewrightBuildsFailing", {f'{OPERATOR}_builds{{phase="Failed"}}': "2x30 3x90"}, "20m", "40m"),
    Case(
        "EnginewrightRolloutFailed",
        {
            f'{OPERATOR}_rollouts_total{{outcome="Completed"}}': "0+1x120",
            f'{OPERATOR}_rollouts_total{{outcome="ProgressDeadlineExceeded"}}': "_x20 1x100",
        },
        "19m",
        "25m",
        'outcome="ProgressDeadlineExceeded"',
    ),
    Case(
        "EnginewrightInsufficientCapacity",
        {f'{OPERATOR}_models{{condition="RolledOut",status="Unknown",reason="InsufficientCapacity"}}': "1x60"},
        "10m",
        "20m",
    ),
    Case(
        "EnginewrightErrors",
        {
            'enginewright_requests_total{model="a/m",code="200"}': "0+90x60",
            'enginewright_requests_total{model="a/m",code="503"}': "0+10x60",
            'enginewright_requests_total{model="a/fine",code="200"}': "0+90x60",
            'enginewright_requests_total{model="a/fine",code="429"}': "0+1x60",
        },
        "4m",
        "15m",
        'model="a/m"',
    ),
    Case(
        "EnginewrightOverloaded",
        {
            'enginewright_requests_total{model="a/m",code="200"}': "0+90x60",
            'enginewright_requests_total{model="a/m",code="429"}': "0+10x60",
        },
        "8m",
        "20m",
        'model="a/m"',
    ),
    Case("EnginewrightRequestsHeld", {'enginewright_held_requests{model="a/m"}': "3x60"}, "4m", "10m", 'model="a/m"'),
    Case("EnginewrightAutoscalerStuck", {f"{AUTOSCALER}_round_age_seconds": "1 1 1+60x30"}, "3m", "10m"),
    Case(
        "EnginewrightAutoscalerBlind",
        {f'{AUTOSCALER}_scrape_failures_total{{gateway="http://g"}}': "0+60x60"},
        "4m",
        "15m",
        'gateway="http://g"',
    ),
    Case(
        "EnginewrightAutoscalerBlind",
        {
            f'{AUTOSCALER}_signal_age_seconds{{model="a/m"}}': "0+60x60",
            # A model without any traffic yet has no signals that could be old.
            f'{AUTOSCALER}_signal_age_seconds{{model="a/new"}}': " ".join(["NaN"] * 16),
        },
        "5m",
        "15m",
        'model="a/m"',
    ),
    Case(
        "EnginewrightAutoscalerFailing",
        {f'{AUTOSCALER}_failures_total{{model="a/m",reason="Unavailable"}}': "0+1x60"},
        "9m",
        "20m",
        'model="a/m", reason="Unavailable"',
    ),
    Case(
        "EnginewrightObjectiveInfeasible",
        {f'{OPERATOR}_models{{condition="Autoscaling",status="False",reason="CapacityLimited"}}': "2x60"},
        "10m",
        "20m",
        'reason="CapacityLimited"',
    ),
]

WELL = {
    f"{OPERATOR}_leading": "1x180",
    f'{OPERATOR}_leading{{pod="standby"}}': "0x180",
    f'{OPERATOR}_reconcile_seconds_count{{kind="OptimizedModel"}}': "0+20x180",
    f'{FAILED},kind="OptimizedModel",error="ConflictError"}}': "0+20x180",
    f'{FAILED},kind="OptimizedModel",error="UnavailableError"}}': "0+1x180",
    f"{OPERATOR}_queue_oldest_seconds": "0x180",
    f'{OPERATOR}_api_requests_total{{verb="patch",resource="optimizedmodels",code="200"}}': "0+99x180",
    f'{OPERATOR}_api_requests_total{{verb="patch",resource="optimizedmodels",code="409"}}': "0+20x180",
    f'{OPERATOR}_api_requests_total{{verb="get",resource="optimizedmodels",code="404"}}': "0+20x180",
    f'{OPERATOR}_model_not_ready{{model="a/building",reason="Building"}}': "_x30 1x50 _x100",
    f'{OPERATOR}_builds{{phase="Failed"}}': "4x90 1x90",
    f'{OPERATOR}_builds{{phase="Succeeded"}}': "1+1x180",
    f'{OPERATOR}_rollouts_total{{outcome="Completed"}}': "0+1x180",
    f'{OPERATOR}_rollouts_total{{outcome="ProgressDeadlineExceeded"}}': "3x180",
    f'{OPERATOR}_models{{condition="RolledOut",status="True",reason="Complete"}}': "9x180",
    f'{OPERATOR}_models{{condition="Autoscaling",status="True",reason="Deciding"}}': "9x180",
    'enginewright_requests_total{model="a/m",code="200"}': "0+100x180",
    'enginewright_requests_total{model="a/m",code="503"}': "0+1x180",
    'enginewright_requests_total{model="a/m",code="429"}': "0+1x180",
    'enginewright_held_requests{model="a/m"}': "0x180",
    f"{AUTOSCALER}_round_age_seconds": "1x180",
    f'{AUTOSCALER}_signal_age_seconds{{model="a/m"}}': "1x180",
    f'{AUTOSCALER}_scrape_failures_total{{gateway="http://g"}}': "1x180",
    f'{AUTOSCALER}_failures_total{{model="a/m",reason="Conflict"}}': "2x180",
}


@pytest.fixture(scope="session")
def promtool() -> str:
    """Prometheus' own checker."""
    found = shutil.which("promtool")
    if found is None:
        cannot_run("no promtool: run make system-deps")
    return found


def rules() -> list[dict[str, Any]]:
    """All alerts."""
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_promtool_takes_the_file_as_it_is(promtool: str) -> None:
    done = subprocess.run([promtool, "check", "rules", str(ALERTS)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{len(rules())} rules found" in done.stdout


def test_each_alert_fires_on_what_it_is_for_and_not_before(promtool: str, tmp_path: Path) -> None:
    assert {case.alert for case in CASES} == {rule["alert"] for rule in rules()}
    tests = [_test(case) for case in CASES]
    tests.append(
        {
            "name": "all is well",
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in WELL.items()],
            "promql_expr_test": [
                {"expr": "count(ALERTS{alertstate='firing'})", "eval_time": f"{at}m"} for at in (60, 170)
            ],
        }
    )
    file = tmp_path / "alerts.test.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": tests}))
    done = subprocess.run([promtool, "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _test(case: Case) -> dict[str, Any]:
    names = [part.split("=")[0].strip() for part in case.labels.split(",") if part]
    firing = f"count by ({','.join(names)}) (ALERTS{{alertname='{case.alert}',alertstate='firing'}})"
    return {
        "name": case.alert,
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
        "promql_expr_test": [
            {"expr": firing, "eval_time": case.quiet_at},
            {
                "expr": firing,
                "eval_time": case.fires_at,
                "exp_samples": [{"labels": f"{{{case.labels}}}", "value": 1}],
            },
        ],
    }


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: str(rule["alert"]))
def test_each_alert_has_a_page_that_says_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["annotations"]["runbook_url"] == f"docs/runbooks/{rule['alert']}.md"
    page = (RUNBOOKS / f"{rule['alert']}.md").read_text()
    assert page.startswith(f"# {rule['alert']}\n")
    for heading in ("## Meaning", "## Look", "## Mend"):
        assert f"\n{heading}\n" in page


def test_no_page_is_without_its_alert() -> None:
    pages = {page.stem for page in RUNBOOKS.glob("*.md")} - {"README"}
    assert pages == {rule["alert"] for rule in rules()}


def test_the_chart_carries_the_file_and_links_to_the_pages_where_they_are(render: Render) -> None:
    def rendered(*options: str) -> Any:
        return named(render(*MONITORED, *options), "PrometheusRule", "enginewright")["spec"]

    pages, here = "https://wiki.example/runbooks", yaml.safe_load(ALERTS.read_text())
    assert str(here).count("docs/runbooks/") == len(rules())
    linked = yaml.safe_load(ALERTS.read_text().replace("runbook_url: docs/runbooks", f"runbook_url: {pages}"))
    assert rendered(f"--set=metrics.prometheusRule.runbookUrl={pages}/") == linked
    for rule in (rule for group in here["groups"] for rule in group["rules"]):
        del rule["annotations"]["runbook_url"]
    assert rendered() == here, "a path in this repository is no address"
    with pytest.raises(RefusedError, match="/metrics/prometheusRule/runbookUrl"):
        rendered("--set=metrics.prometheusRule.runbookUrl=docs/runbooks")
