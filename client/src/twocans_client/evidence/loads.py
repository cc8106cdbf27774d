"""How much our own host sends and receives beside our probes, and since when it is much. No I/O.

Counts are of all TCP of our network namespace (``TcpCounts``), wherever it goes: what delays or
loses our probes from the very moment on in which they rise is likely to be the same.
"""

from collections import deque
from typing import NamedTuple

from twocans_core.kernel.tcpinfo import TcpCounts

__all__ = ["Loads", "Surge"]

_LOOKS = 64
# Much is this many segments a second more than before, and three times as many: less than a link of
# 1 Mbit/s carries, and more than our own probes can be late by.
_MUCH = 80
_TIMES = 3
# Of the looks before, without the first: what our first probes were is not known by then.
_ENOUGH = 3
# Looks that a probe lasts, as a rule: its time-out is five seconds.
_LATE = 5
_EARLIER = 20
_BEFORE_NS = 3_000_000_000
_AFTER_NS = 2_000_000_000


class Surge(NamedTuple):
    """Our own host has more to send, or to receive, than before.

    Attributes:
        began_ns: Since when, CLOCK_MONOTONIC; at most a look later.
        before: Segments a second, either way, until then.
        now: Likewise, since then.
    """

    began_ns: int
    before: float
    now: float


class Loads:
    """The segments of our network namespace, looked at once a second."""

    def __init__(self) -> None:
        self._last: tuple[int, int] | None = None
        self._own = 0
        self._rates: deque[tuple[int, int, float]] = deque(maxlen=_LOOKS)

    def own(self, segments: int) -> None:
        """So many segments were our own, of a probe."""
        self._own += segments

    def look(self, at_ns: int, counts: TcpCounts) -> None:
        """Take in the counts of a moment."""
        sent = (counts.out_segs, counts.in_segs, counts.retrans_segs)
        if None in sent:
            return
        total = sum(count or 0 for count in sent)
        own, self._own = self._own, 0
        if self._last is not None and at_ns > self._last[0] and total >= self._last[1]:
            since_ns, before = self._last
            others = total - before - own
            self._rates.append((since_ns, at_ns, max(0, others) * 1e9 / (at_ns - since_ns)))
            self._own_of_before(-others)
        self._last = at_ns, total

    def _own_of_before(self, segments: int) -> None:
        """What is more than all that were sent was sent before: a probe counts when it ends."""
        for at in range(len(self._rates) - 2, max(-1, len(self._rates) - 2 - _LATE), -1):
            if segments <= 0:
                return
            since_ns, until_ns, rate = self._rates[at]
            seconds = (until_ns - since_ns) / 1e9
            others = max(0.0, rate * seconds - segments)
            segments -= round(rate * seconds - others)
            self._rates[at] = since_ns, until_ns, others / seconds

    def is_settled(self, surge: Surge) -> bool:
        """Whether it is more than the newest look, which has probes in it that have not ended."""
        return bool(self._rates) and surge.began_ns < self._rates[-1][0]

    def surge(self, around_ns: int, until_ns: int | None = None) -> Surge | None:
        """Return the rise about a moment: since when there is much more than before.

        Args:
            around_ns: From 3 s before this moment to 2 s after it.
            until_ns: It has to have lasted until then, and no longer: what came with a load is of
                it when that has ended as well. None: until now.
        """
        rates = list(self._rates)
        for at in range(_ENOUGH + 1, len(rates)):
            began_ns, _, rate = rates[at]
            if not around_ns - _BEFORE_NS <= began_ns <= around_ns + _AFTER_NS:
                continue
            earlier = sorted(value for _, _, value in rates[max(1, at - _EARLIER) : at])
            before = earlier[len(earlier) // 2]
            later = sorted(
                value
                for looks, (since_ns, _, value) in enumerate(rates[at:])
                if until_ns is None or since_ns <= until_ns or looks < _ENOUGH
            )
            now = later[(len(later) - 1) // 2]
            if min(rate, now) >= _TIMES * before + _MUCH:
                return Surge(began_ns, before, now)
        return None
