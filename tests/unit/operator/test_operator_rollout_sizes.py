"""Invariant: a working deployment is never taken away before its successor is servable."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from enginewright_operator.core.engines import NOT_EXPOSED, Running, Selection
from enginewright_operator.core.rollout import next_sizes


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
