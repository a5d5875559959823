"""Settings of the autoscaler: one typed object, checked at start."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from enginewright_autoscaler.policy import Tuning

Url = Annotated[str, Field(pattern=r"^https?://[^\s/]+")]


class AutoscalerSettings(BaseModel):
    """Everything that can be set for an installation; a model's objectives are in its own spec."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gateway_urls: tuple[Url, ...] = Field(default=(), description="Base URLs of all gateways, when they are fixed.")
    gateway_service: Annotated[str, Field(pattern="^[^/]+/[^/]+$")] | None = Field(
        default=None, description="namespace/name of the gateways' Service, when they are to be discovered."
    )
    namespace: str | None = Field(default=None, description="Only models of this namespace.")
    interval_seconds: float = Field(default=1.0, ge=0.05, le=60.0, description="Time between rounds.")
    scale_down_window_seconds: float = Field(
        default=300.0, ge=1.0, le=86_400.0, description="Replicas fall only to the largest need of this long."
    )
    metrics_host: str = Field(default="127.0.0.1", description="Address of /metrics and /healthz.")
    metrics_port: int | None = Field(default=None, ge=0, le=65535, description="Their port; none serves neither.")

    @model_validator(mode="after")
    def _one_way_to_the_gateways(self) -> Self:
        if bool(self.gateway_urls) == (self.gateway_service is not None):
            raise ValueError("gateways: give either --gateway-url or --gateway-service")
        return self

    def tuning(self) -> Tuning:
        """The policy's part."""
        return Tuning(scale_down_window_seconds=self.scale_down_window_seconds)
