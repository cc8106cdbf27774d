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
    "own_share",
]

log = logging.getLogger(__name__)

# A lag from here on is a stall. It is one heartbeat while somebody waits: then a stall of twice
# this is always seen as at least this, wherever between two heartbeats it began. A loop that is
# only busy stays below, and takes a probe a little longer; were that counted, no outage would show
# on a busy host.
STALL_NS = 20_000_000

# What ``clock.StepDetector`` tolerates: both compare the same clocks.
_SUSPENDED_NS = 100_000_000
# ``cpu.stat`` and ``/proc/stat`` only have sums. Read at stalls alone, they would explain each by
# whatever stopped us since the one before; at each heartbeat they would cost two files every 20 ms.
_HOST_EVERY_NS = 1_000_000_000


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
    stop shorter than 100 ms may be called so, for the sleeper may have slept through it; and what
    no other cause explains half of."""


class Stalled(NamedTuple):
    """How we stood still within a window of time.

    Attributes:
        total_ns: In sum: many short stalls eat a deadline as well as a long one.
        worst_ns: At a stretch.
        cause: Of that stretch; None when less than ``STALL_NS`` of it lay within.
        own_ns: For how long our own code computed, in stalls that it alone would have made: also
            in those that were longer for want of a CPU.
    """

    total_ns: int
    worst_ns: int
    cause: Cause | None
    own_ns: int = 0


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
        run_delay_ns: Of the loop's thread; None where the kernel does not say.
        own_ns: CPU time of the loop's thread.
        cpu_ns: CPU time of all threads.
        sleeper_late_ns: How late the sleeper woke, all its wakings added up.
        sleeper_delay_ns: How long the sleeper's thread waited for a CPU.
    """

    asleep_ns: int
    run_delay_ns: int | None
    own_ns: int
    cpu_ns: int
    sleeper_late_ns: int
    sleeper_delay_ns: int


class Evidence(NamedTuple):
    """What two accounts and the host's counters differ by, over one stall. ns each.

    Attributes:
        throttled_ns: As in ``CpuSums``.
        run_delay_ns: As in ``Account``; so are the next.
        stolen_ns: How long a virtual CPU of ours waited for a real one, of all CPUs the longest.
    """

    throttled_ns: int
    run_delay_ns: int | None
    own_ns: int
    cpu_ns: int
    sleeper_late_ns: int
    sleeper_delay_ns: int
    stolen_ns: int


def cause_of(lag_ns: int, evidence: Evidence) -> Cause:
    """Return what kept the loop from running for ``lag_ns``: what explains half of it."""
    half_ns = lag_ns // 2
    waited_ns = evidence.run_delay_ns or 0
    # A throttled thread waits for a CPU as well, so the limit is looked at first.
    if evidence.throttled_ns >= half_ns:
        return Cause.THROTTLED
    if waited_ns >= half_ns:
        return Cause.STARVED
    # Code that holds the GIL holds up the sleeper too, but it uses the CPU.
    if evidence.sleeper_late_ns < half_ns or evidence.cpu_ns >= half_ns:
        return Cause.BLOCKED
    # The sleeper may hold the GIL while it waits for a CPU: then the loop waits, and not for one.
    # And of what the host took away from the whole machine no thread of it knows.
    if max(evidence.sleeper_delay_ns, evidence.stolen_ns) >= half_ns:
        return Cause.STARVED
    # A stopped thread is not ready to run: its time is what no wait and no work accounts for. Where
    # waits are not counted, nobody can tell the two apart.
    is_told = evidence.run_delay_ns is not None
    if is_told and lag_ns - waited_ns - evidence.cpu_ns >= half_ns:
        return Cause.STOPPED
    return Cause.BLOCKED


def own_share(lag_ns: int, cause: Cause, own_ns: int) -> int:
    """Return for how long of a stall our own code computed; 0 if it would have been none of that.

    Args:
        lag_ns: How long it was.
        cause: Of it.
        own_ns: CPU time of the loop's thread since the heartbeat before.
    """
    if cause in (Cause.SUSPENDED, Cause.THROTTLED, Cause.STOPPED):
        return 0
    # Twice a stall, as what it computed before the heartbeat was due is in it. And what piles up
    # while the loop waits, in a client that is idle half of the time, is less than a third.
    is_long = own_ns >= 2 * STALL_NS and 3 * own_ns >= lag_ns
    return min(own_ns, lag_ns) if is_long else 0


class StallWatch:
    """Watch the running loop, and this process, for stalls. Made on the loop's thread.

    It costs a heartbeat in 20 ms while somebody waits, else in 50 ms, with some readings of the
    kernel, and a waking of the sleeper in 50 ms. Two files are read once a second, and at every
    stall.

    Attributes:
        counts: Stalls so far, by cause.
        ns: How long they lasted, by cause.
        attention: A context for who waits for something: short stalls are seen more surely in it.

    Args:
        clock: Windows are of its ``mono_ns``.
        account, throttling, stolen: Instead of the process's and the host's; for tests.
        say: Log each stall; not more than the log lets through.
    """

    def __init__(
        self,
        clock: Clock = SYSTEM_CLOCK,
        *,
        account: Callable[[], Account] | None = None,
        throttling: Callable[[], cgroup.Throttling | None] = cgroup.throttling,
        stolen: Callable[[], tuple[int, ...]] = procfs.stolen_ns,
        say: bool = True,
    ) -> None:
        self.counts = dict.fromkeys(Cause, 0)
        self.ns = dict.fromkeys(Cause, 0)
        self._clock = clock
        self._sleeper = Sleeper()
        self._run_delay = procfs.RunDelay()
        self._throttling, self._read_stolen = throttling, stolen
        self._read_account = account or self._own_account
        self._say = say
        self._beats = LagMonitor(clock, self._on_beat)
        self.lags = self._beats.lags
        self.attention = self._beats
        self.worst_since = self._beats.worst_since
        self.is_turning = self._beats.is_turning
        # Oldest first.
        self._stalls: deque[_Stall] = deque()
        self._account = Account(0, 0, 0, 0, 0, 0)
        self._asleep_ns: int | None = None
        self._cpu = CpuWatch(self._cpu_sums)
        self._throttled_ns = 0
        self._stolen: tuple[int, ...] = ()
        self._host_due_ns = 0

    def start(self) -> None:
        """Begin to watch the running loop."""
        self._sleeper.start()
        self._account = self._read_account()
        self._take_host_ns()
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
        total_ns = worst_ns = all_own_ns = 0
        cause = None
        for ended_ns, lag_ns, why, own_ns in reversed(self._stalls):
            if ended_ns < since_ns:
                break
            inside_ns = lag_ns if why is Cause.SUSPENDED else min(lag_ns, ended_ns - since_ns)
            total_ns += inside_ns
            all_own_ns += min(own_ns, inside_ns)
            if inside_ns > worst_ns:
                worst_ns = inside_ns
                cause = why if inside_ns >= STALL_NS else None
        return Stalled(total_ns, worst_ns, cause, all_own_ns)

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
            self._note(_Stall(now_ns, asleep_ns, Cause.SUSPENDED))
        if lag_ns >= STALL_NS:
            throttled_ns, stolen_ns = self._take_host_ns()
            cause = cause_of(lag_ns, _evidence(throttled_ns, before, now, stolen_ns))
            own_ns = own_share(lag_ns, cause, now.own_ns - before.own_ns)
            self._note(_Stall(now_ns, lag_ns, cause, own_ns))
        if now_ns >= self._host_due_ns:
            self._take_host_ns()
        while self._stalls and self._stalls[0].ended_ns < now_ns - KEPT_NS:
            self._stalls.popleft()

    def _note(self, stall: "_Stall") -> None:
        self._stalls.append(stall)
        self.counts[stall.cause] += 1
        self.ns[stall.cause] += stall.lag_ns
        if self._say:
            fields = {
                "twocans.stall.cause": stall.cause,
                "twocans.stall.duration_s": stall.lag_ns / 1e9,
                "limited": True,
            }
            log.warning("stalled", extra=fields)

    def _take_host_ns(self) -> tuple[int, int]:
        """Return for how long a CPU limit, and a hypervisor, stopped us since the last call."""
        now_ns = self._clock.mono_ns()
        self._host_due_ns = now_ns + _HOST_EVERY_NS
        stolen, self._stolen = self._stolen, self._read_stolen()
        grown = (now - before for before, now in zip(stolen, self._stolen, strict=False))
        return self._take_throttled_ns(now_ns), max(grown, default=0)

    def _take_throttled_ns(self, now_ns: int) -> int:
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
            self.run_delay_ns(),
            time.thread_time_ns(),
            time.process_time_ns(),
            self._sleeper.late_ns(),
            self._sleeper.run_delay_ns(),
        )


class _Stall(NamedTuple):
    """One stall: when it ended, how long it was, why, and ``own_share`` of it."""

    ended_ns: int
    lag_ns: int
    cause: Cause
    own_ns: int = 0


def _evidence(throttled_ns: int, before: Account, now: Account, stolen_ns: int) -> Evidence:
    delays = before.run_delay_ns, now.run_delay_ns
    return Evidence(
        throttled_ns,
        None if None in delays else (delays[1] or 0) - (delays[0] or 0),
        now.own_ns - before.own_ns,
        now.cpu_ns - before.cpu_ns,
        now.sleeper_late_ns - before.sleeper_late_ns,
        now.sleeper_delay_ns - before.sleeper_delay_ns,
        stolen_ns,
    )
