import socket
import time

import pytest

from fakes import FakeClock
from integration.netns import CLIENT_ADDRESS, SERVER_ADDRESS, namespaces
from twocans_core.net import half_open
from twocans_core.net.half_open import HalfOpen
from twocans_core.net.listener import Listener

SECOND_NS = 1_000_000_000


@pytest.mark.parametrize("host", ["", SERVER_ADDRESS])
def test_those_whose_handshake_is_not_finished_are_counted_by_source(host):
    with namespaces() as pair:
        with pair.server.entered():
            listener = Listener(host, 5000, backlog=10)
            other = Listener(host, 5001, backlog=10)
        pair.client.drop("syn_ack", first=100)
        with pair.client.entered():
            socks = [socket.socket() for _ in range(4)]
            for sock in socks:
                sock.setblocking(False)
                sock.connect_ex((SERVER_ADDRESS, 5001 if sock is socks[0] else 5000))
        with pair.server.entered():
            mine = HalfOpen(*listener.address, time.monotonic_ns)
            assert mine.of(CLIENT_ADDRESS) == 3
            assert mine.of("192.0.2.1") == 0
        for sock in socks:
            sock.close()
        listener.close()
        other.close()


def test_many_questions_are_one_look_a_second(monkeypatch):
    looks = []
    monkeypatch.setattr(half_open, "_dump", lambda *what: looks.append(what))
    clock = FakeClock()
    mine = HalfOpen("127.0.0.1", 5000, lambda: clock.mono_ns)
    for _ in range(100):
        assert mine.of("192.0.2.1") is None
        clock.advance(SECOND_NS // 50)
    assert looks == [(socket.AF_INET, 5000)] * 2


def test_a_kernel_that_does_not_say_is_none(monkeypatch):
    monkeypatch.setattr(half_open, "_NETLINK_SOCK_DIAG", 31)  # there is no such family
    assert HalfOpen("127.0.0.1", 5000, lambda: 0).of("127.0.0.1") is None
