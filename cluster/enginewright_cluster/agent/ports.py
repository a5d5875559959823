"""Real ports for the named ports of pods."""

from __future__ import annotations

import errno
import json
import random
import socket
from collections.abc import Iterable, Mapping

from enginewright_api.errors import TransientError

from ..port import InvalidError, Object
from .names import LOCAL_PORTS, NODE_ADDRESS

_FIRST, _LAST = 20_000, 29_999
"""Below the range from which Linux takes ports for outgoing connections, so that none of those lands on ours."""


class PortTakenError(TransientError):
    """A port that must be this one is in use."""


def port_map(text: str | None) -> dict[str, int]:
    """`{"http": 8080}` as annotations write it. InvalidError for anything else."""
    if not text:
        return {}
    try:
        found = json.loads(text)
        return {str(name): int(port) for name, port in found.items()}
    except (ValueError, AttributeError, TypeError):
        raise InvalidError("Invalid", f'annotation {LOCAL_PORTS}: {text!r} is not like {{"http": 8080}}') from None


def named_ports(pod: Object) -> dict[str, int]:
    """Names and declared numbers of a pod's ports."""
    return {
        str(port["name"]): int(port["containerPort"])
        for container in pod["spec"]["containers"]
        for port in container.get("ports") or ()
        if port.get("name")
    }


class PortAllocator:
    """Hands out free ports of 127.0.0.1 and remembers them until they are given back."""

    def __init__(self) -> None:
        self._given: set[int] = set()
        self._random = random.Random()  # noqa: S311 - no secret

    def allocate(self, names: Iterable[str], wanted: Mapping[str, int]) -> dict[str, int]:
        """A port a name; `wanted` ones as they are. PortTakenError names the port in use."""
        given: dict[str, int] = {}
        try:
            for name in names:
                given[name] = self._fixed(name, wanted[name]) if name in wanted else self._any()
                self._given.add(given[name])
        except BaseException:
            self.release(given.values())
            raise
        return given

    def release(self, ports: Iterable[int]) -> None:
        """Give ports back."""
        self._given.difference_update(ports)

    def _fixed(self, name: str, port: int) -> int:
        if port in self._given or not _is_free(port):
            raise PortTakenError(
                "PortTaken",
                f"port {port} for {name!r} is in use by another process: stop that, or choose another port in"
                f" annotation {LOCAL_PORTS} of the Service",
            )
        return port

    def _any(self) -> int:
        first = int(self._random.randint(_FIRST, _LAST))
        for port in (*range(first, _LAST + 1), *range(_FIRST, first)):
            if port not in self._given and _is_free(port):
                return int(port)
        raise PortTakenError("PortTaken", f"no port between {_FIRST} and {_LAST} is free on {NODE_ADDRESS}")


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((NODE_ADDRESS, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True
