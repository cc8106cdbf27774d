"""The component networkpolicy lets through what is needed, and nothing else."""

import copy
import ipaddress

import pytest

from k8s.manifests import (
    COMPONENTS,
    OVERLAYS,
    Manifest,
    add_components,
    build,
    cans,
    copied,
    rendered,
    uncomment,
)
from k8s.policies import End, Flow, enters, leaves, passes

DNS, NODE_DNS = "kube-dns", "node-local-dns"
OTHERS = {
    # In our namespace, of no concern to us.
    "stranger": End("twocans", {"app": "shop"}),
    # Called as a client of ours, in a namespace that is not.
    "impostor": End("shop", {"app.kubernetes.io/name": "twocans-client"}),
    "twin": End("shop", {"app.kubernetes.io/name": "twocans-server"}),
    "prometheus": End("monitoring", {"app.kubernetes.io/name": "prometheus"}),
    DNS: End("kube-system", {"k8s-app": "kube-dns"}),
    "kube-proxy": End("kube-system", {"k8s-app": "kube-proxy"}),
    "false-dns": End("shop", {"k8s-app": "kube-dns"}),
    NODE_DNS: End(address="169.254.20.10"),
    "metadata": End(address="169.254.169.254"),
    "api": End(address="10.96.0.1"),
    "outside": End(),
    "outside-6": End(address="2001:db8::1"),
}
PORTS = (53, 80, 443, 5000, 5001, 5002, 5353, 6443)
CANS = ("client", "server")
# All that may pass out of a can or into one; everything else may not. A flow from one can to the
# other has two halves, and each is as narrow as if the other were not.
ALLOWED = {
    ("out", "client", "server", 5000, "TCP"),
    ("in", "client", "server", 5000, "TCP"),
    ("out", "client", DNS, 53, "UDP"),
    ("out", "client", DNS, 53, "TCP"),
    ("out", "client", NODE_DNS, 53, "UDP"),
    ("out", "client", NODE_DNS, 53, "TCP"),
    ("in", "prometheus", "server", 5001, "TCP"),
    ("in", "prometheus", "client", 5002, "TCP"),
}
# With endpointslices the client may also reach the API server, which no policy can name: so
# whatever listens on these two ports, as far as that lets it in.
API = {("out", "client", name, port, "TCP") for name in (*CANS, *OTHERS) for port in (443, 6443)}
Half = tuple[str, str, str, int, str]
HALVES: list[Half] = [
    (half, *((can, other) if half == "out" else (other, can)), port, protocol)
    for half in ("out", "in")
    for can in CANS
    for other in (*CANS, *OTHERS)
    for port in PORTS
    for protocol in ("TCP", "UDP")
]


def policies_of(manifests: list[Manifest]) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] == "NetworkPolicy"]


def ends(manifests: list[Manifest]) -> dict[str, End]:
    """Both cans as they are rendered, and the others."""
    ours = {
        can.name: End(
            can.workload["metadata"]["namespace"],
            can.template["metadata"]["labels"],
            ports={port["name"]: port["containerPort"] for port in can.container["ports"]},
        )
        for can in cans(manifests)
    }
    return ours | OTHERS


def passing(manifests: list[Manifest], policies: list[Manifest]) -> set[Half]:
    known = ends(manifests)
    ask = {"out": leaves, "in": enters}
    return {
        (half, source, target, port, protocol)
        for half, source, target, port, protocol in HALVES
        if ask[half](policies, Flow(known[source], known[target], port, protocol))
    }


def expected(components: tuple[str, ...]) -> set[Half]:
    return ALLOWED | API if "endpointslices" in components else ALLOWED


WITH_POLICIES = [("networkpolicy",), ("networkpolicy", "endpointslices"), COMPONENTS]


@pytest.mark.parametrize("components", WITH_POLICIES, ids="+".join)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_is_needed_passes_and_nothing_else(overlay, components):
    manifests = rendered(overlay, components)
    assert passing(manifests, policies_of(manifests)) == expected(components)


def test_without_the_component_everything_passes():
    manifests = rendered("mesh", ("endpointslices",))
    assert policies_of(manifests) == []
    assert passing(manifests, []) == set(HALVES)


# --- each part is needed --------------------------------------------------------------------

PEERS = {"ingress": "from", "egress": "to"}


def parts(manifests: list[Manifest]) -> list[tuple[str, list[str | int]]]:
    """Every policy, rule, peer and port, as the path by which it can be taken out."""
    found: list[tuple[str, list[str | int]]] = []
    for policy in policies_of(manifests):
        name = policy["metadata"]["name"]
        found.append((name, []))
        for direction, peers in PEERS.items():
            for index, rule in enumerate(policy["spec"].get(direction, [])):
                for part in (peers, "ports"):
                    items = range(len(rule.get(part, [])))
                    found += [(name, ["spec", direction, index, part, item]) for item in items]
    return found


def without(policies: list[Manifest], name: str, path: list[str | int]) -> list[Manifest]:
    left = copy.deepcopy(policies)
    (policy,) = (policy for policy in left if policy["metadata"]["name"] == name)
    if not path:
        left.remove(policy)
        return left
    parent: Manifest = policy
    for step in path[:-1]:
        parent = parent[step]  # type: ignore[index]
    del parent[path[-1]]  # type: ignore[arg-type]
    return left


def test_each_policy_peer_and_port_is_needed():
    manifests = rendered("mesh", COMPONENTS)
    policies = policies_of(manifests)
    needed = parts(manifests)
    assert len(needed) == 18
    idle = [
        part
        for part in needed
        if passing(manifests, without(policies, *part)) == expected(COMPONENTS)
    ]
    assert idle == []


def test_what_is_allowed_is_allowed_by_one_policy():
    manifests = rendered("mesh", COMPONENTS)
    policies = policies_of(manifests)
    names = {policy["metadata"]["name"] for policy in policies} - {"twocans-deny"}
    lost = [
        expected(COMPONENTS) - passing(manifests, without(policies, name, [])) for name in names
    ]
    # Without what allows it, each is lost once; what one policy shuts, no other opens.
    assert sorted(half for halves in lost for half in halves) == sorted(expected(COMPONENTS))


# --- the patches that are commented out -----------------------------------------------------


def test_the_namespace_that_scrapes_is_patched_in_one_place(tmp_path):
    manifests = patched(tmp_path, "observability")
    known = ends(manifests) | {"prometheus": End("observability")}
    policies = policies_of(manifests)
    assert passes(policies, Flow(known["prometheus"], known["server"], 5001))
    assert passes(policies, Flow(known["prometheus"], known["client"], 5002))
    assert not passes(policies, Flow(OTHERS["prometheus"], known["server"], 5001))


def test_a_server_outside_of_the_cluster_is_patched_in(tmp_path):
    manifests = patched(tmp_path, "192.0.2.10/32")
    client = ends(manifests)["client"]
    policies = policies_of(manifests)
    assert passes(policies, Flow(client, End(address="192.0.2.10"), 5000))
    assert not passes(policies, Flow(client, End(address="192.0.2.11"), 5000))


def patched(folder, text: str) -> list[Manifest]:
    """Take the # away from the patch that says the text."""
    k8s = copied(folder)
    component = k8s / "components" / "networkpolicy" / "kustomization.yaml"
    component.write_text(uncomment(component.read_text(), text))
    add_components(k8s / "overlays" / "mesh", "networkpolicy")
    return build(k8s / "overlays" / "mesh")


# --- the evaluator itself -------------------------------------------------------------------


def test_the_evaluator_knows_that_policies_select_add_up_and_deny():
    a, b = End("n", {"x": "a"}), End("n", {"x": "b"}, ports={"web": 80})
    shut: Manifest = {
        "metadata": {"namespace": "n"},
        "spec": {"podSelector": {"matchLabels": {"x": "b"}}, "policyTypes": ["Ingress"]},
    }
    web = copy.deepcopy(shut)
    web["spec"]["ingress"] = [{"ports": [{"protocol": "TCP", "port": "web"}]}]
    assert passes([], Flow(a, b, 80))
    assert not passes([shut], Flow(a, b, 80))
    assert passes([shut], Flow(b, a, 80))  # it selects the other end, and the other direction
    assert passes([shut, web], Flow(a, b, 80))
    assert not passes([shut, web], Flow(a, b, 81))
    assert not passes([shut, web], Flow(a, b, 80, "UDP"))
    web["spec"]["ingress"] = [{"from": [], "ports": []}]  # from everywhere, to everything
    assert passes([shut, web], Flow(a, b, 81, "UDP"))
    elsewhere = End("m", b.labels, ports=b.ports)
    assert passes([shut], Flow(a, elsewhere, 80))  # a policy is its own namespace's


def test_the_addresses_of_the_table_are_of_both_families():
    families = {ipaddress.ip_address(end.address).version for end in OTHERS.values()}
    assert families == {4, 6}
