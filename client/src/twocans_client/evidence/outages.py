"""The times in which new connections were begun and nobody answered any of them. No I/O."""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from .results import Reason
from .rows import Probed
from .window import Window

__all__ = ["ENOUGH", "Outage", "outage_of"]

ENOUGH = 10
"""So many SYNs in a row without an answer are an outage. Where one in ten is lost, that is chance
once in 10 ** 10; where half of them are, once in 1,000, and then for a second at most."""
_SHORTEST_NS = 1_000_000_000
# How a connection ends whose far end has just been heard.
_HEARD = frozenset(
    {
        Reason.OK,
        Reason.REFUSED,
        Reason.RESET,
        Reason.CLOSED_EARLY,
        Reason.WRONG_BYTES,
        Reason.DAMAGED,
        Reason.PROTOCOL_ERROR,
        Reason.BUSY,
        Reason.DRAINING,
    }
)


class Outage(NamedTuple):
    """A time without an answer to new connections.

    Attributes:
        heard_ns: The last answer before it; None: there was none in the window.
        began_ns: When the first SYN was sent that had no answer in it.
        ended_ns: The first answer after it; None while it lasts.
        sent: SYNs in it, those that were sent again included: so many at least.
        numbers: Of the probes that met it.
    """

    heard_ns: int | None
    began_ns: int
    ended_ns: int | None
    sent: int
    numbers: frozenset[int]

    @property
    def is_over(self) -> bool:
        """Whether the far end has answered again."""
        return self.ended_ns is not None

    def is_over_since(self, at_ns: int) -> bool:
        """Whether the far end had answered again before a moment."""
        return self.ended_ns is not None and self.ended_ns < at_ns

    def holds(self, at_ns: int | None) -> bool:
        """Whether a moment is in it."""
        return (
            at_ns is not None
            and self.began_ns <= at_ns
            and (self.ended_ns is None or at_ns < self.ended_ns)
        )


def outage_of(window: Window) -> Outage | None:
    """Return the newest outage in a window; None if there was none."""
    if not window.odd and not window.waiting:
        return None
    heard = sorted({at_ns for row in window.probes for at_ns in _heard(row)})
    heard += [each.connected_ns for each in window.waiting if each.connected_ns is not None]
    ends: list[int | None] = [None, *sorted(heard), None]
    for before, after in reversed(list(pairwise(ends))):
        if before is None or (after or window.now_ns) - before >= _SHORTEST_NS:
            found = _between(window, before, after)
            if found is not None:
                return found
    return None


def _heard(row: Probed) -> Iterator[int]:
    """Yield when the far end was heard on a fresh connection."""
    if row.connect_ns is not None:
        yield row.began_ns + row.connect_ns
    if row.reason in _HEARD:
        yield row.ended_ns


def _between(window: Window, heard_ns: int | None, ended_ns: int | None) -> Outage | None:
    """Return the outage between two answers, if there was one."""
    oldest_ns, newest_ns = heard_ns or 0, ended_ns or window.now_ns
    sent, began, numbers = 0, [], set()
    for row in window.odd:
        if not oldest_ns <= row.began_ns < newest_ns:
            # One that was connected before ends in it, if it has an end at all.
            if row.began_ns < oldest_ns < row.ended_ns and row.is_failure:
                numbers.add(row.number)
            continue
        unanswered = _unanswered(row)
        if unanswered:
            sent += unanswered
            began.append(row.began_ns)
            numbers.add(row.number)
    for each in window.waiting:
        if each.connected_ns is None and oldest_ns <= each.began_ns < newest_ns:
            sent += 1
            began.append(each.began_ns)
    if sent < ENOUGH or newest_ns - min(began) < _SHORTEST_NS:
        return None
    return Outage(heard_ns, min(began), ended_ns, sent, frozenset(numbers))


def _unanswered(row: Probed) -> int:
    """Return how many SYNs of a probe had no answer."""
    if row.is_unanswered:
        return 1 + (row.retrans or 0)
    if row.reason is Reason.REFUSED:  # the last of them was answered
        return row.retrans or 0
    return row.syns_resent or 0
