"""A real server is asked what it saw of real connections."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from integration.harness import FramedClient, ServerProcess, dial, eventually, running
from integration.netns import Pair, namespaces
from integration.pair import probing_tools
from integration.test_held import HOLDER, holding
from twocans_client.evidence import testimony
from twocans_client.evidence.results import Reason
from twocans_client.evidence.testimony import Fate, Question
from twocans_client.probes.endings import Life
from twocans_client.probes.held_connection import HeldPlan
from twocans_client.probes.probe import Plan, probe
from twocans_client.probes.tools import Tools
from twocans_client.probes.witness import ask
from twocans_core.net.sockets import Address

SECOND_NS = 1_000_000_000
PROBE = Plan(5 * SECOND_NS)


async def told(address: Address, tools: Tools, *questions: Question) -> testimony.Testimony:
    deadline_ns = time.monotonic_ns() + 20 * SECOND_NS
    said = await ask(address, questions, tools, deadline_ns=deadline_ns)
    assert isinstance(said, testimony.Testimony), said
    return said


def test_a_good_probe_was_seen_as_it_went():
    async def main():
        async with running() as server:
            with probing_tools() as tools:
                before_ns = time.monotonic_ns()
                result = await probe(server.address, PROBE, tools)
                await eventually(lambda: not server.open_connections)
                assert result.local is not None
                question = Question(result.connection, result.local[1], result.started_ns)
                return before_ns, result, await told(server.address, tools, question)

    before_ns, result, said = asyncio.run(main())
    (seen,) = said.of
    assert result.reason is Reason.OK
    assert (seen.fate, seen.greeted, seen.kind, seen.ending) == (
        Fate.ENDED,
        True,
        "framed",
        "done",
    )
    assert (seen.peer, seen.exchanges) == (result.local, 1)
    assert (seen.received, seen.sent) == (result.bytes_sent, result.bytes_received)
    assert seen.counters.data_segs_in == result.ended.data_segs_out + 1  # and the GOODBYE
    assert None not in (seen.accepted_ns, seen.heard_ns, seen.ended_ns)
    moments = [before_ns, seen.accepted_ns, seen.heard_ns, seen.ended_ns, said.answered_ns]
    assert all(earlier <= later + said.error_ns for earlier, later in pairwise(moments))
    assert not said.never_came(seen)


def test_connections_that_never_greeted_are_found_by_their_port_and_others_never_came():
    async def main():
        async with running() as server:
            with probing_tools() as tools, dial(server.address.port) as silent:
                begun_ns = time.monotonic_ns()
                with dial(server.address.port) as plain:
                    await asyncio.to_thread(plain.sendall, b"hello")
                    await eventually(lambda: server.tally.open["plain"])
                    ports = silent.getsockname()[1], plain.getsockname()[1], 1
                await eventually(lambda: not server.tally.open["plain"])
                questions = [Question(None, port, begun_ns) for port in ports]
                return await told(server.address, tools, *questions)

    said = asyncio.run(main())
    silent, plain, _ = said.of
    assert (silent.fate, silent.kind, silent.heard_ns) == (Fate.OPEN, "new", None)
    assert (plain.fate, plain.kind, plain.received) == (Fate.ENDED, "plain", 5)
    assert [said.never_came(seen) for seen in said.of] == [False, False, True]


def test_a_client_that_was_reset_leaves_how_it_ended():
    async def main():
        async with running() as server:
            with probing_tools() as tools:
                with FramedClient(server.address.port) as client:
                    await asyncio.to_thread(client.greet)
                    port = client.sock.getsockname()[1]
                    linger = (1).to_bytes(4, "little") + bytes(4)
                    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                await eventually(lambda: not server.open_connections)
                # It greeted as somebody else, and nobody but that client is told.
                stranger = await told(server.address, tools, Question(7, port, 0))
                with FramedClient(server.address.port) as client:
                    await asyncio.to_thread(client.greet)
                    tools = tools._replace(identity=tools.identity._replace(instance=b"c" * 16))
                    return stranger, await told(server.address, tools, Question(7, port, 0))

    stranger, said = asyncio.run(main())
    assert stranger.of[0].fate is Fate.UNKNOWN
    # A second connection with the same number is open by then: the newer is told.
    assert said.of[0].fate is Fate.OPEN


def test_the_host_part_tells_of_limits_and_of_how_many_are_here():
    async def main():
        async with running(max_connections=3, max_payload_bytes=10) as server:
            with probing_tools() as tools:
                begun_ns = time.monotonic_ns()
                with FramedClient(server.address.port) as client:
                    await asyncio.to_thread(client.greet)
                    with contextlib.suppress(EOFError):
                        await asyncio.to_thread(client.ask, bytes(11))
                await eventually(lambda: not server.open_connections)
                return await told(server.address, tools, Question(None, 1, begun_ns))

    host = asyncio.run(main()).host
    assert (host.connections, host.max_connections) == (1, 3)
    assert host.limits == (("max_payload_bytes", 1),)
    assert host.accept_queue == 0
    assert host.since_ns is not None
    assert None not in host.tcp


# --- which counters move while a path is cut in one direction ------------------------------


def cut_off(pair: Pair, port: int, *, forward: bool, reverse: bool) -> None:
    drop = ["iptables", "-A", "INPUT", "-p", "tcp", "-j", "DROP"]
    if forward:
        pair.server.run(*drop, "--sport", str(port))
    if reverse:
        pair.client.run(*drop, "--dport", str(port))


@contextlib.contextmanager
def served() -> Iterator[tuple[Pair, Address]]:
    """A server in one namespace; this thread is in the other."""
    with namespaces() as pair:
        address = f"--host={pair.server.address}"
        with ServerProcess(address, wrapper=pair.server.wrapper) as server, pair.client.entered():
            yield pair, Address(pair.server.address, server.port)


def watch(direction: str, until_known: Callable[[Life], bool]) -> Any:
    """Cut a held connection, and one that is about to be made; ask over a third."""
    cut = {"forward": direction != "reverse", "reverse": direction != "forward"}
    plan = HeldPlan(SECOND_NS // 10, 64, 5 * SECOND_NS, 0)

    async def main(pair: Pair, address: Address) -> Any:
        async with holding(address, plan) as holder:
            await holder.exchanged_more(10)
            life = look(holder.held.look)
            assert life.probes_silence
            assert life.local is not None
            port = life.local[1]
            for victim in (port, 40_123):
                cut_off(pair, victim, **cut)
            with socket.socket() as fresh, probing_tools() as tools:
                fresh.setblocking(False)
                fresh.bind(("", 40_123))
                begun_ns = time.monotonic_ns()
                fresh.connect_ex(tuple(address))
                await eventually(lambda: until_known(look(holder.held.look)))
                life = look(holder.held.look)
                held = Question(life.connection, port, life.began_ns)
                syn = Question(None, 40_123, begun_ns)
                # It asks as the client that holds the connection, with a number of its own.
                tools = tools._replace(identity=HOLDER, rng=Random(2))
                return life, await told(address, tools, held, syn)

    with served() as (pair, address):
        return asyncio.run(main(pair, address))


def look(at: Callable[[], Life | None]) -> Life:
    life = at()
    assert life is not None, "the connection ended"
    return life


def silent_for_7_s(life: Life) -> bool:
    return life.at_ns - life.heard_ns > 7 * SECOND_NS


@pytest.mark.slow
def test_while_only_forward_is_cut_the_servers_probes_come_and_nothing_reaches_it():
    life, said = watch("forward", lambda life: (life.came_since_asked or 0) >= 2)
    held, syn = said.of
    assert life.asked_ns is not None
    assert life.in_vain
    assert (held.fate, syn.fate) == (Fate.OPEN, Fate.UNKNOWN)
    assert held.heard_ns is not None
    assert held.heard_ns < life.asked_ns
    assert life.cut is not None
    assert held.counters.segs_in <= life.cut.server.segs_in + 1  # the ACK of the last reply
    assert held.in_vain  # its probes
    assert (said.host.tcp.syn_retrans, said.host.half_open) == (0, 0)


@pytest.mark.slow
def test_while_only_reverse_is_cut_nothing_comes_and_what_we_send_again_reaches_the_server():
    life, said = watch("reverse", silent_for_7_s)
    held, syn = said.of
    assert life.asked_ns is not None
    assert (life.came_since_asked, syn.fate) == (0, Fate.UNKNOWN)
    assert held.heard_ns is not None
    assert held.heard_ns + said.error_ns >= life.asked_ns
    assert life.cut is not None
    assert held.counters.data_segs_in >= life.cut.server.data_segs_in + 2  # also sent again
    assert held.in_vain  # its reply
    assert said.host.tcp.syn_retrans
    assert said.host.half_open == 1


@pytest.mark.slow
def test_while_both_are_cut_nothing_comes_at_either_end():
    life, said = watch("both", silent_for_7_s)
    held, syn = said.of
    assert life.asked_ns is not None
    assert (life.came_since_asked, held.fate, syn.fate) == (0, Fate.OPEN, Fate.UNKNOWN)
    assert held.heard_ns is not None
    assert held.heard_ns < life.asked_ns
    assert held.in_vain  # its probes
    assert (said.host.tcp.syn_retrans, said.host.half_open) == (0, 0)
