"""Connections that ended early, and those that the server could not accept. No I/O."""

from collections.abc import Iterator

from twocans_client.evidence.results import Reason
from twocans_client.evidence.rows import HeldEnded, Probed
from twocans_client.evidence.testimony import Fate, Seen, Testimony

from .case import Case
from .either_host import DESCRIPTORS
from .verdict import Confidence, Culprit, Finding, Kind
from .words import counted

__all__ = ["KINDS", "judge"]

_RECENT_NS = 15_000_000_000
_FEW = 2

RST_INJECTED = Kind(
    "rst_injected",
    "something on the path resets connections",
    (Culprit.MIDDLEBOX,),
    needs="connections that ended early, and the server's word that it did not end them: they are "
    "still open there, or were ended from outside there too",
    apart="closed_by_server: the server ended them itself; idle_timeout: only after a silence",
    threshold="two in 15 s that the server was asked about",
    look="firewalls, intrusion prevention and connection tracking on the path",
)
CLOSED = Kind(
    "closed_by_server",
    "the server ends connections early",
    (Culprit.SERVER_APP,),
    needs="connections that ended early, and the server's word that it ended them",
    apart="rst_injected: the server did not end them; backend_dead: the server never saw them",
    threshold="two in 15 s that the server was asked about",
    look="the server's log; `twocans_server_connections_ended_total` by ending",
)
KINDS = (RST_INJECTED, CLOSED)

_BROKEN = (Reason.RESET, Reason.CLOSED_EARLY)
# How a connection ends at the server that somebody else has ended: it heard a reset, or an end.
_BY_OTHERS = frozenset({"reset", "left"})


def judge(case: Case) -> Iterator[Finding]:
    """Yield who ended connections, and what the server lacked."""
    yield from _broken(case)
    yield from _descriptors(case)


def _broken(case: Case) -> Iterator[Finding]:
    window = case.window
    since_ns = window.now_ns - _RECENT_NS
    probes = case.ended(*_BROKEN, since_ns=_RECENT_NS)
    held = [
        each
        for each in window.held_endings
        if each.reason in _BROKEN and each.at_ns >= since_ns and each.lasted_ns is not None
    ]
    injected: list[Probed | HeldEnded] = []
    closed: list[Probed | HeldEnded] = []
    words: set[str] = set()
    ends: list[Probed | HeldEnded] = [*probes, *held]
    for each in ends:
        told = window.seen(each)
        if told is None or told[1].fate is Fate.UNKNOWN:
            continue
        seen = told[1]
        if seen.fate is Fate.OPEN or _is_others_doing(seen):
            injected.append(each)
        elif seen.ending != "done":
            closed.append(each)
            words.add(" ".join(filter(None, (seen.ending, seen.reason))))
    # Of those that were not asked about nothing is known; they look the same.
    unasked = {probe.number for probe in probes if window.seen(probe) is None}
    count = len(probes) + len(held)
    # Through a proxy it is the proxy's connection that is open there, and the proxy ended ours.
    if len(injected) >= _FEW and not window.proxy_sign:
        open_there = sum(_fate(case, each) is Fate.OPEN for each in injected)
        yield Finding(
            RST_INJECTED,
            Culprit.MIDDLEBOX,
            f"{count} connections ended early in 15 s, and the server did not end {len(injected)} "
            f"of them: {open_there} are still open there, {len(injected) - open_there} were ended "
            "from outside",
            confidence=Confidence.PROVEN,
            figures={"connections": count, "open_at_server": open_there},
            explains=_numbers(injected) | (set() if closed else unasked),
            began_ns=_first_ns(injected),
        )
    if len(closed) >= _FEW:
        yield Finding(
            CLOSED,
            Culprit.SERVER_APP,
            f"{count} connections ended early in 15 s, and the server says that it ended "
            f"{len(closed)} of them ({', '.join(sorted(words))})",
            confidence=Confidence.PROVEN,
            figures={"connections": count},
            explains=_numbers(closed) | (set() if injected else unasked),
            began_ns=_first_ns(closed),
        )


def _is_others_doing(seen: Seen) -> bool:
    return seen.ending in _BY_OTHERS and seen.reason != "econnaborted"


def _fate(case: Case, each: Probed | HeldEnded) -> Fate | None:
    told = case.window.seen(each)
    return told[1].fate if told is not None else None


def _numbers(of: list[Probed | HeldEnded]) -> set[int]:
    return {each.number for each in of if isinstance(each, Probed)}


def _first_ns(of: list[Probed | HeldEnded]) -> int:
    return min(each.ended_ns if isinstance(each, Probed) else each.at_ns for each in of)


# --- limits of the server's ----------------------------------------------------------------


def _descriptors(case: Case) -> Iterator[Finding]:
    testimony = _newest(case)
    errors = testimony.host.accept_errors if testimony is not None else None
    if testimony is None or not errors:
        return
    unaccepted = [
        probe
        for probe in case.ended(
            Reason.GREETING_TIMEOUT, Reason.RESET, Reason.CONNECT_TIMEOUT, since_ns=_RECENT_NS
        )
        if not probe.instance
    ]
    yield Finding(
        DESCRIPTORS,
        Culprit.SERVER_HOST,
        f"the server's accept() failed {counted(errors, 'time')} for lack of descriptors or "
        f"memory, and {counted(len(unaccepted), 'probe')} got no greeting",
        confidence=Confidence.PROVEN,
        figures={"accept_errors": errors, "probes": len(unaccepted)},
        explains={probe.number for probe in unaccepted},
        began_ns=min((probe.began_ns for probe in unaccepted), default=None),
    )


def _newest(case: Case) -> Testimony | None:
    newest = case.window.testimonies[-1] if case.window.testimonies else None
    if newest is None or newest.answered_ns < case.window.now_ns - _RECENT_NS:
        return None
    return newest
