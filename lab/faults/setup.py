"""Faults of making a connection."""

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from lab.case import Case, Drawn, Expected, Truth
from lab.errors import LabError
from lab.namespaces import Namespace
from lab.scene import CLIENT, DEVICE, ROUTER_FAR, WIRE, Scene

from .tools import drawing, figures, on_path, prepared, rule, turned, wire_case

__all__ = ["CASES"]

_PATIENCE_S = 10.0
_SYN = ("-p", "tcp", "--syn", "--dport", "5000")
# A firewall's four ways to say no.
_REJECT_WITH = [
    "tcp-reset",
    "icmp-port-unreachable",
    "icmp-admin-prohibited",
    "icmp-host-prohibited",
]
_WIDE_PORTS, _NARROW_FIRST = "20000-59999", 60000


@contextmanager
def slow_accept(scene: Scene, drawn: Drawn) -> Iterator[Truth]:
    """Let the application accept fewer than there come, until its queue is full."""
    before = _overflows(scene.server)
    truth = figures(drawn)
    with turned(scene, accept_s=drawn["accept_s"]):
        yield truth
    truth.figures["overflows"] = _overflows(scene.server) - before


@contextmanager
def short_queue(scene: Scene, drawn: Drawn) -> Iterator[None]:
    """Give the server a short accept queue; it is long enough for who accepts at once."""
    with prepared(scene, drawn):
        scene.server.sysctl("net.core.somaxconn", str(drawn["backlog"]))
        yield


def _overflows(namespace: Namespace) -> int:
    with namespace.entered():
        lines = Path("/proc/thread-self/net/netstat").read_text().splitlines()
    names, values = (line.split() for line in lines if line.startswith("TcpExt:"))
    return int(values[names.index("ListenOverflows")])


@contextmanager
def server_gone(scene: Scene, drawn: Drawn) -> Iterator[Truth]:
    """Kill the server's process: nobody listens. It is started again when the fault ends."""
    assert scene.server_process is not None
    os.kill(scene.server_process.pid, signal.SIGKILL)
    yield figures(drawn)
    scene.restart_server()


@contextmanager
def rejected(scene: Scene, drawn: Drawn) -> Iterator[Truth]:
    """Let the router refuse new connections, in one of a firewall's four ways."""
    with rule(
        scene.router, "filter", "FORWARD", *_SYN, "-j", "REJECT", "--reject-with", drawn["by"]
    ):
        yield figures(drawn)


@contextmanager
def rejected_here(scene: Scene, drawn: Drawn) -> Iterator[Truth]:
    """Let the client's own host refuse new connections, in one of a firewall's four ways."""
    with rule(
        scene.client, "filter", "OUTPUT", *_SYN, "-j", "REJECT", "--reject-with", drawn["by"]
    ):
        yield figures(drawn)


@contextmanager
def behind_nat(scene: Scene, drawn: Drawn) -> Iterator[None]:
    """Hide the client behind the router's address."""
    del drawn
    with rule(scene.router, "nat", "POSTROUTING", *_masquerade(_WIDE_PORTS)):
        yield


def _masquerade(ports: str) -> list[str]:
    # The router's own connections stay what they are.
    return ["-s", CLIENT, "-o", WIRE, "-p", "tcp", "-j", "MASQUERADE", "--to-ports", ports]


@contextmanager
def few_nat_ports(scene: Scene, drawn: Drawn) -> Iterator[Truth]:
    """Leave the NAT few ports, and let others have connections to the server on all of them."""
    ports = range(_NARROW_FIRST, _NARROW_FIRST + drawn["ports"])
    with contextlib.ExitStack() as stack:
        with scene.router.entered():
            for port in ports:
                other = stack.enter_context(socket.socket())
                other.settimeout(_PATIENCE_S)
                other.bind((ROUTER_FAR, port))
                other.connect((scene.server.address, 5000))
        # Only now: the client's probes must not take a port before the others have it.
        words = _masquerade(f"{ports[0]}-{ports[-1]}")
        stack.enter_context(rule(scene.router, "nat", "POSTROUTING", *words))
        yield figures(drawn)


@contextmanager
def few_local_ports(scene: Scene, drawn: Drawn) -> Iterator[Truth]:
    """Leave the client's host few ports, and let somebody else on it have them."""
    name, first = "net.ipv4.ip_local_port_range", 61000
    before = scene.client.sysctl(name)
    with contextlib.ExitStack() as stack:
        stack.callback(scene.client.sysctl, name, before)
        scene.client.sysctl(name, f"{first} {first + drawn['ports'] - 1}")
        with scene.client.entered():
            for port in range(first, first + drawn["ports"]):
                stack.enter_context(socket.socket()).bind(("", port))
        yield figures(drawn)


def few_descriptors(end: str) -> Callable[[Scene, Drawn], AbstractContextManager[Truth]]:
    """Return what lowers the descriptor limit of one end to those that it has open."""

    @contextmanager
    def inject(scene: Scene, drawn: Drawn) -> Iterator[Truth]:
        process = scene.client_process if end == "client" else scene.server_process
        assert process is not None
        open_now = len(os.listdir(f"/proc/{process.pid}/fd"))
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        before = int(limits.partition("Max open files")[2].split()[0])
        _limit(scene, process.pid, open_now)
        try:
            yield figures({"descriptors": open_now})
        finally:
            _limit(scene, process.pid, before)

    return inject


def _limit(scene: Scene, pid: int, descriptors: int) -> None:
    # Its own user may; root may only where it has CAP_SYS_RESOURCE.
    words = ["prlimit", "--pid", str(pid), f"--nofile={descriptors}:"]
    if scene.as_nobody(scene.client, *words).wait(10):
        raise LabError("the descriptor limit could not be changed")


@contextmanager
def no_gateway(scene: Scene, drawn: Drawn) -> Iterator[Truth]:
    """Take the router's address away: nobody answers for it any more."""
    address = f"{scene.router.address}/24"
    scene.router.ip(f"address delete {address} dev {DEVICE}")
    # As it would be forgotten by itself a minute later.
    scene.client.ip(f"neighbour flush dev {DEVICE}")
    try:
        yield figures(drawn)
    finally:
        scene.router.ip(f"address add {address} dev {DEVICE}")
        scene.client.ip(f"neighbour flush dev {DEVICE}")


CASES = (
    wire_case(
        "syn_loss_forward",
        "SYNs are dropped on their way to the server",
        on_path("syn_loss", "forward"),
        drawing(share=(0.3, 1.0)),
        "forward",
        lambda drawn: {"syn_loss": drawn["share"]},
    ),
    wire_case(
        "synack_loss_reverse",
        "SYN-ACKs are dropped on their way to the client",
        on_path("synack_loss", "reverse"),
        drawing(share=(0.3, 1.0)),
        "reverse",
        lambda drawn: {"syn_ack_loss": drawn["share"]},
    ),
    Case(
        "backlog_overflow",
        "the server's program accepts so slowly that its short accept queue is full",
        (Expected("backlog_overflow", "server_app"),),
        drawing(accept_s=(0.25, 0.6), backlog=range(3, 9)),
        slow_accept,
        prepare=short_queue,
    ),
    Case(
        "refused_by_server",
        "the server's process is killed, and nobody listens on its port",
        (Expected("refused_by_server", "server_app"),),
        drawing(),
        server_gone,
    ),
    Case(
        "rejected_midpath",
        "a firewall on the way rejects new connections",
        (Expected("rejected_midpath", "middlebox"),),
        drawing(by=_REJECT_WITH),
        rejected,
    ),
    Case(
        "denied_locally",
        "a firewall of the client's own host rejects new connections",
        (Expected("denied_locally", "client_host"),),
        drawing(by=_REJECT_WITH),
        rejected_here,
    ),
    wire_case(
        "new_connection_limit",
        "a box on the way remembers so many connections, and drops the SYNs of more",
        (Expected("new_connection_limit", "middlebox"),),
        drawing(connections=range(15, 40), linger_s=(5.0, 10.0)),
        "forward",
        lambda drawn: {"connections": drawn["connections"], "linger_s": drawn["linger_s"]},
    ),
    Case(
        "nat_port_exhaustion",
        "the NAT on the way has few ports, and others have them",
        (Expected("nat_port_exhaustion", "middlebox"),),
        drawing(ports=range(6, 30)),
        few_nat_ports,
        prepare=behind_nat,
    ),
    Case(
        "local_ports_exhausted",
        "the client's host has no local port left",
        (Expected("local_ports_exhausted", "client_host"),),
        drawing(ports=range(4, 40)),
        few_local_ports,
    ),
    Case(
        "descriptors_exhausted_client",
        "the client's process may open no more descriptors",
        (Expected("descriptors_exhausted", "client_host"),),
        drawing(),
        few_descriptors("client"),
    ),
    Case(
        "descriptors_exhausted_server",
        "the server's process may open no more descriptors",
        (Expected("descriptors_exhausted", "server_host"),),
        drawing(),
        few_descriptors("server"),
    ),
    Case(
        "neighbour_unreachable",
        "the client's gateway answers no ARP",
        (Expected("neighbour_unreachable", "path"),),
        drawing(),
        no_gateway,
    ),
)
