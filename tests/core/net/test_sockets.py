import errno
import os
import socket

import pytest

from core.net.ends import LOOPBACKS, needs_ipv6
from twocans_core.net.sockets import Address, has_route, open_keeper, resolve


def test_an_address_is_written_as_in_a_url():
    assert str(Address("192.0.2.1", 80)) == "192.0.2.1:80"
    assert str(Address("2001:db8::1", 80)) == "[2001:db8::1]:80"


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


@pytest.mark.parametrize("host", LOOPBACKS)
def test_there_is_a_route_to_ourselves(host):
    assert has_route(Address(host, 7))


@pytest.mark.parametrize(
    ("number", "is_there"),
    [
        (errno.ENETUNREACH, False),
        (errno.EADDRNOTAVAIL, False),
        (errno.EAFNOSUPPORT, False),
        (errno.EMFILE, True),
        (errno.EPERM, True),
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


def test_the_keeper_is_one_socket_until_it_is_closed():
    before = len(os.listdir("/proc/self/fd"))
    close = open_keeper()
    assert len(os.listdir("/proc/self/fd")) == before + 1
    close()
    assert len(os.listdir("/proc/self/fd")) == before
