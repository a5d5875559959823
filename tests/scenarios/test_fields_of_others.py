"""Somebody else writes to a child: what the operator says holds again and is told of, what it does not say stays."""

from __future__ import annotations

from typing import Any

from enginewright_cluster.port import DEPLOYMENT, EVENT, Object, Ref
from tests.scenarios.world import World
from tests.written import Written

TAKEN_BACK = "FieldTakenBack"


async def serving(world: World) -> Object:
    (found,) = await world.cluster.list(DEPLOYMENT, namespace=world.namespace)
    return found


async def edit(world: World, manager: str, *, image: str | None = None, **metadata: Any) -> None:
    """What `kubectl apply --server-side --force-conflicts` of some fields does."""
    found = await serving(world)
    edited: Object = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": found["metadata"]["name"], "namespace": world.namespace, **metadata},
    }
    if image is not None:
        edited["spec"] = {"template": {"spec": {"containers": [{"name": "server", "image": image}]}}}
    await world.cluster.apply(edited, field_manager=manager, force=True)


def image_of(deployment: Object) -> str:
    (server,) = [item for item in deployment["spec"]["template"]["spec"]["containers"] if item["name"] == "server"]
    return str(server["image"])


async def told(world: World) -> list[Object]:
    return [item for item in await world.cluster.list(EVENT, namespace=world.namespace) if item["reason"] == TAKEN_BACK]


async def test_a_field_of_ours_is_taken_back_and_the_model_says_from_whom(world: World, written: Written) -> None:
    await world.apply()
    await world.settle()
    ours = image_of(await serving(world))
    await edit(world, "hand", image="other:1", annotations={"team": "search"})
    await world.settle()
    deployment = await serving(world)
    assert image_of(deployment) == ours
    assert deployment["metadata"]["annotations"]["team"] == "search", "a field that we do not say is theirs"
    (event,) = await told(world)
    about = event["involvedObject"]
    assert (event["type"], about["kind"], about["name"]) == ("Warning", "OptimizedModel", "search")
    assert about["uid"] == (await world.model())["metadata"]["uid"]
    name = deployment["metadata"]["name"]
    assert f"Deployment {name}" in event["message"] and "'hand'" in event["message"]
    assert '.spec.template.spec.containers[name="server"].image' in event["message"]
    (line,) = written.lines("fields taken back")
    assert line["level"] == "warning" and line["object"] == f"Deployment {world.namespace}/{name}"
    assert list(line["fields"]) == ["hand"]


async def test_who_does_it_again_is_told_of_once_and_another_one_anew(world: World, written: Written) -> None:
    await world.apply()
    await world.settle()
    for manager in ("hand", "hand", "another"):
        await edit(world, manager, image="other:1")
        await world.settle()
    assert len(await told(world)) == 2
    assert len(written.lines("fields taken back")) == 3


async def test_nobody_is_named_while_nobody_interferes(world: World, written: Written) -> None:
    await world.apply()
    await world.settle()
    await edit(world, "hand", labels={"cost-centre": "7"})
    await world.settle()
    # Replicas are patched at the old engine and applied at the new one: all that is the operator itself.
    await world.apply(replicas=2, batching={"maxBatchSize": 16})
    await world.settle()
    deployment = await world.cluster.get(Ref(DEPLOYMENT, (await serving(world))["metadata"]["name"], world.namespace))
    assert deployment["spec"]["replicas"] == 2
    assert await told(world) == []
    assert written.lines("fields taken back") == []
