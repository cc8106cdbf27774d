"""The held connection against a real server: what ends it, and that it comes back."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest

from integration.harness import ServerProcess, eventually, running, until
from integration.netns import SERVER_ADDRESS, namespaces
from twocans_client.evidence.loss import Segments
from twocans_client.evidence.results import Exchange, Reason
from twocans_client.probes.endings import Ending as HeldEnding
from twocans_client.probes.held import Held
from twocans_client.probes.held_connection import HeldPlan
from twocans_client.probes.tools import Tools
from twocans_core.kernel.tcpinfo import NO_COUNTERS, Limited
from twocans_core.net.poller import Poller
from twocans_core.net.sockets import Address, open_keeper
from twocans_core.net.streams import Stream, connect
from twocans_core.protocol.messages import Identity
from twocans_server.connections.endings import Ending

SECOND_NS = 1_000_000_000
HOLDER = Identity(b"c" * 16, "client", "", "", "0")
PLAN = HeldPlan(SECOND_NS // 50, 64, 5 * SECOND_NS, drain_grace_ns=30 * SECOND_NS)


class Eager(Random):
    """Never waits longer than it must."""

    def uniform(self, a: float, b: float) -> float:
        return a


class Holder:
    """A held connection on this loop, and all that it told."""

    def __init__(self, address: Address, plan: HeldPlan) -> None:
        self.address = address
        self.exchanges: list[Exchange] = []
        self.server: Identity | None = None
        self.segments: list[Segments] = []
        self.limits: list[Limited] = []
        self.endings: list[HeldEnding] = []
        self.poller = Poller(asyncio.get_running_loop())
        tools = Tools(self._dial, HOLDER, Eager(1))
        self.streams: list[Stream] = []
        self.held = Held("path", lambda: self.address, plan, lambda: tools, self)
        self.task = asyncio.create_task(self.held.run())

    async def _dial(self, address: Address, **options: Any) -> Stream:
        stream = await connect(address, poller=self.poller, **options)
        self.streams.append(stream)
        return stream

    def exchanged(self, exchange: Exchange, server: Identity, tainted: str) -> None:
        self.exchanges.append(exchange)
        self.server = server

    def skipped(self, count: int) -> None:
        pass

    def counted(self, segments: Segments) -> None:
        self.segments.append(segments)

    def limited(self, limited: Limited) -> None:
        self.limits.append(limited)

    def ended(self, ending: HeldEnding) -> None:
        self.endings.append(ending)

    @property
    def reasons(self) -> list[Reason]:
        return [ending.reason for ending in self.endings]

    async def exchanged_more(self, count: int) -> None:
        wanted = len(self.exchanges) + count
        await eventually(lambda: len(self.exchanges) >= wanted)


@contextlib.asynccontextmanager
async def holding(address: Address, plan: HeldPlan = PLAN) -> AsyncIterator[Holder]:
    """Hold a connection until the block ends; it then stops properly, and leaves no socket."""
    close_keeper = open_keeper()
    holder = Holder(address, plan)
    try:
        yield holder
    finally:
        holder.held.stop()
        await holder.task
        holder.poller.close()
        close_keeper()
        assert {stream.counters() for stream in holder.streams} <= {NO_COUNTERS}, "all closed"


def ended(server: ServerProcess, ending: str) -> float:
    name = "twocans_server_connections_ended_total"
    return server.metric(name, kind="framed", ending=ending)


def test_it_lives_and_leaves_properly():
    async def main():
        async with running() as server:
            async with holding(server.address) as holder:
                await holder.exchanged_more(10)
                assert holder.held.is_connected
                assert holder.server == server.identity
                assert server.open_connections == 1
            await eventually(lambda: server.open_connections == 0)
            return holder, server.tally

    holder, tally = asyncio.run(main())
    (ending,) = holder.endings
    assert (ending.reason, ending.detail) == (Reason.SHUTDOWN, "")
    assert ending.exchanges == len(holder.exchanges) == tally.exchanges
    assert sum(tally.ended.values()) == 1
    assert tally.ended["framed", Ending.DONE] == 1
    splits = [exchange.split for exchange in holder.exchanges]
    assert sum(split is not None for split in splits) >= 5, "most have every stamp"
    assert holder.segments
    sent = sum(segments.forward.sent for segments in holder.segments)
    # All but HELLO, and what came before the account was opened; the GOODBYE is in it.
    assert sent == ending.exchanges + 1 - 2
    for segments in holder.segments:
        for fates in segments:
            assert (fates.lost, fates.duplicated, fates.resent, fates.acks_lost) == (0, 0, 0, 0)


@pytest.mark.slow
def test_it_survives_a_servers_restart():
    async def main():
        first = running()
        server = await first.__aenter__()
        async with holding(server.address) as holder:
            await holder.exchanged_more(3)
            await first.__aexit__(None, None, None)
            await eventually(lambda: holder.endings)
            async with running(port=server.address.port) as second:
                # Five seconds: the first one said that it stops.
                await holder.exchanged_more(3)
                assert holder.server == second.identity
        return holder

    holder = asyncio.run(main())
    assert holder.reasons[0] is Reason.DRAINING
    assert all(ending.own for ending in holder.endings)


def test_a_killed_server_is_a_reset_and_then_refuses_and_is_found_again():
    async def main():
        with ServerProcess() as server:
            address = Address("127.0.0.1", server.port)
            async with holding(address) as holder:
                await holder.exchanged_more(3)
                server.signal(signal.SIGKILL)
                server.wait()
                await eventually(lambda: Reason.REFUSED in holder.reasons)
                with ServerProcess(port=server.port):
                    await holder.exchanged_more(3)
        return holder

    holder = asyncio.run(main())
    assert holder.reasons[0] in (Reason.CLOSED_EARLY, Reason.RESET)
    assert not holder.endings[0].own
    assert holder.endings[0].lasted_ns is not None
    assert holder.endings[1].lasted_ns is None


def test_a_draining_server_lets_it_go_at_once():
    async def main():
        with ServerProcess("--drain-accept-s=60") as server:
            async with holding(Address("127.0.0.1", server.port)) as holder:
                await holder.exchanged_more(3)
                server.signal(signal.SIGTERM)
                await eventually(lambda: holder.endings)
                await asyncio.to_thread(until, lambda: ended(server, "done") == 1)
        return holder

    (ending,) = asyncio.run(main()).endings
    assert (ending.reason, ending.detail, ending.own) == (Reason.DRAINING, "", True)


@pytest.mark.slow
def test_a_server_with_little_patience_is_not_kept_waiting():
    async def main():
        async with (
            running(idle_s=1.5) as server,
            holding(server.address, PLAN._replace(interval_ns=30 * SECOND_NS)) as holder,
        ):
            await holder.exchanged_more(3)
            assert holder.held.is_connected
            assert not holder.endings

    asyncio.run(main())


def test_a_program_that_hangs_behind_a_kernel_that_answers():
    async def main():
        with ServerProcess() as server:
            plan = PLAN._replace(patience_ns=SECOND_NS // 2)
            async with holding(Address("127.0.0.1", server.port), plan) as holder:
                await holder.exchanged_more(3)
                server.signal(signal.SIGSTOP)
                await eventually(lambda: holder.endings)
                server.signal(signal.SIGCONT)
                await holder.exchanged_more(3)
        return holder

    ending = asyncio.run(main()).endings[0]
    assert (ending.reason, ending.own) == (Reason.REPLY_TIMEOUT, False)
    assert ending.detail == "nothing sent again"


def test_a_path_that_is_gone_is_told_from_it_by_what_was_sent_again():
    async def main(pair):
        with pair.server.entered():
            first = running(host=SERVER_ADDRESS)
            server = await first.__aenter__()
        plan = PLAN._replace(patience_ns=SECOND_NS)
        with pair.client.entered():
            async with holding(server.address, plan) as holder:
                await holder.exchanged_more(5)
                await asyncio.to_thread(pair.server.drop, "data", share=1.0)
                await eventually(lambda: holder.endings)
                await asyncio.to_thread(pair.server.heal)
                await holder.exchanged_more(3)
        await first.__aexit__(None, None, None)
        return holder

    with namespaces() as pair:
        holder = asyncio.run(main(pair))
    ending = holder.endings[0]
    assert (ending.reason, ending.own) == (Reason.REPLY_TIMEOUT, False)
    count, _, words = ending.detail.partition(" ")
    assert int(count) >= 1
    assert words == "segments sent again"
    assert any(limited.busy_us for limited in holder.limits), "it waited for an answer"
