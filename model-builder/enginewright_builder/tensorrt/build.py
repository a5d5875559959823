"""ONNX to a plan with TensorRT's Python API. Only on a machine that has it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from enginewright_api.errors import DeterministicError
from enginewright_builder.tensorrt.profiles import Profile

_WORKSPACE_BYTES = 4 * 2**30


def build_plan(onnx: Path, plan: Path, timing_cache: Path, inputs: Sequence[str], wanted: Sequence[Profile]) -> None:
    """Write the plan and the timing cache; a cache that is there already is used.

    Raises DeterministicError: UnsupportedOperator with the parser's first complaint, EngineBuildFailed.
    """
    import tensorrt as trt

    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx)):
        first = parser.get_error(0).desc() if parser.num_errors else "no reason given"
        raise DeterministicError("UnsupportedOperator", f"TensorRT cannot read {onnx.name}: {first}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, _WORKSPACE_BYTES)
    cache = config.create_timing_cache(timing_cache.read_bytes() if timing_cache.is_file() else b"")
    config.set_timing_cache(cache, ignore_mismatch=False)
    for profile in wanted:
        config.add_optimization_profile(_profile(builder, inputs, profile))
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise DeterministicError("EngineBuildFailed", f"TensorRT built no plan from {onnx.name}; its log says why")
    plan.write_bytes(bytes(serialized))
    timing_cache.write_bytes(bytes(config.get_timing_cache().serialize()))


def _profile(builder: Any, inputs: Sequence[str], wanted: Profile) -> Any:
    profile = builder.create_optimization_profile()
    for name in inputs:
        profile.set_shape(name, wanted.smallest, wanted.tuned, wanted.largest)
    return profile
