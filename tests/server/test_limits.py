"""One proof for each limit of ``Limits``.

A proof is a story that tells whether a client got what the limit forbids. It is played twice:
with the limit tight it must be refused and counted, with the limit raised neither. So it fails
when the limit, or its counter, is removed.
"""

import asyncio
import contextlib
import dataclasses
import errno
import select
from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from fakes import header
from integration.harness import CLIENT, FramedClient, dial, echo, eventually, running
from server.scripted import HELLO, World, request
from twocans_core.host import procfs
from twocans_core.host.cgroup import Memory, MemoryLimit
from twocans_core.kernel.tcpinfo import AcceptQueue
from twocans_core.protocol.frames import Frame, Kind, encode
from twocans_core.protocol.messages import Busy, Goodbye, Hello, Welcome
from twocans_core.protocol.witness import Asked, Fate, Witness
from twocans_server import admission
from twocans_server.config import ServerConfig
from twocans_server.limits import Limits, fitting_connections
from twocans_server.metrics import ServerCollector
from twocans_server.service import Server
from twocans_server.tally import ServerTally

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


async def is_served(server: Server, refusal: str) -> Outcome:
    """Whether one more framed client is; another one must be told why not."""
    with FramedClient(server.address.port) as client:
        answer = await asyncio.to_thread(client.greet)
    assert isinstance(answer, Welcome) or answer == Busy(refusal)
    return Outcome(isinstance(answer, Welcome), server.tally)


@proves("max_connections", tight=1, raised=2)
def another_connection_is_served(**limits):
    async def story():
        async with running(**limits) as server:
            with dial(server.address.port) as first:
                assert await asyncio.to_thread(echo, first, b"one") == b"one"
                return await is_served(server, "connections")

    return asyncio.run(story())


@proves("max_connections_per_source", tight=1, raised=0)
def another_connection_of_the_same_source_is_served(**limits):
    async def story():
        async with running(**limits) as server:
            port = server.address.port
            with dial(port) as first, FramedClient(port, source="127.0.0.2") as elsewhere:
                assert await asyncio.to_thread(echo, first, b"one") == b"one"
                assert isinstance(await asyncio.to_thread(elsewhere.greet), Welcome)
                return await is_served(server, "connections_per_source")

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


def remembered(world: World, since_s: float) -> bool:
    """Whether the first of two clients whose connections were reset is told of its own."""
    for client, port in ((CLIENT, 1), (CLIENT._replace(instance=b"d" * 16), 2)):
        world.pass_s(1)
        peer = world.connect(address=("192.0.2.7", port))
        peer.arrive(encode(Frame(Kind.HELLO, 0, Hello(client, 7).encode())))
        peer.arrive(ConnectionResetError(errno.ECONNRESET, "reset"))
    world.pass_s(since_s)
    question = Witness(int((since_s + 2) * 1e9), (Asked(7, 1),))
    (seen,) = world.records.testify(question, CLIENT.instance, "192.0.2.7").seen
    return seen.fate is Fate.ENDED


@proves("witness_connections", tight=1, raised=2)
def a_reset_connection_is_remembered_when_another_was_reset(**limits):
    world = World(**limits)
    return Outcome(remembered(world, 1.0), world.tally)


@proves("witness_s", tight=5.0, raised=15.0)
def a_reset_connection_is_remembered_for_ten_seconds(**limits):
    world = World(**limits)
    return Outcome(remembered(world, 10.0), world.tally)


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
    monkeypatch.setattr(admission, "LOBBY_PLACES", 3)

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
    monkeypatch.setattr(admission, "LOBBY_PLACES", 3)

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
                    assert len(server._admission._lobby) <= 3

    asyncio.run(story())


def test_in_a_full_lobby_who_has_begun_to_greet_stays(monkeypatch):
    monkeypatch.setattr(admission, "LOBBY_PLACES", 3)

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


@given(st.integers(1, 100_000))
def test_what_is_remembered_beyond_the_default_takes_the_place_of_connections(remembered):
    memory = 128 * MIB
    fewer = fitting_connections(memory, 1_000_000) - fitting_connections(
        memory, 1_000_000, remembered
    )
    more = max(0, remembered - Limits().witness_connections)
    assert fewer == min(11_264 - 64, -(-more * 768 // 8_192))


@pytest.fixture
def use_memory(monkeypatch) -> Callable[[int], None]:
    """Let so many bytes be used of 64 MiB; 20 MiB at first."""

    def use(used: int) -> None:
        memory = Memory(64 * MIB, used)
        monkeypatch.setattr(MemoryLimit, "read", lambda _: memory)

    use(20 * MIB)
    return use


def test_near_the_memory_limit_strangers_go_first_then_whoever_holds_most(use_memory):
    async def story():
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
                roster = server._roster
                await eventually(lambda: any(one.held_bytes for one in roster.channels))
                ports = {sock.getsockname()[1]: name for name, sock in socks.items()}
                left = []
                for _ in socks:
                    before = set(roster.channels)
                    use_memory(56 * MIB + 1)  # one of them is enough
                    roster.look_at_memory()
                    use_memory(56 * MIB)
                    roster.look_at_memory()
                    (gone,) = before - set(roster.channels)
                    left.append(ports[gone.wire.peer[1]])
                assert set(left[:2]) == {"plain", "silent"}
                assert left[2:] == ["holder", "session"]
                assert server.tally.limit_hits["memory"] == 4
                assert server.tally.ended["framed", "busy"] == 2

    asyncio.run(story())


def test_near_the_memory_limit_nobody_is_let_in_and_who_greets_reads_busy(use_memory):
    async def story():
        async with running() as server:
            use_memory(57 * MIB)
            server._roster.look_at_memory()
            use_memory(20 * MIB)
            with FramedClient(server.address.port) as client:
                assert await asyncio.to_thread(client.greet) == Busy("connections")
            await eventually(lambda: not server._roster.memory.is_full)
            with FramedClient(server.address.port) as client:
                assert isinstance(await asyncio.to_thread(client.greet), Welcome)

    asyncio.run(story())


def test_a_source_that_went_is_forgotten():
    async def story():
        async with running() as server:
            for _ in range(5):
                with dial(server.address.port) as sock:
                    await asyncio.to_thread(echo, sock, b"x")
            await eventually(lambda: not sum(server.tally.open.values()))
            roster = server._roster
            assert not server._admission._sources
            assert not roster._wheel._where
            assert not roster._wheel._slots
            assert not roster.channels

    asyncio.run(story())


def test_the_limits_are_settings_of_the_server():
    names = {field.name for field in dataclasses.fields(ServerConfig)}
    assert {field.name for field in dataclasses.fields(Limits)} < names
