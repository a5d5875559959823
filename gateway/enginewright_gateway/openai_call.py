"""What every inference request of the OpenAI surface begins with: who asks, until when, which model, for which task."""

from __future__ import annotations

from dataclasses import dataclass, field

from fastapi import Request

from enginewright_api.recipe import Task

from .errors import RefusedError
from .exchange import Exchange
from .headers import deadline, find_model, identify
from .inbound import Inbound
from .keys import Caller
from .routes import ServedModel
from .service import Gateway

_UNLIKE = {
    Task.EMBEDDING: "gives no embeddings",
    Task.RERANKING: "ranks nothing",
    Task.TEXT_GENERATION: "generates no text",
}
"""What a model of any other task does not do."""


@dataclass(slots=True)
class Call:
    """One request for inference. Raises RefusedError 400, 401 when made."""

    gateway: Gateway
    request: Request
    exchange: Exchange = field(init=False)
    until: float | None = field(init=False)
    inbound: Inbound = field(init=False)
    _caller: Caller = field(init=False)

    def __post_init__(self) -> None:
        headers = self.request.headers
        self.exchange = self.request.scope["enginewright.exchange"]
        self.exchange.inference = True
        self._caller = identify(self.gateway, headers, self.exchange)
        self.until = deadline(self.gateway, headers)
        # What is read is decoded and kept, so a repeat needs nothing of the body.
        limit = self.gateway.settings.max_body_bytes
        self.inbound = Inbound(self.request.receive, max_body_bytes=limit, max_replay_bytes=2**62)

    def model(self, name: str, task: Task) -> ServedModel:
        """The model of that name. Raises RefusedError 400 when it is for another task, 404."""
        model = find_model(self.gateway, self.request.headers, self._caller, name, self.exchange)
        if model.task is not task:
            tensors = (
                "" if model.task is Task.TEXT_GENERATION else f"; its tensors are at /v2/models/{model.name}/infer"
            )
            raise RefusedError(
                400, "WrongTask", f"model {model.name} has task {model.task.value} and {_UNLIKE[task]}{tensors}",
                param="model",
            )  # fmt: skip
        return model
