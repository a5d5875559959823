"""Where the API server is and how to prove who asks: from a kubeconfig, or from the service account of a pod."""

from __future__ import annotations

import asyncio
import math
import os
import ssl
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from kubernetes.aio.client import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from kubernetes.aio.config import ConfigException, incluster_config, load_incluster_config, load_kube_config

from enginewright_api.errors import DeterministicError

_RELOAD_EVERY_SECONDS = 10.0
"""At most this often: whoever is refused for good must not start a credential plugin for each request."""

_UNREADABLE = (ConfigException, OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError, ssl.SSLError)
"""What the loader raises on files that are missing, no YAML, not shaped as a kubeconfig, or hold no PEM."""


class Access:
    """Address, TLS and credentials; the credentials are loaded again when the API server no longer takes them."""

    def __init__(self, configuration: Any, tls: ssl.SSLContext, load: Callable[[Any], Awaitable[None]]) -> None:
        self._configuration = configuration
        self._load = load
        self._renewed_at_seconds = -math.inf
        self._loading = asyncio.Lock()
        self.tls = tls
        self.server: str = configuration.host
        self.proxy: str | None = configuration.proxy
        self.tls_server_name: str | None = configuration.tls_server_name

    @classmethod
    async def from_kubeconfig(cls, path: Path | None = None, context: str | None = None) -> Access:
        """Of a context (the current one when None) in `path`, else in $KUBECONFIG, else in ~/.kube/config."""
        files = str(path) if path else os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
        existing = await asyncio.to_thread(_existing, files.split(os.pathsep))
        if not existing:
            raise _unusable(f"there is no file {files}; name another with --kubeconfig or KUBECONFIG")

        async def load(configuration: Any) -> None:
            loader = await load_kube_config(
                os.pathsep.join(existing), context, client_configuration=configuration, persist_config=False
            )
            # The loader only logs that a credential plugin failed, and would go on as nobody.
            given = [vars(loader).get(key) for key in ("token", "cert_file")]
            if "exec" in (loader._user or {}) and not any(given):
                command = loader._user["exec"].safe_get("command")
                raise ConfigException(f"the credential plugin {command} gave no credentials; run it to see why")

        return await cls._loaded(load, f"kubeconfig {files}")

    @classmethod
    async def in_cluster(cls) -> Access:
        """Of the pod's service account."""

        async def load(configuration: Any) -> None:
            load_incluster_config(configuration)

        return await cls._loaded(load, "service account")

    @staticmethod
    def has_service_account() -> bool:
        """Whether this process runs in a pod with a service account."""
        return (
            bool(os.environ.get(incluster_config.SERVICE_HOST_ENV_NAME))
            and Path(incluster_config.SERVICE_TOKEN_FILENAME).is_file()
        )

    async def authorization(self) -> str | None:
        """The Authorization header; None for client certificates. A service account's token is read each minute."""
        settings = await self._configuration.auth_settings()
        return settings["BearerToken"]["value"] if settings else None

    async def renew(self, refused: str | None) -> bool:
        """Load the credentials again after `refused` got a 401; whether there are others now."""
        async with self._loading:
            now = asyncio.get_running_loop().time()
            if await self.authorization() == refused and now >= self._renewed_at_seconds + _RELOAD_EVERY_SECONDS:
                self._renewed_at_seconds = now
                try:
                    await self._load(self._configuration)
                except _UNREADABLE as error:
                    raise _unusable(f"cannot renew the credentials: {error}") from error
            return await self.authorization() != refused

    @classmethod
    async def _loaded(cls, load: Callable[[Any], Awaitable[None]], source: str) -> Access:
        configuration = Configuration()
        try:
            await load(configuration)
            tls: ssl.SSLContext = RESTClientObject(configuration).ssl_context
        except _UNREADABLE as error:
            raise _unusable(f"{source}: {error}") from error
        return cls(configuration, tls, load)


def _existing(paths: Sequence[str]) -> list[str]:
    return [path for path in paths if path and Path(path).expanduser().is_file()]


def _unusable(message: str) -> DeterministicError:
    return DeterministicError("BadClusterAccess", " ".join(message.split()))
