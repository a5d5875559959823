"""`python -m enginewright_api.nvidia_reference docs/nvidia.md`: the version matrix as tables in a page.

What stands between the two marks is written; the rest of the page is left alone.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from enginewright_api.nvidia import Kernel, KvKernel, matrix
from enginewright_api.optimization import QuantizationMethod

BEGIN = "<!-- written by enginewright_api.nvidia_reference -->"
END = "<!-- end -->"


def tables() -> str:
    """Releases, GPUs and kernels as Markdown."""
    architectures = [
        (row.name, ", ".join(row.compute_capabilities))
        for row in matrix().architectures
    ]  # fmt: skip
    heads = [f"{name} ({capabilities})" for name, capabilities in architectures]
    names = [name for name, _ in architectures]
    releases = [
        (row.triton, row.tensorrt_llm, row.transformers or "not looked up", _flavors(row.tensorrt_llm))
        for row in matrix().releases
    ]
    decoders = [(_name(row), row.algorithm or "none", _ands(row), *_marks(row, names)) for row in matrix().tensorrt_llm]
    caches = [(row.format.value, row.algorithm, _ands(row), *_marks(row, names)) for row in matrix().kv_cache]
    encoders = [(_name(row), *_marks(row, names)) for row in matrix().tensorrt]
    parts = (
        "### Releases",
        _table(("Triton image", "TensorRT-LLM", "transformers", "flavours"), releases),
        "### Text generation: format and method → kernels",
        _table(("format", "`quant_algo`", "flavours", *heads), decoders),
        "### Key-value cache",
        _table(("format", "`kv_cache_quant_algo`", "flavours", *heads), caches),
        "### Encoders on TensorRT",
        _table(("format", *heads), encoders),
    )
    return "\n\n".join(parts)


def written(page: str) -> str:
    """The page with its tables renewed."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{tables()}\n\n{END}{after}"


def _name(row: Kernel) -> str:
    return row.format.value if row.method is QuantizationMethod.AUTO else f"{row.format.value} {row.method.value}"


def _ands(row: Kernel | KvKernel) -> str:
    return ", ".join(flavor.value for flavor in row.flavors)


def _flavors(tensorrt_llm: str) -> str:
    last = [int(part) for part in matrix().last_tensorrt_llm_with_engines.split(".")]
    engines = [int(part) for part in tensorrt_llm.split(".")] <= last
    return "PyTorch, Engine" if engines else "PyTorch"


def _marks(row: Kernel | KvKernel, names: Iterable[str]) -> list[str]:
    return ["yes" if name in row.architectures else "–" for name in names]


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(written(path.read_text(encoding="utf-8")), encoding="utf-8")
