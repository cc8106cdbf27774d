"""Faults of some local ports only. No I/O."""

from collections.abc import Iterator

from twocans_client.evidence.lots import Lot, fates, lot_of
from twocans_client.evidence.testimony import Testimony

from .case import Case
from .verdict import Confidence, Culprit, Direction, Finding, Kind
from .words import counted

__all__ = ["KINDS", "judge"]

_RECENT_NS = 20_000_000_000
_CHANCE = 1e-5
# Where one SYN-ACK in twenty is lost by chance, three are half open at once one time in fifty.
_FEW, _MOST = 3, 0.7
_FAR_FEWER = 4
# A SYN-ACK without an answer is sent again after a second (TCP_TIMEOUT_INIT).
_ANSWERED_NS = 1_500_000_000
_BEFORE_NS = 5_000_000_000
_LATE_NS = 5_000_000_000

PATH_SUBSET_LOSS = Kind(
    "path_subset_loss",
    "connections from some local ports never get through, and those from others always do",
    (Culprit.PATH_FORWARD, Culprit.PATH_REVERSE, Culprit.PATH),
    needs="local ports of all classes, some of them tried again. For the direction: the server's "
    "half-open connections, or the SYN-ACKs that it sent again",
    apart="loss: it hits any port, so a second SYN gets through; stale_endpoint: in one class of "
    "ports some fail and some are good; new_connection_limit: it depends on how many connections "
    "there are",
    threshold="failures that fill one class of ports, or ports that fail whenever they are tried "
    "again: at most 1 in 100,000 by chance. Provisional until the server has told the direction",
    look="the equal-cost routes, link bundles and overlay nodes between the two ends; which of "
    "them carries the ports that fail",
    directions=(Direction.NONE, Direction.FORWARD, Direction.REVERSE),
)
KINDS = (PATH_SUBSET_LOSS,)


def judge(case: Case) -> Iterator[Finding]:
    """Yield what befalls some ports only."""
    window = case.window
    if not window.waiting and not any(probe.is_unanswered for probe in case.odd(_RECENT_NS)):
        return
    lot = lot_of(fates(window, window.now_ns - _RECENT_NS))
    if lot is None or lot.chance > _CHANCE:
        return
    began_ns = lot.failed[0].began_ns
    direction, why = _direction(case, lot)
    ports = sorted({fate.port for fate in lot.failed})
    yield Finding(
        PATH_SUBSET_LOSS,
        Culprit.path(direction),
        f"all {len(lot.failed)} connections {_of_ports(lot, ports)} failed, and none of the "
        f"{len(lot.good)} others in that time; {why}",
        direction,
        Confidence.STATISTICAL if direction else Confidence.PROVISIONAL,
        {
            "failed": len(lot.failed),
            "good": len(lot.good),
            "share": 1 / lot.of if lot.of else len(lot.failed) / (len(lot.failed) + len(lot.good)),
            "chance": lot.chance,
        },
        {fate.number for fate in lot.failed} - {0} | _came_late(case, lot),
        began_ns,
    )


def _came_late(case: Case, lot: Lot) -> set[int]:
    """Return the probes that failed like the others until the fault was over: then they came."""
    if lot.of is None:
        return set()
    first_ns, last_ns = lot.failed[0].began_ns, lot.failed[-1].began_ns
    return {
        probe.number
        for probe in case.odd(_RECENT_NS)
        if probe.syns_resent
        and (probe.local_port or 0) % lot.of == lot.remainder
        and first_ns <= probe.began_ns <= last_ns + _LATE_NS
    }


def _of_ports(lot: Lot, ports: list[int]) -> str:
    if lot.of is not None:
        return f"from local ports that are {lot.remainder} modulo {lot.of}"
    return f"from {len(ports)} local ports, such as {ports[0]}, some of them tried again,"


def _direction(case: Case, lot: Lot) -> tuple[Direction, str]:
    began_ns = lot.failed[0].began_ns
    told = next(
        (
            each
            for each in reversed(case.window.testimonies)
            if each.asked_ns > began_ns + _ANSWERED_NS and _is_of_this(each, began_ns)
        ),
        None,
    )
    if told is None:
        return Direction.NONE, "the server has not said what it saw"
    # Of those that failed before it was asked; one may be of a SYN-ACK that was lost by chance.
    failed = sum(fate.began_ns < told.asked_ns - _ANSWERED_NS for fate in lot.failed)
    count, what = _of_no_use(case, told, began_ns)
    if count is None:
        return Direction.NONE, "the server's kernel does not count what shows the direction"
    if count >= max(_FEW, failed * _MOST):
        return Direction.REVERSE, f"the server {what}"
    if count <= failed // _FAR_FEWER:
        return Direction.FORWARD, f"the server {what}"
    return Direction.NONE, f"the server {what}, which does not show the direction"


def _of_no_use(case: Case, told: Testimony, began_ns: int) -> tuple[int | None, str]:
    """Return how many of our connections a server began that were never finished, in words too."""
    if told.host.half_open is not None:
        return told.host.half_open, f"has {counted(told.host.half_open, 'half-open connection')}"
    again = told.host.tcp.syn_retrans
    if again is None:
        return None, ""
    # Those of connections that came to be say nothing about these.
    since_ns = told.host.since_ns or began_ns
    again -= sum(
        probe.synacks_resent or 0
        for probe in case.window.probes
        if since_ns <= probe.began_ns <= told.asked_ns
    )
    return again, f"sent {counted(max(0, again), 'SYN-ACK')} again"


def _is_of_this(told: Testimony, began_ns: int) -> bool:
    """Whether what its host counted was counted since about then."""
    since_ns = told.host.since_ns
    return since_ns is not None and since_ns >= began_ns - _BEFORE_NS
