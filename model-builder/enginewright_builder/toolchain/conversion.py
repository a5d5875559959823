"""What OpenVINO's converter means when it refuses a model."""

from __future__ import annotations


def reason(error: Exception) -> str:
    """The first line that says something: failures of tracing begin with a line that is the same for all of them."""
    said = str(error).rpartition("Exception:\n")[2].strip()
    return said.splitlines()[0] if said else type(error).__name__
