"""Where a rollout in steps stands: written by the operator, read by the gateway, which sends requests by it."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from enginewright_api.model_base import ApiModel


class RolloutState(StrEnum):
    """How far an engine that takes over has come."""

    CANARY = "Canary"
    PROMOTED = "Promoted"
    ROLLED_BACK = "RolledBack"


class RolloutStatus(ApiModel):
    """An engine that takes over in steps, or that was taken back. Gone when it serves alone."""

    artifact_digest: str = Field(description="Its artifact.")
    spec_digest: str = Field(description="Spec it was tried with; a taken-back engine is tried again with another.")
    state: RolloutState = Field(description="Canary, Promoted or RolledBack.")
    step: int = Field(default=0, description="Step of the canary, from 0.")
    weight: int = Field(default=0, description="Per cent of the gateway's requests that it gets.")
    since: str = Field(description="RFC 3339: begin of this state, step or weight.")
    checked: str = Field(default="", description="RFC 3339: last comparison with the engine that serves.")
    message: str = Field(default="", description="What it showed, with the figures.")

    @property
    def label(self) -> str:
        """The artifact as a label: 32 hex digits."""
        return self.artifact_digest.removeprefix("sha256:")[:32]

    @property
    def window(self) -> str:
        """Names the time in which requests are counted: another step, weight or engine is another window."""
        return f"{self.label[:8]}-{self.step}-{self.since}"
