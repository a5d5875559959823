"""What has to be written so that a status becomes another one: nothing, in a steady state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .reading import mapping


def status_patch(observed: object, wanted: Mapping[str, Any], *, foreign: tuple[str, ...] = ()) -> dict[str, Any]:
    """JSON merge patch (RFC 7386) from `observed` to `wanted`; keys in `foreign` have another writer."""
    observed = mapping(observed)
    patch = {key: _changed(observed.get(key), value) for key, value in wanted.items() if observed.get(key) != value}
    gone = {key: None for key in observed if key not in wanted}
    return {key: value for key, value in {**patch, **gone}.items() if key not in foreign}


def _changed(observed: Any, wanted: Any) -> Any:
    """Objects are merged by the server, so keys that go must be said."""
    if not isinstance(observed, Mapping) or not isinstance(wanted, Mapping):
        return wanted
    return status_patch(observed, wanted)
