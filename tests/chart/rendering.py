"""The chart as Helm renders it, for all tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

CHART = Path(__file__).parents[2] / "helm" / "enginewright"
SMALLEST = {"store.uri": "s3://artifacts/engines", "gateway.allowAnonymous": "true"}
WITH_CRDS = "--set=crds.enabled=true"
"""The definitions are longer than everything else together: only what is about them renders them."""
KUBERNETES = "1.35"
Object = dict[str, Any]
Render = Callable[..., list[Object]]
"""Renders with options such as `--set=path=value`, over the smallest values that work; raises RefusedError."""

MONITORED = (
    "--set=metrics.podMonitor.enabled=true,metrics.prometheusRule.enabled=true,metrics.dashboard.enabled=true",
)

ROUTED = (
    '--set-json=gateway.httpRoute={"enabled":true,"parentRefs":[{"name":"public","namespace":"gateways"}]}',
    '--set-json=gateway.grpcRoute={"enabled":true,"parentRefs":[{"name":"public","namespace":"gateways","port":8443}]}',
    "--set=gateway.httpRoute.hostnames={api.example.com,*.models.example.com},gateway.httpRoute.timeouts.request=0s",
    "--set=gateway.httpRoute.annotations.team=ml,gateway.grpcRoute.hostnames={grpc.example.com}",
)

VARIANTS: dict[str, tuple[str, ...]] = {
    "bucket": (),
    "bucket-with-credentials": (
        "--set=store.credentialsSecret=creds,store.endpointUrl=http://minio:9000,store.region=eu-west-1",
    ),
    "volume": ("--set=store.uri=file:///store,store.volumeClaim=engines",),
    "one-node": ("--set=store.uri=file:///store,store.hostPath=true",),
    "keys": ("--set=gateway.allowAnonymous=false,gateway.keysSecret=keys",),
    "operator-only": ("--set=gateway.enabled=false,autoscaler.enabled=false",),
    "registry": ("--set=images.registry=reg.example/team,images.pullSecrets={pull}",),
    "policies": ("--set=networkPolicy.enabled=true,modelNamespaces={search,chat}",),
    "policies-without-gateway": (
        "--set=networkPolicy.enabled=true,gateway.enabled=false,autoscaler.enabled=false,store.uri=file:///s",
        "--set=store.hostPath=true",
    ),
    "monitored": MONITORED,
    "routed": ROUTED,
    "collected": ("--set=gc.enabled=true,gc.stageGiB=50,networkPolicy.enabled=true",),
    "collected-in-a-volume": ("--set=gc.enabled=true,store.uri=file:///store,store.volumeClaim=engines",),
    "one-namespace": (
        *MONITORED,
        "--set=watchNamespace=search,networkPolicy.enabled=true",
    ),
}
"""Values that people combine; every kind of check goes over all of them."""


class RefusedError(Exception):
    """Helm refused the values."""


def of_kind(objects: list[Object], kind: str) -> Iterator[Object]:
    """Those of one kind."""
    return (item for item in objects if item["kind"] == kind)


def pods(objects: list[Object]) -> Iterator[tuple[Object, Object]]:
    """What makes pods, by Deployments, CronJobs or as such, and the metadata and spec of those."""
    for item in objects:
        if item["kind"] == "Pod":
            yield item, item
        elif item["kind"] == "CronJob":
            yield item, item["spec"]["jobTemplate"]["spec"]["template"]
        elif "template" in item.get("spec", {}):
            yield item, item["spec"]["template"]


def named(objects: list[Object], kind: str, name: str) -> Object:
    """The one object of a kind whose name ends so."""
    (found,) = (item for item in of_kind(objects, kind) if item["metadata"]["name"].endswith(name))
    return found
