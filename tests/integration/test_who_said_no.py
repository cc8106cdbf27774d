"""A connection that does not come to be: what our own kernel tells of who said no, and where."""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import pytest

from integration.netns import Namespace, Routed, routed
from integration.pair import probing_tools
from twocans_client.evidence.blame import judge_probe
from twocans_client.evidence.results import ProbeResult, Reason
from twocans_client.probes.probe import Plan, probe
from twocans_core.clock import SYSTEM_CLOCK
from twocans_core.host.arrivals import OwnCounts, OwnReader
from twocans_core.host.procfs import HostWatch
from twocans_core.kernel.errqueue import Icmp
from twocans_core.net.sockets import Address

OPEN, CLOSED = 5000, 5001
CLIENT, ROUTER, SERVER = "10.77.0.1", "10.77.0.2", "10.77.1.1"
CLIENT6, ROUTER6, SERVER6 = "fd77::1", "fd77::2", "fd77:1::1"
NOBODY, NOBODY_BEHIND = "10.77.0.99", "10.77.1.99"

Place = Callable[[Routed], AbstractContextManager[None]]


@pytest.fixture(scope="module")
def ends() -> Iterator[Routed]:
    with routed() as made, contextlib.ExitStack() as open_sockets:
        with made.server.entered():
            for family, host in ((socket.AF_INET, SERVER), (socket.AF_INET6, SERVER6)):
                listener = socket.create_server((host, OPEN), family=family)
                open_sockets.enter_context(listener)
        yield made


def own_counts() -> HostWatch[OwnCounts]:
    return HostWatch(SYSTEM_CLOCK.mono_ns, OwnReader())


def probed(client: Namespace, host: str, port: int = OPEN, timeout_s: float = 5) -> ProbeResult:
    """Greet: nobody answers on a connection that comes to be, which is how it shows."""

    async def main() -> ProbeResult:
        with client.entered(), probing_tools(host=own_counts()) as tools:
            return await probe(Address(host, port), Plan(int(timeout_s * 1e9)), tools)

    result = asyncio.run(main())
    judge_probe(result)
    return result


def rejects(who: str, how: str, chain: str, *, tool: str = "iptables") -> Place:
    """Reject SYNs in a chain of one of the three."""
    rule = (tool, "-A", chain, "-p", "tcp", "--syn", "-j", "REJECT", "--reject-with", how)
    return lambda ends: getattr(ends, who).under(*rule)


def drops(who: str, chain: str, *match: str) -> Place:
    return lambda ends: getattr(ends, who).under(
        "iptables", "-A", chain, "-p", "tcp", *match, "-j", "DROP"
    )


def routes(who: str, kind: str) -> Place:
    return lambda ends: getattr(ends, who).under("ip", "route", "add", kind, f"{SERVER}/32")


class No(NamedTuple):
    """Who says no, where to a probe goes, and what it is to know then.

    Attributes:
        place: What is done to the three namespaces.
        error: The errno.
        icmp: Who said what; None: nobody did, by ICMP.
        host, port: Where to.
        own: It is our own kernel's word.
    """

    place: Place
    error: int | None
    icmp: Icmp | None = None
    host: str = SERVER
    port: int = OPEN
    own: bool = False


def nowhere(_: Routed) -> AbstractContextManager[None]:
    return nullcontext()


AT_ONCE = {
    "closed port": No(nowhere, errno.ECONNREFUSED, port=CLOSED),
    "closed port, IPv6": No(nowhere, errno.ECONNREFUSED, host=SERVER6, port=CLOSED),
    "reset by the router": No(rejects("router", "tcp-reset", "FORWARD"), errno.ECONNREFUSED),
    "reset by the server's firewall": No(
        rejects("server", "tcp-reset", "INPUT"), errno.ECONNREFUSED
    ),
    "reset by our firewall": No(rejects("client", "tcp-reset", "OUTPUT"), errno.ECONNREFUSED),
    "port, the router": No(
        rejects("router", "icmp-port-unreachable", "FORWARD"),
        errno.ECONNREFUSED,
        Icmp(3, 3, ROUTER),
    ),
    "port, the server's firewall": No(
        rejects("server", "icmp-port-unreachable", "INPUT"), errno.ECONNREFUSED, Icmp(3, 3, SERVER)
    ),
    "port, our firewall": No(
        rejects("client", "icmp-port-unreachable", "OUTPUT"),
        errno.ECONNREFUSED,
        Icmp(3, 3, CLIENT),
        own=True,
    ),
    "prohibited, the router": No(
        rejects("router", "icmp-admin-prohibited", "FORWARD"),
        errno.EHOSTUNREACH,
        Icmp(3, 13, ROUTER),
    ),
    "prohibited, the server's firewall": No(
        rejects("server", "icmp-admin-prohibited", "INPUT"),
        errno.EHOSTUNREACH,
        Icmp(3, 13, SERVER),
    ),
    "prohibited, our firewall": No(
        rejects("client", "icmp-admin-prohibited", "OUTPUT"),
        errno.EHOSTUNREACH,
        Icmp(3, 13, CLIENT),
        own=True,
    ),
    "host, the router": No(
        rejects("router", "icmp-host-unreachable", "FORWARD"),
        errno.EHOSTUNREACH,
        Icmp(3, 1, ROUTER),
    ),
    "net, the router": No(
        rejects("router", "icmp-net-unreachable", "FORWARD"), errno.ENETUNREACH, Icmp(3, 0, ROUTER)
    ),
    "port, IPv6 router": No(
        rejects("router", "icmp6-port-unreachable", "FORWARD", tool="ip6tables"),
        errno.ECONNREFUSED,
        Icmp(1, 4, ROUTER6),
        host=SERVER6,
    ),
    "prohibited, IPv6 router": No(
        rejects("router", "icmp6-adm-prohibited", "FORWARD", tool="ip6tables"),
        errno.EHOSTUNREACH,
        Icmp(1, 1, ROUTER6),
        host=SERVER6,
    ),
    "prohibited, our firewall, IPv6": No(
        rejects("client", "icmp6-adm-prohibited", "OUTPUT", tool="ip6tables"),
        errno.EHOSTUNREACH,
        Icmp(1, 1, CLIENT6),
        host=SERVER6,
        own=True,
    ),
    "route unreachable, the router": No(
        routes("router", "unreachable"), errno.EHOSTUNREACH, Icmp(3, 1, ROUTER)
    ),
    "route prohibit, the router": No(
        routes("router", "prohibit"), errno.EHOSTUNREACH, Icmp(3, 13, ROUTER)
    ),
}


@pytest.mark.parametrize("no", AT_ONCE.values(), ids=AT_ONCE.keys())
def test_who_said_no_at_once_is_known(ends, no):
    with no.place(ends):
        result = probed(ends.client, no.host, no.port)
    assert (result.errno, result.icmp) == (no.error, no.icmp)
    assert result.is_own_word is no.own
    assert no.icmp is None or result.detail.endswith(str(no.icmp))
    assert result.address == Address(no.host, no.port)
    assert result.local is not None
    assert result.standing is not None
    assert (result.standing.segs_out, result.standing.sent_in_vain) == (1, 0)
    # A reset has come; an ICMP message is no segment.
    assert result.standing.segs_in == (1 if no.icmp is None else 0)
    assert not result.standing.is_dropped_here
    assert not result.standing.is_waiting_here
    assert result.own_undelivered == (None if ":" in no.host else 0)


ROUTES = {
    "unreachable": (errno.EHOSTUNREACH, Reason.UNREACHABLE),
    "prohibit": (errno.EACCES, Reason.DENIED),
    "blackhole": (errno.EHOSTUNREACH, Reason.UNREACHABLE),
    "throw": (errno.ENETUNREACH, Reason.UNREACHABLE),
}


@pytest.mark.parametrize("kind", ROUTES)
def test_a_route_of_our_own_refuses_before_anything_is_sent(ends, kind):
    with routes("client", kind)(ends):
        result = probed(ends.client, SERVER)
    assert (result.errno, result.reason) == ROUTES[kind]
    assert (result.icmp, result.local, result.standing) == (None, None, None)


OWN_INPUT = drops("client", "INPUT")
SILENCE = {
    "dropped by the router": (drops("router", "FORWARD", "--syn"), False),
    "dropped by the server's firewall": (drops("server", "INPUT", "--syn"), False),
    "SYN-ACK dropped by the router": (
        drops("router", "FORWARD", "--tcp-flags", "SYN,ACK", "SYN,ACK"),
        False,
    ),
    "dropped by our firewall on the way in": (OWN_INPUT, False),
    "dropped by our firewall on the way out": (drops("client", "OUTPUT", "--syn"), True),
    "route blackhole of the router": (routes("router", "blackhole"), False),
}


@pytest.mark.slow
@pytest.mark.parametrize(("place", "here"), SILENCE.values(), ids=SILENCE.keys())
def test_silence_says_whether_the_syn_left_this_host(ends, place, here):
    with place(ends):
        result = probed(ends.client, SERVER, timeout_s=1.5)
    assert (result.reason, result.errno, result.icmp) == (Reason.CONNECT_TIMEOUT, None, None)
    assert result.local is not None
    assert result.standing is not None
    assert (result.standing.total_retrans, result.syns_resent) == (1, 1)
    assert result.standing.is_dropped_here is here
    assert not result.standing.is_waiting_here
    if place is OWN_INPUT:  # the SYN-ACKs to both SYNs, and what the server sent again
        assert result.own_undelivered is not None
        assert result.own_undelivered >= 2
    else:
        assert result.own_undelivered == 0


def by_a_dead_gateway(ends: Routed) -> AbstractContextManager[None]:
    return ends.client.under("ip", "route", "add", f"{SERVER}/32", "via", NOBODY)


NEIGHBOURS = {
    "dead neighbour": No(nowhere, 0, Icmp(3, 1, CLIENT), host=NOBODY, own=True),
    "dead gateway": No(by_a_dead_gateway, 0, Icmp(3, 1, CLIENT), own=True),
    "dead neighbour of the router": No(nowhere, 0, Icmp(3, 1, ROUTER), host=NOBODY_BEHIND),
}


@pytest.mark.slow
@pytest.mark.parametrize("no", NEIGHBOURS.values(), ids=NEIGHBOURS.keys())
def test_a_neighbour_that_does_not_answer_is_ours_or_a_routers(ends, no):
    with no.place(ends):
        result = probed(ends.client, no.host)
    assert (result.reason, result.errno) == (Reason.UNREACHABLE, errno.EHOSTUNREACH)
    assert (result.icmp, result.is_own_word) == (no.icmp, no.own)
    assert result.standing is not None
    assert result.standing.is_waiting_here is no.own, "or it left, and was sent again"
    assert not result.standing.is_dropped_here
    assert (result.standing.total_retrans == 0) is no.own


@pytest.mark.slow
def test_a_queue_of_our_own_that_does_not_move_keeps_the_syn(ends):
    queue = ("root", "tbf", "rate", "8bit", "burst", "10", "limit", "1")
    with ends.client.under("tc", "qdisc", "add", "dev", ends.client.device, *queue):
        result = probed(ends.client, SERVER, timeout_s=1.5)
    assert result.standing is not None
    assert result.standing.is_waiting_here or result.standing.is_dropped_here
