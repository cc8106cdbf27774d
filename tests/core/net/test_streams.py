import asyncio
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from fakes import FakeClock, MemoryStream
from twocans_core.clock import SYSTEM_CLOCK, Clock
from twocans_core.kernel.tcpinfo import NO_COUNTERS
from twocans_core.net.channel import Channel, Received
from twocans_core.net.poller import Poller
from twocans_core.net.sockets import Address, open_keeper
from twocans_core.net.streams import ByteStream, DeadlineExceeded, Stream, connect

T = TypeVar("T")
FAR_NS = 30_000_000_000


def soon(ns: int = FAR_NS) -> int:
    return time.monotonic_ns() + ns


class World:
    """A loop's poller, and a plain listening socket for the other ends.

    Attributes:
        poller: Of the running loop.
        address: Where the listening socket is.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.poller = Poller(asyncio.get_running_loop())
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family)
        self._listener.setblocking(False)
        self.address = Address(host, self._listener.getsockname()[1])
        self._ends: list[socket.socket] = []

    async def connect(self, clock: Clock = SYSTEM_CLOCK) -> tuple[Stream, socket.socket]:
        """A stream, and its other end as a socket."""
        stream = await connect(
            self.address, poller=self.poller, deadline_ns=clock.mono_ns() + FAR_NS, clock=clock
        )
        end, _ = await asyncio.get_running_loop().sock_accept(self._listener)
        self._ends.append(end)
        return stream, end

    def close(self) -> None:
        for end in self._ends:
            end.close()
        self._listener.close()
        self.poller.close()


def run(scenario: Callable[[World], Awaitable[T]], host: str = "127.0.0.1") -> T:
    """Run a scenario in a world of its own."""

    bugs: list[object] = []

    async def main() -> T:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: bugs.append(context))
        close_keeper = open_keeper()
        await asyncio.sleep(0.05)  # the kernel switches stamping on a little later
        world = World(host)
        try:
            return await scenario(world)
        finally:
            world.close()
            close_keeper()

    result = asyncio.run(main())
    assert bugs == []
    return result


def reset(end: socket.socket) -> None:
    """Close with a reset instead of an end."""
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.close()


# --- what goes well -----------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_bytes_go_both_ways_with_stamps(host):
    if host == "::1" and not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 on this machine")

    async def scenario(world: World) -> None:
        stream, end = await world.connect()
        await stream.send_all(b"ping", soon(), stamped=True)
        assert await asyncio.get_running_loop().sock_recv(end, 10) == b"ping"
        assert stream.sent_bytes == 4
        assert None not in stream.take_transmit(4)
        end.sendall(b"pong")
        data, rx_ns, late = await stream.receive(soon())
        assert (data, late) == (b"pong", False)
        assert rx_ns is not None
        assert stream.local_address() == end.getpeername()[:2]
        assert stream.counters().data_segs_out == 1
        stream.close()

    run(scenario, host)


def test_waiting_bytes_wake_the_reader():
    async def scenario(world: World) -> None:
        stream, end = await world.connect()
        reader = asyncio.ensure_future(stream.receive(soon()))
        await asyncio.sleep(0.01)
        assert not reader.done()
        end.sendall(b"x")
        assert (await reader).data == b"x"
        stream.close()

    run(scenario)


def test_what_came_while_nobody_read_is_not_lost():
    async def scenario(world: World) -> None:
        stream, end = await world.connect()
        end.sendall(b"x")
        await asyncio.sleep(0.01)  # the edge comes and goes
        assert (await stream.receive(soon())).data == b"x"
        stream.close()

    run(scenario)


def test_a_large_write_waits_for_the_peer_to_read():
    payload = bytes(range(256)) * 64 * 1024  # 16 MiB: more than the buffers of both ends

    async def scenario(world: World) -> None:
        stream, end = await world.connect()
        writer = asyncio.ensure_future(stream.send_all(payload, soon()))
        await asyncio.sleep(0.01)
        assert not writer.done()
        loop = asyncio.get_running_loop()
        read = bytearray()
        while len(read) < len(payload):
            read += await loop.sock_recv(end, 1 << 20)
        await writer
        assert bytes(read) == payload
        assert stream.sent_bytes == len(payload)
        stream.close()

    run(scenario)


def test_nothing_to_send_is_sent_at_once():
    async def scenario(world: World) -> None:
        stream, _ = await world.connect()
        await stream.send_all(b"", 0)
        assert stream.sent_bytes == 0
        stream.close()

    run(scenario)


def test_a_half_close_lets_the_answer_through():
    async def scenario(world: World) -> None:
        stream, end = await world.connect()
        await stream.send_all(b"question", soon())
        stream.end_output()
        loop = asyncio.get_running_loop()
        assert await loop.sock_recv(end, 100) == b"question"
        assert await loop.sock_recv(end, 100) == b""
        end.sendall(b"answer")
        assert (await stream.receive(soon())).data == b"answer"
        end.close()
        assert (await stream.receive(soon())).data == b""
        stream.close()

    run(scenario)


# --- what does not ------------------------------------------------------------------------


def test_nobody_who_listens_is_refused():
    async def scenario(world: World) -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            address = Address("127.0.0.1", sock.getsockname()[1])
            with pytest.raises(ConnectionRefusedError):
                await connect(address, poller=world.poller, deadline_ns=soon())

    run(scenario)


def test_a_reset_is_an_os_error_for_whoever_waits():
    async def scenario(world: World) -> None:
        stream, end = await world.connect()
        reader = asyncio.ensure_future(stream.receive(soon()))
        await asyncio.sleep(0.01)
        reset(end)
        with pytest.raises(ConnectionResetError):
            await reader
        with pytest.raises(OSError, match="pipe"):
            await stream.send_all(b"x", soon())
        stream.close()

    run(scenario)


@pytest.mark.parametrize("remaining_ns", [-1, 0, 10_000_000])
def test_silence_until_the_deadline_exceeds_it(remaining_ns):
    async def scenario(world: World) -> None:
        stream, _ = await world.connect()
        with pytest.raises(DeadlineExceeded):
            await stream.receive(soon(remaining_ns))
        stream.close()

    run(scenario)


def test_the_deadline_is_one_of_the_clock_that_it_was_made_with():
    async def scenario(world: World) -> None:
        clock = FakeClock()
        stream, _ = await world.connect(clock.clock())
        with pytest.raises(DeadlineExceeded):
            await stream.receive(clock.mono_ns)
        clock.mono_ns = 0
        reader = asyncio.ensure_future(stream.receive(FAR_NS))
        await asyncio.sleep(0.01)
        assert not reader.done()
        reader.cancel()
        stream.close()

    run(scenario)


def test_what_is_there_after_the_deadline_is_found_by_one_last_look_and_is_late():
    async def scenario(world: World) -> None:
        stream, end = await world.connect()
        loop = asyncio.get_running_loop()
        # The deadline passes with nothing there; the bytes come before the loop has its turn.
        loop.call_later(0.01, lambda: silently(stream, end, b"x"))
        received = await stream.receive(soon(10_000_000))
        assert (received.data, received.late) == (b"x", True)
        stream.close()

    run(scenario)


def silently(stream: Stream, end: socket.socket, data: bytes) -> None:
    """Send to a stream whose loop is held up until its deadline is over; hide the edge."""
    stream._poller.unregister(stream._channel.fd)
    end.sendall(data)
    time.sleep(0.02)


def test_what_is_there_before_the_deadline_is_not_late():
    async def scenario(world: World) -> None:
        stream, end = await world.connect()
        end.sendall(b"x")
        await asyncio.sleep(0.01)
        # Even if the deadline is over when we look: it was there at the first look.
        received = await stream.receive(0)
        assert (received.data, received.late) == (b"x", False)
        stream.close()

    run(scenario)


def test_a_write_that_the_peer_does_not_take_exceeds_its_deadline():
    async def scenario(world: World) -> None:
        stream, _ = await world.connect()
        with pytest.raises(DeadlineExceeded):
            await stream.send_all(bytes(16 << 20), soon(20_000_000))
        stream.close()

    run(scenario)


def test_a_handshake_without_an_answer_exceeds_its_deadline_and_leaves_no_socket():
    async def scenario(world: World) -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
            address = Address("127.0.0.1", full.getsockname()[1])
            waiting = [Channel.open(address) for _ in range(2)]
            with pytest.raises(DeadlineExceeded):
                await connect(address, poller=world.poller, deadline_ns=soon(20_000_000))
            for channel in waiting:
                channel.close()
        assert not world.poller._callbacks

    run(scenario)


def test_a_poller_that_takes_no_more_leaves_no_socket(monkeypatch):
    async def scenario(world: World) -> None:
        def full(fd: int, callback: object) -> None:
            raise OSError(12, "Cannot allocate memory")

        monkeypatch.setattr(world.poller, "register", full)
        with pytest.raises(OSError, match="allocate"):
            await connect(world.address, poller=world.poller, deadline_ns=soon())
        # An unclosed socket would be a ResourceWarning, which is an error here.

    run(scenario)


def test_a_reader_may_be_cancelled_in_the_turn_in_which_its_bytes_come():
    async def scenario(world):
        stream, end = await world.connect()
        reader = asyncio.create_task(stream.receive(soon()))
        await asyncio.sleep(0.01)
        end.sendall(b"here")
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        assert (await stream.receive(soon())).data == b"here"
        stream.close()

    run(scenario)


def test_a_cancelled_reader_takes_nothing_with_it():
    async def scenario(world: World) -> None:
        stream, end = await world.connect()
        reader = asyncio.ensure_future(stream.receive(soon()))
        await asyncio.sleep(0.01)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        end.sendall(b"x")
        assert (await stream.receive(soon())).data == b"x"
        stream.close()

    run(scenario)


def test_a_transmit_stamp_alone_does_not_wake_a_reader():
    async def scenario(world: World) -> None:
        stream, end = await world.connect()
        looks = 0
        look = stream._channel.receive

        class Counting:
            """The channel, with its reads counted."""

            def __getattr__(self, name: str) -> object:
                return getattr(channel, name)

            def receive(self) -> Received | None:
                nonlocal looks
                looks += 1
                return look()

        channel = stream._channel
        stream._channel = Counting()  # type: ignore[assignment]
        reader = asyncio.ensure_future(stream.receive(soon()))
        await asyncio.sleep(0.01)
        for _ in range(5):
            await stream.send_all(b"x", soon(), stamped=True)
            await asyncio.sleep(0.005)
        assert looks == 0
        end.sendall(b"y")
        assert (await reader).data == b"y"
        stream.close()

    run(scenario)


# --- closing ------------------------------------------------------------------------------


def test_after_close_the_kernel_answers_no_more_questions():
    async def scenario(world: World) -> None:
        stream, _ = await world.connect()
        await stream.send_all(b"x", soon())
        stream.close()
        assert stream.counters() == NO_COUNTERS
        assert stream.take_transmit(1) == (None, None)

    run(scenario)


def test_closing_twice_does_not_close_the_stream_that_has_its_number_now():
    async def scenario(world: World) -> None:
        first, _ = await world.connect()
        fd = first._channel.fd
        first.close()
        second, end = await world.connect()
        assert second._channel.fd == fd  # the kernel gives the lowest number that is free
        first.close()
        reader = asyncio.ensure_future(second.receive(soon(2_000_000_000)))
        await asyncio.sleep(0.01)
        end.sendall(b"x")
        received = await reader
        assert (received.data, received.late) == (b"x", False)
        second.close()

    run(scenario)


# --- the fake -----------------------------------------------------------------------------


def test_the_fake_is_a_stream_too():
    async def scenario(stream: ByteStream, fake: MemoryStream) -> None:
        await stream.send_all(b"ab", 5)
        assert stream.sent_bytes == 2
        assert await stream.receive(6) == Received(b"x", None)
        assert await stream.receive(7) == Received(b"y", 9, late=True)
        assert await stream.receive(8) == Received(b"ba", None)
        with pytest.raises(ConnectionResetError):
            await stream.receive(9)
        with pytest.raises(DeadlineExceeded):
            await stream.receive(10)
        assert fake.deadlines == [5, 6, 7, 8, 9, 10]
        fake.tx_ns[2] = 77
        assert (stream.take_transmit(2), stream.take_transmit(2)) == ((77, 77), (None, None))
        stream.end_output()
        stream.close()
        assert (fake.output_ended, fake.closed, fake.sent) == (True, True, b"ab")

    fake = MemoryStream(
        b"x",
        Received(b"y", 9, late=True),
        lambda sent: sent[::-1],
        ConnectionResetError(104, "Connection reset by peer"),
    )
    asyncio.run(scenario(fake, fake))


def test_the_fakes_silence_lasts_until_the_deadline():
    clock = FakeClock()
    stream = MemoryStream(b"x", clock=clock, step_ns=3)
    start_ns = clock.mono_ns
    asyncio.run(stream.receive(start_ns + 10))
    assert clock.mono_ns == start_ns + 3
    with pytest.raises(DeadlineExceeded):
        asyncio.run(stream.receive(start_ns + 10))
    assert clock.mono_ns == start_ns + 10
