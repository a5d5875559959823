"""The demo's table: the untouched model beside the engine."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table

from enginewright_api.engine_build import MeasuredEvidence
from enginewright_api.evidence import Measurement


def comparison(evidence: MeasuredEvidence, *, engine: str, batch_sizes: Sequence[int] = (1, 32)) -> Table:
    """Latency p50 and p95, throughput, size and quality of both; batch sizes that were not measured are left out."""
    benchmark, quality = evidence.benchmark, evidence.quality
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("")
    for column in ("baseline (PyTorch fp32)", engine, "ratio"):
        table.add_column(column, justify="right")
    generated = [measurement for measurement in benchmark.measurements if measurement.output_tokens]
    for measurement in generated:
        _add_generated(table, measurement)
    for measurement in [] if generated else _longest(benchmark.measurements, batch_sizes):
        shape = f"batch {measurement.batch_size} × {measurement.tokens} tokens"
        table.add_row(
            f"latency p50, {shape}",
            f"{measurement.baseline_p50_milliseconds:.1f} ms",
            f"{measurement.p50_milliseconds:.1f} ms",
            f"{measurement.speedup:.2f}×",
        )
        table.add_row(
            f"latency p95, {shape}",
            f"{measurement.baseline_p95_milliseconds:.1f} ms",
            f"{measurement.p95_milliseconds:.1f} ms",
            f"{measurement.baseline_p95_milliseconds / measurement.p95_milliseconds:.2f}×",
        )
        table.add_row(
            f"throughput, {shape}",
            f"{measurement.baseline_throughput_per_second:.0f}/s",
            f"{measurement.throughput_per_second:.0f}/s",
            f"{measurement.throughput_per_second / measurement.baseline_throughput_per_second:.2f}×",
        )
    table.add_row(
        "size",
        f"{benchmark.baseline_size_bytes / 1e6:.1f} MB",
        f"{benchmark.size_bytes / 1e6:.1f} MB",
        f"{benchmark.baseline_size_bytes / benchmark.size_bytes:.2f}×",
    )
    table.add_row(
        f"quality ({quality.metric.value}, {quality.samples} rows)",
        f"{quality.baseline:.4f}",
        f"{quality.optimized:.4f}",
        f"drop ≤ {quality.drop_upper_bound:.4f} of {quality.max_drop:g} allowed",
    )
    return table


def _add_generated(table: Table, measurement: Measurement) -> None:
    """Rows of one number of streams; throughput is in answers a second, so tokens are that times their length."""
    tokens = measurement.output_tokens or 0
    shape = f"{measurement.batch_size} stream{'s' if measurement.batch_size > 1 else ''}"
    before, after = measurement.baseline_throughput_per_second, measurement.throughput_per_second
    table.add_row(
        f"tokens a second, {shape}", f"{before * tokens:.0f}/s", f"{after * tokens:.0f}/s", f"{after / before:.2f}×"
    )
    slow, fast = measurement.baseline_first_token_milliseconds, measurement.first_token_milliseconds
    if slow and fast:
        table.add_row(f"first token p50, {shape}", f"{slow:.0f} ms", f"{fast:.0f} ms", f"{slow / fast:.2f}×")
    table.add_row(
        f"answer of {tokens} tokens p50, {shape}",
        f"{measurement.baseline_p50_milliseconds:.0f} ms",
        f"{measurement.p50_milliseconds:.0f} ms",
        f"{measurement.speedup:.2f}×",
    )


def _longest(measurements: Sequence[Measurement], batch_sizes: Sequence[int]) -> list[Measurement]:
    """For each batch size the measurement with the longest inputs."""
    chosen = []
    for size in batch_sizes:
        fitting = [measurement for measurement in measurements if measurement.batch_size == size]
        if fitting:
            chosen.append(max(fitting, key=lambda measurement: measurement.tokens))
    return chosen
