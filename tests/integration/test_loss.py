"""What is counted as lost, duplicated or reordered is what a path really did to its packets."""

import asyncio
import contextlib
import functools
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Any

import pytest

from client.makers import missing
from integration.harness import ServerProcess, eventually, running
from integration.link import FORWARD, REVERSE, Fate, is_syn, linked, payload_bytes
from integration.netns import Pair, namespaces
from integration.pair import probing_tools
from twocans_client.evidence.loss import Segments
from twocans_client.evidence.proxy import Proxy, breaks
from twocans_client.evidence.results import Outcome, ProbeResult
from twocans_client.probes.held import Held
from twocans_client.probes.held_connection import HeldPlan
from twocans_client.probes.probe import Attempt, Plan, probe
from twocans_client.probes.tools import Tools
from twocans_client.report.summary import Report
from twocans_client.report.text import report_text
from twocans_core.clock import SYSTEM_CLOCK
from twocans_core.host.arrivals import OwnReader
from twocans_core.host.procfs import HostWatch
from twocans_core.net.sockets import Address

pytestmark = pytest.mark.slow

Hook = Callable[[], None]


def in_namespaces(pair: Pair, main: Callable[[Address, Tools], Awaitable[Any]]) -> Any:
    """Run a server in one namespace, and what is given in the other."""

    async def run() -> Any:
        async with contextlib.AsyncExitStack() as stack:
            with pair.server.entered():  # it listens before anything is waited for
                server = await stack.enter_async_context(running(host=pair.server.address))
            return await main(server.address, stack.enter_context(probing_tools()))

    with pair.client.entered():
        return asyncio.run(run())


def hooked(step: str, hook: Hook) -> type[Attempt]:
    """An attempt that calls something before its second exchange or before it parts."""

    class Hooked(Attempt):
        async def converse(self, talk):
            original = getattr(talk, step)

            async def with_hook(*args, **kwargs):
                if step == "say_goodbye" or len(talk.exchanges) == 1:
                    hook()
                return await original(*args, **kwargs)

            setattr(talk, step, with_hook)
            await super().converse(talk)

    return Hooked


def probed(pair: Pair, count: int, **plan: Any) -> list[ProbeResult]:
    """Make so many probes, one after the other."""

    async def main(address: Address, with_tools: Tools) -> list[ProbeResult]:
        return [await probe(address, patient(**plan), with_tools) for _ in range(count)]

    return list(in_namespaces(pair, main))


def patient(**plan: Any) -> Plan:
    return Plan(20_000_000_000, **plan)


def account(result: ProbeResult) -> Segments:
    assert result.outcome is Outcome.OK, result
    assert result.segments is not None
    return result.segments


# What is dropped, in which direction, how many, and before which step of a probe.
CASES = [
    ("syn", "forward", 1, "connect"),
    ("syn", "forward", 2, "connect"),
    ("syn_ack", "reverse", 1, "connect"),
    ("syn_ack", "reverse", 2, "connect"),
    ("data", "forward", 1, "connect"),  # HELLO
    ("data", "forward", 2, "exchange"),
    ("data", "forward", 1, "say_goodbye"),  # GOODBYE
    ("data", "reverse", 1, "connect"),  # WELCOME
    ("data", "reverse", 2, "exchange"),
    ("ack", "forward", 1, "connect"),  # the third of the handshake
    ("ack", "reverse", 1, "connect"),
]


def drop_and_probe(
    kind: str, direction: str, count: int, step: str
) -> tuple[ProbeResult, Counter[str]]:
    """Probe while this many packets are dropped; returns also what was, by kind."""
    with namespaces() as pair:
        receiver = pair.server if direction == "forward" else pair.client
        drop = functools.partial(receiver.drop, kind, first=count)
        if step == "connect":
            drop()
        attempt = Attempt if step == "connect" else hooked(step, drop)

        async def main(address, with_tools):
            plan = patient(exchanges=3)
            return await probe(address, plan, with_tools, attempt_type=attempt)

        return in_namespaces(pair, main), receiver.dropped()


@pytest.mark.parametrize(("kind", "direction", "count", "step"), CASES)
def test_a_fresh_connection_counts_what_was_dropped(kind, direction, count, step):
    result, dropped = drop_and_probe(kind, direction, count, step)
    assert dropped == {kind: count}
    segments = account(result)
    assert missing(segments) == {f"{kind} {direction}": count}
    sender = segments.forward if direction == "forward" else segments.reverse
    assert sender.resent - sender.spurious == (count if kind == "data" else 0)


def test_a_goodbye_that_was_sent_again_in_vain_is_not_lost():
    with namespaces() as pair:

        def hide_the_answer() -> None:
            pair.client.drop("data", first=1)
            pair.client.drop("fin", first=2)

        async def main(address, with_tools):
            attempt = hooked("say_goodbye", hide_the_answer)
            return await probe(address, patient(), with_tools, attempt_type=attempt)

        result = in_namespaces(pair, main)
        assert pair.client.dropped()["data"] == 1
    # What became of the FOLLOW_UP nobody can tell. Our GOODBYE arrived at once, and it shows.
    segments = account(result)
    assert missing(segments) == {}
    assert segments.forward.resent == segments.forward.spurious


@pytest.mark.parametrize("kind", ["data", "fin"])
def test_the_server_counts_what_it_sent_again_after_the_follow_up(kind):
    with namespaces() as pair:

        async def run() -> tuple[ProbeResult, int]:
            async with contextlib.AsyncExitStack() as stack:
                with pair.server.entered():
                    server = await stack.enter_async_context(running(host=pair.server.address))
                drop = functools.partial(pair.client.drop, kind, first=1)
                attempt = hooked("say_goodbye", drop)
                with_tools = stack.enter_context(probing_tools())
                result = await probe(server.address, patient(), with_tools, attempt_type=attempt)
                await eventually(lambda: server.tally.ended["framed", "done"] == 1)
            return result, server.tally.resent_at_close

        with pair.client.entered():
            result, resent = asyncio.run(run())
        assert pair.client.dropped()[kind] == 1
    assert resent >= 1
    assert missing(account(result)) == {}


def test_a_fresh_connection_counts_what_was_dropped_at_random():
    with namespaces() as pair:
        dropped_reverse = []

        async def main(address, with_tools):
            for end in pair:
                end.drop("data", first=1)
                end.drop("data", share=0.1)
            # What becomes of the FOLLOW_UP nobody can tell.
            attempt = hooked("say_goodbye", lambda: dropped_reverse.append(pair.client.heal()))
            plan = Plan(60_000_000_000, exchanges=30)
            return await probe(address, plan, with_tools, attempt_type=attempt)

        result = in_namespaces(pair, main)
        forward, reverse = account(result)
        assert forward.lost == pair.server.dropped()["data"]
        assert reverse.lost == dropped_reverse[0]["data"]
    assert min(forward.lost, reverse.lost) > 0
    assert forward.duplicated == reverse.duplicated == 0
    assert forward.sent == 32 + forward.resent


class Books:
    """What a held connection's observer is told."""

    def __init__(self) -> None:
        self.exchanges = 0
        self.accounts: list[Segments] = []
        self.endings: list[Any] = []

    def exchanged(self, _exchange, _server, _tainted) -> None:
        self.exchanges += 1

    def counted(self, segments) -> None:
        self.accounts.append(segments)

    def limited(self, _limited) -> None: ...

    def skipped(self, _count) -> None: ...

    def ended(self, ending) -> None:
        self.endings.append(ending)

    async def settle(self) -> None:
        """Wait for an account of an exchange that has yet to begin."""
        seen, known = self.exchanges, len(self.accounts)
        await eventually(lambda: self.exchanges > seen + 2 and len(self.accounts) > known)
        known = len(self.accounts)
        await eventually(lambda: len(self.accounts) > known)


class Soon(Random):
    """A held connection comes at once."""

    def uniform(self, a, _b):
        return a


@contextlib.asynccontextmanager
async def holding(address: Address, with_tools: Tools):
    # Longer than a delayed acknowledgement takes, so that there are some.
    plan = HeldPlan(60_000_000, 64, 5_000_000_000, 1_000_000_000)
    books = Books()
    with_tools = with_tools._replace(rng=Soon(1))
    held = Held("x", lambda: address, plan, lambda: with_tools, books)
    task = asyncio.create_task(held.run())
    try:
        await eventually(lambda: books.accounts)
        yield books
    finally:
        held.stop()
        await task
    assert len(books.endings) == 1


def test_a_held_connection_counts_what_was_dropped_at_random():
    with namespaces() as pair:

        async def main(address, with_tools):
            async with holding(address, with_tools) as books:
                await books.settle()
                since = len(books.accounts)
                for end in pair:
                    for kind in ("data", "ack"):
                        end.drop(kind, share=0.1)
                pair.server.drop("ack", first=1)
                pair.client.drop("data", first=1)
                goal = books.exchanges + 40
                await eventually(lambda: books.exchanges >= goal)
                dropped = [end.heal() for end in pair]
                await books.settle()
                return dropped, sum(books.accounts[since:], Segments())

        (dropped_reverse, dropped_forward), total = in_namespaces(pair, main)
    forward, reverse = total
    assert (forward.lost, forward.acks_lost) == (dropped_forward["data"], dropped_forward["ack"])
    assert (reverse.lost, reverse.acks_lost) == (dropped_reverse["data"], dropped_reverse["ack"])
    assert forward.duplicated == reverse.duplicated == 0
    assert reverse.lost > 0
    assert forward.acks_lost > 0


def every(
    number: int, fate: Fate, least_bytes: int = 1, directions: Sequence[int] = (FORWARD, REVERSE)
) -> Callable[[int, bytes], Fate]:
    """Do it to every so manieth packet with data of each of these directions."""
    seen = [0, 0]

    def decide(direction: int, packet: bytes) -> Fate:
        if direction not in directions or payload_bytes(packet) < least_bytes:
            return Fate.PASS
        seen[direction] += 1
        return Fate.PASS if seen[direction] % number else fate

    return decide


def test_what_a_link_delivers_twice_is_counted_as_duplicated():
    with linked() as (pair, link):

        async def main(address, with_tools):
            plan = patient(exchanges=9)
            results = []
            for _ in range(3):
                # Of eleven, so not the GOODBYE: its copy may come after the server has counted.
                link.decide = every(3, Fate.TWICE)
                results.append(await probe(address, plan, with_tools))
            return results

        forward, reverse = sum(map(account, in_namespaces(pair, main)), Segments())
    assert forward.duplicated == link.count[FORWARD, Fate.TWICE]
    assert reverse.duplicated == link.count[REVERSE, Fate.TWICE]
    assert forward.duplicated == reverse.duplicated == 9
    assert forward.lost == reverse.lost == forward.acks_lost == reverse.acks_lost == 0
    # The receivers noticed, so that nobody takes it for a proxy.
    assert forward.dsacks
    assert reverse.dsacks


def test_a_held_connection_counts_what_a_link_delivers_twice():
    with linked() as (pair, link):

        async def main(address, with_tools):
            async with holding(address, with_tools) as books:
                await books.settle()
                since = len(books.accounts)
                link.decide = every(2, Fate.TWICE)
                goal = books.exchanges + 10
                await eventually(lambda: books.exchanges >= goal)
                link.decide = lambda _direction, _packet: Fate.PASS
                await books.settle()
                return sum(books.accounts[since:], Segments())

        forward, reverse = in_namespaces(pair, main)
    assert forward.duplicated == link.count[FORWARD, Fate.TWICE] > 3
    assert reverse.duplicated == link.count[REVERSE, Fate.TWICE] > 3
    assert forward.lost == reverse.lost == 0


@pytest.mark.parametrize("bad", [FORWARD, REVERSE])
def test_segments_that_overtake_each_other_are_reordered_and_not_lost(bad):
    with linked() as (pair, link):
        link.decide = every(8, Fate.OVERTAKEN, least_bytes=1000, directions=[bad])
        (result,) = probed(pair, 1, exchanges=5, payload_bytes=60_000)
        segments = account(result)
    # How often the sender notices is not how often it happened: either may be more.
    assert [bool(fates.reordered) for fates in segments] == [bad == FORWARD, bad == REVERSE]
    for fates in segments:
        assert fates.lost == fates.duplicated == 0
        assert fates.spurious == fates.resent


@contextlib.asynccontextmanager
async def a_proxy_before(address: Address):
    """A terminating proxy on 127.0.0.1 of the namespace that we are in."""

    async def relay(reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
            writer.write_eof()

    async def serve(reader, writer):
        far_reader, far_writer = await asyncio.open_connection(*address)
        both = relay(reader, far_writer), relay(far_reader, writer)
        await asyncio.gather(*both, return_exceptions=True)
        for each in (writer, far_writer):
            each.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=500)
    try:
        yield Address("127.0.0.1", server.sockets[0].getsockname()[1])
    finally:
        server.close()
        await server.wait_closed()


def test_a_proxy_is_recognised_because_nothing_is_conserved():
    with namespaces() as pair:

        async def main(address, with_tools):
            async with a_proxy_before(address) as via:
                plan = patient(payload_bytes=20_000)
                return {
                    "direct": [await probe(address, plan, with_tools) for _ in range(10)],
                    "proxied": [await probe(via, plan, with_tools) for _ in range(3)],
                }

        results = in_namespaces(pair, main)
    signs = {}
    for name, probed in results.items():
        proxy = Proxy()
        for result in probed:
            proxy.segments(account(result))
        signs[name] = proxy.sign
    assert signs == {"direct": "", "proxied": "segments"}


async def at_once(count: int, address: Address, plan: Plan, with_tools: Tools) -> list[ProbeResult]:
    """Make so many probes, thirty at a time."""
    slots = asyncio.Semaphore(30)

    async def one() -> ProbeResult:
        async with slots:
            return await probe(address, plan, with_tools)

    return await asyncio.gather(*(one() for _ in range(count)))


def reported(results: list[ProbeResult]) -> tuple[Report, Segments]:
    report = Report()
    for result in results:
        report.add(result)
    assert report.segments is not None
    return report, report.segments


@pytest.mark.parametrize("is_proxied", [True, False])
def test_loss_behind_a_near_proxy_is_not_claimed_for_the_other_way(is_proxied):
    with namespaces() as pair:

        async def main(address, with_tools):
            async with a_proxy_before(address) as via:
                pair.server.drop("data", share=0.1)
                pair.server.drop("ack", share=0.4)
                plan = patient(exchanges=3)
                return await at_once(80, via if is_proxied else address, plan, with_tools)

        accounts = list(map(account, in_namespaces(pair, main)))
        assert pair.server.dropped()["data"] > 5
    proxy = Proxy()
    for segments in accounts:
        proxy.segments(segments)
    assert proxy.sign == ("segments" if is_proxied else "")
    # Behind a proxy it is the server that sends again, though all its segments arrive. Where the
    # proxy's word of that is lost as well, nothing contradicts it but the sign.
    believed = [segments for segments in accounts if not breaks(segments)]
    lost_reverse = sum(segments.reverse.lost for segments in believed)
    assert lost_reverse < len(accounts) // 5
    if not is_proxied:
        assert (len(believed), lost_reverse) == (len(accounts), 0)
        assert sum(segments.forward.lost for segments in believed) > 5


@contextlib.contextmanager
def a_server_process(pair: Pair):
    """A server that reads its own namespace's counts."""
    flags = [f"--host={pair.server.address}"]
    with ServerProcess(*flags, wrapper=pair.server.wrapper) as server:
        yield server, Address(pair.server.address, server.port)


def from_client(pair: Pair, main: Callable[[Tools], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        with probing_tools(host=HostWatch(SYSTEM_CLOCK.mono_ns, OwnReader())) as with_tools:
            return await main(with_tools)

    with pair.client.entered():
        return asyncio.run(run())


@pytest.mark.parametrize("bad", [FORWARD, REVERSE])
def test_a_segment_with_a_wrong_checksum_is_damaged_and_not_spurious(bad):
    with linked() as (pair, link), a_server_process(pair) as (_, address):
        # A short one is verified before it is counted in, and so is lost.
        link.decide = every(3, Fate.DAMAGED, least_bytes=100, directions=[bad])

        async def main(with_tools):
            return await probe(address, patient(exchanges=6), with_tools)

        segments = account(from_client(pair, main))
        count = link.count[bad, Fate.DAMAGED]
    assert count > 1
    fates, other = segments.forward, segments.reverse
    if bad == REVERSE:
        fates, other = other, fates
    assert (fates.damaged, fates.spurious, fates.lost, fates.resent) == (count, 0, 0, count)
    # The other direction was sound; an end that has no answer may send again.
    assert (other.damaged, other.lost) == (0, 0)


DATA = ("-p", "tcp", "-m", "length", "--length", "73:65535")


@pytest.mark.parametrize("end", ["client", "server"])
def test_what_a_hosts_own_firewall_drops_is_named_so_and_no_proxy(end):
    with namespaces() as pair:
        nth = ("-m", "statistic", "--mode", "nth", "--every", "4", "--packet", "0")
        getattr(pair, end).run("iptables", "-A", "OUTPUT", *DATA, *nth, "-j", "DROP")

        async def main(address, with_tools):
            return await at_once(20, address, patient(exchanges=3), with_tools)

        results = in_namespaces(pair, main)
        counted = getattr(pair, end).run("iptables", "-nvxL", "OUTPUT").splitlines()[2]
    report, (forward, reverse) = reported(results)
    assert report.proxies == []
    fates, other = (forward, reverse) if end == "client" else (reverse, forward)
    assert (fates.lost, other.lost, other.unsent) == (0, 0, 0)
    # But the FOLLOW_UPs, of which nobody tells any more.
    assert 0 < fates.unsent <= int(counted.split()[0])
    if end == "client":
        assert fates.unsent == int(counted.split()[0])
        assert fates.sent == 5 * 20 + fates.resent
    host = "our own host" if end == "client" else "the server's host"
    assert f"dropped by {host}" in report_text(report)


def test_a_full_queue_of_our_own_host_is_named_so_and_no_proxy():
    with namespaces() as pair:
        # Room for a SYN, ACK or GOODBYE, and for no request of this size.
        tbf = ("tbf", "rate", "100mbit", "burst", "1600", "limit", "1000")
        shape = ("tc", "qdisc", "add", "dev", pair.client.device, "root", *tbf)

        async def main(address, with_tools):
            plan = patient(exchanges=1, payload_bytes=1_000)

            class Congested(Attempt):
                async def converse(self, talk):
                    pair.client.run(*shape)
                    asyncio.get_running_loop().call_later(0.3, heal)
                    await super().converse(talk)

            def heal() -> None:
                pair.client.run("tc", "qdisc", "del", "dev", pair.client.device, "root")

            return await probe(address, plan, with_tools, attempt_type=Congested)

        forward, reverse = account(in_namespaces(pair, main))
    assert forward.unsent > 0
    assert (forward.lost, reverse.lost, reverse.unsent) == (0, 0, 0)


def test_a_follow_up_that_comes_twice_is_no_sign_of_a_proxy():
    with linked() as (pair, link):
        link.decide = twice_the_last(before=2)  # a WELCOME and one reply
        report, segments = reported(probed(pair, 10, exchanges=1))
        assert link.count[REVERSE, Fate.TWICE] == 10
    assert report.proxies == []
    assert segments.reverse.duplicated == 0


def twice_the_last(before: int) -> Callable[[int, bytes], Fate]:
    """Deliver the last segment with data of each connection twice, which so many come before."""
    seen: Counter[int] = Counter()

    def decide(direction: int, packet: bytes) -> Fate:
        if direction == FORWARD or not payload_bytes(packet):
            return Fate.PASS
        port = int.from_bytes(packet[22:24])
        seen[port] += 1
        return Fate.TWICE if seen[port] == before + 1 else Fate.PASS

    return decide


def test_an_address_translator_that_is_slow_with_first_packets_is_no_proxy():
    with linked() as (pair, link):
        link.decide = lambda _direction, packet: Fate.OVERTAKEN if is_syn(packet) else Fate.PASS
        nat = ("-j", "MASQUERADE", "--to-ports", "50000-60000", "--random")
        pair.client.run("iptables", "-t", "nat", "-A", "POSTROUTING", "-p", "tcp", *nat)
        results = probed(pair, 20)
        assert all(result.seen_as != result.local for result in results)
    assert reported(results)[0].proxies == []


def test_a_firewall_that_strips_sack_is_named_and_loss_is_counted_on():
    with namespaces() as pair:
        syns = ("-p", "tcp", "--tcp-flags", "SYN", "SYN")
        strip = ("-j", "TCPOPTSTRIP", "--strip-options", "sack-permitted")
        pair.client.run("iptables", "-t", "mangle", "-A", "INPUT", *syns, *strip)
        pair.server.drop("data", first=1)
        report, segments = reported(probed(pair, 3))
    assert (report.proxies, report.boxes) == ([], ["options_rewritten"])
    assert segments.forward.lost == 1


def test_a_box_that_answers_the_handshake_is_named_and_loses_no_acknowledgement():
    with namespaces() as pair:
        run = functools.partial(pair.server.run, "iptables")
        syncookies = ("net.ipv4.tcp_syncookies=1", "net.netfilter.nf_conntrack_tcp_loose=0")
        run("-t", "raw", "-A", "PREROUTING", "-p", "tcp", "--syn", "-j", "CT", "--notrack")
        options = ("--sack-perm", "--timestamp", "--wscale", "7", "--mss", "1460")
        untracked = ("-m", "state", "--state", "INVALID,UNTRACKED")
        run("-A", "INPUT", "-p", "tcp", *untracked, "-j", "SYNPROXY", *options)
        run("-A", "INPUT", "-m", "state", "--state", "INVALID", "-j", "DROP")
        pair.server.run("sysctl", "-qw", *syncookies)
        report, segments = reported(probed(pair, 10))
    assert (report.proxies, report.boxes) == ([], ["handshake_answered"])
    # It may drop a HELLO that comes before the server has answered it; that is lost on the way.
    assert [fates.acks_lost + fates.syns_lost for fates in segments] == [0, 0]


def test_what_a_full_accept_queue_drops_is_not_lost_on_the_way():
    with namespaces() as pair:
        pair.server.run("sysctl", "-qw", "net.core.somaxconn=1")
        with a_server_process(pair) as (server, address):

            async def main(with_tools):
                before = [await probe(address, patient(), with_tools)]
                server.signal(signal.SIGSTOP)
                asyncio.get_running_loop().call_later(0.5, server.signal, signal.SIGCONT)
                return before + await at_once(8, address, patient(), with_tools)

            report, segments = reported(from_client(pair, main))
    assert report.outcomes[Outcome.OK] == 9
    assert segments.forward.overflowed > 0
    assert segments.forward.resent + segments.forward.syns - 9 > 0
    assert missing(segments) == {}


def test_where_connections_do_not_come_to_be_loss_is_said_to_be_the_least():
    with namespaces() as pair:
        pair.server.drop("syn", first=9)

        async def main(address, with_tools):
            lost = await at_once(3, address, Plan(1_500_000_000), with_tools)
            return lost + await at_once(20, address, patient(), with_tools)

        results = in_namespaces(pair, main)
        unheard = pair.server.dropped()["syn"]
    report, segments = reported(results)
    assert report.reasons["connect_timeout"] == 3
    assert report.unanswered == unheard - segments.forward.syns_lost > 0
    text = " ".join(report_text(report).split())
    assert "lost forward none of 60 lost reverse" in text
    syns = f"{report.unanswered} SYNs went unanswered"
    assert f"3 of 23 probes failed and may have lost more; {syns}" in text
