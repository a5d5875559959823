"""What can be built today: backend × task × format × method, and what Auto stands for.

One table, read by the operator (to refuse up front), by the builder (to refuse in any case) and by the docs.
Field paths are those of OptimizedModel.spec, because that is what the user has to change.
"""

from __future__ import annotations

from dataclasses import dataclass

from enginewright_api.cpu import computes_bf16
from enginewright_api.evidence import EvidenceRequest
from enginewright_api.nvidia_support import BACKENDS as NVIDIA_BACKENDS
from enginewright_api.nvidia_support import nvidia_rows, unavailable_on_nvidia
from enginewright_api.operation_spec import Metric
from enginewright_api.optimization import (
    Distillation,
    Format,
    Granularity,
    KvCacheFormat,
    Quantization,
    QuantizationMethod,
)
from enginewright_api.recipe import AcceleratorFacts, Recipe, Task
from enginewright_api.serving_spec import Backend, Limits, Parallelism, SpeculativeDecoding, SpeculativeMethod
from enginewright_api.source import Columns, Dataset, ObjectStoreSource, Source
from enginewright_api.transform_support import training_columns, unavailable_exit, unavailable_transforms
from enginewright_api.weight_support import (
    FEW_BITS,
    WEIGHT_ONLY_INT8,
    WEIGHT_ROWS,
    unavailable_mixture,
    unavailable_weights,
)

Unavailable = tuple[str, str]
"""(field path, one sentence)."""


@dataclass(frozen=True, slots=True)
class Support:
    """One row: what a backend makes of a format on the accelerators of a vendor."""

    backend: Backend
    vendor: str
    tasks: frozenset[Task]
    format: Format
    methods: tuple[QuantizationMethod, ...]
    """Empty for formats without scales; the first is what Auto stands for."""


_ENCODERS = frozenset({Task.EMBEDDING, Task.CLASSIFICATION, Task.TOKEN_CLASSIFICATION, Task.RERANKING})
_GPU_ENCODERS = frozenset({Task.EMBEDDING, Task.CLASSIFICATION})
_GENERATES = frozenset({Task.TEXT_GENERATION})
_METHOD = QuantizationMethod

SUPPORTED: tuple[Support, ...] = (
    Support(Backend.OPENVINO, "cpu", _ENCODERS, Format.NONE, ()),
    Support(Backend.OPENVINO, "cpu", _ENCODERS, Format.FP16, ()),
    Support(Backend.OPENVINO, "cpu", _ENCODERS, Format.BF16, ()),
    # Plain MinMax is what NNCF does without smoothing; on BERT-like encoders smoothing keeps the outlier channels.
    Support(
        Backend.OPENVINO,
        "cpu",
        _ENCODERS,
        Format.INT8,
        (_METHOD.SMOOTH_QUANT, _METHOD.MIN_MAX, _METHOD.HISTOGRAM, _METHOD.PERCENTILE, _METHOD.QAT, *WEIGHT_ONLY_INT8),
    ),
    *(Support(Backend.OPENVINO, "cpu", _ENCODERS, *row) for row in WEIGHT_ROWS),
    Support(Backend.ONNX_RUNTIME, "cpu", _ENCODERS, Format.NONE, ()),
    Support(
        Backend.ONNX_RUNTIME,
        "cpu",
        _ENCODERS,
        Format.INT8,
        (_METHOD.DYNAMIC, _METHOD.MIN_MAX, _METHOD.ENTROPY, _METHOD.PERCENTILE, _METHOD.QAT, *WEIGHT_ONLY_INT8),
    ),
    *(Support(Backend.ONNX_RUNTIME, "cpu", _ENCODERS, *row) for row in WEIGHT_ROWS),
    Support(Backend.TORCH, "cpu", _ENCODERS, Format.NONE, ()),
    Support(Backend.OPENVINO, "cpu", _GENERATES, Format.NONE, ()),
    Support(Backend.OPENVINO, "cpu", _GENERATES, Format.FP16, ()),
    Support(Backend.OPENVINO, "cpu", _GENERATES, Format.BF16, ()),
    # Weights alone are stored in 8 or 4 bits; the runtime quantises activations as they come.
    Support(Backend.OPENVINO, "cpu", _GENERATES, Format.INT8, (_METHOD.DYNAMIC,)),
    *(Support(Backend.OPENVINO, "cpu", _GENERATES, *row) for row in WEIGHT_ROWS),
    Support(Backend.TORCH, "cpu", _GENERATES, Format.NONE, ()),
    *(Support(Backend.TENSORRT, "nvidia", _GPU_ENCODERS, *row) for row in nvidia_rows(Backend.TENSORRT)),
    *(Support(Backend.TENSORRT_LLM, "nvidia", _GENERATES, *row) for row in nvidia_rows(Backend.TENSORRT_LLM)),
)
"""Order is preference: Auto takes the first row that fits."""

METRICS: dict[Task, tuple[Metric, ...]] = {
    Task.EMBEDDING: (Metric.COSINE_SIMILARITY, Metric.SPEARMAN_CORRELATION),
    Task.CLASSIFICATION: (Metric.ACCURACY, Metric.F1),
    # Most words are outside of entities: an engine that finds none of them still has most words right.
    Task.TOKEN_CLASSIFICATION: (Metric.F1, Metric.ACCURACY),
    # nDCG counts queries, and the builtin set has 49: too few for a budget of some per cent.
    Task.RERANKING: (Metric.SPEARMAN_CORRELATION, Metric.NDCG),
    Task.TEXT_GENERATION: (Metric.PERPLEXITY, Metric.TOKEN_AGREEMENT),
}
"""Metrics that can be measured; the first is what Auto stands for."""

BUILTIN_DATASETS: dict[str, frozenset[Task]] = {
    "news-en": frozenset({Task.EMBEDDING, Task.TEXT_GENERATION}),
    "reviews-en": frozenset({Task.EMBEDDING, Task.CLASSIFICATION}),
    "similarity-en": frozenset({Task.EMBEDDING, Task.RERANKING}),
    "valence-en": frozenset({Task.TOKEN_CLASSIFICATION}),
}
"""Sets that come with the builder and the tasks they can judge."""

_SCORED_DATASETS = ("similarity-en",)
"""Those with human scores of pairs."""

_READ_BY: dict[Metric, frozenset[str]] = {
    Metric.COSINE_SIMILARITY: frozenset({"text", "text_pair"}),
    Metric.SPEARMAN_CORRELATION: frozenset({"text", "text_pair", "score"}),
    Metric.NDCG: frozenset({"text", "text_pair", "score"}),
    Metric.ACCURACY: frozenset({"text", "label"}),
    Metric.F1: frozenset({"text", "label"}),
    Metric.PERPLEXITY: frozenset({"text"}),
    Metric.TOKEN_AGREEMENT: frozenset({"text"}),
}
"""Columns that each metric reads."""

_ROWS_OF = {
    Task.RERANKING: ("scores", "text, textPair and score"),
    Task.TOKEN_CLASSIFICATION: ("labels of words", "lists of words as text and of their labels as label"),
    Task.EMBEDDING: ("running text", "text"),
    Task.TEXT_GENERATION: ("running text", "text"),
}
"""What a builtin set may lack for a task, and the columns of rows that have it."""

_SCALED = (Format.INT8, Format.INT4, Format.INT2, Format.MIXED)
"""Formats whose values have scales that modules can be excluded from."""

_NO_DRAFTER = {
    SpeculativeMethod.EAGLE3: "a head that reads the model's hidden states cannot be exported yet",
    SpeculativeMethod.MTP: "transformers leaves a checkpoint's prediction layers out, so nothing exports them",
}
"""Drafters that no CPU engine has, and why."""

_GPU_BACKENDS = {Task.TEXT_GENERATION: Backend.TENSORRT_LLM}


def resolve_backend(
    task: Task,
    vendor: str,
    architecture: str = "",
    format: Format = Format.NONE,  # noqa: A002 - the field's name
    method: QuantizationMethod = QuantizationMethod.AUTO,
) -> Backend:
    """What backend `Auto` stands for: the first row of the table that fits.

    Where no row fits, the backend that would be responsible is named, so that `unavailable` can say what is missing.
    OpenVINO comes first on every CPU: it is the fastest there (measured on x86 with VNNI; on others it is the only
    one with static INT8 kernels), so `architecture` decides nothing yet.
    """
    for row in SUPPORTED:
        if row.vendor == vendor and task in row.tasks and row.format is format and _method_fits(row, method):
            return row.backend
    if vendor == "nvidia":
        return _GPU_BACKENDS.get(task, Backend.TENSORRT)
    return Backend.OPENVINO


def resolve_method(backend: Backend, format: Format, task: Task = Task.EMBEDDING) -> QuantizationMethod:  # noqa: A002
    """What method `Auto` stands for. Formats without scales keep Auto: there is nothing to choose."""
    for row in SUPPORTED:
        if row.backend is backend and task in row.tasks and row.format is format and row.methods:
            return row.methods[0]
    return QuantizationMethod.AUTO


def resolve_kv_cache(quantization: Quantization | None) -> KvCacheFormat | None:
    """What kvCacheFormat `Auto` stands for on OpenVINO: nothing is lost that was not asked for. None is float32.

    Left to the runtime it would be 8 bits.
    """
    if quantization is None:
        return None
    if quantization.kv_cache_format is not KvCacheFormat.AUTO:
        return quantization.kv_cache_format
    return None if quantization.format is Format.NONE else KvCacheFormat.FP16


def calibrates(quantization: Quantization) -> bool:
    """Whether scales are found by looking at rows."""
    if quantization.format is Format.MIXED:
        return True
    if quantization.method in (_METHOD.AUTO, _METHOD.DYNAMIC):
        return False
    weight_only = quantization.format in (Format.INT4, Format.INT2)
    return not (weight_only and quantization.method is _METHOD.MIN_MAX)


def toolchain_of(task: Task, backend: Backend) -> str:
    """Name of the toolchain that exports, quantises and compiles; `default` is the builder's own environment."""
    if backend in (Backend.TENSORRT_LLM, Backend.TENSORRT):
        return "modelopt"
    if task is Task.TEXT_GENERATION and backend is Backend.OPENVINO:
        return "optimum"
    return "default"


def resolve_metric(task: Task) -> Metric:
    """What metric `Auto` stands for."""
    return METRICS[task][0]


def unavailable(recipe: Recipe, accelerator: AcceleratorFacts | None = None) -> list[Unavailable]:
    """Every field of a resolved recipe that nothing implements yet; empty when it can be built.

    With `accelerator`, also what that class of accelerator lacks.
    """
    vendor = accelerator.vendor if accelerator is not None else "cpu"
    on_gpu = accelerator is not None and vendor == "nvidia" and recipe.backend in NVIDIA_BACKENDS
    found = [
        *_blocks(recipe, on_gpu=on_gpu),
        *([] if on_gpu else _drafting(recipe)),
        *unavailable_transforms(recipe),
        *_source("source", recipe.source),
        *_distillation(recipe.distillation),
        *_limits(recipe),
        *_engine(recipe, vendor),
    ]
    quantization = recipe.quantization
    if on_gpu and accelerator is not None:
        calibrated = quantization is not None and calibrates(quantization)
        found += unavailable_on_nvidia(recipe, accelerator, calibrated=calibrated)
        return [*found, *_calibration_rows(quantization, recipe.task)]
    found += _parallelism(recipe.parallelism)
    if recipe.quantization is not None:
        found += _quantization(recipe.quantization, recipe.task)
        found += _bf16(recipe.quantization, accelerator)
    return found


def unavailable_evidence(task: Task, evidence: EvidenceRequest) -> list[Unavailable]:
    """Every field of an evidence request that cannot be measured yet."""
    found = _dataset("quality.dataset", evidence.dataset)
    metrics = METRICS[task]
    if evidence.metric in _READ_BY:
        reader = f"metric {evidence.metric.value}"
        found += _columns("quality.dataset", evidence.dataset, _READ_BY[evidence.metric], reader)
    if evidence.metric not in metrics:
        names = ", ".join(metric.value for metric in metrics)
        found.append(
            ("quality.metric", f"metric {evidence.metric.value} is not available for task {task.value}; use {names}")
        )
    builtin = evidence.dataset.builtin
    if builtin is not None and evidence.metric is Metric.SPEARMAN_CORRELATION and builtin.name not in _SCORED_DATASETS:
        names = ", ".join(_SCORED_DATASETS)
        found.append(
            ("quality.metric", f"builtin set {builtin.name} has no scores for metric SpearmanCorrelation; use {names}")
        )
    if builtin is not None and builtin.name in BUILTIN_DATASETS and task not in BUILTIN_DATASETS[builtin.name]:
        lacks, wanted = _ROWS_OF.get(task, ("labels", "text and label"))
        found.append(
            (
                "quality.dataset",
                f"builtin set {builtin.name} has no {lacks} for task {task.value}; give a data set with {wanted}",
            )
        )
    return found


def _method_fits(row: Support, method: QuantizationMethod) -> bool:
    return method is QuantizationMethod.AUTO or method in row.methods


def _blocks(recipe: Recipe, *, on_gpu: bool) -> list[Unavailable]:
    blocks: tuple[tuple[str, object, str], ...] = (
        ("engine.tensorRTLLM", None if on_gpu else recipe.tensor_rt_llm, "TensorRT-LLM"),
    )
    found = [(path, f"{what} is not available yet; leave it out") for path, block, what in blocks if block is not None]
    found += unavailable_exit(recipe)
    if recipe.fast_path is not None and recipe.backend is not Backend.OPENVINO:
        sentence = f"a fast path for short inputs is not available with backend {recipe.backend.value}; use OpenVINO"
        found.append(("runtime.fastPath", sentence))
    return found


def _drafting(recipe: Recipe) -> list[Unavailable]:
    """Speculative decoding on a CPU."""
    wanted, field = recipe.speculative_decoding, "runtime.speculativeDecoding"
    if wanted is None:
        return []
    if recipe.task is not Task.TEXT_GENERATION:
        return [(field, "has no effect without text generation; leave it out")]
    if recipe.backend is not Backend.OPENVINO:
        return [(field, f"is not available with backend {recipe.backend.value}; use OpenVINO")]
    if wanted.method in _NO_DRAFTER:
        name, why = wanted.method.value, _NO_DRAFTER[wanted.method]
        return [(f"{field}.method", f"method {name} is not available on CPUs: {why}; use DraftModel or NGram")]
    return _draft_source(f"{field}.draft", wanted)


def _draft_source(path: str, wanted: SpeculativeDecoding) -> list[Unavailable]:
    """A builder may be given a recipe that no API server has seen, so what the rules say is said here as well."""
    drafts = wanted.method is SpeculativeMethod.DRAFT_MODEL
    if wanted.draft is None:
        return [(path, "needed with method DraftModel; give the source of a smaller model")] if drafts else []
    if not drafts:
        return [(path, f"has no effect with method {wanted.method.value}; leave it out")]
    return _source(f"{path}.source", wanted.draft.source)


def _distillation(distillation: Distillation | None) -> list[Unavailable]:
    if distillation is None:
        return []
    where, student = "optimization.distillation", distillation.student.source
    found = _source(f"{where}.student.source", student) if student is not None else []
    rows = distillation.dataset
    if rows is not None:
        found += [*_dataset(f"{where}.dataset", rows), *training_columns(f"{where}.dataset", rows)]
    return found


def _source(path: str, source: Source) -> list[Unavailable]:
    if source.oci is not None:
        return [(f"{path}.oci", "OCI sources are not available yet; use huggingFace, objectStore or a volume")]
    return _object_store(f"{path}.objectStore", source.object_store)


def _object_store(path: str, source: ObjectStoreSource | None) -> list[Unavailable]:
    if source is None or source.uri.startswith(("s3://", "file://")):
        return []
    scheme = source.uri.partition("://")[0]
    return [(f"{path}.uri", f"{scheme}:// is not available yet; use s3:// or file://")]


def _dataset(path: str, dataset: Dataset) -> list[Unavailable]:
    if dataset.builtin is not None and dataset.builtin.name not in BUILTIN_DATASETS:
        names = ", ".join(sorted(BUILTIN_DATASETS))
        return [(f"{path}.builtin.name", f"there is no builtin set {dataset.builtin.name}; there is {names}")]
    return _object_store(f"{path}.objectStore", dataset.object_store)


def _columns(path: str, dataset: Dataset, read: frozenset[str], reader: str) -> list[Unavailable]:
    """Columns that are named and then read by nobody."""
    columns = dataset.columns
    if dataset.builtin is not None:
        if columns == Columns():
            return []
        return [(f"{path}.columns", "has no effect on a builtin set; leave it out")]
    fields = (("text_pair", "textPair"), ("label", "label"), ("score", "score"))
    return [
        (f"{path}.columns.{shown}", f"is not read by {reader}; leave it out")
        for name, shown in fields
        if getattr(columns, name) is not None and name not in read
    ]


def _limits(recipe: Recipe) -> list[Unavailable]:
    default = Limits.model_fields["max_output_tokens"].default
    if recipe.task is Task.TEXT_GENERATION or recipe.limits.max_output_tokens == default:
        return []
    return [("engine.limits.maxOutputTokens", f"has no effect with task {recipe.task.value}; leave it out")]


def _parallelism(parallelism: Parallelism) -> list[Unavailable]:
    return [
        (f"parallelism.{name}", f"{name} parallelism is not available yet; leave it at 1 and use replicas")
        for name in ("tensor", "pipeline", "expert", "context")
        if getattr(parallelism, name) != 1
    ]


def _engine(recipe: Recipe, vendor: str) -> list[Unavailable]:
    backend = recipe.backend
    rows = [row for row in SUPPORTED if row.backend is backend and recipe.task in row.tasks]
    if not rows:
        able = [row for row in SUPPORTED if recipe.task in row.tasks]
        names = ", ".join(dict.fromkeys(row.backend.value for row in able))
        others = dict.fromkeys(row.vendor for row in able)
        where = "" if vendor in others else f" on a class of vendor {', '.join(others)}"
        task = recipe.task.value
        return [("engine.backend", f"backend {backend.value} is not available for task {task} yet; use {names}{where}")]
    vendors = ", ".join(dict.fromkeys(row.vendor for row in rows))
    rows = [row for row in rows if row.vendor == vendor]
    if not rows:
        return [
            (
                "hardware.acceleratorClasses",
                f"backend {backend.value} runs on vendor {vendors}, not on {vendor}; choose another class or backend",
            )
        ]
    quantization = recipe.quantization
    wanted = quantization.format if quantization is not None else Format.NONE
    row = next((row for row in rows if row.format is wanted), None)
    if row is None:
        names = ", ".join(row.format.value for row in rows)
        return [
            (
                "optimization.quantization.format",
                f"format {wanted.value} is not available with backend {backend.value}; it has {names}",
            )
        ]
    if quantization is not None and row.methods and quantization.method not in row.methods:
        names = ", ".join(method.value for method in row.methods)
        return [
            (
                "optimization.quantization.method",
                f"method {quantization.method.value} is not available for {wanted.value}"
                f" with backend {backend.value}; it has {names}",
            )
        ]
    return []


def _quantization(quantization: Quantization, task: Task) -> list[Unavailable]:
    generates = task is Task.TEXT_GENERATION
    if generates:
        found = [*_granularity(quantization), *unavailable_mixture(quantization)]
    else:
        found = unavailable_weights(quantization)
    found += _kv_cache(quantization, generates=generates)
    where = "optimization.quantization"
    if quantization.exclude and quantization.format not in _SCALED:
        found.append(
            (f"{where}.exclude", f"exclude has no effect with format {quantization.format.value}; leave it out")
        )
    return [*found, *_calibration_rows(quantization, task)]


def _calibration_rows(quantization: Quantization | None, task: Task) -> list[Unavailable]:
    rows = quantization.calibration.dataset if quantization is not None else None
    if rows is None:
        return []
    path = "optimization.quantization.calibration.dataset"
    read = frozenset({"text", "text_pair"} if task is Task.RERANKING else {"text"})
    return [*_dataset(path, rows), *_columns(path, rows, read, "calibration")]


def _granularity(quantization: Quantization) -> list[Unavailable]:
    """Of text generation."""
    field, granularity, format_ = "optimization.quantization.granularity", quantization.granularity, quantization.format
    if granularity is Granularity.PER_CHANNEL:
        return []
    if format_ not in _SCALED:
        return [(field, f"granularity has no effect with format {format_.value}; leave it out")]
    if granularity is Granularity.PER_TENSOR:
        return [(field, "granularity PerTensor is not available for text generation; use PerChannel or PerGroup")]
    if format_ not in FEW_BITS:
        return [(field, f"granularity PerGroup is not available with format {format_.value}; use PerChannel")]
    return []


def _kv_cache(quantization: Quantization, *, generates: bool) -> list[Unavailable]:
    field, format_ = "optimization.quantization.kvCacheFormat", quantization.kv_cache_format
    if format_ is KvCacheFormat.AUTO:
        return []
    if not generates:
        return [(field, "kvCacheFormat has no effect without text generation; leave it out")]
    if format_ is KvCacheFormat.FP8:
        return [(field, "kvCacheFormat FP8 is not available on CPUs; use INT8 or FP16")]
    return []


def _bf16(quantization: Quantization, accelerator: AcceleratorFacts | None) -> list[Unavailable]:
    if quantization.format is not Format.BF16 or accelerator is None:
        return []
    if computes_bf16(accelerator.architecture):
        return []
    name = accelerator.accelerator_class
    return [
        (
            "optimization.quantization.format",
            f"accelerator class {name} does not compute in BF16: its architecture"
            f" ({accelerator.architecture or 'not given'}) names none of bf16, amx and zen4",
        )
    ]
