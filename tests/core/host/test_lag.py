import asyncio
import time

import pytest

from fakes import FakeClock
from twocans_core.host.lag import LagMonitor

MS = 1_000_000
S = 1_000 * MS


class Beats:
    """A loop that only remembers what it is asked to call; the test calls it. Somebody waits."""

    def __init__(self, clock: FakeClock, monitor: LagMonitor) -> None:
        self.clock = clock
        self.monitor = monitor
        monitor.attend()

    def call_later(self, delay_s: float, callback: object, *args: object) -> None:
        assert delay_s == 0.02

    def beat(self, lag_ns: int) -> None:
        self.clock.mono_ns = self.monitor._due_ns + lag_ns
        self.monitor._beat(self)  # type: ignore[arg-type]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def beats(clock: FakeClock) -> Beats:
    return Beats(clock, LagMonitor(clock.clock()))


def test_the_worst_lag_of_a_window_is_found(clock, beats):
    marks = []
    for lag_ms in (1, 50, 3, 20, 2):
        marks.append(clock.mono_ns + 1)
        beats.beat(lag_ms * MS)
    worst = [beats.monitor.worst_since(mark) for mark in marks]
    assert worst == [50 * MS, 50 * MS, 20 * MS, 20 * MS, 2 * MS]


def test_every_beat_is_in_the_histogram(beats):
    for lag_ms in (0, 1, 30):
        beats.beat(lag_ms * MS)
    assert sum(beats.monitor.lags.counts) == 3
    assert beats.monitor.lags.sum_ns == 31 * MS


def test_a_beat_that_comes_early_is_no_lag(beats):
    beats.beat(-1)
    assert beats.monitor.lags.sum_ns == 0
    assert beats.monitor.worst_since(0) == 0


def test_a_stall_that_still_lasts_counts(clock, beats):
    beats.beat(0)
    clock.advance(320 * MS)
    assert beats.monitor.worst_since(clock.mono_ns) == 300 * MS


def test_two_minutes_are_kept_and_no_more(clock, beats):
    start = clock.mono_ns
    beats.beat(500 * MS)
    for _ in range(119 * 50):
        beats.beat(0)
    assert beats.monitor.worst_since(start) == 500 * MS
    for _ in range(2 * 50):
        beats.beat(0)
    assert beats.monitor.worst_since(start) == 0


def test_lags_that_can_never_be_the_worst_are_not_kept(beats):
    for lag in range(1000):
        beats.beat(lag)
    assert len(beats.monitor._worst) == 1


def test_every_beat_is_told(clock):
    told: list[tuple[int, int]] = []
    beats = Beats(clock, LagMonitor(clock.clock(), lambda *beat: told.append(beat)))
    expected = []
    for lag_ms in (0, 30, 1):
        beats.beat(lag_ms * MS)
        expected.append((clock.mono_ns, lag_ms * MS))
    assert told == expected


def test_who_runs_before_a_late_heartbeat_need_not_wait_for_it(clock):
    async def main() -> None:
        told: list[int] = []
        monitor = LagMonitor(clock.clock(), lambda _, lag_ns: told.append(lag_ns))
        monitor.beat_if_late(0)  # before start: nothing to do
        monitor.attend()
        monitor.start()
        timer = monitor._timer
        assert timer is not None
        clock.advance(29 * MS)
        monitor.beat_if_late(10 * MS)
        assert told == [], "it is late by 9"
        clock.advance(1 * MS)
        monitor.beat_if_late(10 * MS)
        assert told == [10 * MS]
        assert timer.cancelled(), "or it is told twice, and beats twice as often from now on"
        monitor.stop()
        monitor.beat_if_late(0)
        assert told == [10 * MS]

    asyncio.run(main())


class Watched:
    """A monitor on a real loop and a clock of the test's, and what it told."""

    def __init__(self, clock: FakeClock) -> None:
        self.told: list[tuple[int, int]] = []
        self.monitor = LagMonitor(clock.clock(), lambda *beat: self.told.append(beat))
        loop = asyncio.get_running_loop()
        loop.time = lambda: 0.0  # type: ignore[method-assign]
        self.monitor.start()

    @property
    def is_due_in(self) -> float:
        """When its timer fires, in ms; it has no more than one."""
        loop = asyncio.get_running_loop()
        handles: list[asyncio.TimerHandle] = loop._scheduled  # type: ignore[attr-defined]
        (handle,) = (handle for handle in handles if not handle.cancelled())
        return round((handle.when() - loop.time()) * 1e3)


def test_while_nobody_waits_it_beats_less_often(clock):
    async def main() -> None:
        watched = Watched(clock)
        assert watched.is_due_in == 50
        watched.monitor.attend()
        assert watched.is_due_in == 20
        watched.monitor.attend()
        clock.advance(15 * MS)
        watched.monitor.leave()
        assert (watched.is_due_in, watched.told) == (20, []), "one still waits"
        watched.monitor.leave()
        assert (watched.is_due_in, watched.told) == (20, []), "it beat 15 ms ago"
        watched.monitor.stop()

    asyncio.run(main())


def test_a_heartbeat_that_is_due_soon_is_waited_for(clock):
    async def main() -> None:
        watched = Watched(clock)
        clock.advance(30 * MS)
        watched.monitor.attend()
        assert watched.is_due_in == 50, "of which 30 have passed on the other clock"
        watched.monitor.stop()

    asyncio.run(main())


def test_who_leaves_stands_for_the_heartbeat(clock):
    async def main() -> None:
        watched = Watched(clock)
        clock.advance(29 * MS)
        watched.monitor.attend()
        clock.advance(1 * MS)
        watched.monitor.leave()
        assert watched.told == [(clock.mono_ns, 0)]
        assert watched.is_due_in == 50
        assert sum(watched.monitor.lags.counts) == 1
        clock.advance(49 * MS)
        assert watched.monitor.worst_since(0) == 0
        clock.advance(31 * MS)
        assert watched.monitor.worst_since(0) == 30 * MS
        watched.monitor.stop()

    asyncio.run(main())


def test_who_leaves_late_leaves_the_lag_to_the_heartbeat(clock):
    async def main() -> None:
        watched = Watched(clock)
        watched.monitor.attend()
        clock.advance(25 * MS)
        watched.monitor.leave()
        assert watched.told == []
        watched.monitor.beat_if_late(5 * MS)
        assert watched.told == [(clock.mono_ns, 5 * MS)]
        assert watched.is_due_in == 50
        watched.monitor.stop()

    asyncio.run(main())


def test_before_the_start_and_after_the_end_anybody_may_wait(clock):
    async def main() -> None:
        monitor = LagMonitor(clock.clock())
        monitor.attend()
        monitor.leave()
        monitor.start()
        monitor.stop()
        monitor.attend()
        clock.advance(30 * MS)
        monitor.leave()
        assert not [h for h in asyncio.get_running_loop()._scheduled if not h.cancelled()]  # type: ignore[attr-defined]

    asyncio.run(main())


def test_a_loop_that_stands_still_for_five_seconds_does_not_turn(clock, beats):
    beats.beat(0)
    clock.advance(5 * S)
    assert beats.monitor.is_turning()
    clock.advance(20 * MS)
    assert not beats.monitor.is_turning()


async def stall(monitor: LagMonitor) -> int:
    monitor.attend()
    monitor.start()
    try:
        await asyncio.sleep(0.03)
        since = time.monotonic_ns()
        time.sleep(0.1)  # noqa: ASYNC251 - the stall
        await asyncio.sleep(0.03)
        return monitor.worst_since(since)
    finally:
        monitor.stop()


def test_a_real_loop_that_is_held_up_lags():
    monitor = LagMonitor()
    # Held for 100 ms, and the beat was due at most 20 ms after that began.
    assert asyncio.run(stall(monitor)) > 70 * MS
    assert sum(monitor.lags.counts) >= 2


def test_after_stop_there_is_no_beat():
    async def run() -> int:
        monitor = LagMonitor()
        monitor.stop()  # before start: nothing to do
        monitor.start()
        monitor.stop()
        await asyncio.sleep(0.05)
        return sum(monitor.lags.counts)

    assert asyncio.run(run()) == 0
