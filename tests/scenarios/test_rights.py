"""What the chart grants the programs against what they use, on a real API server: nothing is refused, little is spare.

The operator lives through a model's life with the rights of its roles; the audit log says what it asked for. Once with
rights in the whole cluster, and once with those of a chart that looks after one namespace.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from enginewright_api.errors import FailureClass
from enginewright_api.outcome import BuildOutcome
from enginewright_autoscaler.service import run as autoscale
from enginewright_autoscaler.settings import AutoscalerSettings
from enginewright_cli.references import used_keys
from enginewright_cluster.kubernetes import KubernetesCluster
from enginewright_cluster.port import (
    ACCELERATOR_CLASS,
    DEPLOYMENT,
    JOB,
    LEADER_WORKER_SET,
    LEASE,
    OPTIMIZED_MODEL,
    SERVICE,
    Kind,
    Ref,
)
from enginewright_gateway.routes import RouteTable
from enginewright_gateway.watch import follow
from enginewright_operator.shell.gateway_figures import GatewayFigures
from enginewright_operator.shell.leadership import Leadership, Terms
from enginewright_operator.shell.operator import Operator
from tests.kube.harness import OwnCluster
from tests.kube.rights import Right, granted
from tests.scenarios.evidence import failure
from tests.scenarios.groups import CRD, GroupController
from tests.scenarios.kubelet import Attempt, PodStatus
from tests.scenarios.models import PAUSE_SECONDS, gpu_class
from tests.scenarios.test_canaries import answers
from tests.scenarios.test_spanning_nodes import LONGER, SPANNING
from tests.scenarios.world import Shifted, World

CHART = Path(__file__).parents[2] / "helm" / "enginewright"
PROGRAMS = ("operator", "gateway", "autoscaler", "gc")
LEASE_NAME = "enginewright-operator"
SPARE = {
    "operator": {
        # Checked when server-side apply creates an object; the log calls it a patch.
        ("configmaps", "create"), ("deployments", "create"), ("services", "create"), ("leaderworkersets", "create"),
        ("poddisruptionbudgets", "create"),
        # Asked for by an admission plug-in (OwnerReferencesPermissionEnforcement) that is off here.
        ("enginebuilds/finalizers", "update"), ("optimizedmodels/finalizers", "update"),
    },
    "gateway": set[Right](),
    "gc": set[Right](),
    # It finds no gateway to read here, so it does not decide on traffic, and in its two seconds it may not come to say
    # so; tests/e2e sees it at work.
    "autoscaler": {
        ("optimizedmodels/scale", "patch"), ("optimizedmodels", "get"), ("optimizedmodels/status", "patch"),
        ("events", "create"),
    },
}  # fmt: skip

CLUSTER_WIDE: dict[str, set[Right]] = {
    # Classes are of no namespace; what is taken of them is taken by pods of whomever.
    "operator": {
        ("acceleratorclasses", "get"), ("acceleratorclasses", "list"), ("acceleratorclasses", "watch"),
        ("acceleratorclasses/status", "patch"), ("nodes", "list"), ("pods", "list"),
    },
    "gateway": set(),
    "autoscaler": set(),
    # What no object of the cluster names goes from the store.
    "gc": {
        ("enginebuilds", "list"), ("optimizedmodels", "list"), ("jobs", "list"), ("deployments", "list"),
        ("pods", "list"),
    },
}  # fmt: skip
"""What remains of the cluster where the chart looks after one namespace."""


@dataclass(frozen=True)
class Installed:
    """The chart's accounts and roles in a namespace of their own."""

    kube: OwnCluster
    namespace: str
    release: str
    models: str
    """The namespace that is looked after."""

    def account(self, program: str) -> str:
        """Name of a program's account and roles."""
        return f"{self.release}-enginewright-{program}"

    @contextlib.asynccontextmanager
    async def acting_as(self, program: str, folder: Path) -> AsyncIterator[KubernetesCluster]:
        """The cluster as that program may see it."""
        token = self.kube.kubectl("create", "token", self.account(program), f"--namespace={self.namespace}").stdout
        config = yaml.safe_load(self.kube.kubeconfig.read_text())
        config["users"] = [{"name": user["name"], "user": {"token": token.strip()}} for user in config["users"]]
        file = folder / f"{program}.conf"
        file.write_text(yaml.safe_dump(config))
        cluster = await KubernetesCluster.from_kubeconfig(file)
        try:
            yield cluster
        finally:
            await cluster.close()

    def granted(self, program: str) -> dict[str, set[Right]]:
        """By all its roles, by namespace."""
        return granted(self.kube, self.account(program), self.namespace)

    def asked(self, program: str) -> tuple[set[Right], list[str]]:
        """What was asked for, and the lines of what was refused for lack of a right."""
        user, used, refused = f"system:serviceaccount:{self.namespace}:{self.account(program)}", set(), []
        with self.kube.audit_log.open() as lines:
            for line in lines:
                entry = json.loads(line)
                if entry["user"]["username"] != user:
                    continue
                target = entry.get("objectRef", {})
                what = "/".join(part for part in (target.get("resource"), target.get("subresource")) if part)
                used.add((what, entry["verb"]))
                if entry.get("responseStatus", {}).get("code") == 403:
                    refused.append(f"{entry['verb']} {what}")
        return used, refused


@pytest.fixture(params=[False, True], ids=["all-namespaces", "one-namespace"])
def watches_one(request: pytest.FixtureRequest) -> bool:
    """Whether the chart is told to look after one namespace."""
    return bool(request.param)


@pytest.fixture
def installed(kube_crds: object, watches_one: bool) -> Iterator[Installed]:
    """Accounts and roles only: what the chart renders, without its Deployments."""
    if not isinstance(kube_crds, OwnCluster):
        pytest.skip("the audit log of a given cluster is out of reach")
    suffix = secrets.token_hex(3)
    kube_crds.install_crds([yaml.load(CRD.read_text(), Loader=yaml.CSafeLoader)])
    with kube_crds.namespace("rights") as namespace, kube_crds.namespace("models") as models:
        here = Installed(kube_crds, namespace, f"rights-{suffix}", models)
        values = "--set=store.uri=s3://a/b,gateway.allowAnonymous=true,signing.create=false,gc.enabled=true"
        values += f",watchNamespace={models}" if watches_one else ""
        rendered = kube_crds.helm(
            "template", here.release, str(CHART), f"--namespace={namespace}", "--kube-version=1.35.0",
            "--show-only=templates/rbac.yaml", values,
        ).stdout  # fmt: skip
        objects = [item for item in yaml.safe_load_all(rendered) if item]
        for where in {item["metadata"].get("namespace", namespace) for item in objects}:
            there = (item for item in objects if item["metadata"].get("namespace", namespace) == where)
            kube_crds.apply(*there, namespace=where)
        yield here
        selector = f"--selector=app.kubernetes.io/instance={here.release}"
        kube_crds.kubectl("delete", "clusterroles,clusterrolebindings", selector, check=False)


async def test_rights_are_what_a_models_life_takes(installed: Installed, watches_one: bool, tmp_path: Path) -> None:
    admin = await KubernetesCluster.from_kubeconfig(installed.kube.kubeconfig)
    async with installed.acting_as("operator", tmp_path) as acting:
        world = World(admin, clock=Shifted(), real=True, namespace=installed.models)
        await admin.delete(Ref(ACCELERATOR_CLASS, "cpu"))  # another test's, which was counted then
        await world.give_class()
        # One that watches, and another that the world visits keys with.
        await _for_a_while(Operator(acting, world.store, world.settings, world.clock, namespace=world.namespace).run())
        world.operator = Operator(
            acting, world.store, world.settings, world.clock, namespace=world.namespace, traffic=world.gateways
        )
        await _leads(acting, installed.namespace)
        await _lives(world)
        await GatewayFigures(acting, [f"{installed.namespace}/gateway"]).find("a/b", "window")
    async with installed.acting_as("gateway", tmp_path) as acting:
        await _for_a_while(follow(acting, RouteTable(), installed.models))
    async with installed.acting_as("gc", tmp_path) as acting:
        await used_keys([acting])
    async with installed.acting_as("autoscaler", tmp_path) as acting:
        objectives = {"mode": "Objectives", "objectives": {"queueDepthPerReplica": 4}}
        await world.apply("scaled", scaling=objectives)
        service = f"{installed.namespace}/gateway"
        settings = AutoscalerSettings(gateway_urls=(), gateway_service=service, namespace=installed.models)
        await _for_a_while(autoscale(acting, settings))
    await admin.close()

    for program in PROGRAMS:
        used, refused = installed.asked(program)
        assert refused == [], program
        assert used, program
        rights = installed.granted(program)
        everything = set().union(*rights.values())
        assert everything - used - SPARE[program] == set(), f"{program} has rights that nothing here needs"
        assert SPARE[program] <= everything, f"{program}: an excuse for a right it does not have"
        if watches_one:
            assert rights.get("", set()) == CLUSTER_WIDE[program], program


async def _leads(acting: KubernetesCluster, namespace: str) -> None:
    lease = Ref(LEASE, LEASE_NAME, namespace)
    terms = Terms(lease_seconds=5, renew_seconds=3, retry_seconds=0.1)
    for identity in ("one", "two"):  # the second finds the lease and takes it over
        await Leadership(acting, lease, identity, terms).run(lambda: asyncio.sleep(0.3))


async def _lives(world: World) -> None:
    """Built after a failure that passes, served, repaired, rolled over to a second and a third engine, deleted."""
    good = world.published()

    def builder(attempt: Attempt) -> BuildOutcome | PodStatus | None:
        if attempt.number == 1:
            return failure(attempt.key, FailureClass.TRANSIENT, "StoreUnavailable")
        return good(attempt)

    world.kubelet.builder = builder
    await world.apply()
    await world.settle()
    await world.wait_for(PAUSE_SECONDS + 1)
    assert (await world.condition("Ready"))[0] == "True"

    world.kubelet.builder = good
    await world.apply("other")  # owns the same build for a while
    await world.settle()
    await world.cluster.delete(Ref(OPTIMIZED_MODEL, "other", world.namespace))
    await _until(world, SERVICE, 1)

    (deployment,) = [name for name in await world.names(DEPLOYMENT) if name.startswith("search-")]
    await world.cluster.patch(Ref(DEPLOYMENT, deployment, world.namespace), {"spec": {"revisionHistoryLimit": 9}})
    await world.cluster.patch(Ref(SERVICE, "search", world.namespace), {"spec": {"selector": {"someone": "else"}}})
    await world.settle()

    await world.apply(engine={"limits": {"maxInputTokens": 128}}, batching={"maxQueueDelayMicroseconds": 700})
    await world.settle()
    await world.wait_for(PAUSE_SECONDS + 1)
    assert (await world.condition("Ready"))[0] == "True"

    world.gateways.stable = world.gateways.canary = answers(200)
    canary = {"strategy": "Canary", "canary": {"steps": [{"weight": 50, "seconds": 60}]}}
    await world.apply(engine={"limits": {"maxInputTokens": 64}}, rollout=canary)
    await world.settle()
    assert len(await world.names(SERVICE)) == 2
    await world.wait_for(61)
    await world.wait_for(PAUSE_SECONDS + 1)
    assert await world.names(SERVICE) == ["search"]

    await world.cluster.delete(Ref(OPTIMIZED_MODEL, "search", world.namespace))
    await _until(world, JOB, 0)
    await _spans_nodes(world)


async def _spans_nodes(world: World) -> None:
    """A model whose replicas are groups, rolled over to a second engine."""
    world.add_ons = (LEADER_WORKER_SET,)
    world.controllers.append(GroupController(world.cluster, world.namespace))
    await world.cluster.apply(gpu_class("nvidia-rights", acceleratorsPerNode=8, scheduling={}))
    on = {**SPANNING["hardware"], "acceleratorClasses": ["nvidia-rights"]}
    for spec in (SPANNING, LONGER):
        await world.apply("large", **{**spec, "hardware": on}, replicas=2)
        await world.settle()
    await world.wait_for(PAUSE_SECONDS + 1)
    assert (await world.condition("Ready", "large"))[0] == "True"
    assert len(await world.names(LEADER_WORKER_SET)) == 1
    await world.cluster.delete(Ref(OPTIMIZED_MODEL, "large", world.namespace))
    await world.cluster.delete(Ref(ACCELERATOR_CLASS, "nvidia-rights"))
    await _until(world, JOB, 0)


async def _until(world: World, kind: Kind, count: int) -> None:
    """The garbage collector takes its time."""
    async with asyncio.timeout(60):
        while len(await world.names(kind)) != count:
            await world.settle()
            await asyncio.sleep(0.2)


async def _for_a_while(work: Coroutine[Any, Any, None], seconds: float = 2.0) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await work
