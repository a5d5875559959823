"""Optimisation profiles: the shapes a plan is tuned for, by batch and length bucket.

TensorRT tunes a profile for one shape and runs every shape between its bounds; Triton picks, for each batch, the
profile that fits with the nearest tuned shape. Short inputs in small batches would otherwise run kernels that were
chosen for the largest shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from enginewright_api.errors import DeterministicError
from enginewright_api.serving_spec import Limits

_SHORTEST_BUCKET = 32
_STEP = 4

Shape = tuple[int, int]
"""(batch, tokens)."""


@dataclass(frozen=True, slots=True)
class Profile:
    """Bounds and tuned shape of every input of an encoder."""

    smallest: Shape
    tuned: Shape
    largest: Shape


def length_buckets(longest: int) -> list[int]:
    """Upper bounds in tokens: 32, 128, 512 … and the longest input."""
    bounds, bound = [], _SHORTEST_BUCKET
    while bound < longest:
        bounds.append(bound)
        bound *= _STEP
    return [*bounds, longest]


def profiles(limits: Limits) -> list[Profile]:
    """One profile for a single input and one for a full batch, for each length bucket."""
    batches = sorted({1, limits.max_batch_size})
    return [
        Profile(smallest=(1, 1), tuned=(batch, tokens), largest=(batch, tokens))
        for tokens in length_buckets(limits.max_input_tokens)
        for batch in batches
    ]


def fitting(wanted: Sequence[Profile], shape: Shape) -> int:
    """Number of the first profile that takes a shape; they stand in order of their size.

    Raises DeterministicError LimitExceeded for a shape beyond all of them.
    """
    for number, profile in enumerate(wanted):
        if shape[0] <= profile.largest[0] and shape[1] <= profile.largest[1]:
            return number
    raise DeterministicError("LimitExceeded", f"engine.limits: no profile takes {shape[0]} × {shape[1]} tokens")


def trtexec_command(
    *, onnx: str, plan: str, timing_cache: str, inputs: Sequence[str], wanted: Sequence[Profile]
) -> list[str]:
    """argv of the same build with NVIDIA's own program, for people who want to look at it closely."""
    command = ["trtexec", f"--onnx={onnx}", f"--saveEngine={plan}", "--stronglyTyped", "--skipInference"]
    command.append(f"--timingCacheFile={timing_cache}")
    for number, profile in enumerate(wanted):
        command.append(f"--profile={number}")
        for flag, shape in (("min", profile.smallest), ("opt", profile.tuned), ("max", profile.largest)):
            text = ",".join(f"{name}:{shape[0]}x{shape[1]}" for name in inputs)
            command.append(f"--{flag}Shapes={text}")
    return command
