"""When a server counts as ready, alive or dead."""

from __future__ import annotations

import pytest

from enginewright_serving.vitality import (
    DEAD_AFTER_FAILURES,
    LONGEST_EXECUTION_SECONDS,
    READY_FOR_SECONDS,
    Observation,
    Vitality,
)


def after(*seen: tuple[float, bool, int | None]) -> Vitality:
    state = Vitality()
    for at, answered, successes in seen:
        state = state.after(Observation(at, answered, successes, "HTTP 500"))
    return state


def test_nothing_is_ready_before_the_first_answer() -> None:
    starting = after(*((float(n), False, None) for n in range(100)))
    assert (starting.started, starting.ready(100.0), starting.dead) == (False, False, False)


def test_successes_of_the_past_do_not_stand_for_the_first_answer() -> None:
    assert not after((1.0, False, 7)).started


@pytest.mark.parametrize(
    ("seen", "now", "ready"),
    [
        ([(1.0, True, None)], 1.0, True),
        ([(1.0, True, None)], 1.0 + READY_FOR_SECONDS + 0.1, False),
        ([(1.0, True, None), (2.0, False, None)], 2.0, True),  # one miss may be chance
        ([(1.0, True, None), (2.0, False, None), (2.5, False, None)], 2.5, False),
        ([(1.0, True, None), (2.0, False, 5), (3.0, False, 9), (4.0, False, 12)], 4.0, True),  # busy with others
        ([(1.0, True, None), (2.0, False, 5), (3.0, False, 5), (4.0, False, 5)], 4.0, False),
        ([(1.0, True, None), (2.0, False, None), (3.0, False, None), (4.0, True, None)], 4.0, True),
    ],
)
def test_readiness(seen: list[tuple[float, bool, int | None]], now: float, ready: bool) -> None:
    assert after(*seen).ready(now) is ready


def test_silence_after_an_answer_is_death() -> None:
    silent = [(2.0 + n, False, None) for n in range(DEAD_AFTER_FAILURES)]
    assert not after((1.0, True, None), *silent[:-1]).dead
    dead = after((1.0, True, None), *silent)
    assert dead.dead
    assert dead.detail == "HTTP 500"


def test_an_engine_process_that_ended_is_death_at_once_also_before_the_first_answer() -> None:
    gone = Observation(2.0, False, None, "Stub process 'minilm_0_0' is not healthy", gone=True)
    for before in (Vitality(), after((1.0, True, None))):
        state = before.after(gone)
        assert (state.dead, state.ready(2.0)) == (True, False)


def test_a_long_execution_is_no_death_until_it_is_too_long() -> None:
    """A probe is queued behind the batch that runs: on slow or busy cores that takes longer than five looks."""
    state = after((1.0, True, 7))
    for at in range(2, int(LONGEST_EXECUTION_SECONDS), 2):
        state = state.after(Observation(float(at), False, 7, "TimeoutError", working=True))
        assert not state.dead
    assert not state.ready(float(at))
    assert state.after(Observation(at + 1.0, True, 8)).ready(at + 1.0)
    for more in range(DEAD_AFTER_FAILURES):
        hanging = LONGEST_EXECUTION_SECONDS + 2.0 + more
        state = state.after(Observation(hanging, False, 7, "TimeoutError", working=True))
    assert state.dead


def test_a_process_that_ended_at_work_is_dead_at_once() -> None:
    gone = Observation(2.0, False, None, "Stub process 'minilm_0_0' is not healthy", gone=True, working=True)
    assert after((1.0, True, None)).after(gone).dead
