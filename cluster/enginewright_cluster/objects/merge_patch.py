"""JSON merge patch (RFC 7386)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .copying import copied


def merge_patch(target: Any, patch: Any) -> Any:
    """The target with the patch laid over it: null removes, objects merge, everything else replaces."""
    if not isinstance(patch, Mapping):
        return copied(patch)
    merged = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged
