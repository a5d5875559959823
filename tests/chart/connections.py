"""What NetworkPolicies allow, by the rules of the API's documentation (networking.k8s.io/v1).

A pod that no policy selects for a direction is open in it; otherwise the union of the policies' rules counts. A
connection needs its sender's egress and its receiver's ingress. Peers outside of the cluster are addresses.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Policy = Mapping[str, Any]


@dataclass(frozen=True)
class Pod:
    """One end of a connection, inside of the cluster."""

    namespace: str
    labels: Mapping[str, str]


@dataclass(frozen=True)
class Outside:
    """One end of a connection, outside of the cluster (or a pod of the host's network)."""

    address: str = "203.0.113.9"


End = Pod | Outside


def allowed(policies: Iterable[Policy], sender: End, receiver: End, port: int, protocol: str = "TCP") -> bool:
    """Whether a connection from `sender` to `port` of `receiver` comes about."""
    known = tuple(policies)
    on = (port, protocol)
    out = not isinstance(sender, Pod) or _passes(known, "Egress", sender, receiver, on)
    into = not isinstance(receiver, Pod) or _passes(known, "Ingress", receiver, sender, on)
    return out and into


def _passes(policies: tuple[Policy, ...], direction: str, pod: Pod, other: End, on: tuple[int, str]) -> bool:
    chosen = [policy for policy in policies if _applies(policy, pod) and direction in policy["spec"]["policyTypes"]]
    rules = [rule for policy in chosen for rule in policy["spec"].get(direction.lower()) or ()]
    peers = "to" if direction == "Egress" else "from"
    return not chosen or any(
        (not rule.get("ports") or any(_is(item, *on) for item in rule["ports"]))
        and (not rule.get(peers) or any(_matches(peer, other, policy_namespace=pod.namespace) for peer in rule[peers]))
        for rule in rules
    )


def _applies(policy: Policy, pod: Pod) -> bool:
    return policy["metadata"]["namespace"] == pod.namespace and _selects(policy["spec"]["podSelector"], pod.labels)


def _is(item: Mapping[str, Any], port: int, protocol: str) -> bool:
    return item["port"] == port and item.get("protocol", "TCP") == protocol


def _matches(peer: Mapping[str, Any], other: End, *, policy_namespace: str) -> bool:
    if "ipBlock" in peer:
        network = ipaddress.ip_network(peer["ipBlock"]["cidr"])
        return isinstance(other, Outside) and ipaddress.ip_address(other.address) in network
    if isinstance(other, Outside):
        return False
    here = {"kubernetes.io/metadata.name": other.namespace}
    if "namespaceSelector" in peer:
        there = _selects(peer["namespaceSelector"], here)
    else:
        there = other.namespace == policy_namespace
    return there and _selects(peer.get("podSelector", {}), other.labels)


def _selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    assert not selector.get("matchExpressions"), "the chart uses none"
    return selector.get("matchLabels", {}).items() <= labels.items()
