"""What tritonserver's error texts mean. It answers 500 or UNKNOWN for several faults of the caller."""

from __future__ import annotations

CALLER_FAULTS = (
    "failed to parse the request JSON buffer",
    "Unable to parse '",
    "Unable to parse JSON",
    "attempt to access JSON",
    "Unsupported compression type",
)
"""Beginnings of messages that tritonserver sends with 500 or 501 though the request is at fault."""

_QUEUE_FULL = "Exceeds maximum queue size"


def is_caller_fault(message: str) -> bool:
    """Whether the request has to change for this error to go away."""
    return message.startswith(CALLER_FAULTS)


def is_queue_full(message: str) -> bool:
    """Whether the server refused because its own queue is full."""
    return _QUEUE_FULL in message
