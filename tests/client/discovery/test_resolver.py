import asyncio
import errno
import os
import threading
import time

import pytest

from fakes import Attention, FakeClock, FakeResolver
from twocans_client.discovery import resolver as module
from twocans_client.discovery.resolver import Resolver, first_usable, of_family, retry_ns
from twocans_client.evidence.results import Reason
from twocans_core.host.stalls import Cause, Stalled
from twocans_core.net.sockets import Address


class SomeDead:
    """Names that begin with ``dead`` get no answer until ``gate`` is set.

    Attributes:
        held: Threads that wait for an answer now, and the most that ever did.
    """

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.asked: list[str] = []
        self.held = self.most_held = 0
        self._lock = threading.Lock()

    def __call__(self, host: str, port: int) -> list[Address]:
        self.asked.append(host)
        if host.startswith("dead"):
            with self._lock:
                self.held += 1
                self.most_held = max(self.most_held, self.held)
            assert self.gate.wait(30)
            with self._lock:
                self.held -= 1
        return [Address("192.0.2.1", port)]


@pytest.fixture
def some_dead(monkeypatch):
    monkeypatch.setattr(module, "_PATIENCE_S", 0.01)
    monkeypatch.setattr(module, "LOOKUP_S", 0.2)
    lookup = SomeDead()
    yield lookup
    lookup.gate.set()


def test_an_answer_that_came_while_we_stood_still_counts():
    async def main():
        # It comes at once, but nobody is there to take it until after the deadline.
        lookup = FakeResolver({"a": ["192.0.2.1"]})
        resolving = asyncio.create_task(Resolver(lookup).resolve("a", 7, timeout_s=0.1))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        time.sleep(0.3)  # noqa: ASYNC251 - the stall
        return await resolving

    found = asyncio.run(main())
    assert (found.problem, found.addresses) == (None, (Address("192.0.2.1", 7),))


@pytest.mark.parametrize(
    ("stalled_ns", "problem"),
    [(25_000_000, Reason.SELF_STALL), (24_999_999, Reason.DNS_TIMEOUT)],
)
def test_a_silence_is_ours_if_we_stood_still_for_a_quarter_of_it(some_dead, stalled_ns, problem):
    asked: list[int] = []

    def stalled_since(since_ns: int) -> Stalled:
        asked.append(since_ns)
        return Stalled(stalled_ns, stalled_ns, Cause.STOPPED)

    clock = FakeClock()
    attention = Attention()
    resolver = Resolver(some_dead, clock.clock(), stalled_since, attention)
    found = asyncio.run(resolver.resolve("dead", 7, timeout_s=0.1))
    assert found.problem is problem
    assert asked == [clock.mono_ns]
    assert (attention.ever, attention.now) == (1, 0)


def test_the_c_librarys_own_time_out_is_ours_too_if_we_stood_still():
    resolver = Resolver(
        FakeResolver({}), stalled_since=lambda _: Stalled(10**10, 10**10, Cause.STOPPED)
    )
    found = asyncio.run(resolver.resolve("a", 7))
    assert found.problem is Reason.SELF_STALL
    assert found.detail == "dns_failure after we stood still for 10.000 s, stopped"


def test_a_name_gives_its_addresses_and_how_long_it_took():
    clock = FakeClock()

    def lookup(host, port):
        clock.advance(5)
        return [Address("192.0.2.1", port), Address("2001:db8::1", port)]

    found = asyncio.run(Resolver(lookup, clock.clock()).resolve("a", 7))
    assert found.addresses == (Address("192.0.2.1", 7), Address("2001:db8::1", 7))
    assert (found.duration_ns, found.problem, found.slow) == (5, None, False)


def test_an_unknown_name_is_a_failure_in_the_resolvers_words():
    found = asyncio.run(Resolver(FakeResolver({})).resolve("a", 7))
    assert (found.addresses, found.problem) == ((), Reason.DNS_FAILURE)
    assert found.detail == "Name or service not known"
    assert found.duration_ns is not None


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), Reason.NO_DESCRIPTORS),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), Reason.NO_MEMORY),
        (OSError(errno.EIO, os.strerror(errno.EIO)), Reason.DNS_FAILURE),
        (UnicodeError("label too long"), Reason.DNS_FAILURE),
    ],
)
def test_what_we_lack_is_no_fault_of_the_name(error, problem):
    def lookup(host, port):
        raise error

    assert asyncio.run(Resolver(lookup).resolve("a", 7)).problem is problem


def test_a_name_without_an_answer_is_a_time_out(some_dead):
    found = asyncio.run(Resolver(some_dead).resolve("dead", 7))
    assert (found.problem, found.duration_ns, found.slow) == (Reason.DNS_TIMEOUT, None, True)


def test_fifty_dead_names_before_it_do_not_keep_a_good_one_from_its_answer(some_dead):
    async def main():
        resolver = Resolver(some_dead)
        dead = [asyncio.create_task(resolver.resolve(f"dead-{n}", 7)) for n in range(50)]
        good = await asyncio.wait_for(resolver.resolve("good", 7), 10)
        assert good.problem is None, "its own queue is no time-out"
        assert not some_dead.gate.is_set()
        return [found.problem for found in await asyncio.gather(*dead)]

    assert asyncio.run(main()) == [Reason.DNS_TIMEOUT] * 50


def test_slow_names_hold_two_threads_whatever_their_number(some_dead):
    async def main():
        resolver = Resolver(some_dead)
        tasks = [asyncio.create_task(resolver.resolve(f"dead-{n}", 7, slow=True)) for n in range(9)]
        await asyncio.sleep(0.5)
        held = some_dead.held
        for n in range(20):
            assert (await resolver.resolve(f"good-{n}", 7)).problem is None
        some_dead.gate.set()
        await asyncio.gather(*tasks)
        return held

    assert asyncio.run(main()) == some_dead.most_held == 2


def test_threads_are_bounded_when_no_name_gets_an_answer(some_dead, monkeypatch):
    monkeypatch.setattr(module, "_MOST_THREADS", 10)

    async def main():
        resolver = Resolver(some_dead)
        tasks = [asyncio.create_task(resolver.resolve(f"dead-{n}", 7)) for n in range(40)]
        await asyncio.sleep(0.5)
        assert some_dead.held <= 10 + module._PLACES
        some_dead.gate.set()
        await asyncio.gather(*tasks)
        assert (await resolver.resolve("good", 7)).problem is None

    asyncio.run(main())


def test_a_place_is_given_back_when_nobody_waits_any_longer(some_dead):
    async def main():
        resolver = Resolver(some_dead)
        for _ in range(5):
            task = asyncio.create_task(resolver.resolve("dead", 7, slow=True))
            await asyncio.sleep(0.02)
            task.cancel()
        some_dead.gate.set()
        for _ in range(5):
            assert (await resolver.resolve("good", 7, slow=True)).problem is None

    asyncio.run(main())


def test_a_thread_that_cannot_start_is_our_own_lack_and_costs_no_place(monkeypatch):
    class Unstartable(threading.Thread):
        def start(self):
            raise RuntimeError("can't start new thread")

    async def main():
        resolver = Resolver(FakeResolver({"a": ["192.0.2.1"]}))
        with monkeypatch.context() as patch:
            patch.setattr(threading, "Thread", Unstartable)
            found = [await resolver.resolve("a", 7) for _ in range(10)]
        assert {one.problem for one in found} == {Reason.NO_MEMORY}
        assert (await resolver.resolve("a", 7)).problem is None

    asyncio.run(main())


V4, OTHER_V4, V6 = (Address(host, 7) for host in ("192.0.2.1", "192.0.2.2", "2001:db8::1"))


@pytest.mark.parametrize(
    ("family", "no_route", "wanted"),
    [
        ("any", "", [V6, V4, OTHER_V4]),
        ("ipv4", "", [V4, OTHER_V4]),
        ("ipv6", "6", [V6]),
        ("prefer-ipv4", "", [V4, OTHER_V4]),
        ("prefer-ipv6", "", [V6]),
        ("prefer-ipv6", "6", [V6, V4, OTHER_V4]),
    ],
)
def test_the_family_that_is_wanted_is_taken(family, no_route, wanted):
    found = of_family([V6, V4, OTHER_V4], family, lambda address: address.family != no_route)
    assert found == wanted


def test_where_the_preferred_family_has_none_the_other_one_is_taken_and_else_none():
    assert of_family([V4], "prefer-ipv6") == [V4]
    assert of_family([V4], "ipv6") == []


def test_the_first_address_is_one_with_a_route_if_any_has():
    assert first_usable([V6, V4, OTHER_V4], lambda address: address.family == "4") == V4
    assert first_usable([V6, V4], lambda _: False) == V6


@pytest.mark.parametrize(
    ("family", "asked"), [("ipv4", "4"), ("ipv6", "6"), ("any", ""), ("prefer-ipv4", "")]
)
def test_a_family_that_is_not_wanted_is_not_asked_for(monkeypatch, family, asked):
    families = []

    def resolve(host, port, family=""):
        families.append(family)
        return [V4, V6]

    monkeypatch.setattr(module, "resolve", resolve)
    assert V4 in module.lookup_of(family)("a", 7)
    assert families == [asked]


@pytest.mark.parametrize(
    ("text", "more", "seconds"),
    [
        (None, "", 5),
        ("nameserver 192.0.2.53\n", "", 5),
        ("options timeout:2 attempts:3\n", "", 2),
        ("options ndots:5\noptions rotate timeout:1\n", "", 1),
        ("# options timeout:2\n", "", 5),
        ("options timeout:2\n", "timeout:3", 3),
        ("options timeout:0\n", "", 1),
        ("options timeout:99999\n", "", 30),
    ],
)
def test_it_is_known_when_our_host_asks_again(monkeypatch, tmp_path, text, more, seconds):
    config = tmp_path / "resolv.conf"
    if text is not None:
        config.write_text(text)
    monkeypatch.setenv("RES_OPTIONS", more)
    assert retry_ns(config) == seconds * 1_000_000_000
