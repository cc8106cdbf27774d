"""Idle connections without a socket: hours of silence pass at once."""

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from client.far_end import ADDRESS, CLIENT, SECOND_NS, SERVER, TIMEOUT_NS, FarEnd
from client.probes.test_held import DRAINING, END, IDLE, OTHER, RESET, Wire
from client.timeless import TimelessLoop, run_timeless
from fakes import Attention, connection_refused
from twocans_client.evidence.idle import IdleResult, Way
from twocans_client.evidence.results import Reason
from twocans_client.probes.idle import Idle, IdlePlan
from twocans_client.probes.tools import Tools
from twocans_core.clock import Clock
from twocans_core.host.stalls import NEVER, Cause, Stalled
from twocans_core.net.sockets import Address
from twocans_core.protocol.messages import Features, Goodbye, Hello, Welcome

PLAN = IdlePlan(3, 64, TIMEOUT_NS, 7 * SECOND_NS)
HOUR_S = 3_600.0
WAY = Way(SERVER.instance, "192.0.2.1", "192.0.2.1")


def far_end(*, idle_s: float = 300, features: int = Features.QUIET) -> FarEnd:
    def alter(message: Welcome) -> Welcome:
        return message._replace(idle_ms=int(idle_s * 1_000), features=features)

    return FarEnd({Welcome: alter})


class Box(Wire):
    """A stream through a box that forgets a connection after some silence.

    Args:
        far: The server.
        loop: The loop.
        timeout_s: For how long it remembers.
        says: What it does then with a request: nothing, or a reset.
    """

    def __init__(self, far: FarEnd, loop: TimelessLoop, timeout_s: float, says: Any = None) -> None:
        super().__init__(far, loop)
        self.sends: list[float] = []
        self._timeout_s = timeout_s
        self._says = says

    async def send_all(self, data: bytes, deadline_ns: int, *, stamped: bool = False) -> None:
        now_s = self._loop.time()
        if self.sends and now_s - self.sends[-1] > self._timeout_s:
            self.delay_s = None
            if self._says is not None:
                self._loop.call_later(0.001, self.say, self._says)
        self.sends.append(now_s)
        await super().send_all(data, deadline_ns, stamped=stamped)


class World:
    """A path's idle connections, all that they meet, and all that they told.

    Attributes:
        meet: What the next dial finds: a stream, or an error.
        control: What fresh probes say.
        affords: Whether the path can afford one.
        suspended_ns: For how long the host slept.
    """

    def __init__(self, loop: TimelessLoop, plan: IdlePlan = PLAN) -> None:
        self.loop = loop
        self.address: Address | None = ADDRESS
        self.meet: Callable[[], Wire | Exception] = lambda: Wire(far_end(), loop)
        self.control: bool | None = True
        self.controls: list[tuple[int, Way]] = []
        self.affords = True
        self.stalled = NEVER
        self.suspended_ns = 0
        self.attention = Attention()
        self.clock = Clock(
            loop.now_ns, loop.now_ns, lambda: loop.now_ns() + self.suspended_ns, lambda: 0
        )
        self.wires: list[Wire] = []
        self.dials = 0
        self.results: list[IdleResult] = []
        self.idle = Idle(lambda: self.address, plan, self._tools, self)
        self.task = loop.create_task(self.idle.run())
        self._rng = Random(1)

    def _tools(self) -> Tools:
        return Tools(
            self._dial, CLIENT, self._rng, lambda _: self.stalled, self.clock, self.attention
        )

    async def _dial(
        self,
        address: Address,
        *,
        deadline_ns: int,
        held: bool = False,
        opened: Callable[[tuple[str, int]], None] = lambda _: None,
        **_: object,
    ) -> Wire:
        assert not held, "the kernel would send keepalive probes"
        assert self.attention.now >= 1
        self.dials += 1
        opened(("192.0.2.1", 40_000 + self.dials))
        met = self.meet()
        if isinstance(met, Exception):
            raise met
        self.wires.append(met)
        return met

    def affords_idle(self) -> bool:
        return self.affords

    def control_since(self, at_ns: int, way: Way, silent_ns: int) -> bool | None:
        assert silent_ns < at_ns
        self.controls.append((at_ns, way))
        return self.control

    def idled(self, result: IdleResult) -> None:
        self.results.append(result)

    async def stop(self) -> None:
        self.idle.stop()
        await self.task
        assert self.attention.now == 0
        assert all(wire.closed for wire in self.wires)


def play(
    scene: Callable[[World], Any], plan: IdlePlan = PLAN, *, lasting_s: float = HOUR_S
) -> World:
    """Set the scene, let time pass, and stop; returns the world."""

    async def main(loop: TimelessLoop) -> World:
        world = World(loop, plan)
        scene(world)
        await asyncio.sleep(lasting_s)
        await world.stop()
        return world

    return run_timeless(main)


def boxed(timeout_s: float, says: Any = None) -> Callable[[World], None]:
    def scene(world: World) -> None:
        world.meet = lambda: Box(far_end(), world.loop, timeout_s, says)

    return scene


def test_ages_climb_to_the_servers_limit_less_a_margin_and_are_good():
    world = play(lambda _: None)
    assert {result.reason for result in world.results} == {Reason.OK}
    ages_s = [round(result.age_ns / SECOND_NS) for result in world.results]
    assert list(dict.fromkeys(ages_s)) == [17, 65, 250, 285]
    assert world.idle.ladder.bracket() is None


def test_nothing_is_said_between_two_exchanges_and_the_server_is_asked_for_silence():
    world = play(lambda _: None, PLAN._replace(connections=1), lasting_s=100)
    for wire, result in zip(world.wires, world.results, strict=False):
        first_ns, second_ns = wire.asked_ns
        assert second_ns - first_ns >= result.age_ns
        assert result.ended_ns - result.started_ns >= result.age_ns
        hello = wire.far.heard[0]
        assert isinstance(hello, Hello)
        assert hello.features == Features.QUIET
        assert result.connection == hello.connection
        assert wire.heard == ["Hello", "Request", "Request", "Goodbye"]
        assert result.local[1] > 40_000


@pytest.mark.parametrize(("says", "reason"), [(None, Reason.REPLY_TIMEOUT), (RESET, Reason.RESET)])
@pytest.mark.parametrize("timeout_s", [30, 240])
def test_a_box_that_forgets_is_found_to_a_second_and_how_it_does_it(timeout_s, says, reason):
    world = play(boxed(timeout_s, says))
    bracket = world.idle.ladder.bracket()
    assert bracket is not None
    assert bracket.good_ns <= timeout_s * SECOND_NS <= bracket.bad_ns + SECOND_NS // 10
    assert bracket.is_narrow
    assert bracket.confirmed
    assert bracket.reason is reason
    failed = [result for result in world.results if result.is_bad]
    assert {result.reason for result in failed} == {reason}
    assert all(result.age_ns >= timeout_s * SECOND_NS for result in failed)
    # The control is of when it had to answer, and went as it did before.
    assert {way for _, way in world.controls} == {WAY}


@pytest.mark.parametrize("end", [END, RESET])
def test_a_proxy_that_ends_cuts_all_at_once_and_what_is_silent_next_lives(end):
    def scene(world: World) -> None:
        def stop() -> None:
            for wire in world.wires:
                wire.say(end)

        world.loop.call_later(50, stop)

    world = play(scene)
    cut = [result for result in world.results if result.is_bad]
    assert len(cut) == 3
    assert len({result.ended_ns for result in cut}) == 1
    assert world.idle.ladder.bracket() is None


def test_who_is_silent_for_longer_than_is_known_to_be_too_long_is_used_at_once():
    world = play(boxed(10), lasting_s=36)
    first, *others = [result for result in world.results if result.is_bad]
    assert round(first.age_ns / SECOND_NS) == 17
    assert len(others) == 2
    for result in others:
        used_ns = max(result.started_ns + 17 * SECOND_NS, first.ended_ns)
        assert result.age_ns >= 17 * SECOND_NS
        assert result.ended_ns <= used_ns + TIMEOUT_NS + SECOND_NS // 10


def test_a_box_that_forgets_is_known_after_two_silences():
    world = play(boxed(10), lasting_s=60)
    bracket = world.idle.ladder.bracket()
    assert bracket is not None
    first, second = bracket.failed[:2]
    assert second.started_ns >= first.ended_ns
    assert second.ended_ns - first.ended_ns <= (17 + 5 + 1.1) * SECOND_NS


def test_a_reset_in_the_silence_is_of_the_age_that_it_had():
    def scene(world: World) -> None:
        def meet() -> Wire:
            wire = Wire(far_end(), world.loop)
            world.loop.call_later(40, wire.say, RESET)
            return wire

        world.meet = meet

    world = play(scene, lasting_s=200)
    failed = [result for result in world.results if result.is_bad]
    assert {result.reason for result in failed} == {Reason.RESET}
    assert {round(result.age_ns / SECOND_NS) for result in failed} == {40}


@pytest.mark.parametrize("control", [False, None])
def test_without_a_good_probe_a_failure_is_no_evidence(control):
    def scene(world: World) -> None:
        boxed(30)(world)
        world.control = control

    world = play(scene)
    failed = [result for result in world.results if result.reason is not Reason.OK]
    assert {result.control for result in failed} == {control}
    assert world.idle.ladder.bracket() is None


@pytest.mark.parametrize("end", [DRAINING, IDLE])
def test_a_server_that_leaves_or_ends_a_connection_by_its_limit_is_no_evidence(end):
    def scene(world: World) -> None:
        def meet() -> Wire:
            wire = Wire(far_end(idle_s=20), world.loop)
            world.loop.call_later(12, wire.say, end)
            # So it was the server's limit by now, which our loop did not notice.
            world.loop.call_later(11, setattr, world, "suspended_ns", 10 * SECOND_NS)
            return wire

        world.meet = meet

    world = play(scene, lasting_s=25)
    assert world.dials
    assert world.results == []


@pytest.mark.parametrize(("idle_s", "features", "most_s"), [(60, 4, 57), (300, 0, 12), (9, 4, 7)])
def test_no_age_is_longer_than_the_server_lets_it_be(idle_s, features, most_s):
    def scene(world: World) -> None:
        world.meet = lambda: Wire(far_end(idle_s=idle_s, features=features), world.loop)

    world = play(scene)
    assert max(result.age_ns for result in world.results) // SECOND_NS == most_s


def test_a_server_that_allows_no_silence_is_left_in_peace():
    def scene(world: World) -> None:
        world.meet = lambda: Wire(far_end(idle_s=2.5), world.loop)

    world = play(scene)
    assert world.results == []
    assert world.dials <= 3 * HOUR_S / 30 + 3
    assert {type(wire.far.heard[-1]) for wire in world.wires} == {Goodbye}


@pytest.mark.parametrize("problem", [connection_refused(), RESET])
def test_one_that_cannot_be_had_is_no_result_and_not_tried_again_at_once(problem):
    def scene(world: World) -> None:
        world.meet = lambda: problem

    world = play(scene)
    assert world.results == []
    assert 3 <= world.dials <= 3 * HOUR_S / 30 + 3


def test_a_path_that_cannot_afford_one_has_none():
    world = play(lambda world: setattr(world, "affords", False))
    assert world.dials == 0


def test_a_path_without_an_address_has_none():
    world = play(lambda world: setattr(world, "address", None))
    assert world.dials == 0


def test_what_fails_after_the_address_has_changed_is_no_result():
    def scene(world: World) -> None:
        boxed(1)(world)
        world.loop.call_later(12, setattr, world, "address", OTHER)

    world = play(scene, lasting_s=40)
    assert world.dials
    assert world.results == []


def test_a_stall_of_ours_while_it_has_to_answer_is_no_evidence():
    def scene(world: World) -> None:
        boxed(30, RESET)(world)
        world.stalled = Stalled(2 * SECOND_NS, 2 * SECOND_NS, Cause.STOPPED)

    world = play(scene)
    reasons = {result.reason for result in world.results}
    assert reasons == {Reason.OK, Reason.SELF_STALL}
    assert world.idle.ladder.bracket() is None


def test_the_time_that_our_host_slept_is_part_of_the_age():
    def scene(world: World) -> None:
        world.loop.call_later(15, setattr, world, "suspended_ns", 100 * SECOND_NS)

    world = play(scene, PLAN._replace(connections=1), lasting_s=40)
    assert world.results[0].age_ns // SECOND_NS == 117


def test_stopping_ends_all_of_them_with_a_goodbye():
    async def main(loop: TimelessLoop) -> None:
        world = World(loop)
        await asyncio.sleep(100)
        began_s = loop.time()
        await world.stop()
        assert loop.time() < began_s + 1
        assert len(world.wires) >= 3
        assert {wire.heard[-1] for wire in world.wires} == {"Goodbye"}

    run_timeless(main)


def test_one_that_is_stopped_before_it_began_does_nothing():
    async def main(loop: TimelessLoop) -> None:
        world = World(loop)
        world.idle.stop()
        await world.task
        assert world.dials == 0

    run_timeless(main)
