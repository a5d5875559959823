"""Pod monitors: each reads pods that exist, at a port that they have."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.chart.rendering import MONITORED, Object, Render, of_kind
from tests.kube.scripts import HERE

SERVER = (
    HERE.parent / "unit" / "operator" / "__snapshots__" / "test_operator_rendering" / "test_deployment_on_a_cpu.yaml"
)


def pods(objects: list[Object]) -> list[tuple[str, Any]]:
    """Namespace and template of the programs' pods and of a server, as the operator renders it."""
    ours = [(item["metadata"]["namespace"], item["spec"]["template"]) for item in of_kind(objects, "Deployment")]
    return [*ours, ("search", yaml.safe_load(SERVER.read_text())["spec"]["template"])]


@pytest.mark.parametrize(
    ("options", "read"),
    [
        ((), {"operator": 8080, "gateway": 8000, "autoscaler": 9000, "server": 8002}),
        (("--set=watchNamespace=search",), {"operator": 8080, "gateway": 8000, "autoscaler": 9000, "server": 8002}),
        (("--set=watchNamespace=chat",), {"operator": 8080, "gateway": 8000, "autoscaler": 9000}),
        (("--set=autoscaler.enabled=false,gateway.enabled=false",), {"operator": 8080, "server": 8002}),
    ],
)
def test_each_program_is_read_where_it_tells(render: Render, options: tuple[str, ...], read: dict[str, int]) -> None:
    objects = render(*MONITORED, *options)
    found = {}
    for monitor in of_kind(objects, "PodMonitor"):
        spec = monitor["spec"]
        (endpoint,) = spec["podMetricsEndpoints"]
        assert endpoint["path"] == "/metrics"
        chosen = spec.get("namespaceSelector", {"matchNames": [monitor["metadata"]["namespace"]]})
        for namespace, template in pods(objects):
            if not chosen.get("any") and namespace not in chosen["matchNames"]:
                continue
            labels = template["metadata"]["labels"]
            if spec["selector"]["matchLabels"].items() <= labels.items():
                ports = {port["name"]: port["containerPort"] for port in template["spec"]["containers"][0]["ports"]}
                found[labels["app.kubernetes.io/component"]] = ports[endpoint["port"]]
    assert found == read


def test_labels_and_times_are_those_of_the_values(render: Render) -> None:
    objects = render(*MONITORED, "--set=metrics.podMonitor.labels.release=prom,metrics.podMonitor.interval=30s")
    for monitor in of_kind(objects, "PodMonitor"):
        assert monitor["metadata"]["labels"]["release"] == "prom"
        assert monitor["spec"]["podMetricsEndpoints"][0]["interval"] == "30s"
    rule = next(of_kind(render(*MONITORED, "--set=metrics.prometheusRule.labels.release=prom"), "PrometheusRule"))
    assert rule["metadata"]["labels"]["release"] == "prom"


def test_nothing_of_it_is_there_unless_asked_for(render: Render) -> None:
    kinds = {item["kind"] for item in render()}
    assert not {"PodMonitor", "PrometheusRule"} & kinds
    assert not any(item["metadata"]["name"].endswith("-dashboard") for item in of_kind(render(), "ConfigMap"))
