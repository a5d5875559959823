"""The Grafana dashboard: its queries name what the programs really tell, and a real Prometheus answers them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from enginewright_api import metrics
from tests.chart.rendering import CHART, MONITORED, Render, named
from tests.chart.scraped import MODEL, Programs, free_port, told_names, told_text
from tests.required import cannot_run

DASHBOARD: dict[str, Any] = json.loads((CHART / "files" / "dashboard.json").read_text())
SCALED_OBJECT = CHART.parents[1] / "examples" / "keda" / "scaledobject.yaml"
ALERTS = (CHART / "files" / "alerts.yaml").read_text()
GPU_METRICS = Path(__file__).parent / "triton_gpu_metrics.yaml"
NAME = re.compile(r"\b(?:enginewright|nv|process)_[a-z0-9_]+\b")
NO_SERVERS_HERE = {"Inferences in a batch", "Waiting in the server", "Failed inferences", "GPU"}
"""Panels of the inference server's own metrics: tests/gateway holds them against a real one, but for those of GPUs."""

PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]


def named_in(text: str) -> set[str]:
    """Series that a query or a file of rules names; histograms by their family."""
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in NAME.findall(text)}


@pytest.fixture(scope="module")
def told() -> set[str]:
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in told_names()}


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A real Prometheus that has read operator, gateway and autoscaler for some seconds."""
    program = shutil.which("prometheus")
    if program is None:
        cannot_run("no prometheus: run make system-deps")
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    with Programs() as programs:
        jobs = [
            {"job_name": name, "static_configs": [{"targets": [address]}]}
            for name, address in programs.addresses.items()
        ]
        config = {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": jobs}
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        command = [program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
        command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]
        with subprocess.Popen(command) as server, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            try:
                _until_scraped(client, len(jobs))
                programs.work()
                time.sleep(2.0)
                yield client
            finally:
                server.terminate()


def _until_scraped(client: httpx.Client, targets: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            if sum(float(item["value"][1]) for item in ask(client, "up")) == targets:
                return
        except httpx.HTTPError:
            pass  # not listening yet
        assert time.monotonic() < deadline, "Prometheus does not read the programs"
        time.sleep(0.1)


def ask(client: httpx.Client, query: str) -> list[dict[str, Any]]:
    """An instant query."""
    answer = client.get("/api/v1/query", params={"query": query}).json()
    assert answer["status"] == "success", f"{query}: {answer.get('error')}"
    found: list[dict[str, Any]] = answer["data"]["result"]
    return found


def test_every_name_in_dashboard_and_alerts_is_told_by_a_program(told: set[str]) -> None:
    wanted = named_in("\n".join(query for _, query in QUERIES)) | named_in(ALERTS)
    assert {name for name in wanted if not name.startswith("nv_")} - told == set()


def test_what_it_asks_of_gpus_is_what_triton_documents() -> None:
    """No server here has a GPU: names and units are held against the documentation."""
    documented = yaml.safe_load(GPU_METRICS.read_text())
    (panel,) = (panel for panel in PANELS if panel["title"] == "GPU")
    asked = named_in(" ".join(target["expr"] for target in panel["targets"]))
    others = named_in("\n".join([*(query for title, query in QUERIES if title != "GPU"), ALERTS]))
    assert asked and asked <= documented.keys()
    assert not {name for name in others if name.startswith("nv_") and not name.startswith("nv_inference")}
    # Utilization is 0.0 to 1.0 there, and memory is shown as a share of memory.
    assert panel["fieldConfig"]["defaults"]["unit"] == "percentunit"
    memory = [target["expr"] for target in panel["targets"] if "memory" in target["expr"]]
    assert [re.findall(r"nv_gpu_memory_\w+", query) for query in memory] == [
        ["nv_gpu_memory_used_bytes", "nv_gpu_memory_total_bytes"]
    ]


def test_every_metric_of_ours_is_on_the_dashboard(told: set[str]) -> None:
    shown = named_in("\n".join(query for _, query in QUERIES))
    assert {name for name in told if name.startswith("enginewright_")} - shown == set()


def test_every_query_is_answered_by_a_real_prometheus(prometheus: httpx.Client) -> None:
    empty = []
    for title, query in QUERIES:
        concrete = query.replace("$__rate_interval", "15s").replace("$model", ".*")
        if not ask(prometheus, concrete) and title not in NO_SERVERS_HERE:
            empty.append((title, concrete))
    assert empty == []


def test_keda_is_told_one_number_by_the_example(told: set[str], prometheus: httpx.Client) -> None:
    (trigger,) = yaml.safe_load(SCALED_OBJECT.read_text())["spec"]["triggers"]
    query = trigger["metadata"]["query"]
    assert named_in(query) == {metrics.QUEUE_DEPTH, metrics.INFLIGHT}
    assert named_in(query) <= told
    assert len(ask(prometheus, query.replace("default/minilm", MODEL))) == 1
    assert ask(prometheus, query) == [], "nothing is known of a model that is not there, and null is no number"
    assert trigger["metadata"]["ignoreNullValues"] == "false"


def test_names_and_helps_follow_the_conventions() -> None:
    program = shutil.which("promtool")
    if program is None:
        cannot_run("no promtool: run make system-deps")
    # Several programs tell of their process by the same names.
    text = re.sub(r"^(# \w+ )?process_.*\n", "", told_text(), flags=re.MULTILINE)
    done = subprocess.run([program, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_model_variable_lists_models(prometheus: httpx.Client) -> None:
    (variable,) = (item for item in DASHBOARD["templating"]["list"] if item["name"] == "model")
    match = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["definition"])
    assert match is not None
    assert "default/search" in {item["metric"].get(match[2]) for item in ask(prometheus, match[1])}


def test_panels_lie_beside_one_another_and_have_names_of_their_own() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    for key in ("id", "title"):
        values = [panel[key] for panel in DASHBOARD["panels"]]
        assert len(set(values)) == len(values)


def test_the_chart_carries_it_where_grafana_looks(render: Render) -> None:
    config = named(render(*MONITORED), "ConfigMap", "-dashboard")
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(config["data"]["enginewright.json"]) == DASHBOARD
