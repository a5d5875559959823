"""One Service with a stable name for each model, and the addresses in the status."""

from __future__ import annotations

from dataclasses import replace

from enginewright_api.optimized_model import Endpoints
from enginewright_api.rollout_status import RolloutState

from .conditions import in_transition, is_false, is_true, rfc3339
from .draft import Draft
from .drift import drifted, stamped
from .effects import Apply, Delete, Effect, Reference
from .engines import running_engines, selection
from .render.services import SWITCHED_AT, canary_service, service
from .render.serving import PORTS
from .settings import OperatorSettings

SERVABLE = "Servable"


def exposure(draft: Draft) -> Draft:
    """Applies the Service; sets Servable by what it selects *now*, and the endpoints."""
    snapshot = draft.snapshot
    draft = _servable(draft)
    if not draft.selection.exists:
        return draft
    settings = snapshot.settings
    draft = replace(draft, endpoints=_endpoints(draft, settings))
    if draft.spec is None:
        return draft
    present = selection(snapshot)
    moved = not present.exists or present.label != draft.selection.label
    noted = "" if snapshot.service is None else snapshot.service["metadata"].get("annotations", {}).get(SWITCHED_AT, "")
    switched_at = rfc3339(draft.now) if moved or not noted else noted
    wanted = stamped(service(snapshot, draft.selection.label, switched_at=switched_at))
    draft = draft.doing(Apply(wanted)) if drifted(snapshot.service, wanted) else draft
    return draft.doing(*_canary_services(draft))


def _canary_services(draft: Draft) -> list[Effect]:
    """The Service of the canary's own as long as it is one; those of earlier ones go."""
    snapshot, record = draft.snapshot, draft.rollout
    present = {item["metadata"]["name"]: item for item in snapshot.canary_services}
    effects: list[Effect] = []
    if record is not None and record.state is not RolloutState.ROLLED_BACK:
        wanted = stamped(canary_service(snapshot, record.label))
        if drifted(present.pop(wanted["metadata"]["name"], None), wanted):
            effects.append(Apply(wanted))
    return effects + [Delete(Reference.to(item), item["metadata"].get("uid")) for item in present.values()]


def _servable(draft: Draft) -> Draft:
    selected, engines = selection(draft.snapshot), running_engines(draft.snapshot)
    serving = [engine for engine in engines.values() if selected.covers(engine.label)]
    ready = sum(engine.ready for engine in serving)
    if ready:
        return draft.found(
            SERVABLE, is_true("Serving", "1 replica answers" if ready == 1 else f"{ready} replicas answer")
        )
    if serving and all(engine.wanted == 0 for engine in serving):
        return draft.found(SERVABLE, is_false("ScaledToZero", "replicas is 0"))
    if draft.snapshot.status().active is None:
        return draft.found(SERVABLE, in_transition("NoReadyReplica", "no engine has been ready yet"))
    causes = "; ".join(engine.cause.line for engine in serving if engine.cause is not None)
    return draft.found(SERVABLE, is_false("NoReadyReplica", causes or "no replica is ready"))


def _endpoints(draft: Draft, settings: OperatorSettings) -> Endpoints:
    if settings.gateway_grpc:
        http = settings.gateway_url.removesuffix("/v1")
        return Endpoints(open_ai=settings.gateway_url, http=http, grpc=settings.gateway_grpc)
    host = f"{draft.snapshot.name}.{draft.snapshot.namespace}.svc.{settings.cluster_domain}"
    http = f"http://{host}:{PORTS['http']}"
    return Endpoints(open_ai=settings.gateway_url, http=http, grpc=f"{host}:{PORTS['grpc']}")
