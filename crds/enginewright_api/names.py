"""Names, labels and annotations of everything Enginewright creates."""

from __future__ import annotations

FIELD_MANAGER = "enginewright"
FINALIZER = "enginewright.io/cleanup"
LABEL_MODEL = "enginewright.io/model"
LABEL_BUILD_KEY = "enginewright.io/build-key"
LABEL_ARTIFACT = "enginewright.io/artifact"
LABEL_EVIDENCE = "enginewright.io/evidence"
LABEL_RANKS = "enginewright.io/ranks"
"""On pods of an engine that runs on several nodes: network policies let these reach each other."""
MANAGED_BY = "enginewright"
PART_OF = "enginewright"
CALLERS_FAULT = "INVALID_ARGUMENT: "
"""How a generating engine begins to say that the request has to change: an error in a Triton stream is only a text."""


BUILD_PREFIX = "eb-"


def engine_build_name(key: str) -> str:
    """`eb-` and the first 16 hex digits of the build key."""
    return f"{BUILD_PREFIX}{key[:16]}"


def build_job_name(key: str, request_digest: str, attempt: int) -> str:
    """One Job an attempt, so that a lost reply finds the Job it made."""
    return f"eb-{key[:16]}-{request_digest[:6]}-{attempt}"


def deployment_name(model: str, artifact_digest: str) -> str:
    """`<model>-<8 hex of the artifact>`."""
    return f"{model}-{artifact_digest[:8]}"


def canary_service_name(model: str, artifact_digest: str) -> str:
    """Service of one engine's own, while it gets a share of the requests; named as its Deployment."""
    return deployment_name(model, artifact_digest)


def child_labels(
    *, name: str, component: str, model: str | None = None, key: str | None = None, artifact: str | None = None
) -> dict[str, str]:
    """Standard labels of a child; label values hold at most 63 characters, so digests are cut to 32."""
    labels = {
        "app.kubernetes.io/name": "enginewright",
        "app.kubernetes.io/instance": name,
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/managed-by": MANAGED_BY,
        "app.kubernetes.io/part-of": PART_OF,
    }
    if model is not None:
        labels[LABEL_MODEL] = model
    if key is not None:
        labels[LABEL_BUILD_KEY] = key[:32]
    if artifact is not None:
        labels[LABEL_ARTIFACT] = artifact[:32]
    return labels
