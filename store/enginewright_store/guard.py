"""Refuses addresses that a user-given URI must never reach: link-local networks and cloud metadata services."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Sequence

from enginewright_api.errors import DeterministicError, TransientError

Resolve = Callable[[str], Sequence[str]]

_METADATA_NAMES = frozenset({"metadata", "metadata.google.internal", "metadata.goog", "instance-data"})
_METADATA_ADDRESSES = frozenset(
    ipaddress.ip_address(address)
    for address in (
        "168.63.129.16",  # Azure wire server
        "100.100.100.200",  # Alibaba Cloud
        "192.0.0.192",  # Oracle Cloud
        "fd00:ec2::254",  # AWS over IPv6
    )
)


def check_host(host: str, *, where: str, resolve: Resolve | None = None) -> None:
    """Pass when every address of `host` is allowed.

    `where` names the field for the message. Names are resolved, so that decimal and other spellings of an address do
    not slip through. The check is made before connecting: a name server that answers differently a moment later is
    kept out by network policy, not by this.
    """
    bare = host.strip("[]").rstrip(".").lower()
    if not bare:
        raise DeterministicError("InvalidStoreURI", f"{where}: no host in it")
    if bare in _METADATA_NAMES:
        raise _refused(host, where)
    try:
        addresses = (resolve or _resolve)(bare)
    except OSError as error:
        raise TransientError("StoreUnavailable", f"{where}: {host} cannot be resolved ({error})") from error
    for text in addresses:
        address = ipaddress.ip_address(text.partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None)
        address = mapped or address
        if address.is_link_local or address.is_multicast or address in _METADATA_ADDRESSES:
            raise _refused(host, where)


def _resolve(host: str) -> Sequence[str]:
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]


def _refused(host: str, where: str) -> DeterministicError:
    return DeterministicError(
        "ForbiddenAddress", f"{where}: {host} is a link-local or metadata address; stores there are refused"
    )
