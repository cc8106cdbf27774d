"""When this process stood still, for how long, and why.

Two are asked: the loop's heartbeat, and a thread that does nothing but sleep. Where both were
late the process did not run; where only the loop was, it ran something else. The kernel says
more: time suspended, time stopped by a CPU limit, time that a thread waited for a CPU.
"""

import enum
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from twocans_core.clock import SYSTEM_CLOCK, Clock, read_clocks

from . import cgroup, procfs
from .lag import LagMonitor
from .shortage import KEPT_NS, CpuSums, CpuWatch
from .sleeper import Sleeper

__all__ = [
    "NEVER",
    "NOTHING_KNOWN",
    "STALL_NS",
    "Account",
    "Cause",
    "Evidence",
    "OwnHost",
    "StallWatch",
    "Stalled",
    "cause_of",
]

log = logging.getLogger(__name__)

# A lag from here on is a stall. It is one heartbeat while somebody waits: then a stall of twice
# this is always seen as at least this, wherever between two heartbeats it began. A loop that is
# only busy stays below, and takes a probe a little longer; were that counted, no outage would show
# on a busy host.
STALL_NS = 20_000_000

# What ``clock.StepDetector`` tolerates: both compare the same clocks.
_SUSPENDED_NS = 100_000_000
# ``cpu.stat`` only has a sum. Read at stalls alone, it would explain each by whatever throttled us
# since the one before; read at each heartbeat, it would cost a file every 20 ms.
_THROTTLING_EVERY_NS = 1_000_000_000


class Cause(enum.StrEnum):
    """Why we stood still, in the order of proof. Values are metric labels: never rename them."""

    SUSPENDED = "suspended"
    """The host slept: CLOCK_BOOTTIME went on without CLOCK_MONOTONIC."""
    THROTTLED = "throttled"
    """A CPU limit: our cgroup was throttled for at least half the stall."""
    STARVED = "starved"
    """Ready, but without a CPU for at least half the stall (run delay): others ran."""
    STOPPED = "stopped"
    """Nothing of us ran, nor wanted to: SIGSTOP, a freezer, a paused container or machine."""
    BLOCKED = "blocked"
    """Only the loop stood still: own code, the garbage collector, a slow call to the system. A
    stop shorter than 100 ms may be called so, for the sleeper may have slept through it."""


class Stalled(NamedTuple):
    """How we stood still within a window of time.

    Attributes:
        total_ns: In sum: many short stalls eat a deadline as well as a long one.
        worst_ns: At a stretch.
        cause: Of that stretch; None when less than ``STALL_NS`` of it lay within.
    """

    total_ns: int
    worst_ns: int
    cause: Cause | None


NEVER = Stalled(0, 0, None)


class OwnHost(NamedTuple):
    """What our own host did to this process within a window of time.

    Attributes:
        throttled_ns: As in ``CpuSums``; so is ``run_delay_ns``. Many short waits are in it that
            are no stall.
        run_delay_ns: Likewise.
        stalled: How we stood still.
    """

    throttled_ns: int | None
    run_delay_ns: int | None
    stalled: Stalled


NOTHING_KNOWN = OwnHost(None, None, NEVER)


class Account(NamedTuple):
    """What has been counted of this process so far, ns each.

    Attributes:
        asleep_ns: CLOCK_BOOTTIME less CLOCK_MONOTONIC.
        run_delay_ns: Of the loop's thread; 0 where the kernel does not say.
        cpu_ns: CPU time of all threads.
        sleeper_late_ns: How late the sleeper woke, all its wakings added up.
    """

    asleep_ns: int
    run_delay_ns: int
    cpu_ns: int
    sleeper_late_ns: int


class Evidence(NamedTuple):
    """What two accounts and the cgroup's counters differ by, over one stall. ns each."""

    throttled_ns: int
    run_delay_ns: int
    cpu_ns: int
    sleeper_late_ns: int


def cause_of(lag_ns: int, evidence: Evidence) -> Cause:
    """Return what kept the loop from running for ``lag_ns``: what explains half of it."""
    half_ns = lag_ns // 2
    # A throttled thread waits for a CPU as well, so the limit is looked at first.
    if evidence.throttled_ns >= half_ns:
        return Cause.THROTTLED
    if evidence.run_delay_ns >= half_ns:
        return Cause.STARVED
    # Code that holds the GIL holds up the sleeper too, but it uses the CPU.
    # And a stopped thread is not ready to run, so it has no run delay.
    if evidence.sleeper_late_ns >= half_ns > evidence.cpu_ns:
        return Cause.STOPPED
    return Cause.BLOCKED


class StallWatch:
    """Watch the running loop, and this process, for stalls. Made on the loop's thread.

    It costs a heartbeat in 20 ms while somebody waits, else in 50 ms, with two readings of the
    kernel, and a waking of the sleeper in 50 ms. The cgroup's file is read once a second, and at
    every stall.

    Attributes:
        counts: Stalls so far, by cause.
        ns: How long they lasted, by cause.
        attention: A context for who waits for something: short stalls are seen more surely in it.

    Args:
        clock: Windows are of its ``mono_ns``.
        account, throttling: Instead of the process's own; for tests.
        say: Log each stall; not more than the log lets through.
    """

    def __init__(
        self,
        clock: Clock = SYSTEM_CLOCK,
        *,
        account: Callable[[], Account] | None = None,
        throttling: Callable[[], cgroup.Throttling | None] = cgroup.throttling,
        say: bool = True,
    ) -> None:
        self.counts = dict.fromkeys(Cause, 0)
        self.ns = dict.fromkeys(Cause, 0)
        self._clock = clock
        self._sleeper = Sleeper()
        self._run_delay = procfs.RunDelay()
        self._throttling = throttling
        self._read_account = account or self._own_account
        self._say = say
        self._beats = LagMonitor(clock, self._on_beat)
        self.lags = self._beats.lags
        self.attention = self._beats
        self.worst_since = self._beats.worst_since
        self.is_turning = self._beats.is_turning
        # (when it ended, how long it was, why), oldest first.
        self._stalls: deque[tuple[int, int, Cause]] = deque()
        self._account = Account(0, 0, 0, 0)
        self._asleep_ns: int | None = None
        self._cpu = CpuWatch(self._cpu_sums)
        self._throttled_ns = 0
        self._throttling_due_ns = 0

    def start(self) -> None:
        """Begin to watch the running loop."""
        self._sleeper.start()
        self._account = self._read_account()
        self._take_throttled_ns()
        self._beats.start()

    def stop(self) -> None:
        """Watch no more."""
        self._beats.stop()
        self._sleeper.stop()
        self._run_delay.close()

    def since(self, since_ns: int) -> Stalled:
        """Return how we stood still since a moment of ``mono_ns``; 2 minutes are kept.

        Of a stall that had begun before, only what lies after that moment counts; of a
        suspend, during which ``mono_ns`` stands still, all. Call it on the loop.
        """
        self._beats.beat_if_late(STALL_NS)
        total_ns = worst_ns = 0
        cause = None
        for ended_ns, lag_ns, why in reversed(self._stalls):
            if ended_ns < since_ns:
                break
            inside_ns = lag_ns if why is Cause.SUSPENDED else min(lag_ns, ended_ns - since_ns)
            total_ns += inside_ns
            if inside_ns > worst_ns:
                worst_ns = inside_ns
                cause = why if inside_ns >= STALL_NS else None
        return Stalled(total_ns, worst_ns, cause)

    def own_host_since(self, since_ns: int) -> OwnHost:
        """Return what our host did to us since a moment of ``mono_ns``; 2 minutes are kept.

        CPU waits are those of up to a second more, and of the last 100 ms maybe not. However often
        it is called, the kernel is asked ten times a second at most.
        """
        stalled = self.since(since_ns)
        return OwnHost(*self._cpu.since(since_ns, self._clock.mono_ns()), stalled)

    def run_delay_ns(self) -> int | None:
        """Return how long the loop's thread has waited for a CPU. From any thread."""
        return self._run_delay.read_ns()

    def throttled_ns(self) -> int | None:
        """Return how long a CPU limit has stopped us so far; up to a second late."""
        return self._cpu.newest.throttled_ns

    def _on_beat(self, now_ns: int, lag_ns: int) -> None:
        # The account of the last heartbeat is the one to compare with: what it differs by is of
        # this beat alone.
        before, now = self._account, self._read_account()
        # If it was just now that we stood still, the next heartbeat will be late by that, if
        # somebody waits.
        if self._clock.mono_ns() - now_ns < STALL_NS:
            self._account = now
        asleep_ns = now.asleep_ns - before.asleep_ns
        if asleep_ns >= _SUSPENDED_NS:
            self._note(now_ns, asleep_ns, Cause.SUSPENDED)
        if lag_ns >= STALL_NS:
            evidence = Evidence(
                self._take_throttled_ns(),
                now.run_delay_ns - before.run_delay_ns,
                now.cpu_ns - before.cpu_ns,
                now.sleeper_late_ns - before.sleeper_late_ns,
            )
            self._note(now_ns, lag_ns, cause_of(lag_ns, evidence))
        if now_ns >= self._throttling_due_ns:
            self._take_throttled_ns()
        while self._stalls and self._stalls[0][0] < now_ns - KEPT_NS:
            self._stalls.popleft()

    def _note(self, now_ns: int, lag_ns: int, cause: Cause) -> None:
        self._stalls.append((now_ns, lag_ns, cause))
        self.counts[cause] += 1
        self.ns[cause] += lag_ns
        if self._say:
            fields = {
                "twocans.stall.cause": cause,
                "twocans.stall.duration_s": lag_ns / 1e9,
                "limited": True,
            }
            log.warning("stalled", extra=fields)

    def _take_throttled_ns(self) -> int:
        """Return for how long a CPU limit has stopped us since the last call."""
        now_ns = self._clock.mono_ns()
        self._throttling_due_ns = now_ns + _THROTTLING_EVERY_NS
        throttled_ns, before_ns = self._cpu.read(now_ns).throttled_ns, self._throttled_ns
        self._is_limited = throttled_ns is not None
        if throttled_ns is not None:
            self._throttled_ns = throttled_ns
        return self._throttled_ns - before_ns

    def _cpu_sums(self) -> CpuSums:
        found = self._throttling()
        throttled_ns = int(found.seconds * 1e9) if found is not None else None
        return CpuSums(throttled_ns, self.run_delay_ns())

    def _own_account(self) -> Account:
        reading = read_clocks(self._clock)
        if reading.is_quick or self._asleep_ns is None:  # else a later account has it
            self._asleep_ns = reading.asleep_ns
        return Account(
            self._asleep_ns,
            self.run_delay_ns() or 0,
            time.process_time_ns(),
            self._sleeper.late_ns(),
        )
