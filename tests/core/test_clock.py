import itertools
import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import FakeClock
from twocans_core.clock import SYSTEM_CLOCK, Clock, ClockStep, StepDetector

MS = 1_000_000
S = 1_000 * MS


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_time_that_passes_is_no_step(clock):
    detector = StepDetector(clock.clock())
    for _ in range(10):
        clock.advance(3600 * S)
        assert detector.check() is None


@pytest.mark.parametrize("ns", [S, -S, 101 * MS, -101 * MS])
def test_a_step_is_seen_once_with_its_size_and_direction(clock, ns):
    detector = StepDetector(clock.clock())
    clock.advance(5 * S)
    clock.real_ns += ns
    assert detector.check() == ClockStep(ns, 0)
    assert detector.check() is None


@pytest.mark.parametrize("ns", [100 * MS, -100 * MS])
def test_a_difference_up_to_the_tolerance_is_none(clock, ns):
    detector = StepDetector(clock.clock())
    clock.real_ns += ns
    assert detector.check() is None


def test_many_small_corrections_never_add_up_to_a_step(clock):
    detector = StepDetector(clock.clock(), tolerance_ns=10)
    for _ in range(100):
        clock.real_ns += 9
        assert detector.check() is None


def test_a_suspend_is_no_step(clock):
    detector = StepDetector(clock.clock())
    clock.suspend(60 * S)
    assert detector.check() == ClockStep(0, 60 * S)
    assert detector.check() is None


def test_a_step_during_a_suspend_is_both(clock):
    detector = StepDetector(clock.clock())
    clock.suspend(60 * S)
    clock.real_ns -= 2 * S
    assert detector.check() == ClockStep(-2 * S, 60 * S)


def test_when_it_was_seen_is_kept(clock):
    detector = StepDetector(clock.clock())
    assert detector.check() is None
    assert detector.newest_ns == 0
    clock.suspend(60 * S)
    detector.check()
    seen_ns = clock.mono_ns
    assert detector.newest_ns == seen_ns
    clock.advance(S)
    assert detector.check() is None
    assert detector.newest_ns == seen_ns


class Preempted(FakeClock):
    """Whoever reads it is kept from running, or the host sleeps, before and after each reading.

    Args:
        gaps_ns: How long, in turn; of a negative one the host was suspended. Then: not at all.
    """

    def __init__(self, gaps_ns: list[int]) -> None:
        super().__init__()
        self.will_be_kept(gaps_ns)

    def will_be_kept(self, gaps_ns: list[int]) -> None:
        self._gaps_ns = itertools.chain(gaps_ns, itertools.repeat(0))

    def clock(self) -> Clock:
        def reading(read: Callable[[], int]) -> Callable[[], int]:
            def read_late() -> int:
                for at in range(2):
                    gap_ns = next(self._gaps_ns)
                    self.advance(max(0, gap_ns))
                    self.suspend(max(0, -gap_ns))
                    if at == 0:
                        value = read()
                return value

            return read_late

        return Clock(*map(reading, super().clock()[:3]))


# Mostly a reading is quick.
GAPS_NS = st.lists(st.one_of(st.just(0), st.integers(0, 5 * MS), st.integers(0, 5 * S)))


@given(GAPS_NS, st.lists(st.integers(0, 60 * S), max_size=10))
def test_whoever_is_kept_from_running_between_two_readings_sees_no_step(gaps_ns, waits_ns):
    clock = Preempted(gaps_ns)
    detector = StepDetector(clock.clock())
    for wait_ns in waits_ns:
        assert detector.check() is None
        clock.advance(wait_ns)
    assert detector.newest_ns == 0


@given(GAPS_NS, GAPS_NS, st.sampled_from([-60 * S, -200 * MS, 200 * MS, 60 * S]))
def test_a_step_is_found_sooner_or_later_however_often_we_are_kept_from_running(
    before_ns, after_ns, step_ns
):
    clock = Preempted(before_ns)
    detector = StepDetector(clock.clock())
    for _ in range(len(before_ns) + 1):
        assert detector.check() is None
    clock.will_be_kept(after_ns)
    clock.real_ns += step_ns
    steps = [step for _ in range(len(after_ns) + 2) if (step := detector.check()) is not None]
    assert len(steps) == 1
    assert steps[0].suspended_ns == 0
    assert abs(steps[0].stepped_ns - step_ns) <= 20 * MS


@given(st.lists(st.one_of(st.just(0), st.integers(0, 5 * MS), st.integers(-5 * S, 5 * S))))
def test_a_suspend_between_two_readings_is_no_step(gaps_ns):
    clock = Preempted(gaps_ns)
    detector = StepDetector(clock.clock())
    for _ in range(len(gaps_ns) + 2):
        step = detector.check()
        assert step is None or step.stepped_ns == 0


def test_the_system_has_all_three_clocks():
    first = [clock() for clock in SYSTEM_CLOCK]
    second = [clock() for clock in SYSTEM_CLOCK]
    assert first[0] <= second[0]
    assert first[2] <= second[2]
    assert first[1] > 1_700_000_000 * S
    # CLOCK_BOOTTIME is CLOCK_MONOTONIC and the time spent suspended.
    assert SYSTEM_CLOCK.boot_ns() >= first[0]


def test_the_cpu_clock_goes_on_while_its_thread_runs_and_not_while_it_sleeps():
    before_ns = SYSTEM_CLOCK.cpu_ns()
    while SYSTEM_CLOCK.cpu_ns() - before_ns < 20 * MS:
        pass
    before_ns, asleep_ns = SYSTEM_CLOCK.cpu_ns(), SYSTEM_CLOCK.mono_ns()
    time.sleep(0.1)
    ran_ns = SYSTEM_CLOCK.cpu_ns() - before_ns
    assert ran_ns < (SYSTEM_CLOCK.mono_ns() - asleep_ns) / 2


def test_the_cpu_clock_is_of_the_thread_that_reads_it():
    read: list[int] = []
    while (ours_ns := SYSTEM_CLOCK.cpu_ns()) < 20 * MS:
        pass
    thread = threading.Thread(target=lambda: read.append(SYSTEM_CLOCK.cpu_ns()))
    thread.start()
    thread.join()
    assert read[0] < ours_ns
