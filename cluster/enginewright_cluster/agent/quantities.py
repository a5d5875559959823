"""Kubernetes quantities: `500m`, `4`, `8Gi`."""

from __future__ import annotations

import re
from decimal import Decimal

from ..port import InvalidError

_SUFFIXES = {
    "m": Decimal("0.001"),
    "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9), "T": Decimal(10**12),
    "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40),
}  # fmt: skip
_QUANTITY = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?")


def quantity(text: str | float, field: str) -> float:
    """The number that a quantity stands for (bytes, cores). InvalidError naming the field."""
    written = str(text)
    if not _QUANTITY.fullmatch(written):
        raise InvalidError("Invalid", f"{field}: {written!r} is not a quantity such as 500m, 4 or 8Gi")
    for suffix in sorted(_SUFFIXES, key=len, reverse=True):
        if written.endswith(suffix):
            number, factor = written.removesuffix(suffix), _SUFFIXES[suffix]
            break
    else:
        number, factor = written, Decimal(1)
    return float(Decimal(number) * factor)
