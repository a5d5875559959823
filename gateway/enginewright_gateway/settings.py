"""Settings of the gateway: one typed object, checked at start, printed once."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator


class GatewaySettings(BaseModel):
    """Everything that can be set. Whether callers need keys has no default: it is a decision."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str = Field(default="127.0.0.1", description="Address to listen on.")
    http_port: int = Field(default=8080, ge=0, le=65535, description="OpenAI, KServe v2 HTTP, operations; 0 = any.")
    grpc_port: int = Field(default=8081, ge=0, le=65535, description="KServe v2 gRPC; 0 = any free port.")
    namespace: str | None = Field(default=None, description="Serve models of this namespace only.")
    keys_dir: Path | None = Field(default=None, description="Folder of API keys (a mounted Secret).")
    allow_anonymous: bool = Field(default=False, description="Serve without keys. For a laptop.")
    max_body_bytes: int = Field(default=64 * 2**20, ge=1024, description="Largest request body or gRPC message.")
    max_header_bytes: int = Field(default=32 * 2**10, ge=1024, description="Largest request head.")
    max_replay_bytes: int = Field(
        default=2**20, ge=0, description="Bodies up to this size can be sent again to another endpoint."
    )
    header_seconds: float = Field(default=10.0, gt=0, description="Longest time for a client to send its head.")
    hold_seconds: float = Field(default=60.0, ge=0, description="Longest wait for a model without a ready endpoint.")
    max_held: int = Field(default=256, ge=0, description="Requests that wait so, for each model.")
    inflight_batches: int = Field(
        default=2, ge=1, description="Requests sent to one endpoint at a time, in units of the model's largest batch."
    )
    drain_delay_seconds: float = Field(
        default=0.0, ge=0, description="After SIGTERM: answer /readyz with 503 this long before the port closes."
    )
    drain_seconds: float = Field(default=30.0, ge=0, description="After that: longest wait for requests under way.")

    @model_validator(mode="after")
    def _keys_or_open(self) -> GatewaySettings:
        if (self.keys_dir is None) != self.allow_anonymous:
            raise ValueError("keys_dir: give either a folder of keys or --allow-anonymous, and not both")
        return self
