import errno
import os
import select
import socket

import pytest

from core.net.ends import LOOPBACKS, accept, receive, until, wait_for
from fakes import needs_filters
from twocans_core.net.channel import Channel
from twocans_core.net.listener import Listener, ListenError, listen
from twocans_core.net.sockets import Address


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
    sock = listen("", 0, backlog=1)
    assert sock.getsockname()[0] == "0.0.0.0"
    sock.close()
    with pytest.raises(OSError, match="no IPv6"):
        listen("::1", 0, backlog=1)


def test_where_ipv6_is_disabled_every_address_means_ipv4(monkeypatch):
    class Disabled(socket.socket):
        def bind(self, address: object) -> None:
            if self.family == socket.AF_INET6:
                raise OSError(errno.EADDRNOTAVAIL, "disabled")
            super().bind(address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "socket", Disabled)
    sock = listen("", 0, backlog=1)
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
