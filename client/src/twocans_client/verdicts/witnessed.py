"""Handshakes: what lost them, or had no room for more, by both ends' accounts. No I/O."""

import math
from collections.abc import Iterator

from twocans_client.evidence.outages import Outage, outage_of
from twocans_client.evidence.sequential import Rise
from twocans_client.evidence.testimony import Testimony

from . import room
from .case import Case
from .handshakes import Handshakes, begun_ns_of, handshakes_of, numbers_of, told_since
from .verdict import Confidence, Culprit, Direction, Finding, Kind
from .words import counted

__all__ = ["KINDS", "judge"]

_RECENT_NS = 15_000_000_000
_SECOND_NS = 1_000_000_000
_FEW = 2
# Handshakes: what is good, and what is not. A path that loses one packet in 1,000 is no good one,
# but then it is not about SYNs.
_GOOD, _BAD = 1e-3, 2e-2
# That SYNs are lost more often than other segments: by chance once in 1,000 faults of both.
_CHANCE = 1e-3
# A box that remembers connections forgets them after so long, and then others get through.
_LONGEST_LINGER_NS = 15 * _SECOND_NS
_ENOUGH_AFTER = 10
_SILENT = frozenset(
    {"refused_by_server", "rejected_midpath", "neighbour_unreachable", "denied_locally", "no_route"}
)

SYN_LOSS = Kind(
    "syn_loss",
    "SYNs are lost, but other segments are not",
    (Culprit.PATH_FORWARD,),
    directions=(Direction.FORWARD,),
    needs="SYNs that we sent again, no SYN-ACK that the server sent again, and both ends' counts "
    "of data. If no SYN gets through: the held connection, and what the server says over it",
    apart="synack_loss: the server sent SYN-ACKs again; backlog_overflow: its accept queue was "
    "full; loss: other segments are lost too; blackout: the held connection is silent too",
    threshold="Page's test for more than 1 in 1,000 handshakes, alarm at 9.16 (a false one in "
    "about 10^7 handshakes); and so little data is lost that chance would spare it once in 1,000 "
    "times. Or ten SYNs without an answer (as in blackout) while the held connection goes on",
    look="what treats SYNs differently on the way to the server: SYN filters, firewall rules for "
    "new connections",
    rivals=frozenset(
        {"new_connection_limit", "nat_port_exhaustion", "backlog_overflow", "stale_endpoint"}
    ),
)
SYNACK_LOSS = Kind(
    "synack_loss",
    "SYN-ACKs are lost, but other segments are not",
    (Culprit.PATH_REVERSE,),
    directions=(Direction.REVERSE,),
    needs="SYNs that we sent again, and SYN-ACKs that the server sent again or half-open "
    "connections that it has",
    apart="syn_loss: the server sent no SYN-ACK again; loss: other segments are lost too",
    threshold="as for syn_loss",
    look="the way back for new connections: asymmetric routes, reverse-path filters, firewalls",
)
KINDS = (SYN_LOSS, SYNACK_LOSS, *room.KINDS)


def judge(case: Case) -> Iterator[Finding]:
    """Yield what the two accounts say."""
    if (case.found | case.standing) & _SILENT:
        return  # whose SYNs nobody answers for another reason
    outage = before = outage_of(case.window)
    is_alive = outage is None or _is_alive_in(case, outage)
    its = handshakes_of(case)
    if outage is not None and outage.is_over_since(case.window.now_ns - _RECENT_NS):
        outage = None
    if not (its.lost or its.synacks or its.overflowed or its.whole or outage):
        return
    testimony = told_since(case, begun_ns_of(case, its, outage))
    finding = room.overflow(case, its, testimony) or room.nat(its)
    parted = None
    if finding is None:
        parted = room.parted_by_count(case, its)
        finding = room.limit(case, its, parted)
    if finding is None and is_alive:
        finding = room.nat_without_any(case, its, outage, testimony)
    if finding is not None:
        yield finding
        return
    if case.standing & {room.CONNECTION_LIMIT.name, room.NAT_PORTS.name}:
        return  # what is left of it
    is_certain = room.is_no_limit(parted, had_outage=outage is not None)
    if before is not None and not is_alive:
        its = its.without(before.numbers)  # what nothing got through in is for others
    for direction in (Direction.FORWARD, Direction.REVERSE):
        finding = _by_chance(case, its, direction, is_certain=is_certain)
        if finding is not None:
            yield finding
            return
    if outage is not None and is_alive:
        finding = _none_came(case, its, outage, testimony)
        if finding is not None:
            yield finding


def _is_alive_in(case: Case, outage: Outage) -> bool:
    """Whether the held connection went on while no new one had an answer."""
    # At its end it may be the first that gets through again, and nobody knows yet that it ends.
    margin_ns = _SECOND_NS // 2
    ended_ns = outage.ended_ns or case.window.now_ns
    return any(
        outage.began_ns + margin_ns < look.heard_ns < ended_ns - margin_ns
        and look.opened_ns < outage.began_ns
        for look in case.window.held_looks
    )


def _by_chance(
    case: Case, its: Handshakes, direction: Direction, *, is_certain: bool
) -> Finding | None:
    """SYNs of one direction are lost one by one."""
    is_forward = direction is Direction.FORWARD
    lost = its.lost if is_forward else its.synacks
    events, whole_numbers = numbers_of(lost), numbers_of(its.whole)
    test = Rise(_GOOD, _BAD)
    for row in its.rows:
        if row.number not in whole_numbers:
            test.feed(row.number in events, 1)
    if not test.is_alarmed or lost[-1].ended_ns < case.window.now_ns - _RECENT_NS:
        return None
    accounts = [row.segments for row in its.rows if row.segments is not None]
    data = [each.forward if is_forward else each.reverse for each in accounts]
    sent, gone = (
        sum(each.sent for each in data),
        sum(each.lost + (each.damaged or 0) for each in data),
    )
    if _chance(len(lost), len(its.rows) - len(its.whole), gone, sent) > _CHANCE:
        return None  # other segments are lost as well
    kind, what = (SYN_LOSS, "SYNs") if is_forward else (SYNACK_LOSS, "SYN-ACKs")
    syns = sum((row.syns_resent if is_forward else row.synacks_resent) or 0 for row in lost)
    tries = len(its.rows) - len(its.whole) + syns
    first, last = lost[0], lost[-1]
    # Those of which nothing got through are the same, unless it was an outage of all.
    whole = [row for row in its.whole if first.began_ns <= row.ended_ns]
    return Finding(
        kind,
        Culprit.path(direction),
        f"{syns} of {tries} {what} were lost by connections that got through, and {gone} of {sent} "
        f"segments with data; {counted(len(whole), 'connection')} never got through",
        direction,
        Confidence.STATISTICAL if is_certain else Confidence.PROVISIONAL,
        {"lost": syns, "sent": tries, "share": syns / tries},
        {row.number for row in lost + whole if row.ended_ns <= last.ended_ns + 5 * _SECOND_NS},
        first.began_ns,
    )


def _chance(syns_lost: int, syns: int, lost: int, sent: int) -> float:
    """Return how likely so many of all losses are SYNs, if SYNs are lost like the others.

    Each loss is of a SYN with the share that SYNs have of all segments: binomial.
    """
    losses, share = syns_lost + lost, syns / max(1, syns + sent)
    return sum(
        math.comb(losses, count) * share**count * (1 - share) ** (losses - count)
        for count in range(syns_lost, losses + 1)
    )


def _none_came(
    case: Case, its: Handshakes, outage: Outage, testimony: Testimony | None
) -> Finding | None:
    """No SYN is answered, while the held connection goes on."""
    numbers = {probe.number for probe in case.odd()} & outage.numbers
    count = f"none of {outage.sent} SYNs was answered while the held connection went on"
    synacks = sum(row.synacks_resent or 0 for row in its.synacks)
    half_open = 0
    if testimony is not None:
        synacks = max(synacks, testimony.host.tcp.syn_retrans or 0)
        half_open = testimony.host.half_open or 0
    if synacks >= _FEW or half_open >= _FEW:
        kind, direction, confidence = SYNACK_LOSS, Direction.REVERSE, Confidence.PROVEN
        resent = f"the server sent {counted(synacks, 'SYN-ACK')} again"
        why = f"{resent} and had {counted(half_open, 'half-open connection')}"
    else:
        is_told = testimony is not None and testimony.host.tcp.syn_retrans is not None
        kind, direction, confidence = SYN_LOSS, Direction.FORWARD, Confidence.PROVISIONAL
        # A box with a full table does the same at first, until others are forgotten there.
        lasted_ns = (outage.ended_ns or case.window.now_ns) - outage.began_ns
        if is_told and (_is_well_again(its, outage) or lasted_ns > _LONGEST_LINGER_NS):
            confidence = Confidence.PROVEN
        resent = f"the server sent {counted(synacks, 'SYN-ACK')} again"
        why = resent if is_told else "the server has not said what it saw"
    return Finding(
        kind,
        Culprit.path(direction),
        f"{count}; {why}",
        direction,
        confidence,
        {"lost": outage.sent, "sent": outage.sent, "share": 1.0},
        numbers,
        outage.began_ns,
    )


def _is_well_again(its: Handshakes, outage: Outage) -> bool:
    """Whether all SYNs get through since an outage is over."""
    if outage.ended_ns is None:
        return False
    after = [row for row in its.rows if row.began_ns > outage.ended_ns]
    return len(after) >= _ENOUGH_AFTER and not numbers_of(after) & numbers_of(its.lost)
