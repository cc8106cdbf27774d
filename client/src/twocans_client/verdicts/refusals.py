"""Refusals: by a reset, an ICMP message, our own host, or a server that is full. No I/O.

Routers limit how much ICMP they send (RFC 1812, 4.3.2.8), so most of what somebody rejects looks
like silence: those time-outs are the same fault.
"""

import enum
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from twocans_client.evidence.outages import outage_of
from twocans_client.evidence.results import Reason
from twocans_client.evidence.rows import Probed

from .case import Case
from .verdict import Confidence, Culprit, Finding, Kind

__all__ = ["KINDS", "judge"]

_RECENT_NS = 15_000_000_000
_FEW = 2
# What is not answered at once waits for a neighbour: a kernel asks it three times, a second apart.
_AT_ONCE_NS = 500_000_000
_SECOND_NS = 1_000_000_000
# Our own host's answer is here within 0.1 ms, and our program sees it a little later.
_OWN_NS = 1_000_000
# A host that says "host unreachable" of another has asked for it, or refuses it by rule or route.
_HOST_UNREACHABLE = {("4", 3, 1), ("6", 1, 3)}

REFUSED = Kind(
    "refused_by_server",
    "the server's host refuses connections",
    (Culprit.SERVER_APP, Culprit.SERVER_HOST),
    needs="a reset, or an ICMP message from the server's own address",
    apart="rejected_midpath: the server is alive, or the answer came from another address",
    threshold="two in 15 s: chance sends none. After resets alone it is provisional, as anything "
    "on the path can send one",
    look="whether the server runs and listens: `ss -tln` there; its host's firewall",
    rivals=frozenset({"rejected_midpath", "peer_lost"}),
)
REJECTED = Kind(
    "rejected_midpath",
    "something on the path rejects connections",
    (Culprit.MIDDLEBOX,),
    needs="an ICMP message from another address than the server's; or a reset while the server is "
    "alive, or sooner than it can answer",
    apart="refused_by_server: nothing shows that the server is alive",
    threshold="two in 15 s: chance sends none",
    look="the firewall or router at that address; network policies on the path",
)
NEIGHBOUR = Kind(
    "neighbour_unreachable",
    "the last router finds no host at the address, or our host finds no neighbour",
    (Culprit.PATH,),
    needs="no neighbour answered our own kernel; or a router's ICMP message says that the host is "
    "unreachable",
    apart="blackout: nothing answers at all; rejected_midpath: the message comes at once",
    threshold="two in 15 s, one of them after half a second or more: a kernel asks for a neighbour "
    "for three seconds",
    look="whether the host is up; `ip neigh` here and on its router",
)
DENIED = Kind(
    "denied_locally",
    "our own host blocks what we send",
    (Culprit.CLIENT_HOST,),
    needs="EPERM, an ICMP message from our own address, or segments that never left: by their "
    "connection's counts, or by our host's if the answer came sooner than any from elsewhere",
    apart="rejected_midpath: another address answers, and our segments leave; blackout: our "
    "segments leave",
    threshold="two in 15 s: our kernel's own word",
    look="`nft list ruleset`, `iptables -S OUTPUT`, `tc -s qdisc` on this host",
)
NO_ROUTE = Kind(
    "no_route",
    "our own host has no route to the address",
    (Culprit.CLIENT_HOST,),
    needs="connect() failed at once, before anything was sent",
    apart="neighbour_unreachable: there is a route, but no neighbour answers",
    threshold="two in 15 s: our kernel's own word",
    look="`ip route get ADDRESS` on this host",
)
FULL = Kind(
    "server_full",
    "the server turns connections away because it is at its limit",
    (Culprit.SERVER_APP,),
    needs="the server's BUSY",
    apart="backlog_overflow: the server does not answer at all",
    threshold="two in 15 s: the server's own word",
    look="the server's limits on connections, in total and per source",
)
KINDS = (REFUSED, REJECTED, NEIGHBOUR, DENIED, NO_ROUTE, FULL)


class _Word(enum.Enum):
    """How a probe was told no."""

    RESET = "a reset"
    ICMP = "an ICMP message"
    OWN_RULE = "our own rule"
    NO_ROUTE = "our own routes"
    NEIGHBOUR = "a neighbour that is not there"
    BUSY = "BUSY"


class _No(NamedTuple):
    """Whose word it was, and which: what is the same in both is one fault."""

    word: _Word
    sender: str = ""
    says: str = ""


def judge(case: Case) -> Iterator[Finding]:
    """Yield who said no.

    Where our own host denies some, what else is reset is its word as well: it does not count each.
    """
    told: dict[_No, list[Probed]] = defaultdict(list)
    for probe in case.odd(_RECENT_NS):
        no = _no_of(probe, case.window.quickest_ns)
        if no is not None:
            told[no].append(probe)
    has_own_rule = len(told.get(_No(_Word.OWN_RULE), ())) >= _FEW
    for no, probes in told.items():
        if no.word is _Word.RESET and has_own_rule:
            case.explain(DENIED.name, {probe.number for probe in probes})
        elif len(probes) >= _FEW:
            finding = _finding(case, no, probes)
            if finding is not None:
                yield finding


def _no_of(probe: Probed, quickest_ns: int | None) -> _No | None:
    result = probe.result
    if result is None:
        return None
    icmp, standing = result.icmp, result.standing
    if probe.reason is Reason.BUSY:
        return _No(_Word.BUSY, says=probe.detail)
    if probe.reason is Reason.DENIED:
        return _No(_Word.OWN_RULE)
    if probe.reason is Reason.NO_ADDRESS:
        return _No(_Word.NO_ROUTE)
    if standing is not None and standing.is_dropped_here and probe.is_failure:
        return _No(_Word.OWN_RULE)
    if probe.reason not in (Reason.REFUSED, Reason.UNREACHABLE):
        return None
    if result.own_unsent and result.local is not None and _is_soon(probe, quickest_ns):
        return _No(_Word.OWN_RULE)
    if icmp is not None:
        if not result.is_own_word:
            return _No(_Word.ICMP, icmp.sender, str(icmp))
        is_asked_for = (icmp.family, icmp.type, icmp.code) in _HOST_UNREACHABLE
        return _No(_Word.NEIGHBOUR if is_asked_for else _Word.OWN_RULE)
    if probe.reason is Reason.REFUSED:
        return _No(_Word.RESET)
    if result.local is None:
        return _No(_Word.NO_ROUTE)
    if standing is not None and standing.is_waiting_here:
        return _No(_Word.NEIGHBOUR)
    return None


def _finding(case: Case, no: _No, probes: list[Probed]) -> Finding | None:
    count = f"{len(probes)} probes"
    match no.word:
        case _Word.RESET:
            return _of_resets(case, probes)
        case _Word.ICMP:
            return _of_icmp(case, no, probes)
        case _Word.BUSY:
            proof = f"the server turned {count} away in 15 s: {no.says or 'busy'}"
            return _said(FULL, Culprit.SERVER_APP, proof, probes)
        case _Word.NO_ROUTE:
            why = probes[-1].detail or probes[-1].reason
            proof = f"our own host had no route for {count} in 15 s ({why})"
            return _said(NO_ROUTE, Culprit.CLIENT_HOST, proof, probes)
        case _Word.OWN_RULE:
            proof = f"our own host dropped or denied what {count} sent in 15 s"
            return _said(DENIED, Culprit.CLIENT_HOST, proof, probes)
        case _Word.NEIGHBOUR:
            # A rule of ours can say the same as the kernel does of a neighbour, but says it soon.
            if not _was_asked_for(probes):
                proof = f"our own host rejected {count} at once in 15 s"
                return _said(DENIED, Culprit.CLIENT_HOST, proof, probes)
            proof = f"no neighbour answered our own host, so no SYN of {count} left it in 15 s"
            return _said(NEIGHBOUR, Culprit.PATH, proof, probes)


def _of_icmp(case: Case, no: _No, probes: list[Probed]) -> Finding:
    silent = _silent_beside(case, probes)
    beside = f"; {len(silent)} others lost a SYN" if silent else ""
    proof = f"{len(probes)} probes were rejected in 15 s: {no.says}{beside}"
    icmp = probes[-1].result.icmp if probes[-1].result is not None else None
    is_asked_for = icmp is not None and (icmp.family, icmp.type, icmp.code) in _HOST_UNREACHABLE
    if no.sender == probes[-1].address:
        kind, culprit = REFUSED, Culprit.SERVER_HOST
    elif is_asked_for and _was_asked_for(probes):
        kind, culprit = NEIGHBOUR, Culprit.PATH
    else:
        kind, culprit = REJECTED, Culprit.MIDDLEBOX
    return _said(kind, culprit, proof, probes + silent)


def _of_resets(case: Case, probes: list[Probed]) -> Finding | None:
    """Tell a server on which nothing listens from somebody who says so in its name."""
    window = case.window
    first_ns, last_ns = probes[0].began_ns, probes[-1].ended_ns
    count = f"{len(probes)} probes were refused by a reset in 15 s"
    if any(first_ns < probe.began_ns and probe.ended_ns < last_ns for probe in _good(case)):
        return None  # some are refused and some are not: ``endpoints``
    outage = outage_of(window)
    refused_ns = min(probe.ended_ns for probe in probes)
    if outage is not None and abs((outage.ended_ns or 0) - refused_ns) < _SECOND_NS:
        return None  # a host that came back, without its server yet: ``silences``
    rejected = Confidence.PROVEN, REJECTED, Culprit.MIDDLEBOX
    quickest_ns = min(_answered_ns(probe) for probe in probes)
    floor_ns = window.quickest_ns
    alive = _alive_meanwhile(case, first_ns, last_ns)
    is_too_soon = floor_ns is not None and 2 * quickest_ns < floor_ns
    if is_too_soon and quickest_ns < _OWN_NS and not all(map(_left, probes)):
        return None  # our own host may have said it, and does not tell
    if floor_ns is not None and is_too_soon:
        why = (
            f"the quickest reset came after {quickest_ns / 1e9:.6f} s, and the server never "
            f"answered in less than {floor_ns / 1e9:.6f} s"
        )
        confidence, kind, culprit = rejected
    elif alive:
        why, (confidence, kind, culprit) = alive, rejected
    else:
        kind, culprit = REFUSED, Culprit.SERVER_APP
        why, is_proof = _died(case, first_ns, last_ns)
        confidence = Confidence.PROVEN if is_proof else Confidence.PROVISIONAL
    return _said(kind, culprit, f"{count}; {why}", probes, confidence)


def _alive_meanwhile(case: Case, first_ns: int, last_ns: int) -> str:
    """Say what shows that the server was there all the time; ``""`` if nothing does."""
    window = case.window
    if window.heard_since(first_ns):
        return "the held connection went on meanwhile"
    good = window.last_good
    if good is not None and good.began_ns > last_ns and window.met[good.instance] < first_ns:
        return "the same server process answered before and after"
    return ""


def _died(case: Case, first_ns: int, last_ns: int) -> tuple[str, bool]:
    """Say what shows that nothing listened, and whether that is proof."""
    good = case.window.last_good
    if good is not None and good.began_ns > last_ns:
        return "another process answers now", True
    for ended in case.window.held_endings:
        is_near = abs(ended.at_ns - first_ns) < 2 * _SECOND_NS
        # A process that ends closes its connections, and boxes do not forge the end of a stream.
        if is_near and ended.reason in (Reason.CLOSED_EARLY, Reason.DRAINING):
            return "the held connection was closed at the same time", True
    return "nothing shows that the server is alive", False


def _is_soon(probe: Probed, quickest_ns: int | None) -> bool:
    """Whether our own host may have answered: nobody afar can, before the least round trip.

    That of a path shorter than a millisecond is less than our program takes to see an answer.
    """
    return _answered_ns(probe) < max(quickest_ns or 0, _OWN_NS)


def _answered_ns(probe: Probed) -> int:
    return probe.ended_ns - probe.began_ns


def _left(probe: Probed) -> bool:
    """Whether our host says that whatever it made meanwhile left it."""
    return probe.result is not None and probe.result.own_unsent == 0


def _was_asked_for(probes: list[Probed]) -> bool:
    return max(_answered_ns(probe) for probe in probes) >= _AT_ONCE_NS


def _good(case: Case) -> Iterator[Probed]:
    return (probe for probe in case.window.probes if probe.reason is Reason.OK)


def _silent_beside(case: Case, probes: list[Probed]) -> list[Probed]:
    """Return those among them whose SYNs had no answer, or none at first: nobody told them why."""
    first_ns, last_ns = probes[0].began_ns - _SECOND_NS, probes[-1].ended_ns + _SECOND_NS
    return [
        probe
        for probe in case.odd()
        if (probe.is_unanswered or probe.syns_resent)
        and probe.began_ns <= last_ns
        and probe.ended_ns >= first_ns
    ]


def _said(
    kind: Kind,
    culprit: Culprit,
    proof: str,
    probes: list[Probed],
    confidence: Confidence = Confidence.PROVEN,
) -> Finding:
    return Finding(
        kind,
        culprit,
        proof,
        confidence=confidence,
        figures={"probes": len(probes)},
        explains={probe.number for probe in probes},
        began_ns=min(probe.began_ns for probe in probes),
    )
