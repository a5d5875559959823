"""Renders config.pbtxt of the served model. Pure: the same engine and batching give the same text."""

from __future__ import annotations

from enginewright_api.engine_description import TOKEN_LABELS, TOKEN_SCORES, TOKEN_SPANS, EngineDescription
from enginewright_api.errors import DeterministicError
from enginewright_api.recipe import Task
from enginewright_api.serving_spec import Backend, Batching, BatchingMode

GENERATION_BACKENDS = frozenset({Backend.OPENVINO, Backend.TORCH})
SCORE_TASKS = frozenset({Task.CLASSIFICATION, Task.RERANKING})
ENCODER_BACKENDS = frozenset({Backend.OPENVINO, Backend.ONNX_RUNTIME, Backend.TORCH})


def output_name(task: Task) -> str:
    """Name of the served model's first output."""
    if task is Task.TOKEN_CLASSIFICATION:
        return TOKEN_SCORES
    return "scores" if task in SCORE_TASKS else "embedding"


def input_names(task: Task) -> tuple[str, ...]:
    """Names of an encoder's inputs: a reranker reads a query (`text`) and what is ranked for it (`text_pair`)."""
    return ("text", "text_pair") if task is Task.RERANKING else ("text",)


def render_model_config(model: str, engine: EngineDescription, batching: Batching) -> str:
    """Text of config.pbtxt. Raises DeterministicError for what this server cannot run."""
    if engine.task is Task.TEXT_GENERATION:
        return _render_generation(model, engine, batching)
    if engine.backend not in ENCODER_BACKENDS:
        raise DeterministicError(
            "FeatureNotAvailable", f"engine.json: backend {engine.backend}: this server runs {_names(ENCODER_BACKENDS)}"
        )
    batch = _max_batch_size(engine, batching)
    inputs = ",\n".join(
        f'  {{ name: "{name}" data_type: TYPE_STRING dims: [ 1 ] }}' for name in input_names(engine.task)
    )
    # max_batch_size and decoupled are written out: without them the server would ask the model's code, which it does
    # not when automatic completion is off.
    return f"""name: "{model}"
backend: "python"
max_batch_size: {batch}
input [
{inputs}
]
output [
{_outputs(engine)}
  {{ name: "tokens" data_type: TYPE_INT32 dims: [ 1 ] }}
]
instance_group [
  {{ count: 1 kind: KIND_CPU }}
]
model_transaction_policy {{ decoupled: false }}
{_dynamic_batching(batching, batch)}"""


def _outputs(engine: EngineDescription) -> str:
    size = engine.output_dimension
    if engine.task is Task.TOKEN_CLASSIFICATION:
        found = [
            (TOKEN_SCORES, "FP32", f"-1, {size}"),
            (TOKEN_SPANS, "INT32", "-1, 2"),
            (TOKEN_LABELS, "STRING", "-1"),
        ]
    else:
        found = [(output_name(engine.task), "FP32", str(size))]
    return "\n".join(f'  {{ name: "{name}" data_type: TYPE_{kind} dims: [ {dims} ] }},' for name, kind, dims in found)


MAX_REQUESTS = "max_requests"
MAX_QUEUE_SIZE = "max_queue_size"
STREAM_INTERVAL = "stream_interval"
"""Parameters of text generation: answers generated together, and those that may wait beyond them."""

_GENERATION_INPUTS = (
    ("text_input", "STRING"),
    ("messages", "STRING"),
    ("tools", "STRING"),
    ("streaming", "BOOL"),
    ("echo", "BOOL"),
    ("sampling_param_max_tokens", "INT32"),
    ("sampling_param_temperature", "FP32"),
    ("sampling_param_top_k", "INT32"),
    ("sampling_param_top_p", "FP32"),
    ("sampling_param_seed", "UINT64"),
    ("sampling_param_stop", "STRING"),
    ("sampling_param_frequency_penalty", "FP32"),
    ("sampling_param_presence_penalty", "FP32"),
    ("sampling_param_logprobs", "INT32"),
    ("sampling_param_n", "INT32"),
)
"""Inputs of text generation, all optional and of one value, named as TensorRT-LLM's `llmapi` model names them."""

_GENERATION_OUTPUTS = (
    ("text_output", "STRING", 1),
    ("finish_reason", "STRING", 1),
    ("index", "INT32", 1),
    ("prompt_tokens", "INT32", 1),
    ("completion_tokens", "INT32", 1),
    ("cached_tokens", "INT32", 1),
    ("token_ids", "INT32", -1),
    ("logprobs", "FP32", -1),
    ("token_bytes", "STRING", -1),
)


def _render_generation(model: str, engine: EngineDescription, batching: Batching) -> str:
    """One prompt a request, answered in several responses; the engine batches by itself, so Triton must not."""
    if engine.backend not in GENERATION_BACKENDS:
        raise DeterministicError(
            "FeatureNotAvailable",
            f"engine.json: backend {engine.backend}: this server generates with {_names(GENERATION_BACKENDS)}",
        )
    if batching.mode not in (BatchingMode.AUTO, BatchingMode.CONTINUOUS):
        raise DeterministicError(
            "FeatureNotAvailable",
            f"batching.mode: {batching.mode} is for encoders; text generation has Auto and Continuous",
        )
    for field, value in (
        ("preferredBatchSizes", batching.preferred_batch_sizes),
        ("maxQueueDelayMicroseconds", batching.max_queue_delay_microseconds),
    ):
        if value:
            raise DeterministicError(
                "FeatureNotAvailable", f"batching.{field}: has no effect on continuous batching; leave it out"
            )
    inputs = ",\n".join(
        f'  {{ name: "{name}" data_type: TYPE_{kind} dims: [ 1 ] optional: true }}' for name, kind in _GENERATION_INPUTS
    )
    outputs = ",\n".join(
        f'  {{ name: "{name}" data_type: TYPE_{kind} dims: [ {size} ] }}' for name, kind, size in _GENERATION_OUTPUTS
    )
    return f"""name: "{model}"
backend: "python"
max_batch_size: 0
input [
{inputs}
]
output [
{outputs}
]
instance_group [
  {{ count: 1 kind: KIND_CPU }}
]
model_transaction_policy {{ decoupled: true }}
parameters [
  {{ key: "{MAX_REQUESTS}" value: {{ string_value: "{_max_batch_size(engine, batching)}" }} }},
  {{ key: "{MAX_QUEUE_SIZE}" value: {{ string_value: "{batching.max_queue_size}" }} }},
  {{ key: "{STREAM_INTERVAL}" value: {{ string_value: "{batching.stream_interval or 0}" }} }}
]
"""


def _max_batch_size(engine: EngineDescription, batching: Batching) -> int:
    wanted = batching.max_batch_size or engine.limits.max_batch_size
    if wanted > engine.limits.max_batch_size:
        raise DeterministicError(
            "BatchTooLarge",
            f"batching.maxBatchSize: {wanted}, but the engine takes at most {engine.limits.max_batch_size}"
            " (engine.limits.maxBatchSize)",
        )
    return wanted


def _dynamic_batching(batching: Batching, batch: int) -> str:
    """No queue policy: with a bound or a timeout of its own, Triton's batcher looks for an idle instance before it
    prepares the next batch, is not told when there is one, and lets what arrived meanwhile wait for up to half a second
    (`python -m benchmarks.queue_policy`). The gateway keeps both bounds, and sends few enough to fit them.
    """
    if batching.mode is BatchingMode.CONTINUOUS:
        raise DeterministicError(
            "FeatureNotAvailable", "batching.mode: Continuous is for text generation; use Auto or Dynamic for encoders"
        )
    if batching.mode is BatchingMode.NONE:
        return ""
    too_large = [size for size in batching.preferred_batch_sizes if size > batch]
    if too_large:
        raise DeterministicError(
            "BatchTooLarge", f"batching.preferredBatchSizes: {too_large[0]} is more than the largest batch, {batch}"
        )
    preferred = ", ".join(str(size) for size in batching.preferred_batch_sizes)
    lines = [
        *([f"  preferred_batch_size: [ {preferred} ]"] if preferred else []),
        f"  max_queue_delay_microseconds: {batching.max_queue_delay_microseconds}",
    ]
    return "dynamic_batching {\n" + "\n".join(lines) + "\n}\n"


def _names(values: frozenset[Backend]) -> str:
    return ", ".join(sorted(value.value for value in values))
