"""The garbage collector as a CronJob: off unless asked for, with the rights that it takes and no others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer

from enginewright_cli.main import application
from enginewright_cli.references import used_keys
from enginewright_cluster.fake import FakeCluster
from enginewright_cluster.port import Kind, Object
from tests.chart.connections import Outside, Pod, allowed
from tests.chart.rendering import Render, named, of_kind

ON = "--set=gc.enabled=true"


class Recording(FakeCluster):
    """Notes what is listed, and in which namespaces."""

    def __init__(self) -> None:
        super().__init__()
        self.listed: list[tuple[Kind, str | None]] = []

    async def list(self, kind: Kind, **selection: Any) -> Sequence[Object]:
        """As the cluster does."""
        self.listed.append((kind, selection.get("namespace")))
        return await super().list(kind, **selection)


def pod_of(render: Render, *options: str) -> Any:
    """Spec of the CronJob's pod."""
    return named(render(ON, *options), "CronJob", "-gc")["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def test_nobody_collects_unless_asked(render: Render) -> None:
    assert not list(of_kind(render(), "CronJob"))
    assert not [item for item in render() if item["metadata"]["name"].endswith("-gc")]


def test_the_command_line_is_one_that_the_program_takes(render: Render) -> None:
    values = '{"enabled":true,"keep":5,"graceHours":1.5,"stageGiB":20,"extraArgs":["--dry-run"]}'
    (container,) = pod_of(render, f"--set-json=gc={values}")["containers"]
    name, *arguments = container["args"]
    program = typer.main.get_command(application())
    command = program.commands[name]  # type: ignore[attr-defined]
    given = command.make_context(name, list(arguments)).params
    assert (given["keep"], given["grace_hours"], given["stage_gib"], given["dry_run"]) == (5, 1.5, 20.0, True)
    assert (given["store"], given["context"]) == ("s3://artifacts/engines", ["current"])


async def test_its_rights_are_what_it_takes(render: Render) -> None:
    cluster = Recording()
    await used_keys([cluster])
    assert all(namespace is None for _, namespace in cluster.listed), "in every namespace, so it is a ClusterRole"
    taken = {(kind.api_version.rpartition("/")[0], kind.plural, "list") for kind, _ in cluster.listed}
    rules = named(render(ON), "ClusterRole", "-gc")["rules"]
    granted = {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert granted == taken
    binding = named(render(ON), "ClusterRoleBinding", "-gc")
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "release-enginewright-gc", "namespace": "system"}]
    assert pod_of(render)["serviceAccountName"] == "release-enginewright-gc"


def test_it_may_write_where_the_artifacts_are(render: Render) -> None:
    (container,) = pod_of(render, "--set=store.uri=file:///store,store.volumeClaim=engines")["containers"]
    (mount,) = [item for item in container["volumeMounts"] if item["name"] == "store"]
    assert mount == {"name": "store", "mountPath": "/store"}
    (container,) = pod_of(render, "--set=store.credentialsSecret=creds,store.endpointUrl=http://minio:9000")[
        "containers"
    ]
    variables = {item["name"]: item["value"] for item in container["env"]}
    assert variables["AWS_SHARED_CREDENTIALS_FILE"] == "/etc/enginewright/store/credentials"
    assert variables["AWS_ENDPOINT_URL"] == "http://minio:9000"


def test_its_pod_is_restricted_and_reaches_store_and_api_server_alone(render: Render) -> None:
    objects = render(ON, "--set=networkPolicy.enabled=true,store.endpointUrl=http://minio:9000")
    template = named(objects, "CronJob", "-gc")["spec"]["jobTemplate"]["spec"]["template"]
    assert template["spec"]["securityContext"]["runAsNonRoot"] is True
    (container,) = template["spec"]["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["resources"]["limits"].keys() == {"memory"}
    pod, policies = Pod("system", template["metadata"]["labels"]), list(of_kind(objects, "NetworkPolicy"))
    assert [port for port in (80, 443, 6443, 8000, 9000) if allowed(policies, pod, Outside(), port)] == [
        443,
        6443,
        9000,
    ]
    assert not allowed(policies, Pod("search", {}), pod, 8080)
