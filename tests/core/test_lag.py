import asyncio
import time

import pytest

from fakes import FakeClock
from twocans_core.lag import LagMonitor

MS = 1_000_000
S = 1_000 * MS


class Beats:
    """A loop that only remembers what it is asked to call; the test calls it."""

    def __init__(self, clock: FakeClock, monitor: LagMonitor) -> None:
        self.clock = clock
        self.monitor = monitor

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


def test_a_loop_that_stands_still_for_five_seconds_does_not_turn(clock, beats):
    beats.beat(0)
    clock.advance(5 * S)
    assert beats.monitor.is_turning()
    clock.advance(20 * MS)
    assert not beats.monitor.is_turning()


async def stall(monitor: LagMonitor) -> int:
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
