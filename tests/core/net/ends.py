"""Channels over loopback, and how to wait for them."""

import select
import socket
import time
from collections.abc import Callable

import pytest

from twocans_core.net.channel import Channel, Received
from twocans_core.net.listener import Listener


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this machine's loopback")
LOOPBACKS = ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)]


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
