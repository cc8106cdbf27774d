"""Who is let in, without a socket: connections are names here."""

from collections import Counter
from typing import NamedTuple

import pytest

from twocans_core.net.listener import _plain_host
from twocans_server import admission
from twocans_server.admission import Admission
from twocans_server.limits import LOBBY_PLACES

HERE, THERE = "192.0.2.1", "192.0.2.2"


class One(NamedTuple):
    name: int
    progress: int = 0


class World:
    """An admission, and which limits were reached."""

    def __init__(self, most: int = 100, per_source: int = 0) -> None:
        self.hits: Counter[str] = Counter()
        self.admission: Admission[One] = Admission(most, per_source, self._hit)
        self._number = 0

    def come(self, host: str = HERE, *, progress: int = 0, is_memory_full: bool = False) -> One:
        """Let one come; it is in, or in the lobby."""
        refusal = self.admission.refusal(host, is_memory_full=is_memory_full)
        self._number += 1
        one = One(self._number, progress)
        self.admission.enter(one, host, refusal)
        return one

    def _hit(self, limit: str) -> None:
        self.hits[limit] += 1


def test_places_are_taken_and_given_back():
    world = World(most=2)
    first = world.come()
    world.come(THERE)
    assert world.admission.served == 2
    assert world.admission.refusal(HERE) == "connections"
    world.admission.leave(first, HERE)
    assert world.admission.refusal(HERE) == ""
    assert world.hits == {"max_connections": 1}


def test_a_source_has_places_of_its_own():
    world = World(per_source=1)
    first = world.come(HERE)
    assert world.admission.refusal(HERE) == "connections_per_source"
    assert world.admission.refusal(THERE) == ""
    world.admission.leave(first, HERE)
    assert world.admission.refusal(HERE) == ""
    assert world.hits == {"max_connections_per_source": 1}


def test_while_memory_is_full_nobody_is_let_in():
    world = World()
    world.come(is_memory_full=True)
    assert world.admission.served == 0
    assert world.hits == {"memory": 1}


def test_who_waits_in_the_lobby_takes_no_place():
    world = World(most=1, per_source=1)
    served = world.come()
    waiting = [world.come() for _ in range(5)]
    assert world.admission.served == 1
    for one in waiting:
        world.admission.leave(one, HERE)
    assert world.admission.served == 1
    world.admission.leave(served, HERE)
    assert world.admission.refusal(HERE) == ""


@pytest.mark.parametrize(
    ("progress", "goes"),
    [([0, 0, 0], 0), ([1, 0, 0], 1), ([1, 1, 2], 0), ([2, 1, 2], 1), ([2, 2, 2], 0)],
)
def test_of_a_full_lobby_who_said_nothing_goes_first_and_who_was_told_last(progress, goes):
    world = World(most=0)
    lobby = [world.come(progress=each) for each in progress]
    assert world.admission.in_the_way() is None
    for _ in range(LOBBY_PLACES - len(lobby)):
        world.come(progress=2)
    assert world.admission.in_the_way() is lobby[goes]


@pytest.mark.parametrize(
    ("host", "other", "are_one"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("fe80::1%lo", "fe80::2%lo", True),
        ("192.0.2.1", "::", False),
    ],
)
def test_a_source_is_an_ipv4_address_or_an_ipv6_64(host, other, are_one):
    assert (admission._source(host) == admission._source(other)) is are_one


def test_an_ipv4_mapped_source_is_the_ipv4_address():
    assert admission._source(_plain_host("::ffff:192.0.2.1")) == bytes((192, 0, 2, 1))
