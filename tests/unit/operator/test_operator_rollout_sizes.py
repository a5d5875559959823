"""Invariant: a working deployment is never taken away before its successor is servable."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from enginewright_operator.core.engines import NOT_EXPOSED, Running, Selection
from enginewright_operator.core.rollout_sizes import canary_replicas, canary_sizes, canary_weight, next_sizes


def engine(label: str, wanted: int, ready: int) -> Running:
    """A Deployment."""
    manifest = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": label, "namespace": "n"}}
    return Running(manifest, label, wanted, wanted, ready, True, True, None)


@dataclass
class Rolling:
    """Two Deployments and a Service; pods become ready whenever they like."""

    wanted: int
    surge: int
    old: Running
    new: Running | None = None
    selection: Selection = field(default_factory=lambda: Selection(True, "old"))
    old_gone: bool = False

    @property
    def served_by(self) -> int:
        """Ready pods that get requests."""
        old = 0 if self.old_gone or not self.selection.covers("old") else self.old.ready
        return old + (self.new.ready if self.new is not None and self.selection.covers("new") else 0)

    def plan(self) -> None:
        """One visit of the operator, its effects done at once."""
        serving = [self.old] if not self.old_gone and self.selection.covers("old") else []
        sizes = next_sizes(
            self.wanted, self.surge, target=self.new, serving=serving, selected=self.selection, label="new"
        )
        ready = self.new.ready if self.new is not None else 0
        self.new = engine("new", sizes.target, min(ready, sizes.target))
        if serving:
            self.old = engine("old", sizes.old, min(self.old.ready, sizes.old))
        elif self.selection.label == "new":
            self.old_gone = True
        self.selection = sizes.selection

    def pods(self, become_ready: int) -> None:
        """Some of the new pods become ready."""
        if self.new is not None:
            self.new = replace(self.new, ready=min(self.new.wanted, self.new.ready + become_ready))


@settings(max_examples=200)
@given(st.integers(1, 12), st.integers(1, 14), st.lists(st.integers(0, 3), min_size=1, max_size=40))
def test_ready_capacity_never_falls_while_rolling(wanted: int, surge: int, steps: list[int]) -> None:
    rolling = Rolling(wanted, surge, engine("old", wanted, wanted))
    for ready in steps:
        rolling.plan()
        assert rolling.served_by >= wanted
        total = rolling.old.wanted * (not rolling.old_gone) + (rolling.new.wanted if rolling.new else 0)
        assert total <= wanted + surge or rolling.selection.label == "new"
        rolling.pods(ready)
        assert rolling.served_by >= wanted


@settings(max_examples=100)
@given(st.integers(1, 12), st.integers(1, 14))
def test_every_rollout_whose_pods_get_ready_ends(wanted: int, surge: int) -> None:
    rolling = Rolling(wanted, surge, engine("old", wanted, wanted))
    for _ in range(4 * wanted + 4):
        rolling.plan()
        rolling.pods(1)
    assert rolling.old_gone
    assert rolling.new is not None
    assert (rolling.new.wanted, rolling.new.ready) == (wanted, wanted)


@given(st.integers(1, 12), st.integers(1, 14))
def test_an_engine_that_never_gets_ready_takes_nothing_away(wanted: int, surge: int) -> None:
    rolling = Rolling(wanted, surge, engine("old", wanted, wanted))
    for _ in range(5):
        rolling.plan()
    assert (rolling.old.wanted, rolling.selection.label) == (wanted, "old")


def test_the_first_engine_is_selected_at_once() -> None:
    sizes = next_sizes(2, 1, target=None, serving=[], selected=NOT_EXPOSED, label="new")
    assert (sizes.target, sizes.selection.label) == (2, "new")


@settings(max_examples=200)
@given(st.integers(1, 12), st.lists(st.integers(0, 3), min_size=1, max_size=40))
def test_in_place_at_most_one_replica_is_missing_and_none_is_too_many(wanted: int, steps: list[int]) -> None:
    rolling = Rolling(wanted, 0, engine("old", wanted, wanted))
    for ready in steps:
        rolling.plan()
        assert rolling.served_by >= wanted - 1
        total = rolling.old.wanted * (not rolling.old_gone) + (rolling.new.wanted if rolling.new else 0)
        assert total <= wanted or rolling.selection.label == "new"
        rolling.pods(ready)


@given(st.integers(1, 12))
def test_every_replacement_in_place_ends(wanted: int) -> None:
    rolling = Rolling(wanted, 0, engine("old", wanted, wanted))
    for _ in range(4 * wanted + 4):
        rolling.plan()
        rolling.pods(1)
    assert rolling.old_gone
    assert rolling.new is not None
    assert rolling.new.ready == wanted


@settings(max_examples=200)
@given(
    st.integers(1, 20), st.integers(1, 24), st.integers(1, 100), st.lists(st.integers(0, 3), min_size=1, max_size=60)
)
def test_a_canary_never_takes_capacity_or_more_room_than_allowed(
    wanted: int, surge: int, weight: int, steps: list[int]
) -> None:
    stable, canary, share = engine("old", wanted, wanted), None, 0
    for ready in steps:
        size, old = canary_sizes(wanted, surge, weight, target=canary, serving=[stable], receiving=share > 0)
        canary = engine("new", size, min(canary.ready if canary is not None else 0, size))
        stable = engine("old", old, min(stable.ready, old))
        assert stable.wanted + canary.wanted <= wanted + surge
        assert stable.ready + canary.ready >= wanted
        canary = replace(canary, ready=min(canary.wanted, canary.ready + ready))
        share = canary_weight(wanted, weight, canary.ready)
        # Neither engine gets more requests than its replicas are for, but for what rounding to whole ones costs.
        assert 100 * canary.ready >= share * wanted or canary.ready == canary_replicas(wanted, weight)
        assert 100 * (stable.ready + canary.ready) >= 100 * wanted


@given(st.integers(1, 20), st.integers(1, 24), st.integers(1, 100))
def test_every_step_of_a_canary_is_reached(wanted: int, surge: int, weight: int) -> None:
    stable, canary, share = engine("old", wanted, wanted), None, 0
    for _ in range(3 * wanted + 3):
        size, old = canary_sizes(wanted, surge, weight, target=canary, serving=[stable], receiving=share > 0)
        canary, stable = engine("new", size, size), engine("old", old, old)
        share = canary_weight(wanted, weight, size)
    assert share == weight
    assert canary is not None
    assert canary.ready == canary_replicas(wanted, weight)
