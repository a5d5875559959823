"""`exclude` patterns: module names of the checkpoint, matched against the names that exporters give graph nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from enginewright_api.errors import DeterministicError


def excluded_nodes(modules: Mapping[str, str], patterns: Sequence[str]) -> list[str]:
    """Nodes (keys of `modules`: node name → module path) whose module matches a pattern, sorted.

    A pattern matches a module and everything below it: `encoder.layer.0` also excludes `encoder.layer.0.output.dense`.
    Raises DeterministicError for a pattern that matches nothing: it would be ignored silently otherwise.
    """
    found: set[str] = set()
    for pattern in patterns:
        matched = {node for node, module in modules.items() if _matches(module, pattern)}
        if not matched:
            examples = ", ".join(sorted(set(modules.values()))[:3])
            raise DeterministicError(
                "PatternMatchesNothing",
                f"optimization.quantization.exclude: {pattern!r} matches no quantisable module;"
                f" modules are {examples} …",
            )
        found |= matched
    return sorted(found)


def _matches(module: str, pattern: str) -> bool:
    parts = module.split(".")
    return any(fnmatchcase(prefix, pattern) for prefix in _prefixes(parts))


def _prefixes(parts: Sequence[str]) -> Iterable[str]:
    return (".".join(parts[: end + 1]) for end in range(len(parts)))
