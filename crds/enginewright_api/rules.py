"""CEL rules on the types: the API server and `enginewright validate` evaluate the very same expressions."""

from __future__ import annotations

from typing import Any

EXTENSION = "x-kubernetes-validations"


def rules(*pairs: tuple[str, str], **extra: Any) -> dict[str, Any]:
    """JSON-schema extra with one CEL rule per (expression, message); the message names the field.

    Only the CEL standard library is used (no Kubernetes extensions), so that both evaluators agree.
    """
    return {EXTENSION: [{"rule": rule, "message": message} for rule, message in pairs], **extra}


def exactly_one_of(where: str, *names: str) -> tuple[str, str]:
    """Rule: exactly one of the optional fields `names` of the object at `where` is set."""
    present = ", ".join(f"has(self.{name})" for name in names)
    return f"[{present}].filter(x, x).size() == 1", f"{where}: set exactly one of {', '.join(names)}"
