"""Addresses that a build must never be led to: link-local networks, metadata services."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from enginewright_api.errors import DeterministicError
from enginewright_store.guard import check_host


def check_address(url: str, *, where: str) -> None:
    """Raises DeterministicError ForbiddenAddress or InvalidAddress."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise DeterministicError("InvalidAddress", f"{where}: {url} is no http or https address")
    check_host(parts.hostname, where=where)


def check_bucket(name: str, *, where: str) -> None:
    """A bucket is no host, but some clients take it for one: refuse the addresses among the names.

    Raises DeterministicError ForbiddenAddress.
    """
    if name:
        check_host(name, where=where, resolve=_literal)


def _literal(name: str) -> list[str]:
    """The name itself when it is an address; bucket names are not resolved."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return []
    return [name]
