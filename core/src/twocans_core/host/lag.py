"""How late our own event loop is.

A probe that waits on a loop that does not turn measures us, not the path. So a heartbeat
runs on the loop all the time. Why it was late, and for how long in sum, is ``stalls``'s to say.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from twocans_core.clock import SYSTEM_CLOCK, Clock
from twocans_core.histogram import Histogram

__all__ = ["LagMonitor"]

# From the loop's own resolution (asyncio rounds timers to 1 ms) to a frozen machine.
LAG_BOUNDS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)

# ``stalls.STALL_NS`` is one of these, and says why.
_BEAT_NS = 20_000_000
_IDLE_BEAT_NS = 50_000_000
_KEPT_NS = 120 * 1_000_000_000


class LagMonitor:
    """Measure how much later than asked the loop runs a callback.

    Every 20 ms as long as somebody waits for something, which is said by entering this as a
    context; else every 50 ms: each is a waking of an idle process, which is dear.

    Attributes:
        lags: Every heartbeat's lag.

    Args:
        clock: Its ``mono_ns`` measures.
        heard: Told of every heartbeat: when it was, and its lag, in ns of ``mono_ns``.
    """

    def __init__(
        self, clock: Clock = SYSTEM_CLOCK, heard: Callable[[int, int], None] | None = None
    ) -> None:
        self.lags = Histogram(LAG_BOUNDS_S)
        self._clock = clock
        self._heard = heard
        self._newest_ns = self._due_ns = clock.mono_ns()
        self._waiting = 0
        # (when, lag) with lags falling: whatever is older and smaller can never be the worst.
        self._worst: deque[tuple[int, int]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to beat on the running loop."""
        self._newest_ns = self._clock.mono_ns()
        self._arm(asyncio.get_running_loop(), self._newest_ns)

    def attend(self) -> None:
        """Somebody waits from now on, until as many have called ``leave``."""
        self._waiting += 1
        if self._waiting == 1 and self._timer is not None:
            now_ns = self._clock.mono_ns()
            # Only an idle heartbeat that is too far away: else each probe would move a timer.
            if self._due_ns > now_ns + _BEAT_NS:
                self._timer.cancel()
                self._arm(asyncio.get_running_loop(), now_ns)

    def leave(self) -> None:
        """One less waits."""
        self._waiting -= 1
        if not self._waiting and self._timer is not None:
            now_ns = self._clock.mono_ns()
            # We run, and nothing is overdue: that is as good as a heartbeat, and costs no waking.
            if self._newest_ns + _BEAT_NS <= now_ns < self._due_ns:
                self._timer.cancel()
                self._beat(asyncio.get_running_loop())

    def __enter__(self) -> None:
        self.attend()

    def __exit__(self, *_: object) -> None:
        self.leave()

    def beat_if_late(self, by_ns: int) -> None:
        """Do not wait for the loop's turn if the heartbeat is late by so much.

        For who runs on the loop, before the heartbeat, right after a stall.
        """
        if self._timer is not None and self._clock.mono_ns() - self._due_ns >= by_ns:
            self._timer.cancel()
            self._beat(asyncio.get_running_loop())

    def stop(self) -> None:
        """Beat no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def worst_since(self, since_ns: int) -> int:
        """Return the worst lag since a moment of ``mono_ns``, in ns; 2 minutes are kept.

        A stall that has just ended, or that the caller itself sits in, counts as well.
        """
        pending_ns = self._clock.mono_ns() - self._due_ns
        seen_ns = next((lag for when, lag in self._worst if when >= since_ns), 0)
        return max(pending_ns, seen_ns, 0)

    def is_turning(self, within_s: float = 5.0) -> bool:
        """Whether the loop ran a heartbeat lately. May be asked from any thread."""
        # One attribute, so another thread sees the old or the new one, and needs no lock. It lies
        # in the future as long as all is well.
        return self._clock.mono_ns() - self._due_ns < within_s * 1e9

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        now_ns = self._clock.mono_ns()
        lag_ns = max(0, now_ns - self._due_ns)
        self.lags.observe(lag_ns)
        while self._worst and self._worst[-1][1] <= lag_ns:
            self._worst.pop()
        self._worst.append((now_ns, lag_ns))
        while self._worst[0][0] < now_ns - _KEPT_NS:
            self._worst.popleft()
        self._arm(loop, now_ns)
        self._newest_ns = now_ns
        if self._heard is not None:
            self._heard(now_ns, lag_ns)

    def _arm(self, loop: asyncio.AbstractEventLoop, now_ns: int) -> None:
        wait_ns = _BEAT_NS if self._waiting else _IDLE_BEAT_NS
        # From now, not from when it was due: after a long stall there is nothing to catch up with,
        # and one stall is one lag.
        self._due_ns = now_ns + wait_ns
        self._timer = loop.call_later(wait_ns / 1e9, self._beat, loop)
