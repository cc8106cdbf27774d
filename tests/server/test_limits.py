"""One proof for each limit of ``Limits``.

A proof is a story that tells whether a client got what the limit forbids. It is played twice:
with the limit tight it must be refused and counted, with the limit raised neither. So it fails
when the limit, or its counter, is removed.
"""

import asyncio
import contextlib
import dataclasses
import errno
import os
import select
import socket
from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from fakes import header, needs_filters
from integration.harness import CLIENT, FramedClient, dial, echo, eventually, running
from server.scripted import HELLO, World, request
from twocans_core.host import procfs
from twocans_core.host.cgroup import Memory, MemoryLimit
from twocans_core.kernel.tcpinfo import AcceptQueue
from twocans_core.net.channel import Channel
from twocans_core.net.listener import Listener, _plain_host
from twocans_core.protocol.messages import Busy, Goodbye, Hello, Welcome
from twocans_server import service
from twocans_server.config import ServerConfig
from twocans_server.limits import Limits
from twocans_server.metrics import ServerCollector, ServerTally

MIB = 1024 * 1024


class Outcome(NamedTuple):
    """Whether the client got what the limit forbids, and what the server counted."""

    got_it: bool
    tally: ServerTally


class Proof(NamedTuple):
    tight: float
    raised: float
    story: Callable[..., Outcome]


PROOFS: dict[str, Proof] = {}


def proves(name: str, *, tight: float, raised: float) -> Callable[..., Callable[..., Outcome]]:
    def register(story: Callable[..., Outcome]) -> Callable[..., Outcome]:
        PROOFS[name] = Proof(tight, raised, story)
        return story

    return register


def test_every_limit_has_a_proof():
    assert PROOFS.keys() == {field.name for field in dataclasses.fields(Limits)}


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Limits)])
def test_a_limit_limits_and_is_counted(name):
    proof = PROOFS[name]
    got_it, tally = proof.story(**{name: proof.tight})
    assert not got_it, f"{name} does not limit"
    assert hits(tally, name) > 0, f"{name} is not counted"
    assert hits(tally) == hits(tally, name), "another limit was counted as well"


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Limits)])
def test_what_a_limit_forbids_works_when_it_is_raised(name):
    proof = PROOFS[name]
    got_it, tally = proof.story(**{name: proof.raised})
    assert got_it
    assert hits(tally) == 0


def hits(tally: ServerTally, name: str = "") -> float:
    """Read the counter as Prometheus would; without a name, all of them."""
    registry = CollectorRegistry()
    registry.register(ServerCollector(tally, lambda: AcceptQueue(None, None), lambda: False))
    return sum(
        sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "twocans_server_limit_hits_total" and name in ("", sample.labels["limit"])
    )


# --- the proofs ---------------------------------------------------------------------------


@proves("max_connections", tight=1, raised=2)
def another_connection_is_served(**limits):
    async def story():
        async with running(**limits) as server:
            with dial(server.address.port) as first:
                assert await asyncio.to_thread(echo, first, b"one") == b"one"
                with FramedClient(server.address.port) as second:
                    answer = await asyncio.to_thread(second.greet)
                    if not isinstance(answer, Welcome):
                        assert answer == Busy("connections")
                    return Outcome(isinstance(answer, Welcome), server.tally)

    return asyncio.run(story())


@proves("max_connections_per_source", tight=1, raised=0)
def another_connection_of_the_same_source_is_served(**limits):
    async def story():
        async with running(**limits) as server:
            port = server.address.port
            with dial(port) as first, FramedClient(port, source="127.0.0.2") as elsewhere:
                assert await asyncio.to_thread(echo, first, b"one") == b"one"
                assert isinstance(await asyncio.to_thread(elsewhere.greet), Welcome)
                with FramedClient(port) as second:
                    answer = await asyncio.to_thread(second.greet)
                    if not isinstance(answer, Welcome):
                        assert answer == Busy("connections_per_source")
                    return Outcome(isinstance(answer, Welcome), server.tally)

    return asyncio.run(story())


@proves("accepts_per_turn", tight=1, raised=64)
def all_that_wait_are_accepted_in_one_turn(**limits):
    async def story():
        async with running(start=False, **limits) as server:
            with contextlib.ExitStack() as clients:
                for _ in range(5):
                    clients.enter_context(dial(server.address.port))
                server.start()
                while not server.tally.accepted:  # noqa: ASYNC110 - turn by turn
                    await asyncio.sleep(0)
                at_once = server.tally.accepted
                await eventually(lambda: server.tally.accepted == 5)
            return Outcome(at_once == 5, server.tally)

    return asyncio.run(story())


@proves("max_greeting_bytes", tight=40, raised=1_024)
def a_long_greeting_is_welcome(**limits):
    peer = World(**limits).connect()
    peer.arrive(HELLO)
    return Outcome(peer.connection.is_open_session, peer.world.tally)


@proves("max_payload_bytes", tight=99, raised=100)
def a_payload_of_100_bytes_is_echoed(**limits):
    peer = World(**limits).connect()
    peer.arrive(HELLO)
    peer.arrive(request(1, bytes(100)))
    return Outcome(peer.world.tally.exchanges == 1, peer.world.tally)


@proves("max_buffered_bytes", tight=1_500, raised=1_000_000)
def more_is_read_while_the_client_does_not(**limits):
    peer = World(**limits).connect()
    peer.wire.room = 0
    for _ in range(50):
        peer.arrive(b"x" * 1_000)
    return Outcome(peer.wire.taken == 50_000, peer.world.tally)


@proves("greeting_s", tight=2.0, raised=4.0)
def a_greeting_may_take_three_seconds(**limits):
    peer = World(**limits).connect()
    for at in range(10):
        peer.arrive(HELLO[at : at + 1])
        peer.world.pass_s(0.3)
    if peer.world.mono_ns >= peer.connection.deadline_ns:
        peer.expire()
    peer.arrive(HELLO[10:])
    return Outcome(peer.connection.is_open_session, peer.world.tally)


@proves("frame_s", tight=2.0, raised=4.0)
def a_frame_may_take_three_seconds(**limits):
    peer = World(**limits).connect()
    peer.arrive(HELLO)
    frame = request(1)
    for at in range(10):
        peer.arrive(frame[at : at + 1])
        peer.world.pass_s(0.3)
    if peer.world.mono_ns >= peer.connection.deadline_ns:
        peer.expire()
    peer.arrive(frame[10:])
    return Outcome(peer.world.tally.exchanges == 1, peer.world.tally)


@proves("idle_s", tight=2.0, raised=4.0)
def a_session_may_be_silent_for_three_seconds(**limits):
    peer = World(**limits).connect()
    peer.greet()
    peer.world.pass_s(3)
    if peer.world.mono_ns >= peer.connection.deadline_ns:
        peer.expire()
        assert peer.messages() == [Goodbye("idle")]
    else:
        peer.ask()
    return Outcome(peer.world.tally.exchanges == 1, peer.world.tally)


@proves("frames_per_turn", tight=5, raised=64)
def ten_requests_are_answered_in_one_turn(**limits):
    peer = World(**limits).connect()
    peer.wire.inbox += [HELLO]
    peer.event(select.EPOLLIN)
    peer.wire.inbox += [b"".join(request(number) for number in range(1, 11))]
    peer.event(select.EPOLLIN, turns=False)
    at_once = peer.world.tally.exchanges
    peer.world.run_turns()
    assert peer.world.tally.exchanges == 10
    return Outcome(at_once == 10, peer.world.tally)


# --- what a limit means, beyond that it limits ----------------------------------------------


def test_a_body_too_big_is_refused_by_its_header_alone():
    peer = World().connect()
    peer.arrive(HELLO)
    peer.arrive(header(3, 0xFFFF_FFFF, sequence=1))
    assert peer.held_bytes == 0
    assert peer.world.tally.protocol_errors == {"too_big": 1}


@given(st.integers(1, 65_536))
def test_a_frame_has_a_second_more_for_each_64_kib_that_it_declares(size):
    peer = World(frame_s=5.0).connect()
    peer.arrive(HELLO)
    peer.arrive(request(1, bytes(size))[:20])
    allowed_s = (peer.connection.deadline_ns - peer.world.mono_ns) / 1e9
    assert allowed_s == pytest.approx(5 + (size + 108) / 65_536)


def test_a_frame_that_trickles_gains_no_time_by_its_bytes():
    peer = World().connect()
    peer.arrive(HELLO)
    frame = request(1)
    peer.arrive(frame[:20])
    due_ns = peer.connection.deadline_ns
    for at in range(20, len(frame) - 1):
        peer.world.pass_s(0.01)
        peer.arrive(frame[at : at + 1])
    assert peer.connection.deadline_ns == due_ns


def test_the_next_frame_has_a_time_of_its_own():
    peer = World(frame_s=5.0).connect()
    peer.arrive(HELLO)
    peer.arrive(request(1)[:20])
    peer.world.pass_s(4)
    peer.arrive(request(1)[20:] + request(2)[:20])
    assert peer.connection.deadline_ns > peer.world.mono_ns + 4_900_000_000


def test_a_framed_client_that_never_reads_is_idle_and_not_slow():
    peer = World().connect()
    peer.arrive(HELLO)
    peer.wire.room = 0
    peer.arrive(b"".join(request(number, bytes(60_000)) for number in range(1, 9)))
    peer.expire()
    assert peer.report is not None
    assert peer.report.ending == "idle"
    assert peer.world.tally.protocol_errors == {}


def test_a_plain_client_that_reads_what_waits_is_not_idle():
    peer = World(idle_s=10.0).connect()
    peer.wire.room = 0
    peer.arrive(b"x" * 1_000)
    for _ in range(50):
        peer.world.pass_s(9)
        peer.read(10)
        assert peer.connection.deadline_ns > peer.world.mono_ns + 9_900_000_000


def test_connections_over_the_cap_wait_in_no_more_than_the_lobby(monkeypatch):
    monkeypatch.setattr(service, "LOBBY_PLACES", 3)

    async def story():
        async with running(max_connections=1) as server:
            with contextlib.ExitStack() as clients:
                for _ in range(10):
                    clients.enter_context(dial(server.address.port))
                await eventually(lambda: server.tally.accepted == 10)
                assert sum(server.tally.open.values()) == 4
                assert server.tally.ended["new", "busy"] == 6
                assert server.tally.limit_hits["max_connections"] == 9

    asyncio.run(story())


@pytest.mark.parametrize("said", [b"", HELLO[:1], HELLO[:-1]])
def test_in_a_full_lobby_who_says_nothing_makes_way_for_who_greets(monkeypatch, said):
    monkeypatch.setattr(service, "LOBBY_PLACES", 3)

    async def story():
        dialled = 1
        async with running(max_connections=1) as server:
            port = server.address.port
            with contextlib.ExitStack() as stack:

                async def crowd() -> None:
                    for _ in range(10):
                        stack.enter_context(dial(port)).sendall(said)
                    nonlocal dialled
                    dialled += 11
                    await eventually(lambda: server.tally.accepted == dialled - 1)

                first = stack.enter_context(dial(port))
                assert await asyncio.to_thread(echo, first, b"x") == b"x"
                for _ in range(5):
                    await crowd()
                    client = stack.enter_context(FramedClient(port))
                    assert await asyncio.to_thread(client.greet) == Busy("connections")
                    assert await asyncio.to_thread(client.sock.recv, 1) == b"", "no reset"
                    assert len(server._lobby) <= 3

    asyncio.run(story())


def test_in_a_full_lobby_who_has_begun_to_greet_stays(monkeypatch):
    monkeypatch.setattr(service, "LOBBY_PLACES", 3)

    async def story():
        async with running(max_connections=1) as server:
            port = server.address.port
            with contextlib.ExitStack() as stack:
                first = stack.enter_context(dial(port))
                assert await asyncio.to_thread(echo, first, b"x") == b"x"
                client = stack.enter_context(FramedClient(port))
                client.session.hello(Hello(CLIENT, 7))
                client.sock.sendall(HELLO[:-1])
                await eventually(lambda: server.tally.open["framed"])
                for _ in range(20):
                    stack.enter_context(dial(port))
                await eventually(lambda: server.tally.accepted == 22)
                client.sock.sendall(HELLO[-1:])
                assert await asyncio.to_thread(client.receive) == Busy("connections")
                assert await asyncio.to_thread(client.sock.recv, 1) == b""

    asyncio.run(story())


@pytest.mark.parametrize(
    ("memory", "descriptors", "cap"),
    [
        (None, 1_000, 1_000 - 256),
        (None, 1_000_000, 16_384),
        (None, 100, 1),
        (Memory(128 * MIB, 20 * MIB), 1_000_000, 11_264),
        (Memory(64 * MIB, 20 * MIB), 1_000_000, 3_072),
        (Memory(64 * MIB, 20 * MIB), 1_000, 1_000 - 256),
        (Memory(16 * MIB, 10 * MIB), 1_000_000, 64),
        (Memory(1024 * MIB, 20 * MIB), 1_000_000, 16_384),
    ],
)
def test_the_cap_is_what_memory_and_descriptors_allow(monkeypatch, memory, descriptors, cap):
    monkeypatch.setattr(procfs, "descriptor_limit", lambda: descriptors)
    monkeypatch.setattr(MemoryLimit, "read", lambda _: memory)

    async def story():
        async with running(max_connections=16_384) as server:
            return server.max_connections

    assert asyncio.run(story()) == cap


def test_near_the_memory_limit_strangers_go_first_then_whoever_holds_most(monkeypatch):
    memory = Memory(64 * MIB, 20 * MIB)
    monkeypatch.setattr(MemoryLimit, "read", lambda _: memory)

    async def story():
        nonlocal memory
        async with running() as server:
            with contextlib.ExitStack() as stack:
                socks = {
                    name: stack.enter_context(dial(server.address.port))
                    for name in ("session", "holder", "plain", "silent")
                }
                socks["session"].sendall(HELLO)
                socks["holder"].sendall(HELLO + request(1, bytes(10_000))[:-1])
                socks["plain"].sendall(b"x")
                await eventually(lambda: server.tally.open == {"new": 1, "plain": 1, "framed": 2})
                await eventually(lambda: any(one.held_bytes for one in server._connections))
                ports = {sock.getsockname()[1]: name for name, sock in socks.items()}
                left = []
                for _ in socks:
                    before = set(server._connections)
                    # One of them is enough.
                    memory = Memory(64 * MIB, 56 * MIB + 1)
                    server._look_at_memory()
                    memory = Memory(64 * MIB, 56 * MIB)
                    server._look_at_memory()
                    (gone,) = before - set(server._connections)
                    left.append(ports[gone.wire.peer[1]])
                assert set(left[:2]) == {"plain", "silent"}
                assert left[2:] == ["holder", "session"]
                assert server.tally.limit_hits["memory"] == 4
                assert server.tally.ended["framed", "busy"] == 2

    asyncio.run(story())


def test_near_the_memory_limit_nobody_is_let_in_and_who_greets_reads_busy(monkeypatch):
    memory = Memory(64 * MIB, 20 * MIB)
    monkeypatch.setattr(MemoryLimit, "read", lambda _: memory)

    async def story():
        nonlocal memory
        async with running() as server:
            memory = Memory(64 * MIB, 57 * MIB)
            server._look_at_memory()
            memory = Memory(64 * MIB, 20 * MIB)
            with FramedClient(server.address.port) as client:
                assert await asyncio.to_thread(client.greet) == Busy("connections")
            await eventually(lambda: not server._is_full)
            with FramedClient(server.address.port) as client:
                assert isinstance(await asyncio.to_thread(client.greet), Welcome)

    asyncio.run(story())


@pytest.mark.parametrize(
    ("host", "other", "are_one"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("fe80::1%lo", "fe80::2%lo", True),
        ("192.0.2.1", "::", False),
    ],
)
def test_a_source_is_an_ipv4_address_or_an_ipv6_64(host, other, are_one):
    assert (service._source(host) == service._source(other)) is are_one


def test_an_ipv4_mapped_source_is_the_ipv4_address():
    assert service._source(_plain_host("::ffff:192.0.2.1")) == bytes((192, 0, 2, 1))


def test_a_source_that_went_is_forgotten():
    async def story():
        async with running() as server:
            for _ in range(5):
                with dial(server.address.port) as sock:
                    await asyncio.to_thread(echo, sock, b"x")
            await eventually(lambda: not sum(server.tally.open.values()))
            assert not server._sources
            assert not server._wheel._where
            assert not server._wheel._slots
            assert not server._connections

    asyncio.run(story())


def test_a_kernel_that_lets_no_syn_be_dropped_is_told_once(caplog):
    async def story():
        async with running() as server:
            with socket.socket(fileno=os.dup(server._listener.fd)) as same:
                same.setsockopt(socket.SOL_SOCKET, 44, 1)  # SO_LOCK_FILTER: no other after this

    asyncio.run(story())
    (told,) = [record for record in caplog.records if record.message == "syns_not_dropped"]
    assert vars(told)["error.message"] == os.strerror(errno.EPERM)


class NoListener:
    """A listener whose accept() fails as the machine may."""

    def __init__(self, listener: Listener, code: int) -> None:
        self._listener = listener
        self.error: OSError | None = OSError(code, "no")
        self.accepts = 0
        self.address, self.fd = listener.address, listener.fd
        self.accept_queue, self.close = listener.accept_queue, listener.close
        self.refuse_syns = listener.refuse_syns

    def accept(self) -> Channel | None:
        self.accepts += 1
        if self.error is not None:
            raise self.error
        return self._listener.accept()


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_what_accept_lacks_is_asked_for_ten_times_a_second_and_not_more(code):
    async def story():
        async with running(start=False) as server:
            broken = NoListener(server._listener, code)
            server._listener = broken  # type: ignore[assignment]
            server.start()
            with contextlib.ExitStack() as clients:
                for _ in range(50):  # each is an event of the listener
                    clients.enter_context(dial(server.address.port))
                    await asyncio.sleep(0.002)
                await asyncio.sleep(0.5)
                assert 2 <= broken.accepts <= 12
                assert server.tally.accept_errors == broken.accepts
                broken.error = None
                await eventually(lambda: server.tally.accepted == 50)

    asyncio.run(story())


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EPROTO, errno.ENOPROTOOPT])
def test_an_accept_that_fails_for_every_client_is_the_machines_and_makes_no_busy_loop(code):
    async def story():
        async with running(start=False) as server:
            broken = NoListener(server._listener, code)
            server._listener = broken  # type: ignore[assignment]
            server.start()
            with dial(server.address.port) as sock:
                await eventually(lambda: server.tally.accept_errors)
                first = broken.accepts
                await asyncio.sleep(0.5)
                assert (first, broken.accepts <= first + 6) == (17, True)
                broken.error = None
                assert await asyncio.to_thread(echo, sock, b"x") == b"x"

    asyncio.run(story())


def test_a_client_that_went_before_it_was_accepted_stops_nobody():
    async def story():
        async with running(start=False) as server:
            broken = NoListener(server._listener, errno.ECONNABORTED)
            server._listener = broken  # type: ignore[assignment]
            server.start()
            with dial(server.address.port) as sock:
                await eventually(lambda: broken.accepts > 64)
                broken.error = None
                assert await asyncio.to_thread(echo, sock, b"x") == b"x"
            assert server.tally.accept_errors == 0

    asyncio.run(story())


def test_a_pause_of_accept_ends_with_the_server():
    async def story():
        async with running(start=False) as server:
            broken = NoListener(server._listener, errno.EMFILE)
            server._listener = broken  # type: ignore[assignment]
            server.start()
            with dial(server.address.port):
                await eventually(lambda: broken.accepts)
        before = broken.accepts
        await asyncio.sleep(0.3)
        assert broken.accepts == before

    asyncio.run(story())


def test_the_limits_are_settings_of_the_server():
    names = {field.name for field in dataclasses.fields(ServerConfig)}
    assert {field.name for field in dataclasses.fields(Limits)} < names


def test_all_that_wait_to_be_accepted_when_the_server_stops_are(monkeypatch):
    monkeypatch.setattr(service, "_SETTLE_S", 0.0)

    async def story():
        with contextlib.ExitStack() as clients:
            async with running(start=False, accepts_per_turn=1) as server:
                for _ in range(200):
                    clients.enter_context(dial(server.address.port))
                server.start()
            return server.tally.accepted

    assert asyncio.run(story()) == 200


@needs_filters
def test_nobody_can_connect_while_the_queue_is_emptied_and_nobody_is_refused(monkeypatch):
    # A refused or reset client fails; one whose SYN is dropped sends it again in a second.
    monkeypatch.setattr(service, "_SETTLE_S", 1.0)

    async def story():
        async with running() as server:
            stop = asyncio.create_task(server.stop())
            await asyncio.sleep(0.2)
            with pytest.raises(TimeoutError):
                await asyncio.to_thread(dial, server.address.port, connect_s=0.3)
            monkeypatch.setattr(server, "stop", lambda: stop)

    asyncio.run(story())
