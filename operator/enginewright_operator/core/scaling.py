"""Whether the number of replicas follows from fresh signals. The number itself is spec.replicas, which is not ours."""

from __future__ import annotations

from enginewright_api.operation_spec import ScalingMode
from enginewright_api.optimized_model import ScalingState

from .conditions import in_transition, is_false, is_true
from .draft import Draft

AUTOSCALING = "Autoscaling"


def scaling(draft: Draft) -> Draft:
    """Sets Autoscaling from what the autoscaler wrote into status.scaling."""
    if draft.spec is None:
        return draft
    mode = draft.spec.scaling.mode
    if mode is ScalingMode.MANUAL:
        return draft.found(AUTOSCALING, is_true("Manual", "replicas are set by hand"))
    if mode is ScalingMode.EXTERNAL:
        return draft.found(AUTOSCALING, is_true("External", "an HPA or KEDA sets replicas"))
    said = draft.snapshot.status().scaling
    if said is None or not said.last_decision:
        return draft.found(AUTOSCALING, in_transition("MetricsMissing", "the autoscaler has not decided yet"))
    if said.state is not ScalingState.FRESH:
        return draft.found(AUTOSCALING, is_false(said.state.value, said.reason))
    return draft.found(AUTOSCALING, is_true("Deciding", said.reason))
