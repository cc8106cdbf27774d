"""Whether a box on the way remembers so many connections and no more, by ours alone. No I/O.

Such a box drops the SYN of one more. It forgets a connection some time after its end. So there is
a number and a time that part the SYNs that were lost from those that got through: lost are those
that met so many connections which were open, or had ended within that time. Chance parts them
badly, because how many there were does not follow from it.
"""

import bisect
import heapq
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from .rows import Probed, Waiting

__all__ = ["Parted", "parted"]

_SECOND_NS = 1_000_000_000
# From SYN to SYN, with the jiffies that a timer is late.
_WAIT_NS = 1_022_000_000
# Times that are tried: to 15 s by quarters of a second, and the best of them to 4 ms.
_COARSE_NS = (250_000_000, 15 * _SECOND_NS, 250_000_000)
_FINE_NS, _MOST = 20_000_000, 3
_NEARLY = 0.01
_NEVER_NS = 1 << 62
# So few that got through all lie on one side of nine in ten of the others by chance once in 10^7,
# and there are some hundred ways to part them.
_CAME, _LOST = 8, 30
# More tell no more, and cost time: it takes 10 ms.
_NEWEST = 300


class Parted(NamedTuple):
    """How well a number of connections parts the SYNs that came from those that were lost.

    Attributes:
        score: The mean of the two shares that are on their side.
        most: So many.
        linger_s: Counting those that had ended so lately.
        came: SYNs that got through.
        lost: SYNs that did not.
        lasted_ns: From the first of all of them to the last.
    """

    score: float
    most: int
    linger_s: float
    came: int
    lost: int
    lasted_ns: int


class _Tried(NamedTuple):
    """One SYN."""

    at_ns: int
    came: bool


def parted(
    rows: list[Probed], waiting: list[Waiting], since_ns: int, now_ns: int, rtt_ns: int = 0
) -> Parted | None:
    """Find the number and the time that part the SYNs best.

    Args:
        rows: Probes, in the order in which they began.
        waiting: Those under way whose SYN had no answer yet.
        since_ns: Of SYNs since then: from the first that got through after it to the last that
            did not. What is before and behind parts by nothing but time.
        now_ns: Now.
        rtt_ns: A round trip: so long before we are connected the SYN was sent that came.

    Returns:
        The best; None while there are too few of either kind.
    """
    first_of = {row.local_port: row for row in reversed(rows) if not row.is_unanswered}
    tried = [
        each
        for row in rows
        # A port that is used again needs no new place.
        if row.began_ns >= since_ns
        and (row.local_port is None or first_of.get(row.local_port, row) is row)
        for each in _tried(row, rtt_ns)
    ]
    tried += [
        _Tried(at_ns, False)
        for each in waiting
        for at_ns in range(each.began_ns, now_ns, _WAIT_NS)
        if at_ns >= since_ns
    ]
    tried.sort()
    first = next((at for at, each in enumerate(tried) if each.came), len(tried))
    last = max((at for at, each in enumerate(tried) if not each.came), default=0)
    tried = tried[first : last + 1][-_NEWEST:]
    came = sum(each.came for each in tried)
    lost = len(tried) - came
    if came < _CAME or lost < _LOST:
        return None
    box = _Box(tried, [row for row in rows if not row.is_unanswered], rtt_ns)
    # It parts the better the nearer the time is to the true one, and hardly at all beyond it.
    coarse = [(*box.part(linger_ns), linger_ns) for linger_ns in range(*_COARSE_NS)]
    fine = [
        (*box.part(linger_ns), linger_ns)
        for _, _, from_ns in heapq.nlargest(_MOST, coarse)
        for linger_ns in range(from_ns, from_ns + _COARSE_NS[2], _FINE_NS)
    ]
    about_ns = max(fine)[2]
    finest = range(about_ns - _FINE_NS, about_ns + _FINE_NS, _FINE_NS // 5)
    tries = coarse + fine + [(*box.part(linger_ns), linger_ns) for linger_ns in finest]
    # Twice the time and twice the number part them nearly as well, and more often still.
    best = max(score for score, _, _ in tries)
    linger_ns, most, score = min(
        (linger_ns, most, score) for score, most, linger_ns in tries if score >= best - _NEARLY
    )
    return Parted(score, most, linger_ns / 1e9, came, lost, tried[-1].at_ns - tried[0].at_ns)


def _tried(row: Probed, rtt_ns: int) -> Iterator[_Tried]:
    """Yield a probe's SYNs, about when they were sent: kernels wait a second, or more."""
    lost = (row.retrans or 0) + 1 if row.is_unanswered else (row.syns_resent or 0)
    yield from (_Tried(row.began_ns + at * _WAIT_NS, False) for at in range(lost))
    if not row.is_unanswered:
        yield _Tried(_came_ns(row, rtt_ns), True)


def _came_ns(row: Probed, rtt_ns: int) -> int:
    return row.began_ns + max(0, (row.connect_ns or 0) - rtt_ns)


def _with_next(rows: list[Probed]) -> Iterator[tuple[Probed, int]]:
    """Yield each with when the next began that has its port; with no such, far from now."""
    next_ns: dict[int, int] = {}
    for row in reversed(rows):
        port = row.local_port
        yield row, next_ns.get(port, _NEVER_NS) if port is not None else _NEVER_NS
        if port is not None:
            next_ns[port] = row.began_ns


class _Box:
    """A box on the way, as it would be if it forgot connections after a time.

    Args:
        tried: The SYNs that it met, oldest first.
        rows: The connections that came to be.
        rtt_ns: As of ``parted``.
    """

    def __init__(self, tried: list[_Tried], rows: list[Probed], rtt_ns: int) -> None:
        self._tried = tried
        self._ended = [(row.ended_ns, again_ns) for row, again_ns in _with_next(rows)]
        begun = sorted(_came_ns(row, rtt_ns) for row in rows)
        # One that begins at that very moment is the SYN itself.
        self._begun = [bisect.bisect_left(begun, each.at_ns) for each in tried]

    def part(self, linger_ns: int) -> tuple[float, int]:
        """Return how well the best number parts them, and that number."""
        came: Counter[int] = Counter()
        lost: Counter[int] = Counter()
        forgotten = 0
        # A connection with the same ports takes the place of the one before it.
        ends = sorted(min(ended_ns + linger_ns, again_ns) for ended_ns, again_ns in self._ended)
        for each, begun in zip(self._tried, self._begun, strict=True):
            while forgotten < len(ends) and ends[forgotten] < each.at_ns:
                forgotten += 1
            (came if each.came else lost)[begun - forgotten] += 1
        best, most = 0.5, 0
        all_came, all_lost = came.total(), lost.total()
        below_came = below_lost = 0
        for count in sorted(came.keys() | lost.keys()):
            below_came += came[count]
            below_lost += lost[count]
            score = (below_came / all_came + 1 - below_lost / all_lost) / 2
            if score > best:
                best, most = score, count + 1
        return best, most
