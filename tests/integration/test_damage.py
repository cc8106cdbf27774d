"""A box on the way that turns bits over behind TCP's back, or that balances: a relay does both."""

import asyncio
import contextlib
import itertools
import logging

from integration.harness import eventually, running
from integration.pair import probing, serving
from twocans_client.evidence.results import Outcome, Reason

# Of a probe with a payload of 64 bytes, about: HELLO, REQUEST and GOODBYE; the rest is more.
FORWARD_BYTES = 52 + 20 + 88 + 64 + 25


relays: set[asyncio.StreamWriter] = set()
"""Those that stand; they end with their connections."""


async def relay(reader, writer, server, flip=("", 0)):
    """Hand everything on, but turn over one bit of one byte: (direction, place in the stream)."""

    async def pump(direction, source, sink):
        at = 0
        try:
            while data := await source.read(65_536):
                if flip[0] == direction and at <= flip[1] < at + len(data):
                    data = bytearray(data)
                    data[flip[1] - at] ^= 1 << flip[1] % 8
                at += len(data)
                sink.write(data)
        finally:
            with contextlib.suppress(OSError):
                sink.write_eof()

    far_reader, far_writer = await asyncio.open_connection(server.host, server.port)
    relays.add(writer)
    directions = pump("forward", reader, far_writer), pump("reverse", far_reader, writer)
    await asyncio.gather(*directions, return_exceptions=True)
    far_writer.close()
    with contextlib.suppress(OSError):
        await far_writer.wait_closed()
    relays.discard(writer)


@contextlib.asynccontextmanager
async def relaying(serve):
    """As ``serving``, until the last relay has ended."""
    async with serving(serve) as target:
        yield target
        await eventually(lambda: not relays)


def test_a_bit_that_turns_over_on_the_way_is_damage_and_nobodys_fault(caplog):
    caplog.set_level(logging.INFO)
    places = [
        *(("forward", at) for at in range(0, FORWARD_BYTES, 4)),
        *(("reverse", at) for at in range(0, 20 + 168 + 20 + 88 + 64 + 64, 4)),
    ]
    flips = iter(places)

    async def main():
        async with running(name="web") as server:

            async def serve(reader, writer):
                await relay(reader, writer, server.address, next(flips, ("", 0)))

            async with (
                relaying(serve) as target,
                probing(target, interval_s=0.01, timeout_s=30.0) as client,
            ):
                await eventually(lambda: len(client.results) >= len(places) + 3)
                retrans = client.client.paths[0].retrans["server"]
        return client, server.tally, retrans

    client, tally, retrans = asyncio.run(main())
    failed = [each.reason for each in client.results if each.outcome is Outcome.FAIL]
    assert set(failed) == {Reason.DAMAGED, Reason.WRONG_BYTES}
    assert failed.count(Reason.WRONG_BYTES) <= 2 * 64 // 4, "the payload's own, either direction"
    assert len(failed) > len(places) - 20, "the rest met our own stalls, or no probe"
    assert (client.client.tally.server_restarts, tally.protocol_errors) == (0, {})
    assert tally.damaged_frames > 20
    assert retrans < 1_000
    said = [record.msg for record in caplog.records]
    assert "frame_damaged" in said
    assert not {"client_refused", "server_restarted", "bug"} & set(said)


def test_servers_of_one_name_behind_one_address_are_no_restart_and_a_new_process_is(caplog):
    caplog.set_level(logging.INFO)

    async def main():
        first, second = running(name="web"), running(name="web")
        servers = [await first.__aenter__(), await second.__aenter__()]
        turns = itertools.count()

        async def serve(reader, writer):
            if servers:
                server = servers[next(turns) % len(servers)]
                await relay(reader, writer, server.address)

        async with relaying(serve) as target, probing(target) as client:
            await eventually(lambda: len(client.results) >= 12)
            instances = {result.server.instance for result in client.results if result.server}
            assert len(instances) == 2
            assert client.client.tally.server_restarts == 0
            # One goes, and then the other: it was there all the time.
            del servers[0]
            before = len(client.results)
            await eventually(lambda: len(client.results) >= before + 8)
            assert client.client.tally.server_restarts == 0
            servers.clear()
            await eventually(lambda: client.results[-1].reason is not Reason.OK)
            async with running(name="web") as third:
                servers.append(third)
                await eventually(lambda: client.client.tally.server_restarts == 1)
        await first.__aexit__(None, None, None)
        await second.__aexit__(None, None, None)

    asyncio.run(main())
    assert [record.msg for record in caplog.records].count("server_restarted") == 1


def test_the_welcome_brings_what_the_servers_host_counted():
    async def main():
        async with running() as server, probing(str(server.address)) as client:
            await eventually(lambda: client.results)
            return client.results[0], server._context.host()

    result, host = asyncio.run(main())
    assert None not in host
    assert result.host_greeted is not None
    assert result.host_ended is not None
    for told in (result.host_greeted, result.host_ended):
        assert all(0 <= now - then < 1_000 for now, then in zip(host, told, strict=True))
