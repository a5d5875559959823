"""Routes of the Gateway API: they lead to the gateway's Service, with what callers use and nothing else.

`tests/cluster/test_add_ons.py` holds them against the Gateway API's own definitions.
"""

from __future__ import annotations

import asyncio
from typing import Any

from enginewright_gateway.app import create_gateway
from enginewright_gateway.kserve_http import kserve_router
from enginewright_gateway.openai_routes import openai_router
from enginewright_gateway.settings import GatewaySettings
from enginewright_gateway.upstream import SERVICE
from tests.chart.rendering import ROUTED, Object, Render, named, of_kind

PORTS = "--set=gateway.service.httpPort=80,gateway.service.grpcPort=81"


def route(objects: list[Object], kind: str) -> Any:
    """The one route of a kind, and its one rule."""
    (found,) = of_kind(objects, kind)
    (rule,) = found["spec"]["rules"]
    return found, rule


async def public_paths() -> set[str]:
    """Of OpenAI and KServe v2, as the gateway's own routers have them."""
    gateway = create_gateway(GatewaySettings(allow_anonymous=True))
    try:
        routers = (openai_router(gateway), kserve_router(gateway))
        return {found.path for router in routers for found in router.routes if hasattr(found, "path")}
    finally:
        await gateway.upstream.close()


def test_both_lead_to_the_ports_of_the_gateways_service(render: Render) -> None:
    objects = render(*ROUTED, PORTS)
    service = named(objects, "Service", "-gateway")
    ports = {port["name"]: port["port"] for port in service["spec"]["ports"]}
    for kind, port in (("HTTPRoute", "http"), ("GRPCRoute", "grpc")):
        found, rule = route(objects, kind)
        assert rule["backendRefs"] == [{"name": service["metadata"]["name"], "port": ports[port]}]
        assert found["metadata"]["namespace"] == service["metadata"]["namespace"], "else it takes a ReferenceGrant"


def test_callers_reach_every_surface_and_neither_metrics_nor_probes(render: Render) -> None:
    _, rule = route(render(*ROUTED), "HTTPRoute")
    prefixes = {match["path"]["value"] for match in rule["matches"] if match["path"]["type"] == "PathPrefix"}

    def taken(path: str) -> bool:
        return any(path == prefix or path.startswith(f"{prefix}/") for prefix in prefixes)

    paths = asyncio.run(public_paths())
    assert {"/v1/embeddings", "/v1/chat/completions", "/v2"} <= paths
    assert {path for path in paths if not taken(path)} == set()
    assert not any(map(taken, ("/metrics", "/healthz", "/readyz", "/")))
    assert prefixes == {f"/{path.split('/')[1]}" for path in paths}
    _, rule = route(render(*ROUTED), "GRPCRoute")
    assert rule["matches"] == [{"method": {"service": SERVICE}}]


def test_hosts_parents_times_and_annotations_are_those_of_the_values(render: Render) -> None:
    found, rule = route(render(*ROUTED), "HTTPRoute")
    assert found["spec"]["hostnames"] == ["api.example.com", "*.models.example.com"]
    assert found["spec"]["parentRefs"] == [{"name": "public", "namespace": "gateways"}]
    assert rule["timeouts"] == {"request": "0s"}
    assert found["metadata"]["annotations"] == {"team": "ml"}
    found, _ = route(render(*ROUTED), "GRPCRoute")
    assert found["spec"]["hostnames"] == ["grpc.example.com"]
    assert found["spec"]["parentRefs"] == [{"name": "public", "namespace": "gateways", "port": 8443}]


def test_each_is_there_only_where_it_is_asked_for(render: Render) -> None:
    kinds = {"HTTPRoute", "GRPCRoute"}
    assert not kinds & {item["kind"] for item in render()}
    assert kinds & {item["kind"] for item in render(ROUTED[0])} == {"HTTPRoute"}
    assert kinds & {item["kind"] for item in render(ROUTED[1])} == {"GRPCRoute"}
