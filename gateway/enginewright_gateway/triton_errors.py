"""What tritonserver's error texts mean. It answers 500 or UNKNOWN for several faults of the caller."""

from __future__ import annotations

import re

CALLER_FAULTS = (
    "failed to parse the request JSON buffer",
    "Unable to parse '",
    "Unable to parse JSON",
    "attempt to access JSON",
    "Unsupported compression type",
)
"""Beginnings of messages that tritonserver sends with 500 or 501 though the request is at fault."""

_QUEUE_FULL = "Exceeds maximum queue size"
_ENGINE_GONE = re.compile(r"Stub process '[^']*' is not healthy")
_NEVER_CONNECTED = "failed to connect to all addresses"
"""How the gRPC library begins when no connection could be made."""
_CONNECTION_LOST = re.compile(r"Stream removed|Socket closed|Connection reset|Broken pipe")
"""Words of the gRPC library, not of a server. Its channel may still count as connected at that moment."""


def is_caller_fault(message: str) -> bool:
    """Whether the request has to change for this error to go away."""
    return message.startswith(CALLER_FAULTS)


def is_queue_full(message: str) -> bool:
    """Whether the server refused because its own queue is full."""
    return _QUEUE_FULL in message


def is_engine_gone(message: str) -> bool:
    """Whether the server lives but the process that runs its model has ended; no request can succeed there."""
    return _ENGINE_GONE.search(message) is not None


def never_connected(details: str) -> bool:
    """Whether the request certainly did not reach the server."""
    return details.startswith(_NEVER_CONNECTED)


def connection_lost(details: str) -> bool:
    """Whether the connection ended while the request was under way."""
    return _CONNECTION_LOST.search(details) is not None
