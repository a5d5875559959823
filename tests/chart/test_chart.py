"""The chart as Helm renders it: valid, restricted, minimal; wrong values are refused with a sentence."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from cryptography.hazmat.primitives import serialization

from enginewright_api.crd import definitions
from enginewright_api.validation import problems
from enginewright_store.signing import PublicKey, SigningKey
from tests.kube import scripts

CHART = Path(__file__).parents[2] / "helm" / "enginewright"
SMALLEST = {"store.uri": "s3://artifacts/engines", "gateway.allowAnonymous": "true"}
KUBERNETES = "1.35"
Object = dict[str, Any]
Render = Callable[..., list[Object]]


class RefusedError(Exception):
    """Helm refused the values."""


@pytest.fixture(scope="session")
def helm() -> Path:
    """The helm of the test cluster."""
    try:
        return scripts.build() / "helm"
    except scripts.Unavailable as reason:
        pytest.skip(f"no helm: {reason}")


@pytest.fixture(scope="session")
def render(helm: Path) -> Render:
    """Renders with values given as `path=value`, over the smallest ones that work."""

    def rendered(*options: str, **_: object) -> list[Object]:
        values = [f"--set={name}={value}" for name, value in SMALLEST.items()]
        command = [str(helm), "template", "release", str(CHART), "--namespace=system", f"--kube-version={KUBERNETES}.0"]
        done = subprocess.run([*command, *values, *options], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RefusedError(done.stderr)
        return [item for item in yaml.safe_load_all(done.stdout) if item]

    return rendered


def of_kind(objects: list[Object], kind: str) -> Iterator[Object]:
    """Those of one kind."""
    return (item for item in objects if item["kind"] == kind)


VARIANTS = {
    "bucket": (),
    "bucket-with-credentials": (
        "--set=store.credentialsSecret=creds,store.endpointUrl=http://minio:9000,store.region=eu-west-1",
    ),
    "volume": ("--set=store.uri=file:///store,store.volumeClaim=engines",),
    "one-node": ("--set=store.uri=file:///store,store.hostPath=true",),
    "keys": ("--set=gateway.allowAnonymous=false,gateway.keysSecret=keys",),
    "operator-only": ("--set=gateway.enabled=false,autoscaler.enabled=false",),
    "registry": ("--set=images.registry=reg.example/team,images.pullSecrets={pull}",),
}


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())
def test_every_object_is_valid_for_kubernetes(render: Render, options: tuple[str, ...]) -> None:
    for item in render(*options):
        if item["apiVersion"].startswith("enginewright.io/"):
            assert problems(item) == []
        elif item["kind"] != "CustomResourceDefinition":
            kubernetes_validate.validate(item, KUBERNETES, strict=True)


def test_lint_has_nothing_to_say(helm: Path) -> None:
    values = [f"--set={name}={value}" for name, value in SMALLEST.items()]
    command = [str(helm), "lint", "--strict", str(CHART), f"--kube-version={KUBERNETES}.0", *values]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "[WARNING]" not in done.stdout


def test_the_crds_are_those_of_the_types(render: Render) -> None:
    rendered = {item["metadata"]["name"]: item["spec"] for item in of_kind(render(), "CustomResourceDefinition")}
    wanted = {item["metadata"]["name"]: json.loads(json.dumps(item["spec"])) for item in definitions()}
    assert rendered == wanted, "run: make generate chart"


@pytest.mark.parametrize(("options", "kept"), [((), True), (("--set=crds.keep=false",), False)])
def test_models_survive_an_uninstall_unless_told_otherwise(
    render: Render, options: tuple[str, ...], kept: bool
) -> None:
    for crd in of_kind(render(*options), "CustomResourceDefinition"):
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
    ],
)
def test_wrong_values_are_refused_with_a_sentence(render: Render, options: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(RefusedError) as refusal:
        render(*options)
    assert sentence in str(refusal.value)


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())
def test_our_pods_are_restricted(render: Render, options: tuple[str, ...]) -> None:
    deployments = list(of_kind(render(*options), "Deployment"))
    assert deployments
    for deployment in deployments:
        pod = deployment["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] is True
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]
            assert {"readinessProbe", "livenessProbe"} <= container.keys()


def test_no_program_may_read_secrets_or_use_wildcards(render: Render) -> None:
    roles = [item for item in render() if item["kind"] in ("ClusterRole", "Role")]
    assert len(roles) == 4
    for role in roles:
        for rule in role["rules"]:
            assert "secrets" not in rule["resources"]
            assert not {"*"}.intersection(rule["apiGroups"] + rule["resources"] + rule["verbs"])


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


def test_a_key_of_ones_own(render: Render) -> None:
    objects = render("--set=signing.create=false")
    assert not list(of_kind(objects, "Secret"))
    assert not list(of_kind(objects, "ConfigMap"))


def test_a_class_can_be_left_out(render: Render) -> None:
    names = {item["metadata"]["name"] for item in of_kind(render(), "AcceleratorClass")}
    fewer = {
        item["metadata"]["name"]
        for item in of_kind(render("--set=acceleratorClasses.nvidia-t4=null"), "AcceleratorClass")
    }
    assert names - fewer == {"nvidia-t4"}
    assert "cpu" in fewer
