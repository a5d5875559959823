"""A replica of more accelerators than a node has: a LeaderWorkerSet that its schema accepts, or a refusal by name."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from syrupy.assertion import SnapshotAssertion

from enginewright_api.accelerator_class import AcceleratorClass
from enginewright_operator.core.acceptance import acceptance
from enginewright_operator.core.class_choice import class_choice
from enginewright_operator.core.effects import RequeueAfter
from enginewright_operator.core.render.groups import leader_worker_set
from enginewright_operator.core.render.services import service
from enginewright_operator.core.render.serving import Engine
from enginewright_operator.core.spread import Spread, spread_of
from tests.scenarios.evidence import artifact
from tests.scenarios.groups import CRD
from tests.scenarios.models import gpu_class, settings
from tests.unit.operator.snapshots import drafted, snapshot
from tests.unit.operator.test_operator_rendering import BUCKET, GoldenYaml

ENGINE = Engine(artifact("a" * 64), "b" * 64, "eb-bbbbbbbbbbbbbbbb")


def spanning(*, tensor: int = 8, pipeline: int = 2, **spec: Any) -> dict[str, Any]:
    """A language model of tensor × pipeline GPUs a replica."""
    return {
        "task": "TextGeneration",
        "optimization": {"quantization": {"format": "FP16"}},
        "hardware": {"acceleratorClasses": ["nvidia-l4"], "acceleratorsPerReplica": tensor * pipeline},
        "parallelism": {"tensor": tensor, "pipeline": pipeline},
        **spec,
    }


def rendered(per_node: int = 8, **spec: Any) -> dict[str, Any]:
    """The LeaderWorkerSet of a model of two replicas."""
    hardware = gpu_class(acceleratorsPerNode=per_node)
    given = settings(store=BUCKET, image_pull_secrets=("pull",))
    found = snapshot(spanning(**spec), classes=(hardware,), operator_settings=given)
    draft = drafted(found, acceptance)
    assert draft.spec is not None
    parsed = AcceleratorClass.of(hardware)
    return leader_worker_set(found, draft.spec, ENGINE, parsed, spread_of(draft.spec, parsed), replicas=2)


def templates(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """Those of the leader and of the workers."""
    group = manifest["spec"]["leaderWorkerTemplate"]
    return [group["leaderTemplate"], group["workerTemplate"]]


def test_the_set_as_it_is_applied(snapshot: SnapshotAssertion) -> None:
    assert rendered(rollout={"maxSurge": 2}) == snapshot.use_extension(GoldenYaml)


def test_the_set_satisfies_its_own_schema_and_the_pods_that_of_kubernetes() -> None:
    manifest = rendered()
    schema = yaml.load(CRD.read_text(), Loader=yaml.CSafeLoader)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    _closed(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for surge in (0, 1):
        validator.validate(json.loads(json.dumps(rendered(rollout={"maxSurge": surge}))))
    wrong = json.loads(json.dumps(manifest))
    wrong["spec"]["leaderWorkerTemplate"]["restartPolice"] = "None"
    with pytest.raises(jsonschema.ValidationError, match="restartPolice"):
        validator.validate(wrong)
    for template in templates(manifest):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": template["spec"]}
        kubernetes_validate.validate(pod, "1.34", strict=True)


def _closed(schema: Any) -> None:
    """An API server drops fields that a schema does not name; here they are errors. metadata is any object's."""
    for name, inner in schema.get("properties", {}).items():
        if name != "metadata":
            _closed(inner)
    _closed(schema["items"]) if "items" in schema else None
    if "properties" in schema:
        schema.setdefault("additionalProperties", False)


@pytest.mark.parametrize(
    ("per_node", "tensor", "pipeline", "nodes", "each"),
    [(8, 8, 2, 2, 8), (8, 4, 3, 2, 6), (4, 8, 2, 4, 4), (8, 8, 1, 1, 8), (16, 8, 2, 1, 16), (None, 8, 2, 1, 16)],
)
def test_as_few_nodes_as_have_enough(per_node: int | None, tensor: int, pipeline: int, nodes: int, each: int) -> None:
    hardware = gpu_class(**({"acceleratorsPerNode": per_node} if per_node else {}))
    draft = drafted(snapshot(spanning(tensor=tensor, pipeline=pipeline), classes=(hardware,)), acceptance)
    assert draft.spec is not None
    assert spread_of(draft.spec, AcceleratorClass.of(hardware)) == Spread(nodes, each)


def test_every_pod_takes_its_nodes_share_where_the_class_says() -> None:
    manifest = rendered(per_node=4)
    assert manifest["spec"]["leaderWorkerTemplate"]["size"] == 4
    for template in templates(manifest):
        pod = template["spec"]
        (container,) = pod["containers"]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == "4"
        assert (pod["nodeSelector"], pod["runtimeClassName"]) == ({"gpu": "l4"}, "nvidia")
        assert pod["tolerations"][0]["key"] == "nvidia.com/gpu"
        assert {"name": "shm", "emptyDir": {"medium": "Memory"}} in pod["volumes"]
        assert {"name": "shm", "mountPath": "/dev/shm"} in container["volumeMounts"]
        assert [item["name"] for item in pod["initContainers"]] == ["admit"], "each node needs the weights"


def test_the_leader_knows_its_groups_hosts_and_alone_gets_requests() -> None:
    leader, worker = templates(rendered(per_node=4))
    (server,) = leader["spec"]["containers"]
    variables = {item["name"]: item.get("value") for item in server["env"]}
    name = rendered()["metadata"]["name"]
    assert variables["GROUP_HOSTS"] == ",".join(
        [f"$(POD_NAME).{name}", *(f"$(POD_NAME)-{number}.{name}" for number in (1, 2, 3))]
    )
    names = [item["name"] for item in server["env"]]
    assert names.index("POD_NAME") < names.index("GROUP_HOSTS"), "only what stands before is put in"
    arguments = server["args"]
    assert arguments[arguments.index("--ranks-per-host") + 1] == "4"
    found = snapshot(spanning(), classes=(gpu_class(acceleratorsPerNode=4),))
    selector = service(found, ENGINE.digest, switched_at="")["spec"]["selector"].items()
    assert selector <= leader["metadata"]["labels"].items()
    assert not selector <= worker["metadata"]["labels"].items()
    assert {"http", "grpc"}.isdisjoint(port["name"] for port in worker["spec"]["containers"][0]["ports"])


@pytest.mark.parametrize(
    ("spec", "reason", "words"),
    [
        (spanning(tensor=9, pipeline=1), "ParallelismMismatch", "9 cannot be divided by 2"),
        (
            spanning(engine={"tensorRTLLM": {"flavor": "Engine"}}),
            "FeatureNotAvailable",
            "engine.tensorRTLLM.flavor: a replica of 16 accelerators runs on 2 nodes of class nvidia-l4 (8 each)",
        ),
    ],
)
def test_what_cannot_span_nodes_is_refused_by_name(spec: dict[str, Any], reason: str, words: str) -> None:
    found = snapshot(spec, classes=(gpu_class(acceleratorsPerNode=8),))
    finding = drafted(found, acceptance, class_choice).findings["Accepted"]
    assert (finding.status, finding.reason) == ("False", reason)
    assert words in finding.message


def test_a_name_that_would_not_fit_is_refused() -> None:
    found = snapshot(spanning(), classes=(gpu_class(acceleratorsPerNode=8),))
    found.manifest["metadata"]["name"] = "a" * 39
    finding = drafted(found, acceptance, class_choice).findings["Accepted"]
    assert finding.message.startswith("metadata.name: ")
    found.manifest["metadata"]["name"] = "a" * 38
    assert drafted(found, acceptance, class_choice).findings["Accepted"].holds


def test_a_cluster_without_the_add_on_is_told_how_to_get_it() -> None:
    found = snapshot(spanning(), classes=(gpu_class(acceleratorsPerNode=8),), groups=None)
    draft = drafted(found, acceptance, class_choice)
    finding = draft.findings["Accepted"]
    assert (finding.status, finding.reason) == ("False", "LeaderWorkerSetNotInstalled")
    assert "kubectl apply --server-side --filename https://" in finding.message
    assert [effect for effect in draft.effects if isinstance(effect, RequeueAfter)], "it may come"
    assert not draft.rungs, "nothing is built for what cannot be served"
    with_it = drafted(replace(found, groups=()), acceptance, class_choice)
    assert with_it.findings["Accepted"].holds
    on_one_node = snapshot(spanning(), classes=(gpu_class(acceleratorsPerNode=16),), groups=None)
    assert drafted(on_one_node, acceptance, class_choice).findings["Accepted"].holds
