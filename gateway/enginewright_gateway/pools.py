"""All models' pools, kept in step with the routes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from .errors import NotNowError
from .pool import ModelPool, PoolLimits
from .routes import RouteTable, ServedModel


class Pools:
    """One pool a model; a deleted model's waiting requests are answered at once."""

    def __init__(self, table: RouteTable, limits: PoolLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._pools: dict[str, ModelPool] = {}
        table.listen(self._changed)

    def of(self, model: ServedModel) -> ModelPool:
        """Pool of a model. Raises NotNowError when it was deleted a moment ago."""
        pool = self._pools.get(model.id)
        if pool is None:
            raise NotNowError(503, "ModelDeleted", f"model {model.id} was deleted while the request was under way")
        return pool

    def all(self) -> Mapping[str, ModelPool]:
        """Pools by `namespace/name`, for the gauges."""
        return self._pools

    def _changed(self, model_id: str, model: ServedModel | None) -> None:
        if model is None:
            self._pools.pop(model_id).close()
        elif model_id in self._pools:
            self._pools[model_id].update(model)
        else:
            self._pools[model_id] = ModelPool(model, self._limits, self._clock)
