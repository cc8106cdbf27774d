"""How a connection stood when it failed: what our own kernel tells, fault by fault."""

import asyncio
import contextlib
import errno
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager

import pytest

from integration.harness import eventually, running
from integration.netns import Routed, routed
from integration.pair import probing_tools
from integration.test_held import holding
from twocans_client.evidence.results import ProbeResult, Reason
from twocans_client.probes.conversation import Conversation
from twocans_client.probes.endings import Ending
from twocans_client.probes.held_connection import HeldPlan
from twocans_client.probes.probe import Attempt, Plan, probe
from twocans_core.net.sockets import Address

SECOND_NS = 1_000_000_000
SERVER, SERVER6 = "10.77.1.1", "fd77:1::1"
SMALL, LARGE = 64, 8_000
MTU = 1_300

Fault = Callable[[Routed], AbstractContextManager[None]]

pytestmark = pytest.mark.slow


@contextlib.asynccontextmanager
async def far_server(ends: Routed, host: str = SERVER) -> AsyncIterator[Address]:
    with ends.server.entered():
        served = running(host=host)
        server = await served.__aenter__()
    try:
        yield server.address
    finally:
        await served.__aexit__(None, None, None)


def probed(
    fault: Fault,
    *,
    payload_bytes: int = SMALL,
    timeout_s: float = 1.5,
    lasts_s: float | None = None,
    host: str = SERVER,
) -> ProbeResult:
    """Probe, and have a fault from right before the request on, to the end or for a while."""

    async def main(ends: Routed) -> ProbeResult:
        async with far_server(ends, host) as address:
            with contextlib.ExitStack() as faults:

                class Cutting(Attempt):
                    async def converse(self, talk: Conversation) -> None:
                        whole = talk.exchange

                        async def cut_first(payload: bytes, **options: bool) -> object:
                            await asyncio.to_thread(faults.enter_context, fault(ends))
                            if lasts_s is not None:
                                asyncio.get_running_loop().call_later(lasts_s, faults.close)
                            return await whole(payload, **options)

                        talk.exchange = cut_first  # type: ignore[method-assign, assignment]
                        await super().converse(talk)

                plan = Plan(int(timeout_s * SECOND_NS), payload_bytes=payload_bytes)
                with ends.client.entered(), probing_tools() as tools:
                    return await probe(address, plan, tools, attempt_type=Cutting)

    with routed() as ends:
        return asyncio.run(main(ends))


def rule(who: str, chain: str, *match: str, jump: tuple[str, ...] = ("DROP",)) -> Fault:
    return lambda ends: getattr(ends, who).under("iptables", "-A", chain, *match, "-j", *jump)


def small_mtu(*, icmp: bool) -> Fault:
    @contextlib.contextmanager
    def fault(ends):
        router = ends.router
        with contextlib.ExitStack() as stack:
            if not icmp:
                stack.enter_context(rule("router", "OUTPUT", "-p", "icmp")(ends))
            router.run("ip", "link", "set", router.device, "mtu", str(MTU))
            yield

    return fault


def a_queue_that_does_not_move(ends: Routed) -> AbstractContextManager[None]:
    queue = ("root", "tbf", "rate", "8bit", "burst", "10", "limit", "1")
    return ends.client.under("tc", "qdisc", "add", "dev", ends.client.device, *queue)


def test_a_black_hole_for_large_packets_lets_the_short_tail_through_and_says_nothing():
    result = probed(small_mtu(icmp=False), payload_bytes=LARGE)
    assert result.reason is Reason.REPLY_TIMEOUT
    stood = result.standing
    assert stood is not None
    # A request of 8,000 bytes is five full segments, which are lost, and a short one, which is not.
    assert (stood.unacked, stood.sacked, stood.lost) == (6, 1, 5)
    assert (stood.pmtu, stood.snd_mss) == (1_500, 1_448)
    assert (stood.backoff or 0) >= 2
    assert stood.last_data_recv_ms is not None, "the WELCOME came"
    assert not stood.is_dropped_here


def test_where_the_router_may_say_so_the_path_mtu_falls_and_all_arrives():
    result = probed(small_mtu(icmp=True), payload_bytes=LARGE)
    assert result.reason is Reason.OK
    assert result.standing is not None
    assert (result.standing.pmtu, result.standing.snd_mss) == (MTU, MTU - 52)
    assert (result.standing.total_retrans or 0) >= 5
    assert result.standing.unacked == 0


def test_a_good_probe_of_one_segment_is_not_asked_how_it_stood_and_a_larger_one_is():
    def nothing(_: Routed) -> AbstractContextManager[None]:
        return contextlib.nullcontext()

    small, large = (probed(nothing, payload_bytes=size) for size in (SMALL, LARGE))
    assert (small.reason, small.standing) == (Reason.OK, None)
    assert large.reason is Reason.OK
    assert large.standing is not None
    assert (large.standing.pmtu, large.standing.total_retrans) == (1_500, 0)


FORWARD = ("-p", "tcp", "-d", SERVER)
REVERSE = ("-p", "tcp", "-s", SERVER)


@pytest.mark.parametrize("match", [FORWARD, REVERSE], ids=["forward", "reverse"])
def test_what_the_path_lost_had_left_this_host(match):
    result = probed(rule("router", "FORWARD", *match))
    assert result.reason is Reason.REPLY_TIMEOUT
    assert result.request_left is not None
    assert None not in result.request_left
    stood = result.standing
    assert stood is not None
    assert (stood.unacked, stood.retrans, stood.notsent_bytes) == (1, 1, 0)
    assert (stood.total_retrans or 0) >= 2
    assert not stood.is_dropped_here


def test_what_our_own_firewall_drops_never_reaches_the_queue():
    result = probed(rule("client", "OUTPUT", *FORWARD))
    assert (result.reason, result.request_left) == (Reason.REPLY_TIMEOUT, (None, None))
    stood = result.standing
    assert stood is not None
    assert (stood.unacked, stood.total_retrans) == (0, 0)
    assert (stood.notsent_bytes or 0) > SMALL
    assert stood.is_dropped_here


def test_what_our_own_queue_drops_never_leaves_it():
    result = probed(a_queue_that_does_not_move)
    assert result.reason is Reason.REPLY_TIMEOUT
    assert result.request_left is not None
    assert (result.request_left.queued_ns is None, result.request_left.left_ns) == (False, None)
    assert result.standing is not None
    assert result.standing.is_dropped_here


PROHIBITED = ("REJECT", "--reject-with", "icmp-admin-prohibited")


def prohibited6(ends: Routed) -> AbstractContextManager[None]:
    match = ("-p", "tcp", "-d", SERVER6, "-j", "REJECT", "--reject-with", "icmp6-adm-prohibited")
    return ends.router.under("ip6tables", "-A", "FORWARD", *match)


PROHIBITING = {
    SERVER: rule("router", "FORWARD", *FORWARD, jump=PROHIBITED),
    SERVER6: prohibited6,
}


@pytest.mark.parametrize("host", PROHIBITING)
def test_a_router_that_says_no_for_a_moment_ends_no_connection(host):
    """If the socket still asked it would: the kernel then does not wait for it to come right."""
    result = probed(PROHIBITING[host], timeout_s=10, lasts_s=0.3, host=host)
    assert (result.reason, result.icmp) == (Reason.OK, None)
    assert (result.retrans or 0) >= 1


@pytest.mark.parametrize(("host", "error"), [(SERVER, errno.EHOSTUNREACH), (SERVER6, errno.EACCES)])
def test_what_a_router_said_of_a_connection_that_failed_is_known_but_not_who(host, error):
    result = probed(PROHIBITING[host], host=host)
    assert (result.reason, result.errno) == (Reason.REPLY_TIMEOUT, None)
    assert (result.soft_error, result.icmp) == (error, None)


def test_a_held_connection_says_how_it_stood_and_from_where():
    plan = HeldPlan(SECOND_NS // 50, SMALL, 5 * SECOND_NS, drain_grace_ns=0, patience_ns=SECOND_NS)

    async def main(ends: Routed) -> tuple[list[Ending], tuple[str, int], Address]:
        async with far_server(ends) as address:
            with ends.client.entered():
                async with holding(address, plan) as holder:
                    await holder.exchanged_more(3)
                    local = holder.streams[0].local_address()
                    with rule("router", "FORWARD", *FORWARD, jump=PROHIBITED)(ends):
                        # The next cannot connect, and is told who said no.
                        await eventually(lambda: len(holder.endings) >= 2)
        return holder.endings, local, address

    with routed() as ends:
        (cut, refused, *_), local, address = asyncio.run(main(ends))
    assert (cut.reason, cut.address, cut.local) == (Reason.REPLY_TIMEOUT, address, local)
    assert (cut.icmp, cut.errno, cut.soft_error) == (None, None, errno.EHOSTUNREACH)
    assert cut.standing is not None
    assert cut.standing.unacked == 1
    assert (refused.reason, refused.errno) == (Reason.UNREACHABLE, errno.EHOSTUNREACH)
    assert refused.icmp is not None
    assert refused.icmp.sender == ends.router.address
    assert refused.local is not None
    assert refused.local[1] != local[1]
    assert refused.standing is not None
    assert refused.standing.segs_out == 1
