"""Where the time went, and whose fault it was, when a segment is really lost."""

import asyncio
import contextlib
import logging
import socket

import pytest

from fakes import attach, needs_filters
from integration.harness import eventually, running
from integration.pair import probing, probing_tools, serving
from twocans_client.discovery.resolver import Resolver
from twocans_client.evidence.results import Outcome, Reason
from twocans_client.probes.probe import Attempt, Plan, probe
from twocans_core.net.sockets import Address

DETACH_FILTER = 27
LOST_S = 0.05


def lose(sock: socket.socket) -> None:
    """Lose what arrives at a socket for a moment, as a bad line would."""
    attach(sock)
    loop = asyncio.get_running_loop()
    loop.call_later(LOST_S, sock.setsockopt, socket.SOL_SOCKET, DETACH_FILTER, 0)


@needs_filters
@pytest.mark.slow
@pytest.mark.parametrize("lost", ["request", "reply"])
def test_waiting_for_a_lost_segment_is_the_networks_time(lost):
    async def main():
        async with running() as server:
            await asyncio.sleep(0.1)

            class Losing(Attempt):
                async def converse(self, talk):
                    exchange = talk.exchange

                    async def losing(payload):
                        if len(talk.exchanges) == 1:
                            (theirs,) = server._roster.channels.values()
                            lose((theirs if lost == "request" else talk.stream._channel)._sock)
                        return await exchange(payload)

                    talk.exchange = losing
                    await super().converse(talk)

            plan = Plan(5_000_000_000, 3, 64)
            with probing_tools() as tools:
                result = await probe(server.address, plan, tools, attempt_type=Losing)
            assert server.tally.durations is not None
            return result, server.tally.durations.residence.sum_ns

    result, residence_ns = asyncio.run(main())
    assert result.outcome is Outcome.OK
    splits = [exchange.split for exchange in result.exchanges]
    assert all(splits)
    # The loss lasts 50 ms and everything else microseconds, so the larger half is decisive.
    lost_split = splits[1]
    assert lost_split.network_ns > LOST_S * 1e9 > 2 * (lost_split.server_ns + lost_split.client_ns)
    assert residence_ns < LOST_S * 1e9
    resent = result.retrans if lost == "request" else result.server_ended.total_retrans
    assert resent >= 1


@pytest.mark.slow
def test_a_syn_that_nobody_answers_is_counted_as_sent_again():
    async def main():
        with contextlib.ExitStack() as stack:
            full, *waiting = (stack.enter_context(socket.socket()) for _ in range(5))
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            port = full.getsockname()[1]
            for sock in waiting:
                sock.setblocking(False)
                sock.connect_ex(("127.0.0.1", port))
            await asyncio.sleep(0.1)
            tools = stack.enter_context(probing_tools())
            return await probe(Address("127.0.0.1", port), Plan(1_500_000_000), tools)

    result = asyncio.run(main())
    assert result.reason is Reason.CONNECT_TIMEOUT
    assert result.retrans >= 1


def test_a_restarted_server_is_counted_and_said(caplog):
    caplog.set_level(logging.INFO)

    async def main():
        first = running(name="web")
        server = await first.__aenter__()
        port = server.address.port
        async with probing(str(server.address)) as client:
            await eventually(
                lambda: client.client.paths and client.client.paths[0].responder.is_named
            )
            await first.__aexit__(None, None, None)
            async with running(port=port, name="web"):
                await eventually(lambda: client.client.tally.server_restarts == 1)

    asyncio.run(main())
    assert [record.msg for record in caplog.records].count("server_restarted") == 1


def test_two_servers_of_one_name_have_series_of_their_own():
    async def main():
        async with running(name="web", host="127.0.0.1") as one:
            port = one.address.port
            addresses = [Address("127.0.0.1", port), Address("127.0.0.2", port)]
            async with (
                running(name="web", host="127.0.0.2", port=port),
                probing(f"dns:web:{port}", resolver=Resolver(lambda *_: addresses)) as client,
            ):
                await eventually(lambda: len(client.client.paths) == 2)
                await eventually(
                    lambda: all(path.responder.is_named for path in client.client.paths)
                )
                return {path.label for path in client.client.paths}

    assert asyncio.run(main()) == {"web", "web#2"}


def test_a_server_that_took_anothers_place_has_numbers_of_its_own():
    async def main():
        first = running(name="old")
        server = await first.__aenter__()
        port = server.address.port
        async with probing(str(server.address)) as client:
            await eventually(lambda: len(client.results) >= 5)
            await first.__aexit__(None, None, None)
            async with running(port=port, name="new"):
                await eventually(lambda: client.client.paths[0].label == "new")
                return client.client.paths[0].scheduled, len(client.results)

    scheduled, results = asyncio.run(main())
    assert scheduled < results - 5


def test_dead_paths_do_not_take_the_places_of_a_good_one():
    async def silence(reader, writer):
        await reader.read()

    async def main():
        async with running() as server, serving(silence) as mute:
            targets = (mute, str(server.address))
            async with probing(*targets, max_in_flight=8, timeout_s=3.0) as client:
                await eventually(lambda: client.client.paths and client.client.paths[0].missed > 5)
                good = client.client.paths[1]
                before = good.outcomes[Outcome.OK]
                await eventually(lambda: good.outcomes[Outcome.OK] >= before + 10)
                return good.missed

    assert asyncio.run(main()) <= 2
