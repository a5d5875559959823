"""What the chart and the examples say to add-ons, held against the add-ons' own definitions by a real API server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.rendering import KUBERNETES
from tests.kube.harness import Cluster, CommandFailed

ROOT = Path(__file__).parents[2]
DEFINITIONS = ROOT / "tests" / "kube" / "crds"
NAMES = ("httproutes", "grpcroutes", "scaledobjects", "podmonitors", "prometheusrules")
KEDA = ROOT / "examples" / "keda"
PARENTS = [{"name": "public", "namespace": "gateways", "sectionName": "https"}]
VALUES = {
    "store": {"uri": "s3://artifacts/engines"},
    "crds": {"enabled": False},
    "gateway": {
        "allowAnonymous": True,
        "httpRoute": {
            "enabled": True,
            "parentRefs": PARENTS,
            "hostnames": ["api.example.com"],
            "timeouts": {"request": "0s", "backendRequest": "0s"},
            "annotations": {"team": "ml"},
        },
        "grpcRoute": {"enabled": True, "parentRefs": PARENTS, "hostnames": ["grpc.example.com"]},
    },
    "metrics": {
        "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {
            "enabled": True,
            "labels": {"release": "prometheus"},
            "runbookUrl": "https://wiki.example.com/runbooks",
        },
    },
}
Object = dict[str, Any]


def read(path: Path) -> Object:
    """The one object of a file."""
    found: Object = yaml.safe_load(path.read_text())
    return found


@pytest.fixture(scope="module")
def cluster(kube_crds: Cluster) -> Iterator[Cluster]:
    """Knows the kinds, runs none of the add-ons."""
    definitions = [read(DEFINITIONS / f"{name}.yaml") for name in NAMES]
    kube_crds.install_crds(definitions)
    yield kube_crds
    kube_crds.kubectl("delete", "crd", *(item["metadata"]["name"] for item in definitions), "--wait=false")


@pytest.fixture(scope="module")
def routes(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> list[Object]:
    """As the chart renders them."""
    return rendered(cluster, tmp_path_factory.mktemp("routes"), "routes", VALUES)


def rendered(cluster: Cluster, folder: Path, template: str, values: Object) -> list[Object]:
    """Objects of one of the chart's templates."""
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    chart = str(ROOT / "helm" / "enginewright")
    options = (f"--values={file}", f"--kube-version={KUBERNETES}.0", f"--show-only=templates/{template}.yaml")
    return [item for item in yaml.safe_load_all(cluster.helm("template", "ew", chart, *options).stdout) if item]


def offer(cluster: Cluster, item: Object) -> Object:
    """What the API server would keep of an object; it refuses fields that the definition does not name."""
    item["metadata"].pop("namespace", None)
    options = ("--dry-run=server", "--validate=strict", "--output=json", "--filename=-")
    kept: Object = json.loads(cluster.kubectl("create", *options, stdin=json.dumps(item)).stdout)
    return kept


def test_the_charts_routes_are_routes_of_the_gateway_api(cluster: Cluster, routes: list[Object]) -> None:
    assert {item["kind"] for item in routes} == {"HTTPRoute", "GRPCRoute"}
    for item in routes:
        kept = offer(cluster, item)
        assert kept["spec"]["parentRefs"] == [{**PARENTS[0], "group": "gateway.networking.k8s.io", "kind": "Gateway"}]
        (reference,) = kept["spec"]["rules"][0]["backendRefs"]
        assert (reference["kind"], reference["weight"]) == ("Service", 1)


def test_the_gateway_apis_own_rules_are_at_work(cluster: Cluster, routes: list[Object]) -> None:
    for item in routes:
        item["spec"]["parentRefs"] *= 2
        with pytest.raises(CommandFailed, match="sectionName must be unique"):
            offer(cluster, item)


@pytest.mark.parametrize("watched", ["", "models"])
def test_monitors_and_alerts_are_what_the_prometheus_operator_takes(
    cluster: Cluster, tmp_path: Path, watched: str
) -> None:
    objects = [
        item
        for item in rendered(cluster, tmp_path, "monitoring", VALUES | {"watchNamespace": watched})
        if item["apiVersion"] == "monitoring.coreos.com/v1"
    ]
    assert [item["kind"] for item in objects] == ["PodMonitor"] * 4 + ["PrometheusRule"]
    for item in objects:
        assert offer(cluster, item)["spec"] == item["spec"], "a field was dropped or filled in"


def test_the_prometheus_operators_own_rules_are_at_work(cluster: Cluster, tmp_path: Path) -> None:
    monitor, *_, rules = rendered(cluster, tmp_path, "monitoring", VALUES)
    monitor["spec"]["podMetricsEndpoints"][0]["interval"] = "often"
    with pytest.raises(CommandFailed, match="interval"):
        offer(cluster, monitor)
    rules["spec"]["groups"][0]["rules"][0]["severity"] = "critical"
    with pytest.raises(CommandFailed, match=r'unknown field "spec.groups\[0\].rules\[0\].severity"'):
        offer(cluster, rules)


def test_the_keda_example_is_a_scaled_object_of_the_example_model(cluster: Cluster) -> None:
    model, scaled = read(KEDA / "model.yaml"), read(KEDA / "scaledobject.yaml")
    target = scaled["spec"]["scaleTargetRef"]
    assert target == {"apiVersion": model["apiVersion"], "kind": model["kind"], "name": model["metadata"]["name"]}
    assert model["metadata"]["namespace"] == scaled["metadata"]["namespace"]
    assert "replicas" not in model["spec"], "whoever applies the file again would set them back"
    offer(cluster, scaled)
    scaled["spec"]["maxReplicas"] = 3
    with pytest.raises(CommandFailed, match="maxReplicas"):
        offer(cluster, scaled)


def test_a_model_has_the_scale_that_an_hpa_reads_and_writes(cluster: Cluster, kube_namespace: str) -> None:
    """An HPA takes pods by the selector, and gives up without one."""
    model = read(KEDA / "model.yaml")
    model["metadata"]["namespace"] = kube_namespace
    cluster.apply(model, namespace=kube_namespace)
    status = {"status": {"replicas": 1, "selector": "enginewright.io/model=minilm"}}
    where = ("optimizedmodel/minilm", f"--namespace={kube_namespace}")
    cluster.kubectl("patch", *where, "--subresource=status", "--type=merge", f"--patch={json.dumps(status)}")
    cluster.kubectl("patch", *where, "--subresource=scale", "--type=merge", '--patch={"spec":{"replicas":3}}')
    scale = json.loads(cluster.kubectl("get", *where, "--subresource=scale", "--output=json").stdout)
    assert (scale["spec"]["replicas"], scale["status"]) == (3, status["status"])
    # Applying the example once more leaves the number alone.
    cluster.apply(model, namespace=kube_namespace)
    stored = json.loads(cluster.kubectl("get", *where, "--output=json").stdout)
    assert stored["spec"]["replicas"] == 3
