"""Admission: least outstanding work, bounded queue, held requests, Retry-After from the measured rate."""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginewright_api.recipe import Task
from enginewright_gateway.drain_rate import DrainRate, retry_after_seconds
from enginewright_gateway.errors import NotNowError
from enginewright_gateway.pool import Lease, ModelPool, PoolLimits
from enginewright_gateway.routes import Endpoint, ServedModel

A, B = Endpoint("10.0.0.1", 8000, 8001), Endpoint("10.0.0.2", 8000, 8001)
MODEL = ServedModel(
    namespace="n", name="m", task=Task.EMBEDDING, max_batch_size=1, max_queue_size=2, queue_timeout_seconds=5.0,
    endpoints=(A, B), condition="NoReadyReplica: the pod is starting",
)  # fmt: skip
LIMITS = PoolLimits(inflight_batches=2, hold_seconds=0.2, max_held=2)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def pool(model: ServedModel = MODEL, limits: PoolLimits = LIMITS, clock: Clock | None = None) -> ModelPool:
    return ModelPool(model, limits, clock or Clock())


def release(lease: Lease) -> None:
    with lease:
        lease.answered()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_requests_go_where_the_least_work_is() -> None:
    subject = pool()
    first, second, third = [await subject.acquire() for _ in range(3)]
    assert {first.endpoint, second.endpoint} == {A, B}
    release(second)
    assert (await subject.acquire()).endpoint == second.endpoint
    assert subject.inflight == 3
    assert third.endpoint == first.endpoint


async def test_what_would_wait_at_a_continuous_batch_waits_here() -> None:
    subject = pool(replace(MODEL, task=Task.TEXT_GENERATION, max_batch_size=3, endpoints=(A,)))
    for _ in range(3):
        await subject.acquire()
    waiting = asyncio.ensure_future(subject.acquire())
    await settle()
    assert (subject.waiting, subject.inflight) == (1, 3)
    waiting.cancel()


async def test_over_the_bound_requests_wait_in_order_and_then_get_room() -> None:
    subject = pool()
    leases = [await subject.acquire() for _ in range(4)]
    waiting = [asyncio.ensure_future(subject.acquire()) for _ in range(2)]
    await settle()
    assert (subject.waiting, subject.inflight) == (2, 4)
    release(leases[0])
    await settle()
    assert waiting[0].done() and not waiting[1].done()
    release(leases[1])
    assert (await waiting[1]).endpoint == leases[1].endpoint
    assert (subject.waiting, subject.inflight) == (0, 4)


async def test_a_full_queue_refuses_with_429_and_the_time_it_takes_to_drain() -> None:
    clock = Clock()
    subject = pool(clock=clock)
    for _ in range(20):  # one answer every two seconds
        clock.now += 2.0
        release(await subject.acquire())
    for _ in range(4):
        await subject.acquire()
    waiting = [asyncio.ensure_future(subject.acquire()) for _ in range(4)]
    await settle()
    with pytest.raises(NotNowError) as caught:
        await subject.acquire()
    assert (caught.value.status, caught.value.reason) == (429, "QueueFull")
    assert caught.value.retry_after_seconds == pytest.approx(10.0, rel=0.15)  # five places at half an answer a second
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert subject.waiting == 0


async def test_what_was_not_answered_does_not_make_the_queue_look_fast() -> None:
    subject = pool()
    for _ in range(50):
        with await subject.acquire():
            pass
    assert subject.retry_after() == 5.0  # nothing known


async def test_a_wait_beyond_the_models_bound_is_429_and_beyond_the_clients_own_504() -> None:
    subject = pool(replace(MODEL, queue_timeout_seconds=0.05))
    for _ in range(4):
        await subject.acquire()
    with pytest.raises(NotNowError) as caught:
        await subject.acquire()
    assert (caught.value.status, caught.value.reason) == (429, "QueueTimeout")
    with pytest.raises(NotNowError) as caught:
        await subject.acquire(within_seconds=0.01)
    assert caught.value.status == 504
    assert (subject.waiting, subject.inflight) == (0, 4)


async def test_without_endpoints_requests_are_held_and_released_when_one_comes() -> None:
    subject = pool(replace(MODEL, endpoints=()))
    held = [asyncio.ensure_future(subject.acquire()) for _ in range(2)]
    await settle()
    assert subject.held == 2
    subject.update(MODEL)
    assert {lease.endpoint for lease in await asyncio.gather(*held)} == {A, B}
    assert subject.held == 0


async def test_held_requests_are_bounded_in_number_and_time_and_say_why() -> None:
    subject = pool(replace(MODEL, endpoints=()))
    held = [asyncio.ensure_future(subject.acquire()) for _ in range(2)]
    await settle()
    with pytest.raises(NotNowError, match="NoReadyReplica: the pod is starting") as caught:
        await subject.acquire()
    assert caught.value.status == 503
    for outcome in await asyncio.gather(*held, return_exceptions=True):
        assert isinstance(outcome, NotNowError)
        assert outcome.status == 503 and outcome.retry_after_seconds is not None
        assert "the pod is starting" in outcome.message


async def test_an_unreachable_endpoint_rests_longer_each_time_and_comes_back() -> None:
    clock = Clock()
    subject = pool(clock=clock)
    subject.unreachable(A)
    assert [(await subject.acquire()).endpoint for _ in range(2)] == [B, B]
    clock.now += 0.3
    assert (await subject.acquire()).endpoint == A
    subject.unreachable(A)
    clock.now += 0.3
    waiting = asyncio.ensure_future(subject.acquire())
    await settle()
    assert not waiting.done()  # B is full and A rests half a second now
    clock.now += 0.3
    subject.update(MODEL)
    back = await waiting
    assert back.endpoint == A
    release(back)
    subject.reached(A)
    subject.unreachable(A)
    clock.now += 0.3
    assert (await subject.acquire()).endpoint == A  # what worked in between starts short again


async def test_when_the_only_endpoint_rests_requests_wait_for_it() -> None:
    subject = ModelPool(
        replace(MODEL, endpoints=(A,)), replace(LIMITS, hold_seconds=5.0), asyncio.get_running_loop().time
    )
    subject.unreachable(A)
    assert (await subject.acquire()).endpoint == A


async def test_endpoints_already_tried_are_left_out() -> None:
    subject = pool()
    assert subject.others(frozenset({A}))
    assert [(await subject.acquire(tried=frozenset({A}))).endpoint for _ in range(2)] == [B, B]
    assert not subject.others(frozenset({A, B}))


async def test_deleting_the_model_answers_those_who_wait() -> None:
    subject = pool(replace(MODEL, endpoints=()))
    held = asyncio.ensure_future(subject.acquire())
    await settle()
    subject.close()
    with pytest.raises(NotNowError, match="deleted"):
        await held


async def test_a_cancelled_wait_gives_its_place_back_even_when_room_came_in_the_same_moment() -> None:
    subject = pool()
    leases = [await subject.acquire() for _ in range(4)]
    waiting = asyncio.ensure_future(subject.acquire())
    await settle()
    release(leases[0])
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert (subject.waiting, subject.inflight) == (0, 3)


@given(st.lists(st.sampled_from(["acquire", "release", "cancel", "lose", "find"]), max_size=60))
def test_room_is_never_lost_or_given_twice(steps: list[str]) -> None:
    async def play() -> None:
        subject = pool(limits=replace(LIMITS, hold_seconds=60.0, max_held=100))
        tasks: list[asyncio.Task[Lease]] = []
        for step in steps:
            done = [task for task in tasks if task.done() and not task.cancelled() and task.exception() is None]
            if step == "acquire":
                tasks.append(asyncio.create_task(subject.acquire()))
            elif step == "release" and done:
                release(done[0].result())
                tasks.remove(done[0])
            elif step == "cancel" and tasks and tasks[-1] not in done:
                tasks.pop().cancel()
            elif step in {"lose", "find"}:
                subject.update(replace(MODEL, endpoints=(A,) if step == "lose" else (A, B)))
            await settle()
            held = [task for task in tasks if task.done() and not task.cancelled() and task.exception() is None]
            assert subject.inflight == len(held)
            assert subject.waiting == sum(not task.done() for task in tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(play())


@pytest.mark.parametrize(
    ("waiting", "rate", "seconds"), [(0, 0.0, 5.0), (0, 100.0, 1.0), (9, 1.0, 10.0), (10_000, 1.0, 60.0)]
)
def test_retry_after_is_the_queue_over_the_rate_within_bounds(waiting: int, rate: float, seconds: float) -> None:
    assert retry_after_seconds(waiting, rate) == seconds


def test_the_drain_rate_follows_what_is_measured() -> None:
    rate = DrainRate()
    assert rate.per_second(5.0) == 0.0
    for tick in range(1000):
        rate.note(tick / 10)
    assert rate.per_second(100.0) == pytest.approx(10.0, rel=0.05)
    assert rate.per_second(130.0) < 1.0
