"""What is counted as lost, duplicated or reordered is what a path really did to its packets."""

import asyncio
import contextlib
import functools
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import pytest

from client.evidence import missing
from integration.harness import eventually, running
from integration.link import BACK, THERE, Fate, linked, payload_bytes
from integration.netns import Pair, namespaces
from twocans_client.conservation import Segments, Way
from twocans_client.held import Held, HeldPlan
from twocans_client.probe import Attempt, Plan, Tools, probe
from twocans_client.proxy import Proxy
from twocans_client.results import Outcome, ProbeResult
from twocans_core.messages import Identity
from twocans_core.poller import Poller
from twocans_core.sockets import Address
from twocans_core.streams import connect

pytestmark = pytest.mark.slow

Hook = Callable[[], None]


def tools(poller: Poller) -> Tools:
    dial = functools.partial(connect, poller=poller)
    return Tools(dial, Identity(os.urandom(16), "x"), Random(1))


def in_namespaces(pair: Pair, main: Callable[[Address, Tools], Awaitable[Any]]) -> Any:
    """Run a server in one namespace, and what is given in the other."""

    async def run() -> Any:
        poller = Poller(asyncio.get_running_loop())
        async with contextlib.AsyncExitStack() as stack:
            with pair.server.entered():  # it listens before anything is waited for
                server = await stack.enter_async_context(running(host=pair.server.address))
            done = await main(server.address, tools(poller))
        poller.close()
        return done

    with pair.client.entered():
        return asyncio.run(run())


def hooked(step: str, hook: Hook) -> type[Attempt]:
    """An attempt that calls something before its second exchange or before it parts."""

    class Hooked(Attempt):
        async def converse(self, talk):
            original = getattr(talk, step)

            async def with_hook(*args, **kwargs):
                if step == "part" or len(talk.exchanges) == 1:
                    hook()
                return await original(*args, **kwargs)

            setattr(talk, step, with_hook)
            await super().converse(talk)

    return Hooked


def account(result: ProbeResult) -> Segments:
    assert result.outcome is Outcome.OK, result
    assert result.segments is not None
    return result.segments


# What is dropped, on which way, how many, and before which step of a probe.
CASES = [
    ("syn", "there", 1, "connect"),
    ("syn", "there", 2, "connect"),
    ("syn_ack", "back", 1, "connect"),
    ("syn_ack", "back", 2, "connect"),
    ("data", "there", 1, "connect"),  # HELLO
    ("data", "there", 2, "exchange"),
    ("data", "there", 1, "part"),  # GOODBYE
    ("data", "back", 1, "connect"),  # WELCOME
    ("data", "back", 2, "exchange"),
    ("ack", "there", 1, "connect"),  # the third of the handshake
    ("ack", "back", 1, "connect"),
]


def drop_and_probe(kind: str, way: str, count: int, step: str) -> tuple[ProbeResult, Counter[str]]:
    """Probe while this many packets are dropped; returns also what was, by kind."""
    with namespaces() as pair:
        receiver = pair.server if way == "there" else pair.client
        drop = functools.partial(receiver.drop, kind, first=count)
        if step == "connect":
            drop()
        attempt = Attempt if step == "connect" else hooked(step, drop)

        async def main(address, with_tools):
            plan = Plan(20_000_000_000, exchanges=3)
            return await probe(address, plan, with_tools, attempt_type=attempt)

        return in_namespaces(pair, main), receiver.dropped()


@pytest.mark.parametrize(("kind", "way", "count", "step"), CASES)
def test_a_fresh_connection_counts_what_was_dropped(kind, way, count, step):
    result, dropped = drop_and_probe(kind, way, count, step)
    assert dropped == {kind: count}
    segments = account(result)
    assert missing(segments) == {f"{kind} {way}": count}
    sender = segments.there if way == "there" else segments.back
    assert sender.resent - sender.spurious == (count if kind == "data" else 0)


def test_a_goodbye_that_was_sent_again_in_vain_is_not_lost():
    with namespaces() as pair:

        def hide_the_answer() -> None:
            pair.client.drop("data", first=1)
            pair.client.drop("fin", first=2)

        async def main(address, with_tools):
            attempt = hooked("part", hide_the_answer)
            return await probe(address, Plan(20_000_000_000), with_tools, attempt_type=attempt)

        result = in_namespaces(pair, main)
        assert pair.client.dropped()["data"] == 1
    # What became of the FOLLOW_UP nobody can tell. Our GOODBYE arrived at once, and it shows.
    segments = account(result)
    assert missing(segments) == {}
    assert segments.there.resent == segments.there.spurious


def test_a_fresh_connection_counts_what_was_dropped_at_random():
    with namespaces() as pair:
        dropped_back = []

        async def main(address, with_tools):
            for end in pair:
                end.drop("data", first=1)
                end.drop("data", share=0.1)
            # What becomes of the FOLLOW_UP nobody can tell.
            attempt = hooked("part", lambda: dropped_back.append(pair.client.heal()))
            plan = Plan(60_000_000_000, exchanges=30)
            return await probe(address, plan, with_tools, attempt_type=attempt)

        result = in_namespaces(pair, main)
        there, back = account(result)
        assert there.lost == pair.server.dropped()["data"]
        assert back.lost == dropped_back[0]["data"]
    assert min(there.lost, back.lost) > 0
    assert there.duplicated == back.duplicated == 0
    assert there.sent == 32 + there.resent


class Books:
    """What a held connection's observer is told."""

    def __init__(self) -> None:
        self.exchanges = 0
        self.accounts: list[Segments] = []
        self.endings: list[Any] = []

    def exchanged(self, _exchange, _tainted) -> None:
        self.exchanges += 1

    def counted(self, segments) -> None:
        self.accounts.append(segments)

    def limited(self, _limited) -> None: ...

    def ended(self, ending) -> None:
        self.endings.append(ending)

    async def settle(self) -> None:
        """Wait for an account of an exchange that has yet to begin."""
        seen, known = self.exchanges, len(self.accounts)
        await eventually(lambda: self.exchanges > seen + 2 and len(self.accounts) > known)
        known = len(self.accounts)
        await eventually(lambda: len(self.accounts) > known)

    def total(self, since: int) -> Segments:
        there, back = Way(), Way()
        for segments in self.accounts[since:]:
            there, back = there + segments.there, back + segments.back
        return Segments(there, back)


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
                return dropped, books.total(since)

        (dropped_back, dropped_there), total = in_namespaces(pair, main)
    there, back = total
    assert (there.lost, there.acks_lost) == (dropped_there["data"], dropped_there["ack"])
    assert (back.lost, back.acks_lost) == (dropped_back["data"], dropped_back["ack"])
    assert there.duplicated == back.duplicated == 0
    assert back.lost > 0
    assert there.acks_lost > 0


def every(number: int, fate: Fate, least_bytes: int = 1) -> Callable[[int, bytes], Fate]:
    """Do it to every so manieth packet with data of each way."""
    seen = [0, 0]

    def decide(way: int, packet: bytes) -> Fate:
        if payload_bytes(packet) < least_bytes:
            return Fate.PASS
        seen[way] += 1
        return Fate.PASS if seen[way] % number else fate

    return decide


def test_what_a_link_delivers_twice_is_counted_as_duplicated():
    with linked() as (pair, link):

        async def main(address, with_tools):
            plan = Plan(20_000_000_000, exchanges=9)
            results = []
            for _ in range(3):
                # Of eleven, so not the GOODBYE: its copy may come after the server has counted.
                link.decide = every(3, Fate.TWICE)
                results.append(await probe(address, plan, with_tools))
            return results

        results = in_namespaces(pair, main)
        there, back = Way(), Way()
        for result in results:
            segments = account(result)
            there, back = there + segments.there, back + segments.back
    assert there.duplicated == link.count[THERE, Fate.TWICE]
    assert back.duplicated == link.count[BACK, Fate.TWICE]
    assert there.duplicated == back.duplicated == 9
    assert there.lost == back.lost == there.acks_lost == back.acks_lost == 0
    # The receivers noticed, so that nobody takes it for a proxy.
    assert there.dsacks
    assert back.dsacks


def test_a_held_connection_counts_what_a_link_delivers_twice():
    with linked() as (pair, link):

        async def main(address, with_tools):
            async with holding(address, with_tools) as books:
                await books.settle()
                since = len(books.accounts)
                link.decide = every(2, Fate.TWICE)
                goal = books.exchanges + 10
                await eventually(lambda: books.exchanges >= goal)
                link.decide = lambda _way, _packet: Fate.PASS
                await books.settle()
                return books.total(since)

        there, back = in_namespaces(pair, main)
    assert there.duplicated == link.count[THERE, Fate.TWICE] > 3
    assert back.duplicated == link.count[BACK, Fate.TWICE] > 3
    assert there.lost == back.lost == 0


@pytest.mark.parametrize("bad", [THERE, BACK])
def test_segments_that_overtake_each_other_are_reordered_and_not_lost(bad):
    with linked() as (pair, link):
        overtake = every(8, Fate.OVERTAKEN, least_bytes=1000)

        async def main(address, with_tools):
            link.decide = lambda way, packet: overtake(way, packet) if way == bad else Fate.PASS
            plan = Plan(20_000_000_000, exchanges=5, payload_bytes=60_000)
            return await probe(address, plan, with_tools)

        segments = account(in_namespaces(pair, main))
    # How often the sender notices is not how often it happened: either may be more.
    assert [bool(way.reordered) for way in segments] == [bad == THERE, bad == BACK]
    for way in segments:
        assert way.lost == way.duplicated == 0
        assert way.spurious == way.resent


def test_a_proxy_is_recognised_because_nothing_is_conserved():
    async def relay(reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
            writer.write_eof()

    with namespaces() as pair:

        async def main(address, with_tools):
            async def serve(reader, writer):
                far_reader, far_writer = await asyncio.open_connection(*address)
                both = relay(reader, far_writer), relay(far_reader, writer)
                await asyncio.gather(*both, return_exceptions=True)
                for each in (writer, far_writer):
                    each.close()

            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            plan = Plan(20_000_000_000, payload_bytes=20_000)
            via = Address("127.0.0.1", server.sockets[0].getsockname()[1])
            results = {
                "direct": [await probe(address, plan, with_tools) for _ in range(10)],
                "proxied": [await probe(via, plan, with_tools) for _ in range(3)],
            }
            server.close()
            await server.wait_closed()
            return results

        results = in_namespaces(pair, main)
    signs = {}
    for name, probed in results.items():
        proxy = Proxy()
        for result in probed:
            proxy.segments(account(result))
        signs[name] = proxy.sign
    assert signs == {"direct": "", "proxied": "segments"}
