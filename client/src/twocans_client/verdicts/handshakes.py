"""The handshakes in a window, sorted by what became of them. No I/O."""

from collections.abc import Set
from typing import NamedTuple

from twocans_client.evidence.outages import Outage
from twocans_client.evidence.rows import Probed
from twocans_client.evidence.testimony import Testimony

from .case import Case

__all__ = ["Handshakes", "begun_ns_of", "handshakes_of", "numbers_of", "overflows_of", "told_since"]

_RECENT_NS = 15_000_000_000
_SECOND_NS = 1_000_000_000


class Handshakes(NamedTuple):
    """What became of the handshakes in the window.

    Attributes:
        rows: Probes that began one, in the order in which they began; no void ones.
        lost: Of them, those of which a SYN was lost, as far as is known.
        synacks: Of which a SYN-ACK was lost.
        overflowed: Whose SYN a full accept queue may have dropped.
        whole: Of which nothing got through.
    """

    rows: list[Probed]
    lost: list[Probed]
    synacks: list[Probed]
    overflowed: list[Probed]
    whole: list[Probed]

    def without(self, numbers: Set[int]) -> "Handshakes":
        """Return all but these."""
        return Handshakes(*([row for row in rows if row.number not in numbers] for rows in self))


def handshakes_of(case: Case) -> Handshakes:
    """Sort those that nobody has explained."""
    its = Handshakes([], [], [], [], [])
    left = {probe.number for probe in case.odd()}
    for row in sorted(case.window.probes, key=lambda each: each.began_ns):
        if row.is_odd and row.number not in left:
            continue
        if row.is_unanswered:
            its.rows.append(row)
            its.whole.append(row)
        elif row.syns_resent is not None and row.synacks_resent is not None:
            its.rows.append(row)
            if row.syns_resent and overflows_of(row):
                its.overflowed.append(row)
            elif row.synacks_resent and row.syns_resent:
                its.synacks.append(row)
            elif row.syns_resent:
                its.lost.append(row)
    return its


def numbers_of(rows: list[Probed]) -> set[int]:
    """Return their numbers."""
    return {row.number for row in rows}


def overflows_of(row: Probed) -> int:
    """Return how often the server's accept queue was full, of which it may have been one."""
    return row.result.overflows if row.result is not None else 0


def begun_ns_of(case: Case, its: Handshakes, outage: Outage | None) -> int | None:
    """Return when the first of the SYNs was sent that had no answer lately."""
    if outage is not None:
        return outage.began_ns
    since_ns = case.window.now_ns - _RECENT_NS
    lost = [row.began_ns for row in (*its.lost, *its.overflowed, *its.whole)]
    lost += [each.began_ns for each in case.window.waiting if each.connected_ns is None]
    return min((at_ns for at_ns in lost if at_ns >= since_ns), default=None)


def told_since(case: Case, begun_ns: int | None) -> Testimony | None:
    """Return what the server said of a time in which SYNs had no answer."""
    for testimony in reversed(case.window.testimonies):
        since_ns = testimony.host.since_ns
        if begun_ns is None or since_ns is None or testimony.asked_ns <= begun_ns:
            continue
        # What it counts is of all its clients, so it must not be of a long time before.
        if begun_ns - 5 * _SECOND_NS <= since_ns <= begun_ns + _SECOND_NS:
            return testimony
    return None
