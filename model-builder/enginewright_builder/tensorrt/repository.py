"""The Triton model that holds a plan. Text comes in through the model in front of it, which tokenises."""

from __future__ import annotations

from enginewright_api.engine_description import EngineDescription
from enginewright_builder.tensorrt.profiles import profiles

PLAN_FILE = "1/model.plan"


def plan_model_name(model: str) -> str:
    """Name of the plan's model beside the one that clients call."""
    return f"{model}_engine"


def render_plan_config(model: str, engine: EngineDescription) -> str:
    """Text of config.pbtxt of the plan's model: ids in, vectors or scores out.

    Every profile is listed, else the server loads the first alone. There is no dynamic batching here: the model in
    front has batched already, and knows which texts are of one length.
    """
    limits = engine.limits
    inputs = ",\n".join(f'  {{ name: "{name}" data_type: TYPE_INT64 dims: [ -1 ] }}' for name in engine.inputs)
    listed = ", ".join(f'"{number}"' for number in range(len(profiles(limits))))
    return f"""name: "{plan_model_name(model)}"
platform: "tensorrt_plan"
default_model_filename: "model.plan"
max_batch_size: {limits.max_batch_size}
input [
{inputs}
]
output [
  {{ name: "{engine.output}" data_type: TYPE_FP32 dims: [ {engine.output_dimension} ] }}
]
instance_group [
  {{ count: 1 kind: KIND_GPU profile: [ {listed} ] }}
]
"""
