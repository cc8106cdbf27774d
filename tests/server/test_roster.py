"""Whose turn it is: what one client asks for does not keep the others from theirs.

A real server, and clients whose requests are in its sockets before it looks. Nothing here asserts
a time: turns of the loop are counted.
"""

import asyncio
import contextlib
import select
import socket
from collections import Counter
from collections.abc import Callable, Iterator

from integration.harness import FramedClient, eventually, running
from server.scripted import World, request
from twocans_core.protocol.messages import Welcome
from twocans_server import roster
from twocans_server.connections.connection import Connection
from twocans_server.service import Server

SHARE = 8


async def greeted(server: Server, stack: contextlib.ExitStack, count: int) -> list[socket.socket]:
    clients = [stack.enter_context(FramedClient(server.address.port)) for _ in range(count)]
    for client in clients:
        assert isinstance(await asyncio.to_thread(client.greet), Welcome)
    return [client.sock for client in clients]


def many(count: int) -> bytes:
    return b"".join(request(number) for number in range(1, count + 1))


@contextlib.contextmanager
def counted(action: str, monkeypatch) -> Iterator[Counter[int]]:
    """Count how often connections do something in each turn of the loop."""
    loop = asyncio.get_running_loop()
    counts: Counter[int] = Counter()
    original: Callable[[Connection], None] = getattr(Connection, action)
    turn = 0
    handle = loop.call_soon(lambda: None)

    def tick() -> None:
        nonlocal turn, handle
        turn += 1
        handle = loop.call_soon(tick)

    def counting(connection: Connection) -> None:
        counts[turn] += 1
        original(connection)

    monkeypatch.setattr(Connection, action, counting)
    tick()
    yield counts
    handle.cancel()


def test_whoever_asks_for_little_is_answered_between_two_shares_of_whoever_asks_for_much():
    async def story():
        async with running(frames_per_turn=SHARE) as server:
            with contextlib.ExitStack() as stack:
                honest, *greedy = await greeted(server, stack, 21)
                for sock in greedy:
                    sock.sendall(many(200))
                await eventually(lambda: server.tally.exchanges >= 20 * SHARE)
                before = server.tally.exchanges
                honest.sendall(request(1))
                while not select.select([honest], [], [], 0)[0]:  # noqa: ASYNC110 - turn by turn
                    await asyncio.sleep(0)
                assert server.tally.exchanges < 20 * 200, "they are not done yet"
                # Its event is found after the share that was under way, and it is in the same turn.
                assert server.tally.exchanges - before <= 3 * SHARE
                await eventually(lambda: server.tally.exchanges == 20 * 200 + 1)

    asyncio.run(story())


def test_those_who_ask_for_much_take_turns():
    async def story():
        async with running(frames_per_turn=SHARE) as server:
            with contextlib.ExitStack() as stack:
                socks = await greeted(server, stack, 3)
                order: list[Connection] = []
                turns = server._roster._turns
                original = turns._serve

                def serve(connection: Connection) -> None:
                    order.append(connection)
                    original(connection)

                turns._serve = serve
                for sock in socks:
                    sock.sendall(many(10 * SHARE + 1))
                await eventually(lambda: server.tally.exchanges == 3 * (10 * SHARE + 1))
                assert len(order) >= 30
                for at in range(27):
                    assert len(set(order[at : at + 3])) == 3
                assert not turns

    asyncio.run(story())


def test_of_many_that_are_due_together_a_turn_handles_a_few(monkeypatch):
    async def story():
        async with running() as server:
            with contextlib.ExitStack() as stack:
                await greeted(server, stack, 100)
                with counted("on_deadline", monkeypatch) as counts:
                    for connection in server._roster.channels:
                        connection.deadline_ns = 0
                        server._roster._wheel.put(connection)
                    await eventually(lambda: server.tally.limit_hits["idle_s"] == 100)
                assert max(counts.values()) <= roster._DUE_AT_ONCE

    asyncio.run(story())


def test_of_many_that_are_told_of_the_stop_a_turn_tells_a_few(monkeypatch):
    async def story():
        async with running(drain_accept_s=0.0, drain_s=0.1) as server:
            with contextlib.ExitStack() as stack:
                await greeted(server, stack, 100)
                with counted("announce_drain", monkeypatch) as counts:
                    await server.stop()
                assert sum(counts.values()) == 100
                assert max(counts.values()) <= roster._DUE_AT_ONCE
                monkeypatch.setattr(server, "stop", lambda: asyncio.sleep(0))

    asyncio.run(story())


def test_whoever_did_not_read_waits_behind_the_others_when_there_is_room_again():
    peer = World(max_buffered_bytes=500, frames_per_turn=SHARE).connect()
    peer.greet()
    peer.wire.room = 0
    peer.arrive(many(50))
    before = peer.world.tally.exchanges
    peer.wire.room = 10_000
    peer.event(select.EPOLLOUT, turns=False)
    assert peer.world.tally.exchanges == before, "not at once"
    peer.world.run_turns()
    assert peer.world.tally.exchanges == 50
    peer.arrive(request(51))
    assert peer.world.tally.exchanges == 51
