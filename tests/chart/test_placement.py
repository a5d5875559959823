"""Where pods may run, how many may be away at a time, and what else people add to them."""

from __future__ import annotations

import json

from tests.chart.rendering import Object, Render, named, of_kind


def pod_of(objects: list[Object], component: str) -> Object:
    """Spec of a program's pods."""
    spec: Object = named(objects, "Deployment", component)["spec"]["template"]["spec"]
    return spec


def test_a_drain_is_slowed_and_never_held_up(render: Render) -> None:
    budgets = list(of_kind(render(), "PodDisruptionBudget"))
    assert [item["metadata"]["name"].rsplit("-", 1)[1] for item in budgets] == ["operator", "gateway"]
    for budget in budgets:
        component = budget["metadata"]["name"].rsplit("-", 1)[1]
        spec, deployment = budget["spec"], named(render(), "Deployment", component)["spec"]
        # One replica, and it may go: a budget that says otherwise keeps nodes from being drained.
        assert (spec["maxUnavailable"], deployment["replicas"], "minAvailable" in spec) == (1, 1, False)
        assert spec["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
        assert spec["selector"] == deployment["selector"]
    off = render("--set=gateway.podDisruptionBudget.enabled=false,operator.podDisruptionBudget.maxUnavailable=50%")
    (left,) = of_kind(off, "PodDisruptionBudget")
    assert left["spec"]["maxUnavailable"] == "50%"
    assert (
        len(list(of_kind(render("--set=gateway.enabled=false,autoscaler.enabled=false"), "PodDisruptionBudget"))) == 1
    )


def test_replicas_spread_over_nodes_and_zones_without_being_held_back(render: Render) -> None:
    objects = render("--set=gateway.replicas=3")
    constraints = pod_of(objects, "gateway")["topologySpreadConstraints"]
    assert [item["topologyKey"] for item in constraints] == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
    for item in constraints:
        assert item["whenUnsatisfiable"] == "ScheduleAnyway"
        assert item["labelSelector"] == named(objects, "Deployment", "gateway")["spec"]["selector"]
    assert "topologySpreadConstraints" not in pod_of(objects, "autoscaler")
    mine = (
        '--set-json=operator.topologySpreadConstraints=[{"maxSkew":2,"topologyKey":"rack","whenUnsatisfiable":'
        '"DoNotSchedule","labelSelector":{"matchLabels":{"a":"b"}}}]'
    )
    (own,) = pod_of(render(mine), "operator")["topologySpreadConstraints"]
    assert own["labelSelector"] == {"matchLabels": {"a": "b"}}


def test_what_people_add_arrives(render: Render) -> None:
    for component in ("operator", "gateway", "autoscaler"):
        added = (
            f"--set={component}.priorityClassName=system-cluster-critical,{component}.podLabels.team=ml",
            f"--set={component}.podAnnotations.note=x,{component}.nodeSelector.pool=control",
            f"--set={component}.extraArgs={{--more=1}},{component}.serviceAccountAnnotations.role=arn",
            f'--set-json={component}.extraEnv=[{{"name":"HTTPS_PROXY","value":"http://proxy:3128"}}]',
            f'--set-json={component}.tolerations=[{{"key":"control","operator":"Exists"}}]',
        )
        objects = render(*added)
        template = named(objects, "Deployment", component)["spec"]["template"]
        pod, (container,) = template["spec"], template["spec"]["containers"]
        assert template["metadata"]["labels"]["team"] == "ml"
        assert template["metadata"]["annotations"] == {"note": "x"}
        assert pod["priorityClassName"] == "system-cluster-critical"
        assert pod["nodeSelector"] == {"pool": "control"}
        assert pod["tolerations"] == [{"key": "control", "operator": "Exists"}]
        assert container["args"][-1] == "--more=1"
        assert {"name": "HTTPS_PROXY", "value": "http://proxy:3128"} in container["env"]
        assert named(objects, "ServiceAccount", component)["metadata"]["annotations"] == {"role": "arn"}


def test_extra_objects_are_templates(render: Render) -> None:
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "{{ .Release.Name }}-extra"},
        "data": {"store": "{{ .Values.store.uri }}"},
    }
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: as-text}\n"
    objects = render(f"--set-json=extraObjects={json.dumps([config, text])}")
    assert named(objects, "ConfigMap", "release-extra")["data"] == {"store": "s3://artifacts/engines"}
    assert named(objects, "ConfigMap", "as-text")
