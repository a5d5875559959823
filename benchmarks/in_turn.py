"""Two runners of one engine in this process, asked in turn: what differs is the runner's alone."""

from __future__ import annotations

import time
from statistics import median

from enginewright_serving.triton.runner import Runner, Tensors

_MIN_TURNS = 4


def medians(ours: Runner, reference: Runner, tensors: Tensors, *, seconds: float) -> tuple[float, float]:
    """Milliseconds of both, in alternating order for about `seconds`; the first answer of each turn does not count."""
    times: dict[bool, list[float]] = {True: [], False: []}
    deadline, turn = time.perf_counter() + seconds, 0
    while turn < _MIN_TURNS or time.perf_counter() < deadline:
        for is_ours in (True, False) if turn % 2 else (False, True):
            runner = ours if is_ours else reference
            runner.run(tensors)  # the other's turn has thrown its weights out of the caches
            begun = time.perf_counter()
            runner.run(tensors)
            times[is_ours].append(time.perf_counter() - begun)
        turn += 1
    return round(1000 * median(times[True]), 3), round(1000 * median(times[False]), 3)
