"""Sources in one line, as command lines and lists of teachers have them.

hf:ORG/NAME@COMMIT   s3://BUCKET/PATH   file:///FOLDER   package:NAME==VERSION/PATH   registry/repo@sha256:DIGEST
"""

from __future__ import annotations

import re
from typing import Any

from enginewright_api.source import Source

SELF = "self"
"""The teacher that is the model given in source."""

_HUB = re.compile(r"hf:(?P<repository>[^@]+)@(?P<revision>.+)")
_PACKAGE = re.compile(r"package:(?P<name>[^=]+)==(?P<version>[^/]+)(/(?P<path>.+))?")
_PINNED = (
    re.compile(r"hf:[\w.-]+/[\w.-]+@[0-9a-f]{40}"),
    re.compile(r"package:[^=\s]+==[^/\s]+(/(?!/)(?!.*\.\.)\S+)?"),
    re.compile(r"(s3|file)://(?!169\.254\.|metadata|localhost|\[fe80)\S+"),
)


def source_block(text: str) -> dict[str, Any] | None:
    """A `source` block as it stands in YAML; None for a text of no known form."""
    if match := _HUB.fullmatch(text):
        return {"huggingFace": match.groupdict()}
    if match := _PACKAGE.fullmatch(text):
        return {"package": {key: value for key, value in match.groupdict().items() if value}}
    if re.match(r"(s3|gs|az|file)://", text):
        return {"objectStore": {"uri": text}}
    if "@sha256:" in text:
        return {"oci": {"reference": text}}
    return None


def teacher_source(text: str) -> Source | None:
    """Where a teacher other than `self` is; None for what is not pinned, not reachable or no source at all.

    A hub revision has to be a full commit hash: a branch can move, and the recipe's digest would not.
    """
    block = source_block(text)
    if block is None or not any(form.fullmatch(text) for form in _PINNED):
        return None
    return Source.model_validate(block)
