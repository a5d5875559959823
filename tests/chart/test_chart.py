"""The chart as Helm renders it: valid, restricted, minimal; wrong values are refused with a sentence."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
from cryptography.hazmat.primitives import serialization

from enginewright_api.crd import definitions
from enginewright_api.validation import problems
from enginewright_operator.core.render.pods import USER_ID
from enginewright_store.signing import PublicKey, SigningKey, generate_key
from tests.chart.rendering import (
    CHART,
    KUBERNETES,
    ROUTED,
    SMALLEST,
    VARIANTS,
    WITH_CRDS,
    Object,
    RefusedError,
    Render,
    named,
    of_kind,
    pods,
)

FOREIGN = ("apiextensions.k8s.io/", "monitoring.coreos.com/", "gateway.networking.k8s.io/")
"""Definitions are held against the types below; monitors, rules and routes have tests of their own."""

PEM = "-----BEGIN PUBLIC KEY-----AAAA-----END PUBLIC KEY-----"


def test_every_object_is_valid_for_kubernetes(render: Render) -> None:
    rendered = (item for options in VARIANTS.values() for item in render(*options))
    # Most are the same with all values, and validation takes its time.
    distinct = {json.dumps(item, sort_keys=True): item for item in rendered}
    for item in distinct.values():
        if item["apiVersion"].startswith("enginewright.io/"):
            assert problems(item) == []
        elif not item["apiVersion"].startswith(FOREIGN):
            kubernetes_validate.validate(item, KUBERNETES, strict=True)


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())
def test_lint_has_nothing_to_say(helm: Path, options: tuple[str, ...]) -> None:
    values = [f"--set={name}={value}" for name, value in SMALLEST.items()]
    command = [str(helm), "lint", "--strict", str(CHART), f"--kube-version={KUBERNETES}.0", *values, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "[WARNING]" not in done.stdout


def test_the_crds_are_those_of_the_types(render: Render) -> None:
    rendered = {
        item["metadata"]["name"]: item["spec"] for item in of_kind(render(WITH_CRDS), "CustomResourceDefinition")
    }
    wanted = {item["metadata"]["name"]: json.loads(json.dumps(item["spec"])) for item in definitions()}
    assert rendered == wanted, "run: make generate chart"


@pytest.mark.parametrize(("options", "kept"), [((), True), (("--set=crds.keep=false",), False)])
def test_models_survive_an_uninstall_unless_told_otherwise(
    render: Render, options: tuple[str, ...], kept: bool
) -> None:
    crds = list(of_kind(render(WITH_CRDS, *options), "CustomResourceDefinition"))
    assert len(crds) == 3
    for crd in crds:
        assert ("helm.sh/resource-policy" in crd["metadata"]["annotations"]) is kept
    assert not list(of_kind(render("--set=crds.enabled=false"), "CustomResourceDefinition"))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--set=store.uri=",), "store.uri: say where artifacts are kept"),
        (("--set=store.uri=file:///store",), "a file:// store needs store.volumeClaim"),
        (("--set=store.uri=ftp://x/y",), "/store/uri"),
        (("--set=gateway.allowAnonymous=false",), "give either gateway.keysSecret"),
        (("--set=gateway.keysSecret=keys",), "and not both"),
        (("--set=gateway.enabled=false",), "autoscaler.enabled: needs the gateway"),
        (("--set=gatway.enabled=false",), "'gatway' not allowed"),
        (("--set=operator.replica=2",), "'replica' not allowed"),
        (("--set=images.builder.digest=sha256:12",), "/images/builder/digest"),
        (("--set=acceleratorClasses.cpu.formats={INT7}",), "/acceleratorClasses/cpu/formats/0"),
        (("--set=networkPolicy.store.port=9000",), "'port' not allowed"),
        (("--set=metrics.podMonitor.interval=often",), "/metrics/podMonitor/interval"),
        (("--set=gateway.podDisruptionBudget.minAvailable=1",), "'minAvailable' not allowed"),
        (("--set=operator.topologySpreadConstraints[0].maxSkew=1",), "/operator/topologySpreadConstraints/0"),
        (("--set=operator.extraArgs={log-level=debug}",), "/operator/extraArgs/0"),
        (("--set=gateway.httpRoute.enabled=true",), "gateway.httpRoute.parentRefs: name the Gateways"),
        (("--set=gateway.grpcRoute.enabled=true",), "gateway.grpcRoute.parentRefs: name the Gateways"),
        (("--set=gateway.grpcRoute.timeouts.request=1s",), "'timeouts' not allowed"),
        (("--set=gateway.httpRoute.hostnames={https://x}",), "/gateway/httpRoute/hostnames/0"),
        (("--set=gateway.httpRoute.parentRefs[0].namespace=x",), "/gateway/httpRoute/parentRefs/0"),
        ((*ROUTED, "--set=gateway.enabled=false,autoscaler.enabled=false"), "Route.enabled: needs the gateway"),
        (("--set=signing.trustedKeys=hello",), "/signing/trustedKeys"),
        ((f"--set=signing.create=false,signing.trustedKeys={PEM}",), "put them into ConfigMap enginewright-trust"),
    ],
)
def test_wrong_values_are_refused_with_a_sentence(render: Render, options: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(RefusedError) as refusal:
        render(*options)
    assert sentence in str(refusal.value)


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())
def test_our_pods_are_restricted(render: Render, options: tuple[str, ...]) -> None:
    makers = list(pods(render(*options)))
    assert {"Deployment", "Pod"} <= {maker["kind"] for maker, _ in makers} or "gateway.enabled=false" in str(options)
    for maker, pod in makers:
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] is True
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]
            # The others run to their end.
            if maker["kind"] == "Deployment":
                assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys()


def test_every_kind_that_makes_pods_is_walked(render: Render) -> None:
    """A new kind of workload is one that `pods` has to know."""
    objects = [item for options in VARIANTS.values() for item in render(*options)]
    walked = {maker["kind"] for maker, _ in pods(objects)}
    assert walked == {"Deployment", "CronJob", "Pod"}
    assert {item["kind"] for item in objects if '"containers":' in json.dumps(item)} == walked


def test_everything_runs_as_one_user(render: Render) -> None:
    """Programs, builders and servers share a folder where the store is one."""
    dockerfile = (CHART.parents[1] / "images" / "Dockerfile").read_text()
    assert set(re.findall(r"^USER (\S+)", dockerfile, re.MULTILINE)) == {f"{USER_ID}:{USER_ID}"}
    assert f"enginewright:x:{USER_ID}:{USER_ID}:" in dockerfile
    for maker, pod in pods(render("--set=gc.enabled=true")):
        security = pod["spec"]["securityContext"]
        assert (security["runAsUser"], security["runAsGroup"]) == (USER_ID, USER_ID), maker["metadata"]["name"]


def test_no_program_may_read_secrets_or_use_wildcards(render: Render) -> None:
    roles = [item for item in render("--set=gc.enabled=true") if item["kind"] in ("ClusterRole", "Role")]
    assert len(roles) == 6
    for role in roles:
        for rule in role["rules"]:
            assert "secrets" not in rule["resources"]
            assert not {"*"}.intersection(rule["apiGroups"] + rule["resources"] + rule["verbs"])


def test_rights_are_of_one_namespace_where_only_one_is_looked_after(render: Render) -> None:
    """What stays in the cluster: classes, nodes and the pods that take from them, and all that keeps an artifact."""

    def roles(*options: str) -> dict[tuple[str, str], list[Object]]:
        found = [item for item in render("--set=gc.enabled=true", *options) if item["kind"] in ("ClusterRole", "Role")]
        return {
            (
                item["metadata"].get("namespace", ""),
                item["metadata"]["name"].removeprefix("release-enginewright-"),
            ): item["rules"]
            for item in found
        }

    everywhere, one = roles(), roles("--set=watchNamespace=search")
    assert {where for where, _ in everywhere} == {"", "system"}
    assert set(one) == {
        ("", "operator"),
        ("", "gc"),
        *(("search", f"{name}-models") for name in ("operator", "gateway", "autoscaler")),
        ("system", "operator"),
        ("system", "autoscaler"),
    }
    kept = {resource for rule in one["", "operator"] for resource in rule["resources"]}
    assert kept == {"acceleratorclasses", "acceleratorclasses/status", "nodes", "pods"}
    assert one["search", "gateway-models"] == everywhere["", "gateway"]
    assert one["search", "autoscaler-models"] == everywhere["", "autoscaler"]
    assert one["", "gc"] == everywhere["", "gc"], "what no object of the whole cluster names is removed"
    named_here = [rule for rule in everywhere["", "operator"] if rule in one["search", "operator-models"]]
    assert named_here == one["search", "operator-models"]


@pytest.mark.parametrize("options", [(), ("--set=watchNamespace=search",), ("--set=watchNamespace=system",)])
def test_each_role_is_bound_to_the_account_it_is_for(render: Render, options: tuple[str, ...]) -> None:
    objects = render("--set=gc.enabled=true", *options)
    keys = {(item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"]) for item in objects}
    assert len(keys) == len(objects), "two objects of one name"
    accounts = {item["metadata"]["name"] for item in of_kind(objects, "ServiceAccount")}
    bound = set()
    for binding in (*of_kind(objects, "ClusterRoleBinding"), *of_kind(objects, "RoleBinding")):
        role = (binding["roleRef"]["kind"], binding["metadata"].get("namespace"), binding["roleRef"]["name"])
        (subject,) = binding["subjects"]
        assert role in keys
        assert role[2].startswith(subject["name"])
        assert (subject["name"] in accounts, subject["namespace"]) == (True, "system")
        bound.add(role)
    assert bound == {key for key in keys if key[0] in ("ClusterRole", "Role")}


def test_the_signing_key_is_one_pair_in_every_namespace(render: Render, tmp_path: Path) -> None:
    objects = render("--set=modelNamespaces={search,chat}")
    secrets, trusts = list(of_kind(objects, "Secret")), list(of_kind(objects, "ConfigMap"))
    assert [item["metadata"]["namespace"] for item in secrets] == ["system", "search", "chat"]
    assert [item["metadata"]["namespace"] for item in trusts] == ["system", "search", "chat"]
    (pem,) = {item["data"]["private.pem"] for item in secrets}
    (public,) = {item["data"]["public.pem"] for item in trusts}
    (tmp_path / "private.pem").write_bytes(base64.b64decode(pem))
    (tmp_path / "public.pem").write_text(public)
    key = SigningKey.load(tmp_path / "private.pem")
    assert PublicKey.load(tmp_path / "public.pem").identity == key.public.identity
    # Exactly as a library would write it, so that its hash, by which bundles name it, is the same.
    assert public.encode() == key.public.key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def test_other_keys_are_trusted_beside_ours(render: Render, tmp_path: Path) -> None:
    origin = [generate_key(tmp_path / name).public for name in ("one", "two")]
    keys = tmp_path / "origin.pem"
    keys.write_text("".join((tmp_path / f"{name}.pub").read_text() for name in ("one", "two")))
    for trust in of_kind(render(f"--set-file=signing.trustedKeys={keys}"), "ConfigMap"):
        (tmp_path / "public.pem").write_text(trust["data"]["public.pem"])
        _, *others = PublicKey.load_all(tmp_path / "public.pem")
        assert others == origin


def test_a_key_of_ones_own(render: Render) -> None:
    objects = render("--set=signing.create=false")
    assert not list(of_kind(objects, "Secret"))
    assert not list(of_kind(objects, "ConfigMap"))


def test_the_operator_asks_the_gateways_for_canaries(render: Render) -> None:
    for options, asked in (((), True), (("--set=gateway.enabled=false,autoscaler.enabled=false",), False)):
        objects = render(*options)
        (container,) = named(objects, "Deployment", "-operator")["spec"]["template"]["spec"]["containers"]
        assert ("--gateway=system/release-enginewright-gateway" in container["args"]) is asked
        rules = named(objects, "Role", "-operator")["rules"]
        assert (["endpointslices"] in [rule["resources"] for rule in rules]) is asked


def test_builds_are_limited_only_where_it_is_said(render: Render) -> None:
    def arguments(*options: str) -> list[str]:
        (container,) = named(render(*options), "Deployment", "-operator")["spec"]["template"]["spec"]["containers"]
        return [one for one in container["args"] if one.startswith("--max-builds")]

    assert arguments() == []
    limited = arguments("--set=operator.maxBuilds=4,operator.maxBuildsPerNamespace=2")
    assert limited == ["--max-builds=4", "--max-builds-per-namespace=2"]


def test_requests_to_the_api_server_are_limited(render: Render) -> None:
    def arguments(*options: str) -> list[str]:
        (container,) = named(render(*options), "Deployment", "-operator")["spec"]["template"]["spec"]["containers"]
        return [one for one in container["args"] if one.startswith("--api-")]

    assert arguments() == ["--api-qps=200", "--api-burst=400"]
    assert arguments("--set=operator.apiQps=0,operator.apiBurst=5") == ["--api-qps=0", "--api-burst=5"]


def test_a_class_can_be_left_out(render: Render) -> None:
    names = {item["metadata"]["name"] for item in of_kind(render(), "AcceleratorClass")}
    fewer = {
        item["metadata"]["name"]
        for item in of_kind(render("--set=acceleratorClasses.nvidia-t4=null"), "AcceleratorClass")
    }
    assert names - fewer == {"nvidia-t4"}
    assert "cpu" in fewer
