import os
import select
import socket
import struct
import time
from collections.abc import Iterator

import pytest

from core.net.ends import accept, receive, wait_for
from twocans_core.kernel.tcpinfo import NO_COUNTERS
from twocans_core.net import channel as channels
from twocans_core.net.channel import Channel, Received
from twocans_core.net.listener import Listener
from twocans_core.net.sockets import Address, Kernel, open_keeper

REALTIME_SKEW_NS = 5_000_000_000


@pytest.fixture(scope="module", autouse=True)
def keeper() -> Iterator[None]:
    close = open_keeper()
    yield
    close()


def test_both_ends_agree_on_their_addresses(pair):
    assert pair.server.peer == pair.client.local_address()
    assert pair.client.peer == pair.server.local_address() == pair.listener.address


# --- connecting ---------------------------------------------------------------------------


def test_nobody_who_listens_is_refused():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        channel = Channel.open(Address("127.0.0.1", sock.getsockname()[1]))
        wait_for(channel.fd, select.POLLOUT)
        with pytest.raises(ConnectionRefusedError):
            channel.is_connected()
        channel.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_first_port_that_is_free_is_ours_and_else_the_kernel_chooses(host):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with (
        socket.create_server((host, 0), family=family) as server,
        socket.create_server((host, 0), family=family) as taken,
        socket.create_server((host, 0), family=family) as other,
    ):
        address = Address(host, server.getsockname()[1])
        in_use, free = taken.getsockname()[1], other.getsockname()[1]
        other.close()
        for ports, wanted in (((free, in_use), free), ((in_use, free), free), ((in_use,), None)):
            channel = Channel.open(address, local_ports=ports)
            port = channel.local_address()[1]
            wait_for(channel.fd, select.POLLOUT)
            assert channel.is_connected()
            assert port == wanted if wanted else port not in (in_use, 0)
            server.accept()[0].close()  # first, so that the port is not in TIME_WAIT with us
            wait_for(channel.fd, select.POLLIN)
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
    assert len(pair.client._tx_ns) <= channels._STAMPS_KEPT
    assert len(pair.client._queued_ns) <= channels._STAMPS_KEPT
    assert pair.client.take_tx_ns(1) is None


def test_a_kernel_without_stamps_says_so(pair, monkeypatch):
    monkeypatch.setattr(channels, "SO_TIMESTAMPING_NEW", 9_999)
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


def test_a_connection_that_may_be_silent_is_not_kept_alive(pair):
    pair.server.let_be_silent()
    assert pair.server._sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
