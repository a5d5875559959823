"""What users see of a decision: status.scaling and Events."""

from __future__ import annotations

import secrets
from datetime import datetime

from enginewright_api.names import MANAGED_BY
from enginewright_api.optimized_model import OptimizedModel, ScalingDecision, ScalingState, ScalingStatus
from enginewright_autoscaler.policy import Decision
from enginewright_cluster.port import Object

COMPONENT = "enginewright-autoscaler"
_HISTORY = 10
_LONGEST_MESSAGE = 1000


def explained(decision: Decision) -> str:
    """`Reason: message`; where the signals or the cluster stand in the way, that is the reason."""
    reason = decision.reason if decision.state is ScalingState.FRESH else decision.state
    return f"{reason}: {decision.message}"[:_LONGEST_MESSAGE]


def outdated(shown: ScalingStatus | None, decision: Decision) -> bool:
    """Whether users would learn something new. Figures that only move within a decision are not new."""
    return shown is None or (shown.desired, shown.state) != (decision.replicas, decision.state)


def next_status(
    shown: ScalingStatus | None, decision: Decision, *, why: str, before: int, at: datetime
) -> ScalingStatus:
    """status.scaling after a decision; `before` is the number of replicas where nothing was shown yet."""
    time = rfc3339(at)
    history = [] if shown is None else list(shown.history)
    previous = before if shown is None else shown.desired
    if previous != decision.replicas:
        history.append(ScalingDecision(time=time, from_replicas=previous, to_replicas=decision.replicas, reason=why))
    return ScalingStatus(
        desired=decision.replicas, state=decision.state, reason=why, last_decision=time, history=history[-_HISTORY:]
    )


def event(model: OptimizedModel, decision: Decision, *, before: int, why: str, at: datetime) -> Object:
    """The Event for what changed: the count, else how far the signals can be trusted."""
    if decision.replicas != before:
        reason, kind = ("ScaledUp" if decision.replicas > before else "ScaledDown"), "Normal"
    elif decision.state is not ScalingState.FRESH:
        reason, kind = str(decision.state), "Warning"
    else:
        reason, kind = "SignalsFresh", "Normal"
    time = rfc3339(at)
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{model.metadata.name}.{secrets.token_hex(8)}",
            "namespace": model.metadata.namespace,
            "labels": {"app.kubernetes.io/managed-by": MANAGED_BY},
        },
        "involvedObject": {
            "apiVersion": model.api_version,
            "kind": model.kind,
            "namespace": model.metadata.namespace,
            "name": model.metadata.name,
            "uid": model.metadata.uid,
        },
        "type": kind,
        "reason": reason,
        "message": why,
        "source": {"component": COMPONENT},
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
    }


def rfc3339(at: datetime) -> str:
    """Whole seconds, UTC."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
