import asyncio
import itertools

import pytest

from twocans_client.diagnosis import names
from twocans_client.diagnosis.names import Names
from twocans_client.discovery.resolver import Resolver
from twocans_client.discovery.specs import parse_spec
from twocans_client.evidence.results import Reason
from twocans_core.net.sockets import Address

FOUR, SIX = Address("192.0.2.1", 5000), Address("2001:db8::1", 5000)


def looked_up(*answers, text="name:5000"):
    """Look a name up once for each answer; an exception is raised."""
    given = itertools.chain(answers)

    def lookup(host, port):
        answer = next(given)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def main():
        found = Names(parse_spec(text), Resolver(lookup))
        return found, [await found.look_up() for _ in answers]

    return asyncio.run(main())


@pytest.fixture
def routes(monkeypatch):
    """Families that our host has a route for."""
    families = {"4", "6"}
    monkeypatch.setattr(names, "has_route", lambda address: address.family in families)
    return families


def test_an_address_is_not_looked_up():
    found, told = looked_up(None, text="192.0.2.1:5000")
    assert told == [None]
    assert [target.address for target in found.targets] == [FOUR]


def test_every_address_of_a_name_is_tried_as_a_path_of_its_own(routes):
    found, _ = looked_up([FOUR, SIX, FOUR])
    assert [target.address for target in found.targets] == [FOUR, SIX]
    assert len({target.key for target in found.targets}) == 2
    assert found.no_route == []


def test_what_our_own_host_has_no_route_to_is_not_tried_but_told(routes):
    routes.remove("6")
    found, _ = looked_up([SIX, FOUR])
    assert [target.address for target in found.targets] == [FOUR]
    assert found.no_route == [SIX]


def test_where_there_is_no_route_to_any_all_are_tried(routes):
    routes.clear()
    found, _ = looked_up([SIX, FOUR])
    assert [target.address for target in found.targets] == [SIX, FOUR]
    assert found.no_route == []


def test_of_very_many_addresses_some_are_left_out_and_counted(routes):
    found, _ = looked_up([Address(f"192.0.2.{n}", 5000) for n in range(100)])
    assert len(found.targets) == names.MOST
    assert found.left_out == 100 - names.MOST


def test_a_name_that_does_not_resolve_is_a_target_without_an_address():
    found, (told,) = looked_up(OSError("no such name"))
    assert told.problem is Reason.DNS_FAILURE
    (target,) = found.targets
    assert (target.address, target.problem) == (None, Reason.DNS_FAILURE)


def test_addresses_that_were_known_stay_while_look_ups_fail(routes):
    found, _ = looked_up([FOUR], OSError("no such name"))
    assert [target.address for target in found.targets] == [FOUR]
