"""The queue: each key once, never two visits of one key at a time, back-off of its own."""

# ruff: noqa: ASYNC110 - what is waited for has no event of its own

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginewright_operator.shell.queueing import BackOff, Queue
from enginewright_operator.shell.waiting import Key

A, B = Key("OptimizedModel", "n", "a"), Key("OptimizedModel", "n", "b")


@contextlib.asynccontextmanager
async def running(queue: Queue) -> AsyncIterator[None]:
    """The queue at work."""
    task = asyncio.create_task(queue.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until_idle(queue: Queue) -> None:
    """Nothing due, nothing done."""
    async with asyncio.timeout(5):
        while not queue.idle:
            await asyncio.sleep(0.005)


async def test_a_key_asked_for_often_is_visited_once() -> None:
    visits: list[Key] = []

    async def handle(key: Key) -> None:
        visits.append(key)

    queue = Queue(handle)
    for _ in range(100):
        queue.add(A)
        queue.add(B)
    async with running(queue):
        await until_idle(queue)
    assert sorted(visits) == [A, B]


async def test_a_change_during_a_visit_leads_to_one_more() -> None:
    visits = 0
    release = asyncio.Event()

    async def handle(key: Key) -> None:
        nonlocal visits
        visits += 1
        await release.wait()

    queue = Queue(handle)
    queue.add(A)
    async with running(queue):
        await asyncio.sleep(0.02)
        queue.add(A)
        queue.add(A)
        await asyncio.sleep(0.02)
        assert visits == 1, "two visits of one key at a time"
        release.set()
        await until_idle(queue)
    assert visits == 2


async def test_no_more_visits_at_once_than_workers() -> None:
    active = most = 0

    async def handle(key: Key) -> None:
        nonlocal active, most
        active += 1
        most = max(most, active)
        await asyncio.sleep(0.005)
        active -= 1

    queue = Queue(handle, workers=3)
    for number in range(20):
        queue.add(Key("OptimizedModel", "n", f"m{number}"))
    async with running(queue):
        await until_idle(queue)
    assert most == 3


async def test_a_failing_key_backs_off_and_holds_up_nobody() -> None:
    failures: list[tuple[Key, float]] = []
    visits: list[Key] = []

    async def handle(key: Key) -> None:
        visits.append(key)
        if key == A and visits.count(A) < 4:
            raise ValueError("broken")

    queue = Queue(
        handle,
        workers=1,
        back_off=BackOff(first_seconds=0.02, most_seconds=1),
        failed=lambda key, error, pause: failures.append((key, pause)),
    )
    queue.add(A)
    queue.add(B)
    async with running(queue), asyncio.timeout(5):
        while visits.count(A) < 4:
            await asyncio.sleep(0.005)
    assert visits.count(B) == 1
    assert [key for key, _ in failures] == [A, A, A]
    assert failures[0][1] < failures[1][1] < failures[2][1] or failures[0][1] < failures[2][1]


async def test_what_is_asked_for_later_comes_later_but_an_event_comes_now() -> None:
    visits: list[float] = []
    loop = asyncio.get_running_loop()

    async def handle(key: Key) -> float | None:
        visits.append(loop.time())
        return 30.0 if len(visits) == 1 else None

    queue = Queue(handle)
    queue.add(A)
    async with running(queue):
        await until_idle(queue)
        assert queue.depth == 1, "waits for its 30 seconds"
        queue.add(A)
        await until_idle(queue)
    assert len(visits) == 2


@given(st.integers(1, 60), st.floats(0, 1, exclude_max=True))
def test_pauses_grow_up_to_a_limit(failures: int, draw: float) -> None:
    pause = BackOff().pause_seconds(failures, draw)
    assert 0.5 * min(300, 2.0 ** (failures - 1)) <= pause <= min(300, 2.0 ** (failures - 1))


def test_keys_read_well() -> None:
    assert str(A) == "OptimizedModel n/a"
    assert str(Key("AcceleratorClass", "", "cpu")) == "AcceleratorClass cpu"


@pytest.mark.parametrize("workers", [1, 4])
async def test_every_key_is_visited(workers: int) -> None:
    seen: set[Key] = set()

    async def handle(key: Key) -> None:
        seen.add(key)

    queue = Queue(handle, workers=workers)
    keys = {Key("EngineBuild", "n", f"b{number}") for number in range(500)}
    for key in keys:
        queue.add(key)
    async with running(queue):
        await until_idle(queue)
    assert seen == keys


async def test_the_queue_ends_when_it_is_cancelled_in_the_middle_of_work() -> None:
    """Workers wake each other as they end; none may take that for work and go on."""

    async def handle(key: Key) -> float:
        await asyncio.sleep(0)
        return 0.001

    for number in range(100):
        queue = Queue(handle, workers=4)
        for name in ("a", "b", "c"):
            queue.add(Key("OptimizedModel", "n", name))
        task = asyncio.create_task(queue.run())
        await asyncio.sleep(0.0001 * (number % 17))
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=5)
        assert done, "still working"


async def test_visits_that_never_wait_let_others_have_their_turn() -> None:
    """Ten thousand models are visited from memory at a start; the lease must be renewed meanwhile."""
    visited: list[Key] = []

    async def visit(key: Key) -> None:
        visited.append(key)

    queue = Queue(visit, workers=2)
    for number in range(200):
        queue.add(Key("OptimizedModel", "default", f"m{number}"))
    task = asyncio.create_task(queue.run())
    seen = []
    while len(visited) < 200:
        await asyncio.sleep(0)
        seen.append(len(visited))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert len(seen) >= 100, "two visits at most between two turns of anybody else"


async def test_looks_that_an_earlier_visit_made_void_do_not_pile_up() -> None:
    """Each rollout asks for a look at its deadline, and is visited long before."""
    visits: list[Key] = []

    async def handle(key: Key) -> float:
        visits.append(key)
        return 900.0

    queue, keys = Queue(handle), [Key("OptimizedModel", "n", str(number)) for number in range(10)]
    queue.add(A, after_seconds=60.0)  # what is due before them all keeps them from coming up
    async with running(queue):
        for _ in range(500):
            for key in keys:
                queue.add(key)
            await until_idle(queue)
    assert len(visits) == 500 * len(keys)
    assert queue.depth == len(keys) + 1
    assert len(queue._waiting._later) <= 2 * queue.depth + 1_000
    assert len(queue._waiting._came) <= 2 * queue.depth + 1_000
