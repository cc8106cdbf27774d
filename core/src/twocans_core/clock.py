"""The clocks, as one argument, so that a test can hold them."""

import time
from collections.abc import Callable
from typing import NamedTuple

__all__ = ["SYSTEM_CLOCK", "Clock", "ClockStep", "StepDetector"]


class Clock(NamedTuple):
    """Clocks of one host. Differences are taken within one of them only.

    Attributes:
        mono_ns: CLOCK_MONOTONIC: durations and deadlines. Stands still in suspend.
        real_ns: CLOCK_REALTIME: what the kernel stamps packets with. May be stepped.
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
        tolerance_ns: A difference up to this is none. The clocks are read one after the
            other, so being descheduled in between looks like a small step.

    Attributes:
        newest_ns: When something was found last, ns of CLOCK_MONOTONIC; 0: not yet. Whatever
            began before it has been spoiled.
    """

    def __init__(self, clock: Clock, *, tolerance_ns: int = 100_000_000) -> None:
        self._clock = clock
        self._tolerance_ns = tolerance_ns
        self.newest_ns = 0
        self._offsets = self._read()

    def check(self) -> ClockStep | None:
        """Return what happened since the last call, or None."""
        before, self._offsets = self._offsets, self._read()
        stepped_ns = self._offsets[0] - before[0]
        suspended_ns = self._offsets[1] - before[1]
        # After a suspend CLOCK_REALTIME has gone on and CLOCK_MONOTONIC has not: no step.
        stepped_ns -= suspended_ns
        if abs(stepped_ns) <= self._tolerance_ns:
            stepped_ns = 0
        if suspended_ns <= self._tolerance_ns:
            suspended_ns = 0
        if not stepped_ns and not suspended_ns:
            return None
        self.newest_ns = self._clock.mono_ns()
        return ClockStep(stepped_ns, suspended_ns)

    def _read(self) -> tuple[int, int]:
        mono_ns = self._clock.mono_ns()
        return self._clock.real_ns() - mono_ns, self._clock.boot_ns() - mono_ns
