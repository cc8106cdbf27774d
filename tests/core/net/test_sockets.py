import errno
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator

import pytest

from fakes import needs_filters
from twocans_core.kernel.tcpinfo import NO_COUNTERS
from twocans_core.net import sockets
from twocans_core.net.sockets import (
    Address,
    Channel,
    Kernel,
    Listener,
    ListenError,
    Received,
    has_route,
    open_keeper,
    resolve,
)

REALTIME_SKEW_NS = 5_000_000_000


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this machine's loopback")
LOOPBACKS = ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)]


@pytest.fixture(scope="module", autouse=True)
def keeper() -> Iterator[None]:
    close = open_keeper()
    yield
    close()


def wait_for(fd: int, events: int) -> None:
    """Wait until a descriptor is ready; 30 s is a failure."""
    poll = select.poll()
    poll.register(fd, events)
    assert poll.poll(30_000), "nothing happened"


def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds that has no descriptor to wait for."""
    for _ in range(3_000):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("it never came true")


def accept(listener: Listener) -> Channel:
    wait_for(listener.fd, select.POLLIN)
    channel = listener.accept()
    assert channel is not None
    return channel


def receive(channel: Channel) -> Received:
    wait_for(channel.fd, select.POLLIN)
    received = channel.receive()
    assert received is not None
    return received


class Pair:
    """A connection over loopback, both ends ours."""

    def __init__(self, host: str) -> None:
        self.listener = Listener(host, 0, backlog=16)
        self.client = Channel.open(self.listener.address)
        wait_for(self.client.fd, select.POLLOUT)
        assert self.client.is_connected()
        self.server = accept(self.listener)

    def close(self) -> None:
        self.client.close()
        self.server.close()
        self.listener.close()


@pytest.fixture(params=LOOPBACKS)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    pair = Pair(request.param)
    yield pair
    pair.close()


# --- addresses ----------------------------------------------------------------------------


def test_an_address_is_written_as_in_a_url():
    assert str(Address("192.0.2.1", 80)) == "192.0.2.1:80"
    assert str(Address("2001:db8::1", 80)) == "[2001:db8::1]:80"


def test_both_ends_agree_on_their_addresses(pair):
    assert pair.server.peer == pair.client.local_address()
    assert pair.client.peer == pair.server.local_address() == pair.listener.address


def test_a_literal_address_resolves_to_itself():
    assert resolve("127.0.0.1", 7) == [Address("127.0.0.1", 7)]
    assert resolve("::1", 7) == [Address("::1", 7)]


def test_each_address_of_a_name_is_there_once(monkeypatch):
    def getaddrinfo(host: str, port: int, *_: object) -> list[object]:
        addresses = [("192.0.2.1", port), ("2001:db8::1", port, 0, 0), ("192.0.2.1", port)]
        return [(0, 0, 0, "", address) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert resolve("x", 7) == [Address("192.0.2.1", 7), Address("2001:db8::1", 7)]


def test_a_link_local_address_that_was_looked_up_has_its_interface(monkeypatch):
    def getaddrinfo(host: str, port: int, *_: object) -> list[object]:
        return [(0, 0, 0, "", ("fe80::1", port, 0, scope)) for scope in (1, 999_999)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert resolve("x", 7) == [Address("fe80::1%lo", 7), Address("fe80::1%999999", 7)]


@needs_ipv6
def test_of_a_name_only_one_family_may_be_asked_for():
    assert resolve("localhost", 7, "4") == [Address("127.0.0.1", 7)]
    assert resolve("::1", 7, "6") == [Address("::1", 7)]
    with pytest.raises(socket.gaierror):
        resolve("::1", 7, "4")


@pytest.mark.parametrize(
    ("host", "says"),
    [
        ("fe80::1", "a link-local address needs its interface: fe80::1%eth0"),
        ("fe80::1%no-such", "there is no interface no-such"),
    ],
)
def test_a_link_local_address_to_listen_on_needs_an_interface_that_is_there(host, says):
    with pytest.raises(ListenError, match=says):
        Listener(host, 0, backlog=1)


@pytest.mark.parametrize("host", LOOPBACKS)
def test_there_is_a_route_to_ourselves(host):
    assert has_route(Address(host, 7))


@pytest.mark.parametrize(
    ("number", "is_there"),
    [
        *((number, False) for number in (errno.ENETUNREACH, errno.EADDRNOTAVAIL)),
        *((errno.EAFNOSUPPORT, False), (errno.EMFILE, True), (errno.EPERM, True)),
    ],
)
def test_only_what_says_so_means_that_there_is_no_route(monkeypatch, number, is_there):
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(socket.socket, "__init__", fail)
    assert has_route(Address("192.0.2.1", 7)) is is_there


def test_a_name_that_cannot_be_is_an_os_error():
    with pytest.raises(socket.gaierror):
        resolve("not a name", 7)


# --- connecting ---------------------------------------------------------------------------


def test_nobody_who_listens_is_refused():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        channel = Channel.open(Address("127.0.0.1", sock.getsockname()[1]))
        wait_for(channel.fd, select.POLLOUT)
        with pytest.raises(ConnectionRefusedError):
            channel.is_connected()
        channel.close()


def test_a_handshake_that_is_not_over_is_not_connected():
    # The queue of a listener with backlog 0 holds one; SYNs after that are dropped.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        address = Address("127.0.0.1", server.getsockname()[1])
        channels = [Channel.open(address) for _ in range(3)]
        assert not channels[-1].is_connected()
        for channel in channels:
            channel.close()


def test_a_host_that_is_no_address_is_an_os_error_and_leaves_no_socket():
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match=r"Name|address|resolution"):
        Channel.open(Address("not an address", 1))
    assert len(os.listdir("/proc/self/fd")) == before


# --- bytes --------------------------------------------------------------------------------


def test_bytes_arrive_as_they_were_sent(pair):
    assert pair.server.receive() is None
    assert pair.client.send(b"ping") == 4
    assert receive(pair.server).data == b"ping"
    assert pair.server.send(memoryview(b"pong")) == 4
    assert receive(pair.client).data == b"pong"
    assert pair.client.sent_bytes == pair.server.sent_bytes == 4


def test_what_was_read_is_not_overwritten_by_the_next_read(pair):
    pair.client.send(b"first")
    first = receive(pair.server)
    pair.client.send(b"other")
    receive(pair.server)
    assert first.data == b"first"


def test_a_half_close_ends_one_way_only(pair):
    pair.client.send(b"last")
    pair.client.end_output()
    assert receive(pair.server).data == b"last"
    assert receive(pair.server).data == b""
    assert pair.server.send(b"answer") == 6
    assert receive(pair.client).data == b"answer"


def test_ending_the_output_of_a_dead_connection_is_no_error(pair):
    pair.client.close()
    wait_for(pair.server.fd, select.POLLIN)
    pair.server.send(b"into nothing")
    wait_for(pair.server.fd, select.POLLHUP)
    pair.server.end_output()


def test_a_peer_that_does_not_read_takes_no_more_in_the_end(pair):
    sent = 0
    for _ in range(10_000):
        count = pair.client.send(bytes(65_536))
        sent += count
        if count == 0:
            break
    assert count == 0
    assert pair.client.sent_bytes == sent
    read = 0
    while read < sent:
        data = receive(pair.server).data
        assert len(data) <= 65_536
        read += len(data)
    wait_for(pair.client.fd, select.POLLOUT)
    assert pair.client.send(b"again") == 5


def test_a_reset_is_an_os_error(pair):
    pair.client._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    pair.client.close()
    wait_for(pair.server.fd, select.POLLIN)
    with pytest.raises(ConnectionResetError):
        pair.server.receive()


def test_closing_twice_is_closing_once(pair):
    pair.client.close()
    pair.client.close()
    pair.listener.close()
    pair.listener.close()


# --- stamps -------------------------------------------------------------------------------


def test_every_read_has_its_kernel_stamp(pair):
    for _ in range(50):
        before = time.time_ns()
        pair.client.send(b"x")
        received = receive(pair.server)
        assert received.rx_ns is not None
        assert before - REALTIME_SKEW_NS < received.rx_ns < time.time_ns() + REALTIME_SKEW_NS
        assert not received.late


def test_the_first_bytes_of_an_accepted_connection_have_a_stamp():
    listener = Listener("127.0.0.1", 0, backlog=16)
    client = Channel.open(listener.address)
    wait_for(client.fd, select.POLLOUT)
    client.send(b"first")  # before accept: flags are inherited from the listener
    server = accept(listener)
    assert receive(server).rx_ns is not None
    for each in (client, server, listener):
        each.close()


def test_the_end_of_the_stream_has_no_stamp(pair):
    pair.client.end_output()
    assert receive(pair.server) == Received(b"", None)


def test_a_write_has_its_transmit_stamp_by_the_offset_of_its_end(pair):
    assert pair.client.stamp_transmits()
    ends = []
    before = time.time_ns()
    for size in (1, 100, 7):
        pair.client.send_stamped(bytes(size))
        ends.append(pair.client.sent_bytes)
        receive(pair.server)
    assert ends == [1, 101, 108]
    stamps = [pair.client.take_tx_ns(end) for end in ends]
    assert all(
        stamp is not None and before - REALTIME_SKEW_NS < stamp < time.time_ns() + REALTIME_SKEW_NS
        for stamp in stamps
    )
    assert stamps == sorted(stamps)
    assert [pair.client.take_tx_ns(end) for end in ends] == [None] * 3
    assert pair.client.take_tx_ns(55) is None


def test_switching_stamps_on_starts_the_offsets_anew(pair):
    pair.server.send(b"before")
    receive(pair.client)
    assert pair.server.stamp_transmits()
    assert pair.server.sent_bytes == 0
    pair.server.send_stamped(b"abc")
    receive(pair.client)
    assert pair.server.take_tx_ns(3) is not None


def test_a_write_that_asks_for_it_has_a_stamp_of_its_queueing_too(pair):
    for queueing in (False, True):
        pair.client.send_stamped(b"abc", queueing=queueing)
        receive(pair.server)
        queued_ns, left_ns = pair.client.take_transmit(pair.client.sent_bytes)
        assert left_ns is not None
        assert (queued_ns is not None) == queueing
        assert queued_ns is None or queued_ns <= left_ns


def test_a_write_that_does_not_ask_has_none(pair):
    pair.client.send(b"abc")
    receive(pair.server)
    assert pair.client.take_transmit(3) == (None, None)


def test_a_write_is_stamped_before_anybody_asks_and_leaves_no_event(pair):
    pair.client.send_stamped(b"abc", queueing=True)
    with pytest.raises(BlockingIOError):
        pair.client._sock.recvmsg(0, 256, socket.MSG_ERRQUEUE)
    assert None not in pair.client.take_transmit(3)


@pytest.mark.parametrize("kernel", [Kernel(stamps=False), Kernel(tcp_info=False)])
def test_the_kernel_is_not_asked_for_what_is_switched_off(kernel):
    listener = Listener("127.0.0.1", 0, backlog=1, kernel=kernel)
    client = Channel.open(listener.address, kernel)
    server = accept(listener)
    for sender, receiver in ((client, server), (server, client)):
        sender.stamp_transmits()
        sender.send_stamped(b"x", queueing=True)
        assert (receive(receiver).rx_ns is not None) == kernel.stamps
        assert (sender.take_tx_ns(1) is not None) == kernel.stamps
        assert (sender.counters() != NO_COUNTERS) == kernel.tcp_info
    for each in (client, server, listener):
        each.close()


def test_without_stamps_switched_on_there_are_none(pair):
    pair.client.send(b"x")
    receive(pair.server)
    assert pair.client.take_tx_ns(1) is None


def test_stamps_that_nobody_takes_are_not_kept_for_ever(pair):
    assert pair.client.stamp_transmits()
    for number in range(200):
        pair.client.send_stamped(b"x", queueing=True)
        receive(pair.server)
        if number % 10 == 0:
            pair.client.take_tx_ns(10_000)
    assert pair.client.take_tx_ns(200) is not None
    assert pair.client._tx_ns is not None
    assert len(pair.client._tx_ns) <= sockets._STAMPS_KEPT
    assert len(pair.client._queued_ns) <= sockets._STAMPS_KEPT
    assert pair.client.take_tx_ns(1) is None


def test_a_kernel_without_stamps_says_so(pair, monkeypatch):
    monkeypatch.setattr(sockets, "SO_TIMESTAMPING_NEW", 9_999)
    assert not pair.server.stamp_transmits()
    pair.server.send_stamped(b"x")
    assert pair.server.take_tx_ns(1) is None
    assert pair.client.take_tx_ns(1) is None


# --- counters and options -----------------------------------------------------------------


def test_the_kernel_counts_the_connection(pair):
    pair.client.send(b"ping")
    receive(pair.server)
    counters = pair.client.counters()
    assert counters.total_retrans == 0
    assert counters.data_segs_out == 1
    assert pair.server.counters().data_segs_in == 1
    assert counters.snd_mss is not None
    assert counters.snd_mss > 0


def test_a_peer_that_vanishes_is_noticed_on_what_is_held(pair):
    held = Channel.open(pair.listener.address, held=True)
    for channel in (held, pair.server):
        for level, name, value in (
            (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
            (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
            (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
            (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
            (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000),
            (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        ):
            assert channel._sock.getsockopt(level, name) == value
    held.close()


# --- listening ----------------------------------------------------------------------------


def test_no_connection_is_none():
    listener = Listener("127.0.0.1", 0, backlog=16)
    assert listener.accept() is None
    listener.close()


@pytest.mark.parametrize("host", ["", "::"])
@pytest.mark.parametrize("client", LOOPBACKS)
def test_every_address_of_both_families_is_one_socket(host, client):
    listener = Listener(host, 0, backlog=16)
    channel = Channel.open(Address(client, listener.address.port))
    server = accept(listener)
    # An IPv4 client is seen as such, not as ::ffff:127.0.0.1.
    assert server.peer == (client, channel.local_address()[1])
    for each in (channel, server, listener):
        each.close()


def test_where_there_is_no_ipv6_every_address_means_ipv4(monkeypatch):
    real = socket.socket

    def without_ipv6(family: int, kind: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "no IPv6")
        return real(family, kind)

    monkeypatch.setattr(socket, "socket", without_ipv6)
    sock = sockets.listen("", 0, backlog=1)
    assert sock.getsockname()[0] == "0.0.0.0"
    sock.close()
    with pytest.raises(OSError, match="no IPv6"):
        sockets.listen("::1", 0, backlog=1)


def test_where_ipv6_is_disabled_every_address_means_ipv4(monkeypatch):
    class Disabled(socket.socket):
        def bind(self, address: object) -> None:
            if self.family == socket.AF_INET6:
                raise OSError(errno.EADDRNOTAVAIL, "disabled")
            super().bind(address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "socket", Disabled)
    sock = sockets.listen("", 0, backlog=1)
    assert sock.getsockname()[0] == "0.0.0.0"
    sock.close()


@pytest.mark.parametrize("host", ["localhost", "192.0.2.1.5", "*"])
def test_a_host_that_is_no_address_cannot_be_listened_on(host):
    with pytest.raises(OSError, match="is no IP address to listen on"):
        Listener(host, 0, backlog=1)


def test_a_socket_that_cannot_listen_is_closed(monkeypatch):
    class Deaf(socket.socket):
        def listen(self, *_: int) -> None:
            raise OSError(errno.EADDRINUSE, "in use after all")

    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(socket, "socket", Deaf)
    with pytest.raises(OSError, match="in use after all"):
        Listener("127.0.0.1", 0, backlog=1)
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_address_that_is_not_ours_cannot_be_listened_on():
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="assign"):
        Listener("192.0.2.1", 0, backlog=1)
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_waits_to_be_accepted_can_be_asked_for():
    listener = Listener("127.0.0.1", 0, backlog=16)
    assert listener.accept_queue() == (0, 16)
    clients = [Channel.open(listener.address) for _ in range(3)]
    until(lambda: listener.accept_queue().length == 3)
    accept(listener).close()
    assert listener.accept_queue().length == 2
    for client in clients:
        client.close()
    listener.close()


@needs_filters
def test_refused_syns_are_dropped_and_what_waits_is_served():
    listener = Listener("127.0.0.1", 0, backlog=16)
    early = Channel.open(listener.address)
    until(lambda: listener.accept_queue().length == 1)
    early.send(b"early")
    listener.refuse_syns()
    late = Channel.open(listener.address)
    server = accept(listener)
    assert receive(server).data == b"early"
    server.send(b"answer")
    assert receive(early).data == b"answer"
    # Everything on loopback is done at once: had the SYN been taken, this would be connected.
    assert not late.is_connected()
    assert listener.accept() is None
    for each in (early, late, server, listener):
        each.close()


@needs_filters
@pytest.mark.slow
def test_a_dropped_syn_is_sent_again_to_the_next_listener():
    listener = Listener("127.0.0.1", 0, backlog=16)
    listener.refuse_syns()
    client = Channel.open(listener.address)
    port = listener.address.port
    listener.close()
    successor = Listener("127.0.0.1", port, backlog=16)
    server = accept(successor)
    wait_for(client.fd, select.POLLOUT)
    assert client.is_connected()
    for each in (client, server, successor):
        each.close()


def test_the_keeper_is_one_socket_until_it_is_closed():
    before = len(os.listdir("/proc/self/fd"))
    close = open_keeper()
    assert len(os.listdir("/proc/self/fd")) == before + 1
    close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_kernels_buffers_of_an_accepted_connection_do_not_grow(pair):
    def sizes() -> list[int]:
        options = (socket.SO_RCVBUF, socket.SO_SNDBUF)
        return [pair.server._sock.getsockopt(socket.SOL_SOCKET, option) for option in options]

    assert sizes() == [256 * 1024] * 2
    # Whoever reads and writes much has bigger windows, and by default bigger buffers.
    moved = 0
    while moved < 32 * 1024 * 1024:
        pair.client.send(bytes(256 * 1024))
        while received := pair.server.receive():
            moved += len(received.data)
            pair.server.send(received.data)
            while pair.client.receive() is not None:
                pass
    assert sizes() == [256 * 1024] * 2
