"""Names by content: canonical JSON, digests, build keys.

The build key is the sha256 of the canonical JSON of everything an engine follows from. Equal key, equal
engine: no second build on any cluster that shares the store.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

BUILDER_SCHEMA_VERSION = 2
"""Raised when the builder's output for the same inputs changes."""


def canonical_json(value: Any) -> bytes:
    """RFC 8785 style: sorted keys, no spaces, UTF-8; NaN and infinities refused with ValueError."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def sha256_hex(data: bytes) -> str:
    """Hex digest, 64 characters."""
    return hashlib.sha256(data).hexdigest()


def digest_of(value: Any) -> str:
    """sha256 hex of the canonical JSON of a JSON-like value."""
    return sha256_hex(canonical_json(value))
