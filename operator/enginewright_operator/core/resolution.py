"""From a spec and the blocks of one rung to a recipe with no default left open, and what is measured about it."""

from __future__ import annotations

from enginewright_api.accelerator_class import AcceleratorClass
from enginewright_api.evidence import EvidenceRequest
from enginewright_api.operation_spec import Metric
from enginewright_api.optimization import Blocks, Distillation, Format, KvCacheFormat, Quantization, QuantizationMethod
from enginewright_api.optimized_model import OptimizedModelSpec
from enginewright_api.recipe import AcceleratorFacts, Recipe, Task
from enginewright_api.serving_spec import Backend
from enginewright_api.source import BuiltinDataset, Dataset
from enginewright_api.support import resolve_backend, resolve_method, resolve_metric

_DEFAULT_DATASETS = {
    Task.CLASSIFICATION: "reviews-en",
    Task.TOKEN_CLASSIFICATION: "valence-en",
    Task.RERANKING: "similarity-en",
}
"""What has labels of texts, labels of words, and scores of pairs; every other task reads news."""


def default_dataset(task: Task) -> Dataset:
    """Rows that a task is judged on, calibrated with and learns from, where the spec names none."""
    return Dataset(builtin=BuiltinDataset(name=_DEFAULT_DATASETS.get(task, "news-en")))


def facts_of(accelerator_class: AcceleratorClass) -> AcceleratorFacts:
    """What an engine depends on."""
    spec = accelerator_class.spec
    return AcceleratorFacts(
        accelerator_class=accelerator_class.metadata.name,
        vendor=spec.vendor,
        compute_capability=spec.compute_capability,
        architecture=spec.architecture,
        memory_gib=spec.memory_gib,
    )


def evidence_request(spec: OptimizedModelSpec) -> EvidenceRequest:
    """What is measured for this model."""
    quality = spec.quality
    return EvidenceRequest(
        dataset=quality.dataset or default_dataset(spec.task),
        metric=resolve_metric(spec.task) if quality.metric is Metric.AUTO else quality.metric,
        max_drop=quality.max_drop,
        confidence=quality.confidence,
        samples=quality.samples,
    )


def resolve_recipe(spec: OptimizedModelSpec, blocks: Blocks, facts: AcceleratorFacts) -> Recipe:
    """Blocks of one rung as a recipe with no default left open."""
    backend = _backend(spec, blocks.quantization, facts)
    return Recipe(
        source=spec.source,
        task=spec.task,
        distillation=_named(blocks.distillation, spec.task),
        pruning=blocks.pruning,
        training=_training(blocks, spec),
        low_rank=blocks.low_rank,
        quantization=_resolved(blocks.quantization, backend, spec.task),
        backend=backend,
        limits=spec.engine.limits,
        tensor_rt_llm=spec.engine.tensor_rt_llm,
        parallelism=spec.parallelism,
        speculative_decoding=spec.runtime.speculative_decoding,
        early_exit=spec.runtime.early_exit,
        fast_path=spec.runtime.fast_path,
    )


def _backend(spec: OptimizedModelSpec, quantization: Quantization | None, facts: AcceleratorFacts) -> Backend:
    if spec.engine.backend is not Backend.AUTO:
        return spec.engine.backend
    format_ = quantization.format if quantization is not None else Format.NONE
    method = quantization.method if quantization is not None else QuantizationMethod.AUTO
    return resolve_backend(spec.task, facts.vendor, facts.architecture, format_, method)


def _resolved(quantization: Quantization | None, backend: Backend, task: Task) -> Quantization | None:
    """Method chosen and calibration rows named. `format: None` says the same as no quantization at all."""
    if quantization is None:
        return None
    if quantization.format is Format.NONE and quantization.kv_cache_format is KvCacheFormat.AUTO:
        return None
    method = quantization.method
    if method is QuantizationMethod.AUTO:
        method = resolve_method(backend, quantization.format, task)
    calibration = quantization.calibration
    if calibration.dataset is None:
        calibration = calibration.model_copy(update={"dataset": default_dataset(task)})
    return quantization.model_copy(update={"method": method, "calibration": calibration})


def _named(distillation: Distillation | None, task: Task) -> Distillation | None:
    if distillation is None or distillation.dataset is not None:
        return distillation
    return distillation.model_copy(update={"dataset": default_dataset(task)})


def _training(blocks: Blocks, spec: OptimizedModelSpec) -> Dataset | None:
    """Rows that distillation, pruning and an early exit learn from."""
    pruning, task = blocks.pruning, spec.task
    if blocks.distillation is not None:
        return blocks.distillation.dataset or default_dataset(task)
    if spec.runtime.early_exit is None and (pruning is None or not pruning.looks_at_rows):
        return None
    calibration = blocks.quantization.calibration.dataset if blocks.quantization is not None else None
    return calibration or default_dataset(task)
