"""Whose fields an apply without force would take: the same answer from each adapter, a real API server's included."""

from __future__ import annotations

import pytest

from enginewright_cluster.informed import Informed
from enginewright_cluster.port import CONFIG_MAP, DEPLOYMENT, ConflictError, FieldConflictError, OwnedField
from tests.cluster.test_cluster_port import Place, kube_with_crds, place

__all__ = ["kube_with_crds", "place"]


async def test_a_conflict_names_each_field_and_its_manager(place: Place) -> None:
    await place.cluster.apply(place.config("one", {"a": "1", "b": "1"}), field_manager="us")
    await place.cluster.apply(place.config("one", {"c": "1"}), field_manager="others")
    with pytest.raises(FieldConflictError) as refused:
        await place.cluster.apply(
            place.config("one", {"a": "2", "b": "1", "c": "3", "d": "4"}), field_manager="them", force=False
        )
    assert set(refused.value.owned) == {OwnedField("us", ".data.a"), OwnedField("others", ".data.c")}
    assert (await place.cluster.get(place.ref(CONFIG_MAP, "one")))["data"] == {"a": "1", "b": "1", "c": "1"}


async def test_so_does_one_with_who_scaled_and_one_in_a_list(place: Place) -> None:
    await place.cluster.apply(place.deployment("d", env={"A": "1"}, replicas=1), field_manager="us")
    with pytest.raises(FieldConflictError) as refused:
        await place.cluster.apply(place.deployment("d", env={"A": "2"}, replicas=2), field_manager="them", force=False)
    assert set(refused.value.owned) == {
        OwnedField("us", ".spec.replicas"),
        OwnedField("us", '.spec.template.spec.containers[name="server"].env[name="A"].value'),
    }
    await place.cluster.scale(place.ref(DEPLOYMENT, "d"), 3)
    with pytest.raises(FieldConflictError) as scaled:
        await place.cluster.apply(place.deployment("d", env={"A": "1"}, replicas=1), field_manager="us", force=False)
    assert [each.field for each in scaled.value.owned] == [".spec.replicas"]


async def test_other_conflicts_are_none_of_fields(place: Place) -> None:
    made = await place.cluster.apply(place.config("one", {"a": "1"}), field_manager="us")
    await place.cluster.apply(place.config("one", {"a": "2"}), field_manager="us")
    old = place.config("one", {"a": "3"}, resourceVersion=made["metadata"]["resourceVersion"])
    with pytest.raises(ConflictError) as refused:
        await place.cluster.apply(old, field_manager="us", force=False)
    assert not isinstance(refused.value, FieldConflictError)


async def test_a_refused_apply_leaves_nothing_in_doubt(place: Place) -> None:
    """Nothing happened, so a cluster that is read from memory need not ask what there is now."""
    informed = Informed(place.cluster, [CONFIG_MAP], ())
    await place.cluster.apply(place.config("one", {"a": "1"}), field_manager="us")
    with pytest.raises(FieldConflictError):
        await informed.apply(place.config("one", {"a": "2"}), field_manager="them", force=False)
    assert informed._doubtful[CONFIG_MAP] == {}
