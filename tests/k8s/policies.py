"""What NetworkPolicies let through: as much of their meaning as ours use.

A flow passes when the policies of its beginning let it out and those of its end let it in. A pod
that no policy of a direction selects is open in that direction; otherwise any one rule of any of
them is enough. What is outside of the cluster has no policies.
"""

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from k8s.manifests import Manifest

Labels = Mapping[str, str]


@dataclass(frozen=True)
class End:
    """One end of a flow: a pod, or with no namespace something that is no pod."""

    namespace: str = ""
    labels: Labels = field(default_factory=dict)
    address: str = "198.51.100.1"
    ports: Mapping[str, int] = field(default_factory=dict)
    """Names of container ports."""


@dataclass(frozen=True)
class Flow:
    """Packets of one kind from one end to a port of another."""

    source: End
    target: End
    port: int
    protocol: str = "TCP"


def passes(policies: Sequence[Manifest], flow: Flow) -> bool:
    """Say whether the policies let a flow out of its source and into its target."""
    return leaves(policies, flow) and enters(policies, flow)


def leaves(policies: Sequence[Manifest], flow: Flow) -> bool:
    """Say whether the policies of its source let a flow out."""
    return _open(policies, flow, "Egress", flow.source, flow.target)


def enters(policies: Sequence[Manifest], flow: Flow) -> bool:
    """Say whether the policies of its target let a flow in."""
    return _open(policies, flow, "Ingress", flow.target, flow.source)


def _open(policies: Sequence[Manifest], flow: Flow, direction: str, pod: End, peer: End) -> bool:
    key, peers = {"Egress": ("egress", "to"), "Ingress": ("ingress", "from")}[direction]
    selecting = [
        policy
        for policy in policies
        if direction in policy["spec"]["policyTypes"]
        and policy["metadata"]["namespace"] == pod.namespace
        and _matches(policy["spec"]["podSelector"], pod.labels)
    ]
    return not selecting or any(
        _is_peer(rule.get(peers), peer, pod.namespace) and _has_port(rule.get("ports"), flow)
        for policy in selecting
        for rule in policy["spec"].get(key, [])
    )


# No peers, or no ports, are all of them.
def _is_peer(peers: Sequence[Manifest] | None, end: End, namespace: str) -> bool:
    return not peers or any(_is(peer, end, namespace) for peer in peers)


def _is(peer: Manifest, end: End, namespace: str) -> bool:
    if "ipBlock" in peer:
        assert set(peer["ipBlock"]) == {"cidr"}
        return ipaddress.ip_address(end.address) in ipaddress.ip_network(peer["ipBlock"]["cidr"])
    if not end.namespace or not _matches(peer.get("podSelector", {}), end.labels):
        return False
    if "namespaceSelector" not in peer:
        return end.namespace == namespace
    return _matches(peer["namespaceSelector"], {"kubernetes.io/metadata.name": end.namespace})


def _has_port(ports: Sequence[Manifest] | None, flow: Flow) -> bool:
    return not ports or any(
        port["protocol"] == flow.protocol
        and flow.port == flow.target.ports.get(port["port"], port["port"])
        for port in ports
    )


def _matches(selector: Mapping[str, Any], labels: Labels) -> bool:
    assert set(selector) <= {"matchLabels"}
    wanted: Labels = selector.get("matchLabels", {})
    return wanted.items() <= labels.items()
