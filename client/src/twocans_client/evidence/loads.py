"""How much our own host sends and receives beside our probes, and since when it is much. No I/O.

Counts are of all TCP of our network namespace (``TcpCounts``), wherever it goes: what delays or
loses our probes from the very moment on in which they rise is likely to be the same.
"""

from collections import deque
from typing import NamedTuple

from twocans_core.kernel.tcpinfo import TcpCounts

__all__ = ["Loads", "Surge"]

_LOOKS = 64
# Much is this many segments a second more than before, and three times as many.
_MUCH = 40
_TIMES = 3
# Of the looks before, without the first: what our first probes were is not known by then.
_ENOUGH = 3
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
            # Negative where a probe was under way at the last look: it is all counted at its end.
            rate = (total - before - own) * 1e9 / (at_ns - since_ns)
            self._rates.append((since_ns, at_ns, rate))
        self._last = at_ns, total

    @property
    def is_uneasy(self) -> bool:
        """Whether the newest look had much more, and the one before had not.

        One more look tells: it may be our own probes, which are counted at their end.
        """
        at = len(self._rates) - 1
        return self._is_much(at) and not self._is_much(at - 1)

    def surge(self, around_ns: int) -> Surge | None:
        """Return the rise about a moment: since when there is much more than before.

        Args:
            around_ns: From 3 s before this moment to 2 s after it.
        """
        rates = list(self._rates)
        for at in range(_ENOUGH + 1, len(rates) - 1):
            began_ns = rates[at][0]
            if not around_ns - _BEFORE_NS <= began_ns <= around_ns + _AFTER_NS:
                continue
            later = sorted(rate for _, _, rate in rates[at:])
            now = later[(len(later) - 1) // 2]
            before = self._before(at)
            if self._is_much(at) and now >= _TIMES * before + _MUCH:
                return Surge(began_ns, before, now)
        return None

    def _is_much(self, at: int) -> bool:
        return at > _ENOUGH and self._rates[at][2] >= _TIMES * self._before(at) + _MUCH

    def _before(self, at: int) -> float:
        earlier = sorted(rate for _, _, rate in list(self._rates)[max(1, at - _EARLIER) : at])
        return max(0.0, earlier[len(earlier) // 2])
