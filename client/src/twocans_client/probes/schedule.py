"""When to probe. No I/O: time is an argument.

Each path has a fixed grid: slots one interval apart, with a phase drawn from the names of both
ends. The grid never moves, so a slow probe delays none after it, two clients do not probe in
step, and a restart finds the same phase.
"""

from typing import NamedTuple

from twocans_core.hashing import hash_of

__all__ = ["Schedule", "SizedTurns", "Taken", "phase_ns"]


def phase_ns(client: str, target: str, interval_ns: int, grid_ns: int = 0) -> int:
    """Return where in the interval a path's slots lie: by name, so evenly and stable.

    Args:
        client: Our name.
        target: The path's.
        interval_ns: From one slot to the next.
        grid_ns: Of all our paths the slots lie on a grid so wide, whose place is by our name:
            probes that start together share a waking of the process. 0: anywhere.
    """
    number = hash_of(f"{client}\n{target}")
    grid_ns = min(grid_ns, interval_ns)
    if not grid_ns:
        return number % interval_ns
    return number % (interval_ns // grid_ns) * grid_ns + hash_of(client) % grid_ns


_FIRST_SIZED = 2


class Taken(NamedTuple):
    """What has become due.

    Attributes:
        intended_ns: Start of the slot to probe in now; None when there is none.
        scheduled: Slots that became due since the last call, this one included.
        missed: Those of them that it is too late for.
    """

    intended_ns: int | None
    scheduled: int
    missed: int


class Schedule:
    """One path's slots.

    Args:
        interval_ns: From one slot to the next.
        phase_ns: From a multiple of the interval to a slot.
        now_ns: Slots up to now are none of ours. CLOCK_MONOTONIC, as everywhere here.
    """

    def __init__(self, interval_ns: int, phase_ns: int, now_ns: int) -> None:
        self.interval_ns = interval_ns
        self._phase_ns = phase_ns
        # Slots are numbers, not a time that the interval is added to: nothing accumulates in years.
        self._next = (now_ns - phase_ns) // interval_ns + 1

    @property
    def next_ns(self) -> int:
        """When the next slot starts."""
        return self._next * self.interval_ns + self._phase_ns

    def take(self, now_ns: int) -> Taken:
        """Take every slot that has started.

        The newest is probed in if at most half an interval has passed since its start. All
        others are missed: a probe that starts so late would measure another moment.
        """
        newest = (now_ns - self._phase_ns) // self.interval_ns
        scheduled = newest - self._next + 1
        if scheduled <= 0:
            return Taken(None, 0, 0)
        self._next = newest + 1
        intended_ns = newest * self.interval_ns + self._phase_ns
        if now_ns - intended_ns > self.interval_ns // 2:
            return Taken(None, scheduled, scheduled)
        return Taken(intended_ns, scheduled, scheduled - 1)


class SizedTurns:
    """Which of a path's probes have a sized exchange (``probe.Plan``).

    The second, so that a fault is seen soon, then one in each slot of a schedule, and one when
    somebody wants to know. But never two in a row, and none while another is under way: the probes
    after it and beside it are the control, which shows whether size made the difference.

    Args:
        schedule: Of the sized ones; None: there are none.
    """

    def __init__(self, schedule: Schedule | None) -> None:
        self._schedule = schedule
        self._probes = 0
        self._is_due = False
        self._was_sized = False
        self._is_under_way = False

    def want(self) -> None:
        """Have one as soon as may be."""
        self._is_due = self._schedule is not None

    def take(self, now_ns: int) -> bool:
        """Return whether the probe that begins now is one; then ``end`` it.

        Args:
            now_ns: CLOCK_MONOTONIC.
        """
        if self._schedule is None:
            return False
        self._probes += 1
        if self._schedule.take(now_ns).scheduled or self._probes == _FIRST_SIZED:
            self._is_due = True
        self._was_sized = self._is_due and not self._was_sized and not self._is_under_way
        if self._was_sized:
            self._is_due, self._is_under_way = False, True
        return self._was_sized

    def end(self) -> None:
        """The sized probe has ended."""
        self._is_under_way = False
