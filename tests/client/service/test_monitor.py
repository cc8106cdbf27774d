"""Monitors and their fleet without a socket: connecting is scripted, and hours pass at once."""

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import nullcontext
from random import Random
from typing import Any

import pytest

from client.far_end import CLIENT, SERVER, FarEnd, ended, target
from client.timeless import TimelessLoop, run_timeless
from fakes import MemoryStream, Step
from twocans_client.config import ClientConfig
from twocans_client.discovery.resolver import Resolution
from twocans_client.discovery.specs import Who
from twocans_client.evidence.idle import IdleResult, Way
from twocans_client.evidence.results import Outcome, ProbeResult, Reason
from twocans_client.evidence.rows import Kept
from twocans_client.paths.path import PathState
from twocans_client.paths.purse import cost_of
from twocans_client.paths.tally import ClientTally
from twocans_client.probes.endings import Ending
from twocans_client.probes.probe import Plan
from twocans_client.probes.tools import Tools
from twocans_client.service.budget import Budget
from twocans_client.service.fleet import Fleet
from twocans_client.service.intake import Intake
from twocans_client.service.monitor import Monitor, Shared
from twocans_core.clock import Clock
from twocans_core.host.stalls import NEVER, Cause, Stalled
from twocans_core.net.channel import Received
from twocans_core.net.streams import ByteStream, DeadlineExceeded

HOUR_NS = 3_600_000_000_000

Dial = Callable[[], Awaitable[ByteStream]]


def answering() -> Iterator[Step]:
    """Yield what a server does that answers whatever it is asked."""
    far, answered = FarEnd(), 0

    def step(sent: bytes) -> bytes:
        nonlocal answered
        if len(sent) == answered:
            return b""  # the end, as nothing more was asked
        answered = len(sent)
        return far(sent)

    return itertools.repeat(step, 8)


async def answer() -> ByteStream:
    return MemoryStream(*answering())


async def refuse() -> ByteStream:
    raise ConnectionRefusedError(111, "refused")


async def be_silent() -> ByteStream:
    await asyncio.sleep(3)
    raise DeadlineExceeded


async def hang() -> ByteStream:
    await asyncio.sleep(1e9)
    raise AssertionError


class World:
    """A fleet, and what it sees.

    Attributes:
        dial: What becomes of the next connection.
        results: Of every probe, in the order in which they ended.
        met: Who answered, and whether it was leaving.
        stepped_ns: By how much CLOCK_REALTIME was stepped.
        suspended_ns: For how long the host was suspended.
    """

    def __init__(
        self, loop: TimelessLoop, *, most: int = 100, most_idle: int = 0, **config: Any
    ) -> None:
        self.dial: Dial = answer
        self.results: list[ProbeResult] = []
        self.met: list[tuple[Who, bool]] = []
        self.stepped_ns = self.suspended_ns = 0
        self.clock_ahead_ns = 0
        self.clock = Clock(
            lambda: loop.now_ns() + self.clock_ahead_ns,
            lambda: loop.now_ns() + self.stepped_ns + self.suspended_ns,
            lambda: loop.now_ns() + self.suspended_ns,
        )
        self.tools = Tools(
            lambda *_, **__: self.dial(),
            CLIENT,
            Random(1),
            lambda _: NEVER,
            self.clock,
            nullcontext(),
        )
        self.tally = ClientTally()
        self.shared = Shared(
            loop,
            self.clock,
            Plan(3_000_000_000, 1, 64),
            lambda: self.tools,
            lambda _: 0,
            Budget(most),
            Intake(loop),
            self.tally,
        )
        self.fleet = Fleet(
            ClientConfig(interval_s=1.0, drain_grace_s=0, **config),
            self.shared,
            max_held=0,
            max_idle=most_idle,
            met=lambda _, who, leaving: self.met.append((who, leaving)),
            observer=self.results.append,
        )

    def probe(self, *hosts: str) -> list[Monitor]:
        """Probe these hosts, and no others, from now on."""
        self.fleet.retarget([target(f"{host}:5000", host) for host in hosts])
        return self.fleet.monitors

    def settle(self, monitor: Monitor, result: ProbeResult) -> None:
        """Let a probe of a monitor have begun, and end with this result."""
        monitor.path.slots(1, 0)
        monitor.path.begin()
        self.shared.budget.in_flight += 1
        monitor.settle(result)

    @property
    def reasons(self) -> set[Reason]:
        return {result.reason for result in self.results}

    async def stop(self) -> dict[str, int]:
        """Stop the fleet, and see that the books add up; returns the totals."""
        await self.fleet.stop()
        totals = {str(key): value for key, value in self.fleet.totals.items()}
        ended = {str(outcome): 0 for outcome in Outcome}
        for result in self.results:
            ended[str(result.outcome)] += 1
        assert {key: totals[key] for key in ended} == ended
        assert totals["scheduled"] == sum(ended.values()) + totals["missed"]
        assert self.shared.budget.in_flight == 0
        return totals


@pytest.mark.parametrize(
    ("dial", "reason", "state"),
    [
        (answer, Reason.OK, PathState.OK),
        (refuse, Reason.REFUSED, PathState.FAILING),
        (be_silent, Reason.CONNECT_TIMEOUT, PathState.FAILING),
    ],
)
def test_a_path_is_probed_in_every_slot_and_the_books_add_up(dial, reason, state):
    async def main(loop):
        world = World(loop)
        world.dial = dial
        (monitor,) = world.probe("a")
        await asyncio.sleep(60)
        assert monitor.path.scheduled == 60
        assert monitor.path.state is state
        await world.stop()
        assert world.reasons == {reason}

    run_timeless(main)


def test_what_answers_is_named_counted_and_handed_on_once():
    async def main(loop):
        world = World(loop)
        (monitor,) = world.probe("a")
        await asyncio.sleep(10)
        await world.stop()
        assert world.met == [(Who(*SERVER[1:]), False)] * len(world.results)
        assert monitor.path.server == Who(*SERVER[1:])
        assert monitor.path.label == SERVER.name
        connects = world.tally.phases["connect", "user", SERVER.zone]
        assert sum(connects.counts) == len(world.results)

    run_timeless(main)


@pytest.mark.parametrize("fault", [ZeroDivisionError, AssertionError])
def test_a_bug_in_a_probe_is_void_and_costs_no_more_than_that_probe(fault, caplog):
    async def main(loop):
        world = World(loop)
        calls = 0

        async def sometimes():
            nonlocal calls
            calls += 1
            if calls % 2:
                raise fault
            return await answer()

        world.dial = sometimes
        world.probe("a")
        await asyncio.sleep(20)
        totals = await world.stop()
        assert world.reasons == {Reason.OK, Reason.INTERNAL_ERROR}
        assert totals["void"] == calls - calls // 2

    run_timeless(main)
    assert "bug" in {record.msg for record in caplog.records}


def test_a_bug_in_what_takes_results_in_costs_no_other_result(caplog):
    async def main(loop):
        taken: list[int] = []

        def measure(result: ProbeResult) -> None:
            if result.started_ns == 1:
                raise ZeroDivisionError
            taken.append(result.started_ns)

        intake = Intake(loop)
        for at_ns in range(3):
            intake.add(measure, ended(Reason.OK, at_ns))
        await asyncio.sleep(2)
        assert taken == [0, 2]

    run_timeless(main)
    assert [record.msg for record in caplog.records] == ["bug"]


def test_probes_that_do_not_end_are_cancelled_when_we_stop():
    async def main(loop):
        world = World(loop)
        world.dial = hang
        (monitor,) = world.probe("a")
        await asyncio.sleep(5.5)
        assert monitor.path.in_flight >= 5
        totals = await world.stop()
        assert world.reasons == {Reason.SHUTDOWN}
        assert totals["void"] == totals["scheduled"] >= 5

    run_timeless(main)


def test_a_stall_in_which_probes_were_due_is_kept_as_evidence():
    computed = Stalled(320_000_000, 320_000_000, Cause.BLOCKED, 320_000_000)

    async def main(loop: TimelessLoop) -> tuple[int, Kept]:
        world = World(loop)
        (monitor,) = world.probe("a")
        await asyncio.sleep(10)
        assert not monitor.inquiry.window.kept, "nothing was late"
        due_ns = monitor.schedule.next_ns
        world.tools = world.tools._replace(stalled_since=lambda _: computed)
        world.clock_ahead_ns = 320_000_000
        await asyncio.sleep((due_ns - loop.now_ns()) / 1e9)
        kept = monitor.inquiry.window.kept[0]
        await world.stop()
        return due_ns, kept

    due_ns, kept = run_timeless(main)
    assert kept.since_ns == due_ns
    assert 300_000_000 < kept.until_ns - due_ns < 340_000_000
    assert kept.stalled is computed


def test_slots_beyond_the_budget_are_missed_and_logged(caplog):
    async def main(loop):
        world = World(loop, most=3)
        world.dial = hang
        (monitor,) = world.probe("a")
        await asyncio.sleep(10)
        assert monitor.path.in_flight == 3
        assert monitor.path.missed >= 6
        await world.stop()

    run_timeless(main)
    assert "in_flight_limit_reached" in {record.msg for record in caplog.records}


def test_a_dead_path_does_not_take_the_places_of_the_others():
    budget, dead = Budget(8), 0
    while budget.allows(dead, 2):
        dead += 1
        budget.in_flight += 1
    assert dead == 4
    assert budget.allows(0, 2)
    budget.in_flight = 8
    assert not budget.allows(0, 2)


def test_a_path_has_a_sized_probe_at_once_then_every_twentieth_and_when_it_is_wanted():
    async def main(loop):
        world = World(loop)
        (monitor,) = world.probe("a")
        await asyncio.sleep(2.5)
        assert [result.is_sized for result in world.results] == [False, True]
        await asyncio.sleep(120)
        assert sum(result.is_sized for result in world.results) == 7
        monitor.want_sized()
        await asyncio.sleep(1.5)
        assert sum(result.is_sized for result in world.results[-2:]) == 1
        await world.stop()
        assert world.reasons == {Reason.OK}
        sizes = {result.is_sized: result.payload_bytes for result in world.results}
        assert sizes == {False: 64, True: 8 * 1448 + 92}
        # Each has its own phases, and none has the other's.
        phases = {phase: sum(series.counts) for (phase, _, _), series in world.tally.phases.items()}
        assert phases["sized"] == 8
        assert phases["exchange"] == phases["connect"] == len(world.results)
        assert phases["probe"] == phases["response"] == len(world.results) - 8

    run_timeless(main)


def test_after_a_sized_probe_that_hangs_the_next_ones_are_small(caplog):
    async def main(loop):
        world = World(loop)
        (monitor,) = world.probe("a")
        await asyncio.sleep(1.5)

        async def swallow_what_is_large() -> ByteStream:
            return Swallowing(*answering())

        class Swallowing(MemoryStream):
            async def receive(self, deadline_ns: int) -> Received:
                if len(self.sent) < 1_500:
                    return await super().receive(deadline_ns)
                await asyncio.sleep((deadline_ns - loop.now_ns()) / 1e9)
                raise DeadlineExceeded

        world.dial = swallow_what_is_large
        for _ in range(10):
            monitor.want_sized()
            await asyncio.sleep(1)
        await asyncio.sleep(4)
        await world.stop()
        results = sorted(world.results, key=lambda result: result.started_ns)
        assert {result.reason for result in results if result.is_sized} == {Reason.REPLY_TIMEOUT}
        assert {result.reason for result in results if not result.is_sized} == {Reason.OK}
        sized = [number for number, result in enumerate(results) if result.is_sized]
        assert len(sized) > 2
        assert min(b - a for a, b in itertools.pairwise(sized)) >= 3, "the time-out is 3 s"

    run_timeless(main)


@pytest.mark.parametrize(("settings", "sized"), [({}, 1), ({"sized_interval_s": 0}, 0)])
def test_beyond_the_budget_sized_exchanges_are_left_out_first_and_then_slots(
    settings, sized, caplog
):
    async def main(loop):
        # At once a tenth may be spent, of which extras have half: 6 kB are no sized exchange.
        world = World(loop, budget=120_000, **settings)
        (monitor,) = world.probe("a")
        await asyncio.sleep(100)
        totals = await world.stop()
        assert world.tally.over_budget["sized"] >= sized
        assert not any(result.is_sized for result in world.results)
        # 3,000 bytes in 100 s, and what there was at once.
        cost = cost_of(world.results[-1])
        assert totals["ok"] * cost == pytest.approx(12_000 + 3_000, abs=2 * cost)
        assert totals["missed"] == world.tally.over_budget["probe"] > 50
        assert monitor.path.missed == totals["missed"]

    run_timeless(main)
    assert "budget_spent" in {record.msg for record in caplog.records}


def test_the_first_paths_have_idle_connections_and_who_goes_gives_them_back():
    async def main(loop):
        world = World(loop, most_idle=4)

        def has() -> list[bool]:
            return [monitor.idle is not None for monitor in world.fleet.monitors]

        world.probe("a", "b", "c")
        assert has() == [True, True, False]  # three, and the fourth
        await asyncio.sleep(30)
        world.probe("c")
        await asyncio.sleep(1)
        world.probe("c", "d")
        assert has() == [False, True]
        await world.stop()
        assert world.fleet._idling == set()
        assert world.fleet._idle_places == 4

    run_timeless(main)


def test_the_books_of_idle_connections_are_the_paths_own():
    async def main(loop):
        world = World(loop, most_idle=1, idle_connections=1, budget=10_000_000)
        (monitor,) = world.probe("a")
        for reason, control, told in (
            (Reason.OK, None, "ok"),
            (Reason.RESET, True, "reset"),
            (Reason.RESET, False, "void"),
            (Reason.SELF_STALL, None, "void"),
        ):
            before = world.tally.idle_connections[told]
            monitor.idled(IdleResult(1, reason, "", 1, ("", 0), 0, 1, control))
            assert world.tally.idle_connections[told] == before + 1
        assert not monitor.affords_idle(), "nobody has answered"
        assert world.tally.over_budget["idle"] == 0
        await asyncio.sleep(2)
        # A bucket of 1 MB, of which extras have half.
        assert sum(monitor.affords_idle() for _ in range(1_000)) in range(100, 500)
        assert world.tally.over_budget["idle"] > 500
        assert monitor.affords_held()
        await asyncio.sleep(5.5)
        now_ns, way = loop.now_ns(), Way(SERVER.instance, "", "192.0.2.1")
        since_ns = now_ns - 3_000_000_000
        assert monitor.control_since(since_ns, way, since_ns) is True
        another = way._replace(instance=b"another")
        assert monitor.control_since(since_ns, another, since_ns) is None
        assert monitor.control_since(now_ns, way, since_ns) is None
        for reason, control in ((Reason.DRAINING, True), (Reason.RESET, False)):
            monitor.ended(Ending(reason, "", 1, 1))
            assert monitor.control_since(since_ns, way, since_ns) is control
        assert monitor.control_since(now_ns, way, now_ns + 1) is None
        world.dial = refuse
        await asyncio.sleep(2)
        now_ns = loop.now_ns()
        assert monitor.control_since(now_ns - 1_500_000_000, way, now_ns) is False
        await world.stop()

    run_timeless(main)


def test_what_was_spent_is_spent_also_when_another_server_answers():
    async def main(loop):
        world = World(loop)
        (monitor,) = world.probe("a")
        await asyncio.sleep(3)
        other = SERVER._replace(name="other", instance=b"o" * 16)
        for _ in range(10):
            world.settle(monitor, ended(Reason.OK, loop.now_ns(), server=other))
        (after,) = world.fleet.monitors
        assert after is not monitor
        assert after.purse is monitor.purse
        await world.stop()

    run_timeless(main)


@pytest.mark.parametrize("kind", ["forward", "backward", "suspended"])
def test_probes_that_overlap_a_clock_step_are_void_and_the_others_are_not(kind, caplog):
    async def main(loop):
        world = World(loop)
        world.dial = be_silent
        (monitor,) = world.probe("a")
        await asyncio.sleep(10.5)
        before, under_way = len(world.results), monitor.path.in_flight
        assert under_way == 3
        if kind == "suspended":
            world.suspended_ns += HOUR_NS
        else:
            world.stepped_ns += HOUR_NS if kind == "forward" else -HOUR_NS
        await asyncio.sleep(10)
        reasons = [result.reason for result in world.results]
        assert reasons[before : before + under_way] == [Reason.CLOCK_STEP] * under_way
        del reasons[before : before + under_way]
        assert set(reasons) == {Reason.CONNECT_TIMEOUT}
        assert world.tally.clock_steps == 1
        await world.stop()

    run_timeless(main)
    assert "clock_stepped" in {record.msg for record in caplog.records}


def test_a_step_between_two_probes_voids_neither():
    async def main(loop):
        world = World(loop)
        world.probe("a")
        for _ in range(5):
            await asyncio.sleep(1)
            world.stepped_ns += HOUR_NS
        await asyncio.sleep(1)
        assert world.reasons == {Reason.OK}
        assert world.tally.clock_steps == 5
        await world.stop()

    run_timeless(main)


def test_a_path_that_leaves_while_probes_are_under_way_is_counted_to_the_end(caplog):
    caplog.set_level(logging.INFO)

    async def main(loop):
        world = World(loop)
        world.dial = be_silent
        (monitor,) = world.probe("a")
        await asyncio.sleep(2.5)
        assert world.probe() == []
        under_way = monitor.path.in_flight
        assert under_way >= 2
        await asyncio.sleep(5)
        assert monitor.path.in_flight == 0
        assert world.fleet.totals[Outcome.FAIL] == monitor.path.outcomes[Outcome.FAIL] >= under_way
        await world.stop()

    run_timeless(main)
    logged = [record.msg for record in caplog.records if record.msg.startswith("path_")]
    assert logged == ["path_added", "path_removed"], "nothing is logged of it after it left"


def test_a_path_that_flaps_is_logged_a_few_times_and_not_at_every_flip(caplog):
    caplog.set_level(logging.INFO)

    async def main(loop):
        world = World(loop)
        (monitor,) = world.probe("a")
        for number in range(200):
            reason = Reason.REFUSED if number % 2 else Reason.OK
            world.settle(monitor, ended(reason, loop.now_ns()))
        await world.stop()

    run_timeless(main)
    logged = [record.msg for record in caplog.records if record.msg in ("path_ok", "path_failing")]
    assert 2 <= len(logged) <= 10


def test_the_first_line_of_a_path_has_the_name_that_its_series_have(caplog):
    caplog.set_level(logging.INFO)

    async def main(loop):
        world = World(loop)
        (monitor,) = world.probe("a")
        assert monitor.path.label == "a"
        await asyncio.sleep(2)
        assert monitor.path.label == SERVER.name
        await world.stop()

    run_timeless(main)
    (record,) = [record for record in caplog.records if record.msg == "path_ok"]
    assert "twocans.path.series" not in vars(record), "which is for paths that nobody answered on"


def test_a_replacement_is_logged_as_one_name_too_many_whoever_counted_it(caplog):
    """Discovery's word counts as a name too, and comes first."""
    caplog.set_level(logging.INFO)

    async def main(loop):
        world = World(loop)
        (monitor,) = world.probe("a")
        await asyncio.sleep(2)
        renames = monitor.path.responder.renames
        for number in range(3):
            renames.call(Who(f"name-{number}"), loop.now_ns())
        assert not renames.is_over
        monitor.path.target = monitor.path.target._replace(who=Who("name-3"))
        other = SERVER._replace(instance=b"o" * 16, name="other")
        for number in range(10):
            world.settle(monitor, ended(Reason.OK, loop.now_ns() + number, server=other))
        assert renames.is_over
        await world.stop()

    run_timeless(main)
    logged = [record.msg for record in caplog.records]
    assert logged.count("server_renamed_often") == 1


def test_no_path_is_opened_once_we_are_stopping():
    async def main(loop):
        world = World(loop)
        world.fleet.close()
        assert world.probe("a") == []
        await world.stop()

    run_timeless(main)


def test_another_server_at_an_address_begins_a_path_of_its_own(caplog):
    caplog.set_level(logging.INFO)
    other = SERVER._replace(instance=b"o" * 16, name="other")

    async def main(loop):
        world = World(loop)
        (first,) = world.probe("a")
        await asyncio.sleep(2)
        for number in range(10):
            world.settle(first, ended(Reason.OK, loop.now_ns() + number, server=other))
        (second,) = world.fleet.monitors
        assert second is not first
        assert (second.path.server.name, second.path.label) == ("other", "other")
        assert second.path.scheduled == 0
        await world.stop()

    run_timeless(main)
    (record,) = [record for record in caplog.records if record.msg == "server_replaced"]
    assert vars(record)["twocans.server.name_before"] == SERVER.name


def test_a_look_up_is_told_to_the_paths_of_its_name_and_to_no_others():
    async def main(loop):
        world = World(loop)
        near, far = world.probe("near", "far")
        spec = near.path.target.spec
        world.fleet.resolved(spec, Resolution((), 7, Reason.DNS_FAILURE, "no such name"))
        world.fleet.resolved(spec, Resolution((), None))  # a watch told of a change
        (told,) = near.inquiry.window.look_ups
        assert told[1:4] == (7, Reason.DNS_FAILURE, "no such name")
        assert not far.inquiry.window.look_ups
        await world.stop()

    run_timeless(main)
