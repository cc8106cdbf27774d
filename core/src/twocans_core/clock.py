"""The clocks, as one argument, so that a test can hold them."""

import time
from collections.abc import Callable
from typing import NamedTuple

__all__ = ["SYSTEM_CLOCK", "Clock", "ClockStep", "Reading", "StepDetector", "read_clocks"]

# Clocks are read one after the other, so a thread that is interrupted in between sees them apart.
# A reading that took longer than this is made again, a few times.
_QUICK_NS = 1_000_000
_ATTEMPTS = 5


class Clock(NamedTuple):
    """Clocks of one host. Differences are taken within one of them only.

    Attributes:
        mono_ns: CLOCK_MONOTONIC: durations and deadlines. Stands still in suspend.
        real_ns: CLOCK_REALTIME: what the kernel timestamps packets with. May be stepped.
        boot_ns: CLOCK_BOOTTIME: as monotonic, but goes on in suspend.
        cpu_ns: CLOCK_THREAD_CPUTIME_ID: time for which the calling thread ran. A system call
            each time, where the others are read without one: ten times as dear.
    """

    mono_ns: Callable[[], int]
    real_ns: Callable[[], int]
    boot_ns: Callable[[], int]
    cpu_ns: Callable[[], int] = time.thread_time_ns


SYSTEM_CLOCK = Clock(
    mono_ns=time.monotonic_ns,
    real_ns=time.time_ns,
    boot_ns=lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME),
    cpu_ns=time.thread_time_ns,
)


class Reading(NamedTuple):
    """How far the clocks were apart at a moment, from the least to the most. ns.

    Attributes:
        real_ns: CLOCK_REALTIME less CLOCK_BOOTTIME, the most.
        asleep_ns: CLOCK_BOOTTIME less CLOCK_MONOTONIC, the most: the time spent suspended.
        doubt_ns: How long the reading took: both may be less by as much.
    """

    real_ns: int
    asleep_ns: int
    doubt_ns: int

    @property
    def is_quick(self) -> bool:
        """Whether it is good enough to compare others with."""
        return self.doubt_ns <= _QUICK_NS


def read_clocks(clock: Clock) -> Reading:
    """Read all clocks at nearly one moment; CLOCK_BOOTTIME before and after bounds the error."""
    best = _read_once(clock)
    for _ in range(_ATTEMPTS - 1):
        if best.is_quick:
            break
        best = min(best, _read_once(clock), key=lambda reading: reading.doubt_ns)
    return best


def _read_once(clock: Clock) -> Reading:
    first_ns, mono_ns = clock.boot_ns(), clock.mono_ns()
    real_ns, last_ns = clock.real_ns(), clock.boot_ns()
    return Reading(real_ns - first_ns, last_ns - mono_ns, last_ns - first_ns)


class ClockStep(NamedTuple):
    """How far the clocks moved apart since the last look.

    Attributes:
        stepped_ns: CLOCK_REALTIME against CLOCK_MONOTONIC; positive is forward.
        suspended_ns: Time that the host spent suspended; 0 or more.
    """

    stepped_ns: int
    suspended_ns: int


class StepDetector:
    """Notice that CLOCK_REALTIME was stepped or that the host was suspended.

    Args:
        clock: The clocks to compare.
        tolerance_ns: A difference up to this is none, for clocks are corrected all the time.

    Attributes:
        newest_ns: When something was found last, ns of CLOCK_MONOTONIC; 0: not yet. Whatever
            began before it has been spoiled.
    """

    def __init__(self, clock: Clock, *, tolerance_ns: int = 100_000_000) -> None:
        self._clock = clock
        self._tolerance_ns = tolerance_ns
        self.newest_ns = 0
        self._before = read_clocks(clock)

    def check(self) -> ClockStep | None:
        """Return what happened since the last call, or None.

        While no reading is quick, only what is certain is reported; the rest by a later call.
        """
        before, now = self._before, read_clocks(self._clock)
        # After a suspend CLOCK_REALTIME has gone on as CLOCK_BOOTTIME has: no step.
        stepped_ns = self._certain_ns(now.real_ns - before.real_ns, before, now)
        suspended_ns = max(0, self._certain_ns(now.asleep_ns - before.asleep_ns, before, now))
        is_found = bool(stepped_ns or suspended_ns)
        if is_found or now.is_quick or not before.is_quick:
            self._before = now
        if not is_found:
            return None
        self.newest_ns = self._clock.mono_ns()
        return ClockStep(stepped_ns, suspended_ns)

    def _certain_ns(self, apart_ns: int, before: Reading, now: Reading) -> int:
        """Return a difference that is beyond the tolerance whatever the doubt, or 0."""
        low_ns, high_ns = apart_ns - now.doubt_ns, apart_ns + before.doubt_ns
        if low_ns > self._tolerance_ns or high_ns < -self._tolerance_ns:
            return (low_ns + high_ns) // 2
        return 0
