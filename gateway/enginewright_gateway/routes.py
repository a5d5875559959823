"""Which models exist, where they are served, and what they are called."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from enginewright_api.recipe import Task

from .errors import RefusedError


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One ready server. Two servers may share an address (processes of one machine), never address and port."""

    address: str
    http_port: int
    grpc_port: int

    @property
    def host(self) -> str:
        """Address as it stands in a URL."""
        return f"[{self.address}]" if ":" in self.address else self.address

    def __str__(self) -> str:
        """For logs: address and HTTP port, whichever port is asked."""
        return f"{self.host}:{self.http_port}"


@dataclass(frozen=True, slots=True)
class Canary:
    """A new engine that gets a share of a model's requests."""

    service: str
    """`namespace/name` of the Service that selects its pods only."""
    weight: int
    """Per cent of the requests."""
    window: str
    """Names the time in which requests are counted; another one begins at zero."""
    endpoints: tuple[Endpoint, ...] = ()


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What the gateway must know of one OptimizedModel."""

    namespace: str
    name: str
    task: Task
    max_batch_size: int
    max_queue_size: int
    """Requests waiting at one replica."""
    queue_timeout_seconds: float
    created: int = 0
    """Unix seconds."""
    condition: str = ""
    """Reason and message of Ready while it is not True."""
    endpoints: tuple[Endpoint, ...] = ()
    """Without those of the canary."""
    canary: Canary | None = None

    @property
    def all_endpoints(self) -> tuple[Endpoint, ...]:
        """Every server that may get a request."""
        return self.endpoints if self.canary is None else (*self.endpoints, *self.canary.endpoints)

    @property
    def id(self) -> str:
        """`namespace/name`: always unambiguous; the label in metrics."""
        return f"{self.namespace}/{self.name}"


class Routes(Protocol):
    """Read side: what requests are resolved against."""

    def models(self) -> Sequence[ServedModel]:
        """All models, by id."""
        ...

    def get(self, model_id: str) -> ServedModel | None:
        """By `namespace/name`."""
        ...


class RouteTable:
    """The routes, kept up to date by `watch.follow`; tells listeners about every change."""

    def __init__(self) -> None:
        self._models: dict[str, ServedModel] = {}
        self._endpoints: dict[str, tuple[Endpoint, ...]] = {}
        self._canaries: dict[str, str] = {}
        """Model by the Service of its canary."""
        self._listeners: list[Callable[[str, ServedModel | None], None]] = []
        self.known = asyncio.Event()
        """Set when the first complete picture has been seen."""

    @property
    def synced(self) -> bool:
        """Whether the first complete picture has been seen."""
        return self.known.is_set()

    def models(self) -> Sequence[ServedModel]:
        """All models, by id."""
        return [self._models[key] for key in sorted(self._models)]

    def get(self, model_id: str) -> ServedModel | None:
        """By `namespace/name`."""
        return self._models.get(model_id)

    def listen(self, listener: Callable[[str, ServedModel | None], None]) -> None:
        """Call `listener(id, model or None when gone)` after every change, and once now for each model."""
        self._listeners.append(listener)
        for model in self.models():
            listener(model.id, model)

    def put_model(self, model: ServedModel) -> None:
        """Add or change a model; its endpoints are those known for its Service."""
        self._store(self._with_endpoints(model))

    def drop_model(self, model_id: str) -> None:
        """Forget a model."""
        model = self._models.pop(model_id, None)
        if model is not None:
            self._forget_canary(model)
            for listener in self._listeners:
                listener(model_id, None)

    def put_endpoints(self, service: str, endpoints: Sequence[Endpoint]) -> None:
        """Ready endpoints of Service `namespace/name`."""
        self._endpoints[service] = tuple(endpoints)
        if not endpoints:
            del self._endpoints[service]
        for model_id in {service, self._canaries.get(service, service)} & self._models.keys():
            self._store(self._with_endpoints(self._models[model_id]))

    def _with_endpoints(self, model: ServedModel) -> ServedModel:
        """A server that the model's own Service selects as well, while a canary takes over, is the canary's only."""
        stable, canary = self._endpoints.get(model.id, ()), model.canary
        if canary is None:
            return replace(model, endpoints=stable)
        own = self._endpoints.get(canary.service, ())
        rest = tuple(endpoint for endpoint in stable if endpoint not in own)
        return replace(model, endpoints=rest, canary=replace(canary, endpoints=own))

    def _forget_canary(self, model: ServedModel | None) -> None:
        if model is not None and model.canary is not None:
            self._canaries.pop(model.canary.service, None)

    def _store(self, model: ServedModel) -> None:
        before = self._models.get(model.id)
        if before == model:
            return
        self._forget_canary(before)
        if model.canary is not None:
            self._canaries[model.canary.service] = model.id
        self._models[model.id] = model
        for listener in self._listeners:
            listener(model.id, model)


def short_ids(models: Sequence[ServedModel]) -> Mapping[str, ServedModel]:
    """Id under which each model is listed: its name when no other namespace has it, else `namespace/name`."""
    names = [model.name for model in models]
    return {model.name if names.count(model.name) == 1 else model.id: model for model in models}


def resolve(visible: Sequence[ServedModel], wanted: str, namespace: str | None = None) -> ServedModel:
    """The model called `wanted` (`name` or `namespace/name`) among those the caller may see.

    Raises RefusedError 404 naming what there is, 400 when a bare name is ambiguous.
    """
    if namespace is None and "/" in wanted:
        namespace, _, wanted = wanted.partition("/")
    found = [m for m in visible if m.name == wanted and (namespace is None or m.namespace == namespace)]
    if len(found) == 1:
        return found[0]
    if found:
        raise RefusedError(
            400,
            "AmbiguousModel",
            f"model {wanted!r} exists in several namespaces; say which: {', '.join(model.id for model in found)}",
            param="model",
        )
    asked = wanted if namespace is None else f"{namespace}/{wanted}"
    known = sorted(short_ids(visible))
    shown = ", ".join(known[:20]) + (f" and {len(known) - 20} more" if len(known) > 20 else "")
    raise RefusedError(
        404,
        "ModelNotFound",
        f"model {asked[:200]!r} does not exist or this key may not use it; "
        + (f"there is: {shown}" if known else "there are no models yet"),
        param="model",
    )
