"""Who reaches whom when network policies are on: the pods as chart and operator really label them."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from enginewright_operator.core.render.groups import RANK_PORT
from enginewright_operator.core.render.serving import PORTS
from tests.chart.connections import End, Outside, Pod, allowed
from tests.chart.rendering import Object, Render, of_kind
from tests.kube.scripts import HERE

ON = "--set=networkPolicy.enabled=true,modelNamespaces={search,chat},store.endpointUrl=http://minio.storage:9000"
SNAPSHOTS = HERE.parent / "unit" / "operator" / "__snapshots__"
HTTP, GRPC, METRICS = PORTS["http"], PORTS["grpc"], PORTS["metrics"]
HTTPS, API_SERVER, S3, DNS = 443, 6443, 9000, 53
ANY = 40123
"""A port that ranks choose at will."""


def rendered_labels(name: str) -> dict[str, str]:
    """Labels of the pods that the operator makes, from what its own tests hold."""
    parsed: Any = yaml.safe_load((SNAPSHOTS / "test_operator_rendering" / f"{name}.yaml").read_text())
    labels: dict[str, str] = parsed["spec"]["template"]["metadata"]["labels"]
    return labels


def group_labels(template: str) -> dict[str, str]:
    """Of a pod whose engine spans nodes."""
    parsed: Any = yaml.safe_load((SNAPSHOTS / "test_multi_node" / "test_the_set_as_it_is_applied.yaml").read_text())
    labels: dict[str, str] = parsed["spec"]["leaderWorkerTemplate"][template]["metadata"]["labels"]
    return labels


LEADER, WORKER = Pod("search", group_labels("leaderTemplate")), Pod("search", group_labels("workerTemplate"))
SERVER = Pod("search", rendered_labels("test_deployment_on_a_cpu"))
BUILDER = Pod("search", rendered_labels("test_job_on_a_gpu_from_a_bucket"))
NEIGHBOUR = Pod("search", {"app": "shop"})
STRANGER = Pod("elsewhere", {"app": "crawler"})
COREDNS = Pod("kube-system", {"k8s-app": "kube-dns"})
INTERNET = Outside()


@pytest.fixture(scope="module")
def objects(render: Render) -> list[Object]:
    return render(ON)


def own(objects: list[Object], component: str) -> Pod:
    """A pod of ours, as the chart labels it."""
    templates = [
        (item["kind"], item.get("spec", {}).get("template", item)["metadata"]["labels"])
        for item in objects
        if item["kind"] in ("Deployment", "Pod")
    ]
    return Pod("system", next(found for _, found in templates if found["app.kubernetes.io/component"] == component))


@pytest.mark.parametrize(
    ("sender", "receiver", "port", "passes"),
    [
        # What the platform lives on.
        ("operator", INTERNET, API_SERVER, True),
        ("gateway", INTERNET, HTTPS, True),
        ("autoscaler", INTERNET, API_SERVER, True),
        ("operator", INTERNET, S3, True),
        ("gateway", SERVER, HTTP, True),
        ("gateway", SERVER, GRPC, True),
        ("autoscaler", "gateway", 8000, True),
        ("operator", "gateway", 8000, True),
        ("test", "gateway", 8000, True),
        (SERVER, INTERNET, S3, True),
        (BUILDER, INTERNET, S3, True),
        (BUILDER, INTERNET, HTTPS, True),
        # Ranks of one engine on several nodes.
        (LEADER, WORKER, RANK_PORT, True),
        (WORKER, LEADER, ANY, True),
        (WORKER, WORKER, ANY, True),
        (WORKER, INTERNET, S3, True),
        ("gateway", LEADER, HTTP, True),
        (SERVER, WORKER, RANK_PORT, False),
        (NEIGHBOUR, WORKER, RANK_PORT, False),
        (STRANGER, LEADER, ANY, False),
        (WORKER, SERVER, HTTP, False),
        ("gateway", WORKER, RANK_PORT, False),
        (WORKER, INTERNET, HTTPS, False),
        # Who calls.
        (INTERNET, "gateway", 8000, True),
        (STRANGER, "gateway", 8001, True),
        (NEIGHBOUR, SERVER, HTTP, True),
        (STRANGER, SERVER, METRICS, True),
        (STRANGER, "operator", 8080, True),
        (STRANGER, "autoscaler", 9000, True),
        # Everything else.
        (STRANGER, SERVER, HTTP, False),
        (INTERNET, SERVER, HTTP, False),
        (INTERNET, SERVER, METRICS, False),
        (STRANGER, BUILDER, HTTP, False),
        (NEIGHBOUR, BUILDER, 22, False),
        (BUILDER, SERVER, HTTP, False),
        (BUILDER, "operator", 8080, False),
        (BUILDER, INTERNET, 25, False),
        (SERVER, INTERNET, HTTPS, False),
        (SERVER, INTERNET, API_SERVER, False),
        (SERVER, BUILDER, HTTP, False),
        ("gateway", INTERNET, S3, False),
        ("gateway", NEIGHBOUR, HTTP, False),
        ("autoscaler", SERVER, HTTP, False),
        ("operator", SERVER, HTTP, False),
        (INTERNET, "operator", 8080, False),
        ("test", INTERNET, HTTPS, False),
    ],
)
def test_who_reaches_whom(
    objects: list[Object], sender: End | str, receiver: End | str, port: int, passes: bool
) -> None:
    policies = list(of_kind(objects, "NetworkPolicy"))
    begins = own(objects, sender) if isinstance(sender, str) else sender
    ends = own(objects, receiver) if isinstance(receiver, str) else receiver
    assert allowed(policies, begins, ends, port) is passes


@pytest.mark.parametrize("pod", ["operator", "gateway", "autoscaler", "test", SERVER, WORKER, BUILDER])
def test_names_are_resolved_by_the_clusters_dns_only(objects: list[Object], pod: Pod | str) -> None:
    policies = list(of_kind(objects, "NetworkPolicy"))
    asks = own(objects, pod) if isinstance(pod, str) else pod
    assert allowed(policies, asks, COREDNS, DNS, "UDP")
    assert not allowed(policies, asks, STRANGER, DNS, "UDP")


def test_peers_narrow_what_is_open(render: Render) -> None:
    narrowed = json.dumps([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}}}])
    objects = render(
        ON,
        f"--set-json=networkPolicy.gatewayClients={narrowed}",
        f"--set-json=networkPolicy.scrapers={narrowed}",
        "--set-json=networkPolicy.modelClients=[]",
        '--set-json=networkPolicy.apiServer={"ports":[6443],"peers":[{"ipBlock":{"cidr":"10.0.0.1/32"}}]}',
    )
    policies, gateway = list(of_kind(objects, "NetworkPolicy")), own(objects, "gateway")
    shop = Pod("shop", {})
    assert allowed(policies, shop, gateway, 8000)
    assert allowed(policies, own(objects, "autoscaler"), gateway, 8000)
    assert allowed(policies, shop, SERVER, METRICS)
    assert allowed(policies, gateway, Outside("10.0.0.1"), 6443)
    for sender, receiver, port in (
        (INTERNET, gateway, 8000),
        (STRANGER, gateway, 8000),
        (STRANGER, SERVER, METRICS),
        (NEIGHBOUR, SERVER, HTTP),
        (gateway, INTERNET, 6443),
    ):
        assert not allowed(policies, sender, receiver, port)


def test_the_stores_port_follows_its_address(render: Render) -> None:
    def ports(*options: str) -> set[int]:
        policies = list(
            of_kind(render("--set=networkPolicy.enabled=true,modelNamespaces={search}", *options), "NetworkPolicy")
        )
        return {port for port in (80, 443, 9000, 9443) if allowed(policies, SERVER, INTERNET, port)}

    assert ports() == {443}
    assert ports("--set=store.endpointUrl=http://minio") == {80}
    assert ports("--set=store.endpointUrl=https://minio:9443") == {9443}
    assert ports("--set=networkPolicy.store.ports={9000,9443}") == {9000, 9443}
    assert ports("--set=store.uri=file:///store,store.volumeClaim=engines") == set()


def test_nothing_is_said_unless_asked_for(render: Render) -> None:
    assert not list(of_kind(render(), "NetworkPolicy"))
