"""What `get` shows of each kind; ours as the printer columns of the CRDs."""

from __future__ import annotations

from enginewright_cli.output import condition
from enginewright_cluster.port import Kind, Object


def headers(kind: Kind) -> list[str]:
    """Columns between NAME and AGE."""
    match kind.kind:
        case "OptimizedModel":
            return ["READY", "BACKEND", "FORMAT", "REPLICAS", "REASON"]
        case "EngineBuild":
            return ["READY", "PHASE", "BACKEND", "FORMAT", "REASON"]
        case "Pod":
            return ["READY", "PHASE", "RESTARTS"]
        case "Deployment":
            return ["READY"]
        case "Event":
            return ["TYPE", "REASON", "OBJECT", "MESSAGE"]
        case _:
            return []


def cells(kind: Kind, item: Object) -> list[str]:
    """The cells below them."""
    status, spec = item.get("status", {}), item.get("spec", {})
    ready = condition(item, "Ready")
    match kind.kind:
        case "OptimizedModel":
            active = status.get("active") or {}
            figures = [active.get("backend", ""), active.get("format", ""), str(status.get("replicas", 0))]
            return [ready.get("status", "Unknown"), *figures, ready.get("reason", "")]
        case "EngineBuild":
            recipe = spec["recipe"]
            form = (recipe.get("quantization") or {}).get("format", "None")
            return [
                ready.get("status", "Unknown"),
                status.get("phase", ""),
                recipe["backend"],
                form,
                ready.get("reason", ""),
            ]
        case "Pod":
            containers = status.get("containerStatuses", [])
            restarts = str(sum(container.get("restartCount", 0) for container in containers))
            up = sum(bool(container.get("ready")) for container in containers)
            return [f"{up}/{len(spec.get('containers', []))}", status.get("phase", ""), restarts]
        case "Deployment":
            return [f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 1)}"]
        case "Event":
            about = item.get("involvedObject") or item.get("regarding") or {}
            message = item.get("message") or item.get("note") or ""
            return [
                item.get("type", ""),
                item.get("reason", ""),
                f"{about.get('kind', '')}/{about.get('name', '')}",
                message,
            ]
        case _:
            return []
