"""What a service account is granted: every rule of every role that a binding gives it, in whichever namespace."""

from __future__ import annotations

import json

from tests.kube.harness import Cluster

Right = tuple[str, str]
"""Resource (with its subresource) and verb."""


def granted(cluster: Cluster, account: str, namespace: str) -> dict[str, set[Right]]:
    """Rights by the namespace in which they hold; those of the whole cluster under ``."""
    found: dict[str, set[Right]] = {}
    kinds = "clusterrolebindings,rolebindings"
    bindings = json.loads(cluster.kubectl("get", kinds, "--all-namespaces", "--output=json").stdout)["items"]
    for binding in bindings:
        subjects = [(item["kind"], item["name"], item.get("namespace")) for item in binding.get("subjects") or ()]
        if ("ServiceAccount", account, namespace) not in subjects:
            continue
        where, reference = binding["metadata"].get("namespace", ""), binding["roleRef"]
        options = (f"--namespace={where}",) if where else ()
        role = json.loads(
            cluster.kubectl("get", reference["kind"], reference["name"], *options, "--output=json").stdout
        )
        found.setdefault(where, set()).update(
            (name, verb) for rule in role["rules"] for name in rule["resources"] for verb in rule["verbs"]
        )
    return found
