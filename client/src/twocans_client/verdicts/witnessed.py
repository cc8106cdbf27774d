"""Handshakes, by what both ends say of them: who lost them, or had no room for more. No I/O."""

import math
from collections.abc import Iterator, Set
from typing import NamedTuple

from twocans_client.evidence.outages import Outage, outage_of
from twocans_client.evidence.results import Reason
from twocans_client.evidence.sequential import Rise
from twocans_client.evidence.tables import Parted, parted
from twocans_client.evidence.testimony import Testimony
from twocans_client.evidence.window import Probed

from .case import Case
from .verdict import Confidence, Culprit, Direction, Finding, Kind

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
_DENSE_NS = 2 * _SECOND_NS
# How well it parts them: chance gave 0.92 at best in 5,000 trials, with 0.3 to 0.97 of SYNs lost.
_PARTED, _NOT_PARTED = 0.95, 0.88
_TELLING_NS = 5 * _SECOND_NS
# A NAT with so few ports that all are in use: it gives the same again and again.
_NAT_SEEN = 8
_NAT_SPAN = 256

SYN_LOSS = Kind(
    "syn_loss",
    "SYNs are lost, and not other segments",
    (Culprit.PATH_FORWARD,),
    directions=(Direction.FORWARD,),
    needs="SYNs sent again by us, no SYN-ACK sent again by the server, both ends' counts of data; "
    "where none gets through, the held connection and what the server says over it",
    apart="synack_loss: the server sent SYN-ACKs again; backlog_overflow: its accept queue was "
    "full; loss: other segments are lost as well; blackout: so is the held connection",
    threshold="Page's test for more than 1 in 1,000 handshakes, alarm at 9.16 (a false one in "
    "about 10^7 handshakes); and data so rarely that chance gives it once in 1,000",
    look="what treats SYNs apart on the way there: SYN filters, new connections' firewall rules",
    rivals=frozenset(
        {"new_connection_limit", "nat_port_exhaustion", "backlog_overflow", "stale_endpoint"}
    ),
)
SYNACK_LOSS = Kind(
    "synack_loss",
    "SYN-ACKs are lost, and not other segments",
    (Culprit.PATH_REVERSE,),
    directions=(Direction.REVERSE,),
    needs="SYNs sent again by us and SYN-ACKs sent again by the server",
    apart="syn_loss: the server sent none again; loss: other segments are lost as well",
    threshold="as syn_loss",
    look="the way back of new connections: asymmetric routes, reverse-path filters, firewalls",
)
BACKLOG = Kind(
    "backlog_overflow",
    "the server's accept queue is full",
    (Culprit.SERVER_APP,),
    needs="its host's ListenOverflows while our SYNs had no answer",
    apart="syn_loss: the queue was not full; app_hung: nothing is accepted any more",
    threshold="two connections, or two overflows while none got through: its kernel's own count",
    look="why the server accepts slowly; its backlog and `net.core.somaxconn`",
)
CONNECTION_LIMIT = Kind(
    "new_connection_limit",
    "something on the way limits the number of connections",
    (Culprit.MIDDLEBOX,),
    needs="SYNs that are lost whenever a number of our own connections are open or ended lately",
    apart="syn_loss: it does not depend on how many there are; nat_port_exhaustion: the server "
    "sees the same few ports",
    threshold="of 8 SYNs that got through and 30 that did not, at least, 19 in 20 are parted by a "
    "number of connections; in 5,000 trials chance parted 18 in 20 once, and never more",
    look="the table of connections of the firewalls on the way: its size and time-outs",
)
NAT_PORTS = Kind(
    "nat_port_exhaustion",
    "the NAT on the way has no port left",
    (Culprit.MIDDLEBOX,),
    needs="our ports as the server sees them: few, used again, while ours are many; SYNs are lost",
    apart="new_connection_limit: the server sees ports of all kinds",
    threshold="eight connections with ports that lie within 256, one used twice or none left "
    "out between them: of a wide range chance gives that once in 10^15",
    look="the NAT's ports for this destination, and who uses them",
)
KINDS = (SYN_LOSS, SYNACK_LOSS, BACKLOG, CONNECTION_LIMIT, NAT_PORTS)


class _Handshakes(NamedTuple):
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

    def without(self, numbers: Set[int]) -> "_Handshakes":
        """Return all but these."""
        return _Handshakes(*([row for row in rows if row.number not in numbers] for rows in self))


def judge(case: Case) -> Iterator[Finding]:
    """Yield what the two accounts say."""
    if (case.found | case.standing) & _SILENT:
        return  # whose SYNs nobody answers for another reason
    outage = before = outage_of(case.window)
    is_alive = outage is None or _is_alive_in(case, outage)
    its = _sorted(case)
    if outage is not None and outage.is_over_since(case.window.now_ns - _RECENT_NS):
        outage = None
    if not (its.lost or its.synacks or its.overflowed or its.whole or outage):
        return
    testimony = _about(case, _begun_ns(case, its, outage))
    finding = _overflow(case, its, outage, testimony)
    if finding is None:
        finding = _nat(its) or _limit(case, its)
    if finding is None and is_alive:
        finding = _nat_without_any(case, its, outage, testimony)
    if finding is not None:
        yield finding
        return
    if case.standing & {CONNECTION_LIMIT.name, NAT_PORTS.name}:
        return  # what is left of it
    if before is not None and not is_alive:
        its = its.without(before.numbers)  # what nothing got through in is for others
    for direction in (Direction.FORWARD, Direction.REVERSE):
        finding = _by_chance(case, its, direction, outage)
        if finding is not None:
            yield finding
            return
    if outage is not None and is_alive:
        finding = _none_came(case, its, outage, testimony)
        if finding is not None:
            yield finding


def _sorted(case: Case) -> _Handshakes:
    its = _Handshakes([], [], [], [], [])
    left = {probe.number for probe in case.odd()}
    for row in sorted(case.window.probes, key=lambda each: each.began_ns):
        if row.is_odd and row.number not in left:
            continue
        if row.is_unanswered:
            its.rows.append(row)
            its.whole.append(row)
        elif row.syns_resent is not None and row.synacks_resent is not None:
            its.rows.append(row)
            if row.syns_resent and _overflows(row):
                its.overflowed.append(row)
            elif row.synacks_resent and row.syns_resent:
                its.synacks.append(row)
            elif row.syns_resent:
                its.lost.append(row)
    return its


def _overflows(row: Probed) -> int:
    return row.result.overflows if row.result is not None else 0


def _is_alive_in(case: Case, outage: Outage) -> bool:
    """Whether the held connection went on while no new one had an answer."""
    # At its end it may be the first that gets through again.
    margin = _SECOND_NS // 2 if outage.is_over else 0
    return any(
        outage.began_ns + _SECOND_NS // 2 < look.heard_ns < (outage.ended_ns or look.at_ns) - margin
        and look.opened_ns < outage.began_ns
        for look in case.window.held_looks
    )


def _begun_ns(case: Case, its: _Handshakes, outage: Outage | None) -> int | None:
    """Return when the first of the SYNs was sent that had no answer lately."""
    if outage is not None:
        return outage.began_ns
    since_ns = case.window.now_ns - _RECENT_NS
    lost = [row.began_ns for row in (*its.lost, *its.overflowed, *its.whole)]
    lost += [each.began_ns for each in case.window.waiting if each.connected_ns is None]
    return min((at_ns for at_ns in lost if at_ns >= since_ns), default=None)


def _about(case: Case, begun_ns: int | None) -> Testimony | None:
    """Return what the server said of a time in which SYNs had no answer."""
    for testimony in reversed(case.window.testimonies):
        since_ns = testimony.host.since_ns
        if begun_ns is None or since_ns is None or testimony.asked_ns <= begun_ns:
            continue
        # What it counts is of all its clients, so it must not be of a long time before.
        if begun_ns - 5 * _SECOND_NS <= since_ns <= begun_ns + _SECOND_NS:
            return testimony
    return None


def _overflow(
    case: Case, its: _Handshakes, outage: Outage | None, testimony: Testimony | None
) -> Finding | None:
    since_ns = case.window.now_ns - _RECENT_NS
    ours = [row for row in its.overflowed if row.ended_ns >= since_ns]
    told = (testimony.host.tcp.listen_overflows or 0) if testimony is not None else 0
    waiting = [each for each in case.window.waiting if each.connected_ns is None]
    unanswered = len(its.whole) + len(its.lost) + len(waiting)
    if len(ours) < _FEW and (told < _FEW or unanswered < _FEW):
        return None
    count = max(told, max((_overflows(row) for row in ours), default=0))
    late = [row for row in case.odd(_RECENT_NS) if _is_of_the_queue(row)]
    rows = {row.number: row for row in (*ours, *its.whole, *its.lost, *late)}
    return Finding(
        BACKLOG,
        Culprit.SERVER_APP,
        f"the server's accept queue overflowed {count} times while SYNs of {len(ours)} connections "
        f"that came to be and of {len(its.whole)} that did not had no answer",
        confidence=Confidence.PROVEN,
        figures={"overflows": count, "probes": len(rows)},
        explains=set(rows),
        began_ns=min((row.began_ns for row in rows.values()), default=None),
    )


def _is_of_the_queue(row: Probed) -> bool:
    """Whether it waited to be accepted, for long."""
    return row.reason is Reason.GREETING_TIMEOUT or (row.accept_ns or 0) >= _SECOND_NS // 10


def _by_chance(
    case: Case, its: _Handshakes, direction: Direction, outage: Outage | None
) -> Finding | None:
    """SYNs of one direction are lost one by one."""
    is_forward = direction is Direction.FORWARD
    lost = its.lost if is_forward else its.synacks
    test = Rise(_GOOD, _BAD)
    for row in its.rows:
        if row in its.whole:
            continue
        test.feed(row in lost, 1)
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
    is_certain = outage is None or _is_no_limit(case, its)
    return Finding(
        kind,
        Culprit.path(direction),
        f"{syns} of {tries} {what} of connections that came to be were lost, and {gone} of {sent} "
        f"segments with data; {len(whole)} connections did not come to be",
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
    case: Case, its: _Handshakes, outage: Outage, testimony: Testimony | None
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
        why = f"the server sent {synacks} SYN-ACKs again, and {half_open} handshakes were not over"
    else:
        is_told = testimony is not None and testimony.host.tcp.syn_retrans is not None
        kind, direction, confidence = SYN_LOSS, Direction.FORWARD, Confidence.PROVISIONAL
        # A box with a full table does the same at first, until others are forgotten there.
        lasted_ns = (outage.ended_ns or case.window.now_ns) - outage.began_ns
        if is_told and (_is_well_again(its, outage) or lasted_ns > _LONGEST_LINGER_NS):
            confidence = Confidence.PROVEN
        why = "the server sent no SYN-ACK again" if is_told else "nobody was asked"
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


def _is_well_again(its: _Handshakes, outage: Outage) -> bool:
    """Whether all SYNs get through since an outage is over."""
    if outage.ended_ns is None:
        return False
    after = [row for row in its.rows if row.began_ns > outage.ended_ns]
    return len(after) >= _ENOUGH_AFTER and not any(row in its.lost for row in after)


# --- those that depend on how many connections there are -----------------------------------------


def _nat(its: _Handshakes) -> Finding | None:
    """The server sees the same few ports of ours again and again, and SYNs are lost."""
    bad = [*its.lost, *its.whole]
    if len(bad) < 2 * _FEW:
        return None
    since_ns, until_ns = min(row.began_ns for row in bad), max(row.began_ns for row in bad)
    pairs: list[tuple[int, int]] = [
        (row.local_port, row.seen_as[1])
        for row in its.rows
        if row.seen_as is not None
        and row.local_port is not None
        and row.is_translated
        and since_ns - 5 * _SECOND_NS < row.began_ns < until_ns
    ]
    # Those before the ports became few are of another range, and so are those afterwards.
    seen: list[tuple[int, int]] = []
    run: list[tuple[int, int]] = []
    for pair in pairs:
        ports = [pair[1], *(port for _, port in run)]
        is_near = max(ports) - min(ports) < _NAT_SPAN
        run = [*run, pair] if is_near else [pair]
        seen = max(seen, run, key=len)
    ours, theirs = {port for port, _ in seen}, {port for _, port in seen}
    if len(seen) < _NAT_SEEN or max(ours) - min(ours) < 2 * _NAT_SPAN:
        return None
    is_reused = len(theirs) < len(seen)
    is_full = max(theirs) - min(theirs) + 1 == len(theirs)
    if not (is_reused or is_full):
        return None
    return Finding(
        NAT_PORTS,
        Culprit.MIDDLEBOX,
        f"the server saw {len(seen)} connections of ours from {len(theirs)} ports, "
        f"{min(theirs)} to {max(theirs)}, and SYNs of {len(bad)} had no answer",
        confidence=Confidence.STATISTICAL if is_reused else Confidence.PROVISIONAL,
        figures={"ports": len(theirs), "probes": len(bad)},
        explains={row.number for row in bad},
        began_ns=since_ns,
    )


def _nat_without_any(
    case: Case, its: _Handshakes, outage: Outage | None, testimony: Testimony | None
) -> Finding | None:
    """There is a NAT, and no new connection gets past it, while those that it knows go on."""
    before = [row for row in case.window.probes if row.seen_as is not None]
    if outage is None or testimony is None or testimony.host.tcp.syn_retrans is None:
        return None
    if (
        not (before and before[-1].is_translated)
        or testimony.host.tcp.syn_retrans >= _FEW
        or testimony.host.half_open
    ):
        return None
    return Finding(
        NAT_PORTS,
        Culprit.MIDDLEBOX,
        f"none of {outage.sent} SYNs got past the NAT on the way, by the server's word, while the "
        "held connection went on through it",
        figures={"ports": 0, "probes": len(its.whole)},
        explains=outage.numbers & {probe.number for probe in case.odd()},
        began_ns=outage.began_ns,
    )


def _limit(case: Case, its: _Handshakes) -> Finding | None:
    """SYNs are lost whenever so many connections of ours are there, and only then."""
    bad = [*its.lost, *its.whole]
    found = _parted(case, its)
    if found is None or found.score < _PARTED:
        return None
    return Finding(
        CONNECTION_LIMIT,
        Culprit.MIDDLEBOX,
        f"{found.lost} SYNs were lost and {found.came} got through: lost were those, except for "
        f"{1 - found.score:.1%}, that met {found.most} connections of ours or more that were open "
        f"or had ended within {found.linger_s:g} s",
        confidence=Confidence.STATISTICAL,
        figures={"connections": found.most, "linger_s": found.linger_s},
        explains={row.number for row in bad},
        began_ns=min(row.began_ns for row in bad),
    )


def _is_no_limit(case: Case, its: _Handshakes) -> bool:
    """Whether enough has got through to see that it does not depend on how many there are."""
    found = _parted(case, its)
    return found is not None and found.score < _NOT_PARTED and found.lasted_ns >= _TELLING_NS


def _parted(case: Case, its: _Handshakes) -> Parted | None:
    waiting = [each for each in case.window.waiting if each.connected_ns is None]
    lost = [row.began_ns for row in (*its.lost, *its.whole)] + [each.began_ns for each in waiting]
    lost.sort()
    # One that was lost long before by chance is not where it began.
    dense = (one for one, third in zip(lost, lost[2:], strict=False) if third - one < _DENSE_NS)
    since_ns = next(dense, None)
    if since_ns is None:
        return None
    window = case.window
    return parted(its.rows, waiting, since_ns, window.now_ns, window.quickest_ns or 0)
