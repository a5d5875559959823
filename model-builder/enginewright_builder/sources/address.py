"""Addresses that a build must never be led to: link-local networks, metadata services."""

from __future__ import annotations

from urllib.parse import urlsplit

from enginewright_api.errors import DeterministicError
from enginewright_store.guard import check_host


def check_address(url: str, *, where: str) -> None:
    """Raises DeterministicError ForbiddenAddress or InvalidAddress."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise DeterministicError("InvalidAddress", f"{where}: {url} is no http or https address")
    check_host(parts.hostname, where=where)
