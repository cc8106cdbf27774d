"""Both cans together, over the loopback: what one says, the other saw."""

import asyncio
import contextlib
import json
import random
import signal
import socket
import time
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import pytest

from fakes import header
from integration.harness import ServerProcess, eventually, running, until
from integration.pair import (
    ClientProcess,
    Running,
    books_on_the_page,
    closed_port,
    parse_samples,
    probing,
    serving,
    sum_of,
)
from twocans_client.evidence.results import Outcome, Reason
from twocans_client.probes.schedule import phase_ns
from twocans_server.connections.endings import Ending


def has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as sock:
        sock.bind(("::1", 0))
        return True
    return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")


@pytest.mark.slow
def test_what_the_client_calls_ok_the_server_calls_done():
    async def main():
        async with running() as server, probing(str(server.address), interval_s=0.01) as client:
            await eventually(lambda: len(client.results) >= 200)
            totals = await client.stop()
            await eventually(lambda: server.open_connections == 0)
            assert totals["ok"] == len(client.results)
            # On a busy machine the client asks why the server was slow, over one connection each.
            connections = totals["ok"] + server.tally.testimonies
            assert server.tally.ended["framed", Ending.DONE] == connections
            assert sum(server.tally.ended.values()) == connections
            sized = sum(result.is_sized for result in client.results)
            assert server.tally.exchanges == totals["ok"] + sized
            sent = sum(result.bytes_sent for result in client.results)
            received = sum(result.bytes_received for result in client.results)
            if not server.tally.testimonies:
                assert (server.tally.bytes_received, server.tally.bytes_sent) == (sent, received)

    asyncio.run(main())


@pytest.mark.slow
@pytest.mark.parametrize("blind", ["client", "server"])
def test_without_kernel_stamps_and_counters_everything_is_by_the_users_clock_and_nothing_is_zero(
    blind,
):
    without: dict[str, Any] = {"stamps": False, "tcp_info": False}

    async def main():
        theirs = without if blind == "server" else {}
        ours = without if blind == "client" else {}
        async with (
            running(**theirs) as server,
            probing(str(server.address), interval_s=0.01, held=True, **ours) as client,
        ):
            await eventually(lambda: len(client.results) >= 50)
            _, page = await client.get("/metrics")
            assert client.reasons == {"ok"}
        samples = parse_samples(page)
        phases = [key for key in samples if key[0] == "twocans_client_phase_duration_seconds_count"]
        told = {(key[2], key[1]) for key in phases}
        assert {phase for phase, _ in told} >= {"phase=network", "phase=server", "phase=exchange"}
        # Of the kernel's own only its handshake may be left, where it is asked.
        kernels = {phase for phase, clock in told if clock == "clock=kernel"}
        assert kernels == ({"phase=handshake"} if blind == "server" else set())
        for name in ("exchange_part_seconds_count", "path_segments_total", "segments_total"):
            parts = [key for key in samples if key[0] == f"twocans_client_{name}"]
            assert {key[1] for key in parts} <= {"part=client_connect", "part=accept"}
        assert sum_of(samples, "twocans_client_exchange_splits_total", "result=unstamped") >= 50

    asyncio.run(main())


@pytest.mark.slow
def test_the_kernel_splits_every_exchange_and_the_parts_add_up():
    async def main():
        async with running() as server, probing(str(server.address), interval_s=0.01) as client:
            await eventually(lambda: len(client.results) >= 100)
        exchanges = [exchange for result in client.results for exchange in result.exchanges]
        whole = 0
        for exchange in exchanges:
            if exchange.split is not None:
                whole += 1
                split = exchange.split
                whole_ns = split.client_ns + split.network_ns + split.server_ns
                assert whole_ns == exchange.stamps.t4u - exchange.stamps.t1u
                assert all(ns >= 0 for _, ns in split.parts())
        # A stall between two clock reads of ours makes an exchange unusable, never wrong.
        assert whole >= 0.98 * len(exchanges)
        assert all(result.handshake_ns for result in client.results)

    asyncio.run(main())


@pytest.mark.parametrize(
    "target",
    [
        "127.0.0.1:{}",
        "127.0.0.9:{}",
        pytest.param("[::1]:{}", marks=needs_ipv6),
        "localhost:{}",
        "dns:localhost:{}",
    ],
)
def test_both_families_and_names_lead_there(target):
    async def main():
        async with running(host="") as server:
            text = target.format(server.address.port)
            async with probing(text) as client:
                await eventually(lambda: len(client.results) >= 5)
                await client.stop()
                assert client.reasons == {"ok"}
                for result in client.results:
                    assert result.seen_as == result.local

    asyncio.run(main())


@contextlib.asynccontextmanager
async def probing_many(count: int) -> AsyncIterator[Running]:
    """Probe so many paths of one server, of which none fails."""
    async with running(host="0.0.0.0") as server:
        targets = [f"127.0.{n // 200}.{n % 200 + 1}:{server.address.port}" for n in range(count)]
        async with probing(*targets, interval_s=2.0) as client:
            await eventually(lambda: all(path.newest for path in client.client.paths))
            yield client
            assert (await client.stop())["fail"] == 0


@pytest.mark.slow
def test_three_hundred_paths_are_each_probed_on_their_own_grid():
    async def main():
        async with probing_many(300) as client:
            name = client.client.identity.name
            for path in client.client.paths:
                assert path.newest is not None
                phase = phase_ns(name, path.target.key, 2_000_000_000, 50_000_000)
                assert path.newest.intended_ns % 2_000_000_000 == phase

    asyncio.run(main())


@pytest.mark.slow
def test_a_page_with_five_hundred_paths_is_whole_and_adds_up_while_they_are_probed():
    async def main():
        async with probing_many(500) as client:
            for _ in range(3):
                samples = parse_samples((await client.get("/metrics"))[1])
                scheduled, settled = books_on_the_page(samples)
                assert scheduled == settled
                assert sum_of(samples, "twocans_client_paths") == 500
                infos = [key for key in samples if key[0] == "twocans_client_path_info"]
                assert len(infos) == 500

    asyncio.run(main())


# --- wrong and hostile servers -------------------------------------------------------------


async def endless_bytes(reader, writer):
    while True:
        writer.write(b"x" * 65_536)
        await writer.drain()


async def endless_draining(reader, writer):
    """Greet as a real server does, then say ``draining`` for ever and as fast as it goes."""
    from twocans_core.kernel.tcpinfo import NO_COUNTERS
    from twocans_core.protocol.frames import Frame, Kind, encode
    from twocans_core.protocol.messages import Goodbye, Hello, Identity, Welcome
    from twocans_core.protocol.session import ServerSession

    session = ServerSession(max_payload=65_536)
    while (hello := session.next_message()) is None:
        session.feed(await reader.read(4_096))
    assert isinstance(hello, Hello)
    welcome = Welcome(
        Identity(b"x" * 16), hello.connection, 65_536, 0, True, ("127.0.0.1", 1), None, None, None,
        NO_COUNTERS,
    )  # fmt: skip
    writer.write(session.welcome(welcome))
    draining = encode(Frame(Kind.GOODBYE, 0, Goodbye("draining").encode())) * 4_000
    while True:
        writer.write(draining)
        await writer.drain()


async def drip(reader, writer):
    for byte in header(2, 255) + bytes(300):
        writer.write(bytes((byte,)))
        await asyncio.sleep(0.02)


async def giant_length(reader, writer):
    writer.write(header(2, 0xFFFF_FFFF))
    await reader.read()


async def http(reader, writer):
    await reader.read(4_096)
    writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


async def close_at_once(reader, writer):
    pass


async def reset_at_once(reader, writer):
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


async def mute(reader, writer):
    await reader.read()


async def mirror(reader, writer):
    while data := await reader.read(65_536):
        writer.write(data)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("serve", "reasons"),
    [
        (endless_bytes, {"protocol_error"}),
        (endless_draining, {"protocol_error"}),
        (drip, {"greeting_timeout"}),
        (giant_length, {"protocol_error"}),
        (http, {"protocol_error"}),
        (close_at_once, {"closed_early", "reset"}),
        (reset_at_once, {"reset"}),
        (mute, {"greeting_timeout"}),
        (mirror, {"protocol_error"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_wrong_server_fails_its_own_path_and_no_other(serve, reasons):
    # In a process of its own: it must not be our loop that it holds.
    async def main():
        async with serving(serve) as hostile, running() as server:
            good = str(server.address)
            client = await asyncio.to_thread(
                ClientProcess,
                *(f"--target={good}", f"--target={hostile}", "--interval-s=0.1", "--timeout-s=1"),
            )
            with client:
                await asyncio.to_thread(client.probed, 30)
                samples = await asyncio.to_thread(client.samples)
                bad = {
                    label.removeprefix("reason=")
                    for key in samples
                    if key[0] == "twocans_client_probe_reasons_total" and f"target={hostile}" in key
                    for label in key
                    if label.startswith("reason=")
                }
                assert bad
                assert bad <= reasons
                name = "twocans_client_probes_total"
                assert sum_of(samples, name, f"target={good}", "outcome=fail") == 0
                assert sum_of(samples, name, f"target={good}", "outcome=ok") > 0
                await asyncio.to_thread(client.stop)

    asyncio.run(main())


@pytest.mark.slow
def test_a_server_of_random_bytes_is_a_result_and_never_a_bug(caplog):
    rng = random.Random(1)

    async def noise(reader, writer):
        await reader.read(4_096)
        head = rng.choice([b"", b"\xfc\x2c\x01", header(2, 128)])
        writer.write(head + rng.randbytes(rng.randrange(400)))
        if rng.random() < 0.5:
            await reader.read()

    async def main():
        async with serving(noise) as target:
            async with probing(target, interval_s=0.005, timeout_s=0.2) as client:
                await eventually(lambda: len(client.results) >= 300)
            assert {result.outcome for result in client.results} <= {Outcome.FAIL, Outcome.VOID}
            assert Reason.INTERNAL_ERROR not in client.reasons

    asyncio.run(main())
    assert "bug" not in {record.msg for record in caplog.records}


# --- our own faults ------------------------------------------------------------------------


@pytest.mark.slow
def test_a_loop_that_is_blocked_again_and_again_fails_no_path():
    rng = random.Random(7)

    async def main():
        with ServerProcess() as server:
            # Many and short: whenever it is blocked, some are under way and run out of time.
            targets = [f"127.0.0.{n}:{server.port}" for n in range(1, 6)]
            async with probing(*targets, timeout_s=0.4, interval_s=0.02) as client:
                toolbox = client.client._toolbox
                connect = toolbox.tools.dial
                stalls: list[float] = []

                async def dial(*args, **kwargs):
                    stream = await connect(*args, **kwargs)
                    if stalls:  # one is surely under way, and runs out of time
                        time.sleep(stalls.pop())  # noqa: ASYNC251 - this is the fault
                    return stream

                toolbox.tools = toolbox.tools._replace(dial=dial)
                for number in range(12):
                    await asyncio.sleep(rng.uniform(0.05, 0.3))
                    if number % 4 == 3:
                        stalls.append(0.6)
                    else:
                        time.sleep(rng.choice([0.1, 0.3, 0.6]))  # noqa: ASYNC251 - and this
                await asyncio.sleep(0.5)
                totals = await client.stop()
            assert totals["fail"] == 0, client.reasons
            assert client.reasons == {"ok", "self_stall"}
            assert min(totals["missed"], totals["void"], totals["ok"]) > 0

    asyncio.run(main())


@pytest.mark.slow
def test_a_client_that_is_frozen_accuses_nobody_and_counts_every_slot():
    interval_s = 0.01
    with (
        ServerProcess() as server,
        ClientProcess(
            f"--target=127.0.0.1:{server.port}",
            f"--interval-s={interval_s}",
            "--timeout-s=2",
            "--budget=1GB",
            "--name=frozen",
        ) as client,
    ):
        client.probed(5)
        for _ in range(2):
            client.signal(signal.SIGSTOP)
            time.sleep(3)
            client.signal(signal.SIGCONT)
            time.sleep(1)
        offset_ns = time.time_ns() - time.monotonic_ns()
        stopped = client.stop()
        assert stopped["twocans.probes.fail"] == 0
        assert stopped["twocans.probes.missed"] >= 2 * (3 / interval_s - 5)
        # Every slot of the grid, by arithmetic alone, between two lines of the log.
        interval_ns = int(interval_s * 1e9)
        phase = phase_ns("frozen", f"127.0.0.1:{server.port}", interval_ns, 50_000_000)
        first, last = (
            (logged_ns(client.events(name)[0]) - offset_ns - phase) // interval_ns
            for name in ("path_added", "stopping")
        )
        assert abs(stopped["twocans.probes.scheduled"] - (last - first)) <= 1, (
            "one may fall between line and deed"
        )
        # What was under way when it froze reached the server, which may have seen it end.
        until(lambda: server.metric("twocans_server_connections", kind="framed") == 0)
        ended = {"kind": "framed", "ending": "done"}
        assert (
            server.metric("twocans_server_connections_ended_total", **ended)
            >= stopped["twocans.probes.ok"]
        )


def logged_ns(line: dict[str, Any]) -> int:
    return int(datetime.fromisoformat(line["timestamp"]).timestamp() * 1e9)


@pytest.mark.slow
def test_nobody_reads_its_output_and_probes_are_on_time(tmp_path):
    file = tmp_path / "targets.json"
    # Each comes and goes in a line of its own: more than a pipe and the queue can hold.
    flood = [f"127.1.{n // 200}.{n % 200 + 1}:{closed_port()}" for n in range(1_500)]
    file.write_text(json.dumps([{"targets": flood}]))
    interval_s = 1.0  # 1,500 probes a second, and not what a machine can just do
    with (
        ServerProcess() as server,
        ClientProcess(
            f"--target=127.0.0.1:{server.port}",
            f"--targets-file={file}",
            f"--interval-s={interval_s}",
            "--max-paths=2000",
            "--sized-interval-s=0",
            "--idle-connections=0",
            reads=False,
        ) as client,
    ):
        paths, dropped = "twocans_client_paths", "twocans_client_log_dropped_total"
        until(lambda: sum_of(client.samples(), paths) == 1_501)
        file.write_text("[]")
        until(lambda: sum_of(client.samples(), paths) == 1)
        assert sum_of(client.samples(), dropped) > 0
        exchanges = "twocans_server_exchanges_total"
        ours = ("twocans_client_probes_missed_total", f"target=127.0.0.1:{server.port}")
        # Not while it opens 1,500 paths: that may be more than this machine can do at once.
        missed = sum_of(client.samples(), *ours)
        before, begun = server.metric(exchanges), time.monotonic()
        time.sleep(10)
        seen, took_s = server.metric(exchanges) - before, time.monotonic() - begun
        assert abs(seen - took_s / interval_s) <= 2, "two probes, at the edges"
        assert sum_of(client.samples(), *ours) - missed <= 2
        client.read_log()
        until(lambda: len(client.lines) >= 1_000)
        assert client.stop()["twocans.probes.ok"] >= seen / 3


@pytest.mark.slow
def test_sigterm_lets_what_is_under_way_end():
    async def slow(reader, writer):
        await reader.read(4_096)
        await asyncio.sleep(0.5)

    async def main():
        async with serving(slow) as target:
            client = await asyncio.to_thread(
                ClientProcess, f"--target={target}", "--interval-s=0.1", "--timeout-s=3"
            )
            with client:
                await asyncio.to_thread(client.probed, 3)
                stopped = await asyncio.to_thread(client.stop)
            assert stopped["twocans.probes.void"] == 0, "cut off"
            assert (
                stopped["twocans.probes.fail"]
                == stopped["twocans.probes.scheduled"] - stopped["twocans.probes.missed"]
            )

    asyncio.run(main())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_client_well(number):
    with ServerProcess() as server, ClientProcess(f"--target=127.0.0.1:{server.port}") as client:
        client.probed(1)
        client.signal(number)
        stopped = client.wait()
        assert stopped["twocans.probes.ok"] >= 1
        assert [line["event.name"] for line in client.lines].count("stopping") == 1


def test_both_cans_say_where_they_are_in_the_log_and_on_the_page():
    about = {"node": "n1", "zone": "z1", "namespace": "ns", "address": "192.0.2.7"}
    flags = [f"--{key}={value}" for key, value in about.items()]
    with (
        ServerProcess("--name=can", *flags) as server,
        ClientProcess(f"--target=127.0.0.1:{server.port}", "--name=can", *flags) as client,
    ):
        until(lambda: client.events("started"))
        logged = {
            "k8s.node.name": "n1",
            "cloud.availability_zone": "z1",
            "k8s.namespace.name": "ns",
            "network.local.address": "192.0.2.7",
        }
        for line in (server.events("listening")[0], client.events("started")[0]):
            assert logged.items() <= line.items()
        labels = [f"{key}={value}" for key, value in {**about, "name": "can"}.items()]
        page = parse_samples(server.get("/metrics")[1])
        assert sum_of(page, "twocans_server_info", *labels) == 1
        assert sum_of(client.samples(), "twocans_client_info", *labels) == 1
