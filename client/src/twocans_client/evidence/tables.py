"""Whether a box on the way remembers so many connections and no more, by ours alone. No I/O.

Such a box drops the SYN of one more. It forgets a connection some time after its end. So there is
a number and a time that part the SYNs that were lost from those that got through: lost are those
that met so many connections which were open, or had ended within that time. Chance parts them
badly, because how many there were does not follow from it.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from .window import Probed

__all__ = ["Parted", "parted"]

_SECOND_NS = 1_000_000_000
_LONGEST_LINGER_S = 15
# So few that got through all lie on one side of nine in ten of the others by chance once in 10^7,
# and there are some hundred ways to part them.
_CAME, _LOST = 8, 30


class Parted(NamedTuple):
    """How well a number of connections parts the SYNs that came from those that were lost.

    Attributes:
        score: The mean of the two shares that are on their side.
        most: So many.
        linger_s: Counting those that had ended so lately.
        came: SYNs that got through.
        lost: SYNs that did not.
    """

    score: float
    most: int
    linger_s: float
    came: int
    lost: int


class _Tried(NamedTuple):
    """One SYN."""

    at_ns: int
    came: bool


def parted(rows: list[Probed], since_ns: int) -> Parted | None:
    """Find the number and the time that part the SYNs best.

    Args:
        rows: Probes, in the order in which they began.
        since_ns: Of SYNs since then, and since the first that got through after it: those of an
            outage come before that, and part from what follows by nothing but time.

    Returns:
        The best; None while there are too few of either kind.
    """
    tried = sorted(each for row in rows if row.began_ns >= since_ns for each in _tried(row))
    first = next((at for at, each in enumerate(tried) if each.came), len(tried))
    tried = tried[first:]
    came = sum(each.came for each in tried)
    lost = len(tried) - came
    if came < _CAME or lost < _LOST:
        return None
    spans = [
        (row.began_ns + (row.connect_ns or 0), row.ended_ns)
        for row in rows
        if not row.is_unanswered
    ]
    best: Parted | None = None
    for halves in range(1, 2 * _LONGEST_LINGER_S + 1):
        counts = _counts(spans, halves * _SECOND_NS // 2, tried)
        score, most = _best_split(counts, tried)
        if best is None or score > best.score:
            best = Parted(score, most, halves / 2, came, lost)
    return best


def _tried(row: Probed) -> Iterator[_Tried]:
    """Yield a probe's SYNs, about when they were sent: kernels wait a second, or more."""
    lost = (row.retrans or 0) + 1 if row.is_unanswered else (row.syns_resent or 0)
    yield from (_Tried(row.began_ns + at * _SECOND_NS, False) for at in range(lost))
    if not row.is_unanswered:
        yield _Tried(row.began_ns + (row.connect_ns or 0), True)


def _counts(spans: list[tuple[int, int]], linger_ns: int, tried: list[_Tried]) -> list[int]:
    """Return how many connections each SYN met."""
    changes = sorted(
        [(begun, 1) for begun, _ in spans] + [(ended + linger_ns, -1) for _, ended in spans]
    )
    counts, now, done = [], 0, 0
    for each in tried:
        # One that began at that very moment is itself.
        while done < len(changes) and changes[done][0] < each.at_ns:
            now += changes[done][1]
            done += 1
        counts.append(now)
    return counts


def _best_split(counts: list[int], tried: list[_Tried]) -> tuple[float, int]:
    """Return how well the best threshold parts them, and that threshold."""
    came = sum(each.came for each in tried)
    lost = len(tried) - came
    pairs = sorted(zip(counts, (each.came for each in tried), strict=True))
    best, most = 0.5, 0
    below_came = below_lost = 0
    for (count, did_come), (following, _) in pairwise([*pairs, (pairs[-1][0] + 1, False)]):
        below_came += did_come
        below_lost += not did_come
        if count != following:
            score = (below_came / came + (lost - below_lost) / lost) / 2
            if score > best:
                best, most = score, following
    return best, most
