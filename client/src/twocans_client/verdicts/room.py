"""What had no room for more connections: an accept queue, a table on the way, a NAT. No I/O.

``witnessed`` asks it, before it says that SYNs were lost.
"""

from twocans_client.evidence.outages import Outage
from twocans_client.evidence.results import Reason
from twocans_client.evidence.rows import Probed
from twocans_client.evidence.tables import Parted, parted
from twocans_client.evidence.testimony import Testimony

from .case import Case
from .handshakes import Handshakes, overflows_of
from .verdict import Confidence, Culprit, Finding, Kind
from .words import counted

__all__ = [
    "BACKLOG",
    "CONNECTION_LIMIT",
    "KINDS",
    "NAT_PORTS",
    "is_no_limit",
    "limit",
    "nat",
    "nat_without_any",
    "overflow",
    "parted_by_count",
]

_RECENT_NS = 15_000_000_000
_SECOND_NS = 1_000_000_000
_FEW = 2
_DENSE_NS = 2 * _SECOND_NS
# How well it parts them: chance gave 0.92 at best in 5,000 trials, with 0.3 to 0.97 of SYNs lost.
# Below the third it is none for certain: chance is, in nine of ten trials.
_PARTED, _STILL_PARTED, _NOT_PARTED = 0.95, 0.88, 0.8
_TELLING_NS = 12 * _SECOND_NS
# A NAT with so few ports that all are in use: it gives the same again and again.
_NAT_SEEN = 8
_NAT_SPAN = 256

BACKLOG = Kind(
    "backlog_overflow",
    "the server's accept queue is full",
    (Culprit.SERVER_APP,),
    needs="the server host's ListenOverflows while our SYNs got no answer",
    apart="syn_loss: the queue was not full; app_hung: the program accepts nothing any more",
    threshold="two connections that lost a SYN while the server's kernel counted overflows; or two "
    "overflows that the server reports, and two connections without an answer",
    look="why the server accepts slowly; its backlog and `net.core.somaxconn`",
)
CONNECTION_LIMIT = Kind(
    "new_connection_limit",
    "something on the path limits the number of connections",
    (Culprit.MIDDLEBOX,),
    needs="SYNs that are lost whenever a certain number of our own connections are open or ended "
    "recently",
    apart="syn_loss: it does not depend on how many there are; nat_port_exhaustion: the server "
    "sees the same few ports",
    threshold="at least 8 SYNs got through and 30 did not, and one number of connections separates "
    "95 % of them; chance separated 92 % at most in 5,000 trials",
    look="the connection tables of firewalls on the path: their size and time-outs",
)
NAT_PORTS = Kind(
    "nat_port_exhaustion",
    "the NAT on the path has no port left",
    (Culprit.MIDDLEBOX,),
    needs="SYNs are lost, and the server sees few ports of ours, again and again, while we use "
    "many. Or no SYN gets past a NAT, while the held connection does",
    apart="new_connection_limit: the server sees a wide range of ports; syn_loss: there is no NAT",
    threshold="the server saw eight connections from ports within a range of 256, with one used "
    "twice or none left out: from a wide range, chance gives that once in 10^15. Or an outage of "
    "new connections (ten SYNs, as in blackout), none of which reached the server",
    look="the NAT's ports for this destination, and what uses them",
)
KINDS = (BACKLOG, CONNECTION_LIMIT, NAT_PORTS)


def overflow(case: Case, its: Handshakes, testimony: Testimony | None) -> Finding | None:
    """The server's accept queue dropped them."""
    since_ns = case.window.now_ns - _RECENT_NS
    ours = [row for row in its.overflowed if row.ended_ns >= since_ns]
    told = (testimony.host.tcp.listen_overflows or 0) if testimony is not None else 0
    waiting = [each for each in case.window.waiting if each.connected_ns is None]
    unanswered = len(its.whole) + len(its.lost) + len(waiting)
    if len(ours) < _FEW and (told < _FEW or unanswered < _FEW):
        return None
    count = max(told, max((overflows_of(row) for row in ours), default=0))
    late = [row for row in case.odd(_RECENT_NS) if _is_of_the_queue(row)]
    rows = {row.number: row for row in (*ours, *its.whole, *its.lost, *late)}
    return Finding(
        BACKLOG,
        Culprit.SERVER_APP,
        f"the server's accept queue overflowed {counted(count, 'time')}; meanwhile "
        f"{counted(len(ours), 'connection')} lost a SYN and {len(its.whole)} never got through",
        confidence=Confidence.PROVEN,
        figures={"overflows": count, "probes": len(rows)},
        explains=set(rows),
        began_ns=min((row.began_ns for row in rows.values()), default=None),
    )


def _is_of_the_queue(row: Probed) -> bool:
    """Whether it waited to be accepted, for long."""
    return row.reason is Reason.GREETING_TIMEOUT or (row.accept_ns or 0) >= _SECOND_NS // 10


def nat(its: Handshakes) -> Finding | None:
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
        f"the server saw {len(seen)} of our connections come from {counted(len(theirs), 'port')}, "
        f"{min(theirs)} to {max(theirs)}, and {len(bad)} connections lost a SYN",
        confidence=Confidence.STATISTICAL if is_reused else Confidence.PROVISIONAL,
        figures={"ports": len(theirs), "probes": len(bad)},
        explains={row.number for row in bad},
        began_ns=since_ns,
    )


def nat_without_any(
    case: Case, its: Handshakes, outage: Outage | None, testimony: Testimony | None
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
        f"none of {outage.sent} SYNs got past the NAT, by the server's account, while the held "
        "connection went on",
        figures={"ports": 0, "probes": len(its.whole)},
        explains=outage.numbers & {probe.number for probe in case.odd()},
        began_ns=outage.began_ns,
    )


def limit(case: Case, its: Handshakes, found: Parted | None) -> Finding | None:
    """SYNs are lost whenever so many connections of ours are there, and only then.

    Args:
        case: The evidence.
        its: Of it.
        found: As by ``parted_by_count``.
    """
    bad = [*its.lost, *its.whole]
    # Once it stands, less is enough for it to go on.
    enough = _STILL_PARTED if CONNECTION_LIMIT.name in case.standing else _PARTED
    if found is None or found.score < enough:
        return None
    return Finding(
        CONNECTION_LIMIT,
        Culprit.MIDDLEBOX,
        f"{found.lost} SYNs were lost and {found.came} got through: with {found.most} or more of "
        f"our connections open or ended within {found.linger_s:g} s SYNs were lost, with fewer "
        f"they got through, except for {1 - found.score:.1%}",
        confidence=Confidence.STATISTICAL,
        figures={"connections": found.most, "linger_s": found.linger_s},
        explains={row.number for row in bad},
        began_ns=min(row.began_ns for row in bad),
    )


def is_no_limit(found: Parted | None, *, had_outage: bool) -> bool:
    """Whether what is lost does not depend on how many connections there are.

    Args:
        found: As by ``parted_by_count``.
        had_outage: Nothing got through for a while, as where a table is full: then it takes longer
            to exclude that.
    """
    if found is None:
        return not had_outage
    return found.score < _NOT_PARTED and (not had_outage or found.lasted_ns >= _TELLING_NS)


def parted_by_count(case: Case, its: Handshakes) -> Parted | None:
    """Return how well the number of connections parts lost SYNs from others; None: too few yet."""
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
