"""Does an observed object still say what we rendered? Only then nothing is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from enginewright_api.identity import digest_of

from .effects import Object

APPLIED = "enginewright.io/applied"
_UNITS = {
    "m": Decimal("0.001"), "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9), "T": Decimal(10**12),
    "P": Decimal(10**15), "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40),
    "Pi": Decimal(2**50),
}  # fmt: skip


def stamped(manifest: Object) -> Object:
    """The manifest with a digest of itself, so that a field we no longer render is noticed as well."""
    metadata = manifest["metadata"]
    annotations = {**metadata.get("annotations", {}), APPLIED: digest_of(manifest)[:16]}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}


def drifted(observed: Object | None, wanted: Object) -> bool:
    """Whether `wanted` (stamped) has to be applied: it does not exist, or some field of ours reads otherwise."""
    return observed is None or not covers(observed, wanted)


def covers(observed: Any, wanted: Any) -> bool:
    """Every field of `wanted` is in `observed`; what defaulting or others added does not matter."""
    if isinstance(wanted, Mapping):
        return isinstance(observed, Mapping) and all(covers(observed.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, Sequence) and not isinstance(wanted, str):
        return (
            isinstance(observed, Sequence)
            and len(observed) == len(wanted)
            and all(covers(one, other) for one, other in zip(observed, wanted, strict=True))
        )
    return bool(observed == wanted) or _is_empty(observed, wanted) or _same_quantity(observed, wanted)


def _is_empty(observed: Any, wanted: Any) -> bool:
    """The API server leaves zero values out of what it gives back."""
    return observed is None and wanted in ("", 0, False)


def _same_quantity(observed: Any, wanted: Any) -> bool:
    """`1000m` comes back as `1`."""
    if not isinstance(observed, str) or not isinstance(wanted, str):
        return False
    one, other = quantity(observed), quantity(wanted)
    return one is not None and one == other


def quantity(text: str) -> Decimal | None:
    """Value of a Kubernetes quantity; None when it is none, as a digest that reads like a number: `12e7345234`."""
    number = text.rstrip("mkKMGTPi")
    unit = text[len(number) :]
    try:
        return Decimal(number) * _UNITS.get(unit, Decimal(1)) if unit in _UNITS or not unit else None
    except ArithmeticError:
        return None
