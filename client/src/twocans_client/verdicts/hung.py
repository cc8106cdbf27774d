"""A program that hangs, while its kernel goes on. No I/O. ``silences`` asks it first."""

from itertools import pairwise
from typing import NamedTuple

from twocans_client.evidence.results import Reason
from twocans_client.evidence.testimony import Testimony
from twocans_core.host.stalls import Cause

from .case import Case
from .verdict import Confidence, Culprit, Finding, Kind

__all__ = ["APP_HUNG", "KINDS", "judge", "stood_still", "told_since"]

_RECENT_NS = 15_000_000_000
_SECOND_NS = 1_000_000_000
# A program that answers within three seconds is slow, and a longer stop of it is no hiccup.
_HUNG_NS = 3_000_000_000
_HUNG_AT_ONCE = 3
_TENTH = 10
# How a host keeps a process from running; ``blocked`` is the program's own doing.
_KEPT = frozenset({Cause.SUSPENDED, Cause.THROTTLED, Cause.STARVED, Cause.STOPPED})

APP_HUNG = Kind(
    "app_hung",
    "the server's kernel answers, but its program does not",
    (Culprit.SERVER_APP,),
    needs="connections that the server's kernel accepts and its program does not greet. The kernel "
    "acknowledged the HELLO of those that have timed out",
    apart="slow_app: some probes are answered, or the server says later that its loop kept "
    "running; process_paused: the server says later that it did not run; backlog_overflow: the "
    "kernel accepts no more connections either",
    threshold="three connections, and no answer to any probe for three seconds. Provisional until "
    "the server can be asked, as a stopped process looks the same",
    look="a stack trace of the server's process; its CPU; what its event loop waits for",
    rivals=frozenset(
        {
            "process_paused",
            "cpu_throttled",
            "descriptors_exhausted",
            "backlog_overflow",
            "slow_app",
        }
    ),
)
KINDS = (APP_HUNG,)


def judge(case: Case) -> Finding | None:
    """Say whether the server's program hangs, or hung."""
    window = case.window
    if window.proxy_sign:
        return None  # it is the proxy's kernel that answers: ``endpoints``
    if (case.found | case.standing) & APP_HUNG.rivals:
        return None
    found = _ungreeted(case)
    if found is None:
        return None
    testimony = told_since(case, found.began_ns)
    if testimony is not None:
        if stood_still(testimony, _HUNG_NS):
            return None  # it did not run at all: ``hosts``
        if went_on(testimony, found.ended_ns - found.began_ns):
            return None  # it had too much to do: ``slow_app``
    beside = [
        probe
        for probe in case.ended(Reason.REPLY_TIMEOUT, Reason.CLOSE_TIMEOUT, Reason.CONNECT_TIMEOUT)
        if found.began_ns - _SECOND_NS < probe.ended_ns < found.ended_ns + 2 * _SECOND_NS
    ]
    if testimony is None and _was_kept(case):
        return None  # it was slow for want of a CPU before; until it is asked, it may be still
    lasted_s = (found.ended_ns - found.began_ns) / 1e9
    proof = (
        f"the server's kernel accepted {found.connections} connections, "
        f"and its program greeted none of them for up to {lasted_s:.1f} s"
    )
    if testimony is not None:
        proof += "; by its own account, its host did not keep it from running"
    return Finding(
        APP_HUNG,
        Culprit.SERVER_APP,
        proof,
        confidence=Confidence.PROVEN if testimony is not None else Confidence.PROVISIONAL,
        figures={"probes": found.connections, "duration_s": lasted_s},
        explains=found.numbers | {probe.number for probe in beside},
        began_ns=found.began_ns,
    )


class _Ungreeted(NamedTuple):
    """A time in which nobody was greeted who was connected, nor answered anything.

    Attributes:
        began_ns: When the first of them was connected.
        ended_ns: When somebody was answered again; now while it lasts.
        connections: How many waited in it.
        numbers: Of the probes that did, and have ended.
    """

    began_ns: int
    ended_ns: int
    connections: int
    numbers: frozenset[int]


def _ungreeted(case: Case) -> _Ungreeted | None:
    """Find the newest such time, of the last 15 s."""
    window = case.window
    # The held connection is greeted for long, and shows as well that the program runs. So does
    # whoever is answered: a program that has too much to do greets nobody for a while either.
    answered = {look.heard_ns for look in window.held_looks}
    answered |= {exchanged.at_ns for exchanged in window.exchanges}
    for row in window.probes:
        if row.connect_ns is not None and row.greet_ns is not None:
            answered.add(row.began_ns + row.connect_ns + row.greet_ns)
            if row.reason is Reason.OK:
                answered.add(row.ended_ns)
    ends = [*sorted(answered), window.now_ns]
    for before, after in reversed(list(pairwise(ends))):
        if after < window.now_ns - _RECENT_NS:
            return None
        if after - before < _HUNG_NS:
            continue
        rows = [
            row
            for row in case.odd()
            if row.connect_ns is not None
            and before < row.began_ns + row.connect_ns < after - _SECOND_NS
            and not row.sent_in_vain
            and (row.greet_ns is not None or row.reason is Reason.GREETING_TIMEOUT)
        ]
        waiting = [
            each
            for each in window.waiting
            if each.connected_ns is not None
            and not each.greeted
            and before < each.connected_ns < after - _SECOND_NS
        ]
        begun = [row.began_ns for row in rows] + [each.began_ns for each in waiting]
        if len(begun) >= _HUNG_AT_ONCE and after - min(begun) >= _HUNG_NS:
            numbers = frozenset(row.number for row in rows)
            return _Ungreeted(min(begun), after, len(begun), numbers)
    return None


def told_since(case: Case, began_ns: int) -> Testimony | None:
    """Return what the server said about the time since a moment, if it has been asked."""
    for testimony in reversed(case.window.testimonies):
        since_ns = testimony.host.since_ns
        # The newest look before what it was asked about may be a second older or newer.
        if since_ns is not None and since_ns <= began_ns + _SECOND_NS < testimony.asked_ns:
            return testimony
    return None


def _was_kept(case: Case) -> bool:
    """Whether the server said lately that its host kept it from running for a tenth of the time."""
    testimonies = case.window.testimonies
    if not testimonies or testimonies[-1].answered_ns < case.window.now_ns - _RECENT_NS:
        return False
    newest, host = testimonies[-1], testimonies[-1].host
    if host.cause not in _KEPT or host.since_ns is None:
        return False
    return _TENTH * (host.stalled_ns or 0) >= newest.answered_ns - host.since_ns


def went_on(testimony: Testimony, lasted_ns: int) -> bool:
    """Whether the server's loop turned meanwhile: it says that it never stood still for so long."""
    worst_ns = testimony.host.worst_ns
    return worst_ns is not None and 2 * worst_ns < lasted_ns


def stood_still(testimony: Testimony, lasted_ns: int) -> bool:
    """Whether the server's host kept its process from running for most of a time."""
    host = testimony.host
    return host.cause in _KEPT and 2 * (host.worst_ns or 0) > lasted_ns
