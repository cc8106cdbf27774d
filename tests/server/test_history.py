from fakes import FakeClock
from twocans_core.host.stalls import NEVER, Cause, Stalled, StallWatch
from twocans_core.kernel.tcpinfo import TcpCounts
from twocans_core.protocol.witness import HostSeen
from twocans_server.history import History
from twocans_server.tally import ServerTally

SECOND_NS = 1_000_000_000


class FakeStalls(StallWatch):
    """Says what it is told; asked about the past, it adds up what lies in it."""

    def __init__(self, clock: FakeClock) -> None:
        self.at: list[tuple[int, Stalled]] = []
        self.throttled: int | None = None
        self._now = clock

    def since(self, since_ns: int) -> Stalled:
        inside = [stalled for ns, stalled in self.at if ns > since_ns]
        worst = max(inside, key=lambda one: one.worst_ns, default=NEVER)
        return Stalled(sum(one.total_ns for one in inside), worst.worst_ns, worst.cause)

    def stall(self, ns: int, cause: Cause) -> None:
        self.at.append((self._now.mono_ns, Stalled(ns, ns, cause)))

    def throttled_ns(self) -> int | None:
        return self.throttled

    def run_delay_ns(self) -> int | None:
        return self._now.mono_ns // 100


class Past:
    """A history, and time that passes for it."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.stalls = FakeStalls(self.clock)
        self.tally = ServerTally()
        self.tcp = TcpCounts(*range(1, 9))
        self.reads = 0
        self.history = History(self.clock.clock(), self.stalls, self.tally, self.read)

    def read(self) -> TcpCounts:
        self.reads += 1
        return self.tcp

    def pass_s(self, seconds: float) -> None:
        """Let it pass, with four looks a second as the server has them."""
        for _ in range(int(seconds * 4)):
            self.clock.advance(SECOND_NS // 4)
            self.history.look()

    def since(self, seconds: float) -> HostSeen:
        return self.history.since(int(seconds * SECOND_NS))


def past() -> Past:
    made = Past()
    made.history.look()
    return made


def test_before_the_first_look_nothing_is_known():
    assert Past().since(10) == HostSeen()


def test_growth_is_told_since_the_last_look_before_the_moment_that_is_asked_for():
    world = past()
    world.pass_s(10)
    world.tcp = TcpCounts(2, 3, 4, 1_004, 1_005, 6, 7, 9)
    world.tally.accept_errors = 3
    world.tally.limit_hits["idle_s"] += 4
    world.tally.limit_hits["frame_s"] += 5
    world.pass_s(5)
    seen = world.since(5.5)
    assert seen.since_ns == 6 * SECOND_NS
    assert seen.tcp == TcpCounts(1, 1, 1, 1_000, 1_000, 0, 0, 1)
    assert (seen.accept_errors, seen.run_delay_ns) == (3, 60_000_000)
    assert seen.limits == (("frame_s", 5), ("idle_s", 4))
    later = world.since(3)
    assert later.tcp == TcpCounts(*[0] * 8)
    assert (later.accept_errors, later.limits) == (0, ())


def test_further_back_than_we_looked_it_is_told_from_the_first_look():
    world = past()
    world.pass_s(10)
    assert world.since(100).since_ns == 10 * SECOND_NS


def test_five_minutes_are_kept():
    world = past()
    world.pass_s(400)
    assert len(world.history._looks) == 300
    assert world.since(1_000).since_ns == 299 * SECOND_NS


def test_stalls_are_told_of_the_period_alone_and_the_worst_with_its_cause():
    world = past()
    world.stalls.stall(900_000_000, Cause.SUSPENDED)
    world.pass_s(10)
    world.clock.advance(1)
    world.stalls.stall(30_000_000, Cause.STARVED)
    world.pass_s(2)
    world.clock.advance(1)
    world.stalls.stall(50_000_000, Cause.THROTTLED)
    world.clock.advance(200_000_000)
    seen = world.since(5)
    assert (seen.stalled_ns, seen.worst_ns, seen.cause) == (80_000_000, 50_000_000, "throttled")
    seen = world.since(1)
    assert (seen.stalled_ns, seen.worst_ns, seen.cause) == (50_000_000, 50_000_000, "throttled")
    world.pass_s(3)
    assert world.since(1).cause == ""


def test_throttling_is_told_as_growth_and_only_where_there_is_a_limit():
    world = past()
    world.pass_s(2)
    assert world.since(1).throttled_ns is None
    world.stalls.throttled = 100
    world.pass_s(2)
    world.stalls.throttled = 150
    world.pass_s(2)
    assert world.since(2).throttled_ns == 50


def test_many_questions_cost_no_more_than_ten_readings_a_second():
    world = past()
    before = world.reads
    for _ in range(100):
        world.clock.advance(10_000_000)
        world.since(10)
    assert world.reads - before <= 11


def test_a_count_that_began_anew_is_not_growth():
    world = past()
    world.pass_s(2)
    world.tcp = TcpCounts(*[0] * 8)
    world.pass_s(2)
    assert world.since(4).tcp == TcpCounts(*[None] * 8)
