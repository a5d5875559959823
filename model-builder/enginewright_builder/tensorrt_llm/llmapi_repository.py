"""Triton's `llmapi` model: config.pbtxt and 1/model.yaml. Its code, model.py and helpers.py, is the image's own."""

from __future__ import annotations

from collections.abc import Sequence

from enginewright_builder.tensorrt_llm.llm_arguments import LlmArguments

MODEL = "tensorrt_llm"
CODE = f"/app/all_models/llmapi/{MODEL}/1"
"""Where NVIDIA's image keeps model.py and helpers.py."""

_INPUTS = (
    ("text_input", "STRING", -1),
    ("streaming", "BOOL", 1),
    ("stop", "BOOL", 1),
    ("sampling_param_max_tokens", "INT32", 1),
    ("sampling_param_temperature", "FP32", 1),
    ("sampling_param_top_k", "INT32", 1),
    ("sampling_param_top_p", "FP32", 1),
    ("sampling_param_seed", "UINT64", 1),
    ("sampling_param_stop", "STRING", -1),
    ("sampling_param_frequency_penalty", "FP32", 1),
    ("sampling_param_presence_penalty", "FP32", 1),
    ("sampling_param_return_perf_metrics", "BOOL", 1),
    ("sampling_param_exclude_input_from_output", "BOOL", 1),
    ("lora_id", "UINT64", 1),
    ("lora_name", "STRING", 1),
    ("lora_path", "STRING", 1),
)
_REQUIRED = "text_input"


def render_llmapi_config(*, decoupled: bool = True, gpus: Sequence[Sequence[int]] = ()) -> str:
    """Text of config.pbtxt; `gpus` are the devices of each instance, where there is more than one instance.

    max_batch_size and decoupled are written out as well as in model.yaml: the launcher of the image turns automatic
    completion off, and then the model's code is never asked for them.
    """
    inputs = ",\n".join(_input(name, kind, size) for name, kind, size in _INPUTS)
    devices = ";".join(",".join(str(gpu) for gpu in instance) for instance in gpus)
    placed = f'parameters {{ key: "gpu_device_ids" value: {{ string_value: "{devices}" }} }}\n' if len(gpus) > 1 else ""
    return f"""name: "{MODEL}"
backend: "python"
max_batch_size: 0
model_transaction_policy {{ decoupled: {str(decoupled).lower()} }}
input [
{inputs}
]
output [
  {{ name: "text_output" data_type: TYPE_STRING dims: [ -1 ] }}
]
instance_group [
  {{ count: {max(1, len(gpus))} kind: KIND_CPU }}
]
{placed}"""


def render_llmapi_model(
    arguments: LlmArguments, *, decoupled: bool = True, cancellation_check_period_ms: int = 100
) -> str:
    """Text of 1/model.yaml: LLM arguments and what the model's code tells Triton."""
    return arguments.to_yaml(
        triton_config={
            "max_batch_size": 0,
            "decoupled": decoupled,
            "cancellation_check_period_ms": cancellation_check_period_ms,
        }
    )


def _input(name: str, kind: str, size: int) -> str:
    optional = "" if name == _REQUIRED else " optional: true"
    return f'  {{ name: "{name}" data_type: TYPE_{kind} dims: [ {size} ]{optional} }}'
