"""Silence: of the path, of a host that is gone, of a program that hangs. No I/O."""

from collections.abc import Iterator

from twocans_client.evidence.outages import Outage, outage_of
from twocans_client.evidence.results import Reason
from twocans_client.evidence.rows import Probed
from twocans_client.evidence.testimony import Testimony

from . import hung
from .case import Case
from .verdict import Confidence, Culprit, Direction, Finding, Kind
from .words import counted

__all__ = ["KINDS", "judge"]

_RECENT_NS = 15_000_000_000
_FEW = 2
_SECOND_NS = 1_000_000_000
# A server that is asked for it sends something after 3 s of silence and then once a second: by
# then two such segments, and one to spare, have come or were lost.
_KEEPALIVES_NS = 6_000_000_000
# A held connection is asked within two seconds of the first silence, and sends again meanwhile.
_UNASKED_NS = 5_000_000_000
# TCP_RTO_MIN
_RTO_NS = 200_000_000
# What refuses or loses connections is silent as well, and was named before.
_OTHERS = frozenset(
    {
        "self_inflicted",
        "refused_by_server",
        "rejected_midpath",
        "neighbour_unreachable",
        "denied_locally",
        "no_route",
        "syn_loss",
        "synack_loss",
        "backlog_overflow",
        "new_connection_limit",
        "nat_port_exhaustion",
    }
)

BLACKOUT = Kind(
    "blackout",
    "nothing gets through",
    (Culprit.PATH_FORWARD, Culprit.PATH_REVERSE, Culprit.PATH),
    directions=(Direction.FORWARD, Direction.REVERSE, Direction.NONE),
    needs="SYNs without an answer, and a held connection, if there is one, that is silent. For the "
    "direction: segments that still come from the server; SYN-ACKs that it sent again",
    apart="syn_loss, synack_loss: the held connection goes on; peer_lost: another process answers "
    "afterwards; neighbour_unreachable: our host or a router says so",
    threshold="ten SYNs in a row without an answer, over a second or longer: where one in ten is "
    "lost, chance gives that once in 10^10",
    look="the path in that direction: routes, links, network policies; the firewalls of both hosts",
    rivals=_OTHERS | {"peer_lost", "process_paused"},
)
PEER_LOST = Kind(
    "peer_lost",
    "the server's host or process was gone",
    (Culprit.SERVER_HOST,),
    needs="silence, and then an answer from a process that started in the meantime. Until it "
    "answers: refusals after the silence",
    apart="blackout: the same process answers afterwards; refused_by_server: no silence before",
    threshold="as for blackout. The new process leaves no doubt; before it answers, the verdict is "
    "provisional",
    look="why the server's host, container or process ended",
)
KINDS = (BLACKOUT, PEER_LOST, *hung.KINDS)


def judge(case: Case) -> Iterator[Finding]:
    """Yield what is silent."""
    outage = outage_of(case.window)
    finding = hung.judge(case)
    if finding is not None:
        yield finding
    elif outage is not None and not (case.found | case.standing) & _OTHERS:
        finding = _dead(case, outage)
        if finding is not None:
            yield finding


# --- nothing gets through ---------------------------------------------------------------------


def _dead(case: Case, outage: Outage) -> Finding | None:
    window = case.window
    since_ns = window.now_ns - _RECENT_NS
    if outage.ended_ns is not None and outage.ended_ns < since_ns:
        return None
    left = {probe.number for probe in case.odd()} & outage.numbers
    if outage.numbers and 2 * len(left) < len(outage.numbers):
        return None  # most of it has been explained
    if window.heard_since(outage.began_ns) and not outage.is_over:
        return None  # the held connection goes on: it is about new ones
    after = _first_after(case, outage)
    refused = [
        probe
        for probe in case.ended(Reason.REFUSED)
        if outage.ended_ns is not None and probe.ended_ns >= outage.ended_ns
    ]
    ended_ns = outage.ended_ns or window.now_ns
    lasted = f"{outage.sent} SYNs got no answer in {(ended_ns - outage.began_ns) / 1e9:.1f} s"
    if refused and (after is None or after.began_ns > refused[-1].began_ns):
        left |= {probe.number for probe in refused}
        if after is None:
            return _finding(
                PEER_LOST,
                Culprit.SERVER_HOST,
                outage,
                left,
                f"{lasted}; then {counted(len(refused), 'connection')} met a refusal: nothing "
                "listens there yet",
                Confidence.PROVISIONAL,
            )
    if after is not None and after.instance not in _met_before(case, outage):
        began_ns = after.server_began_ns
        if began_ns is not None and began_ns > outage.began_ns - _SECOND_NS:
            return _finding(
                PEER_LOST,
                Culprit.SERVER_HOST,
                outage,
                left,
                f"{lasted}; then a process answered that had started "
                f"{(began_ns - outage.began_ns) / 1e9:.1f} s after the first of them",
                Confidence.PROVEN,
            )
        return None
    if _is_held_unasked(case, outage):
        return None  # its silence would be half of the proof
    testimony = hung.told_since(case, outage.began_ns)
    if testimony is not None and hung.stood_still(testimony, ended_ns - outage.began_ns):
        return None  # ``hosts``
    direction, why = _direction(case, outage, testimony)
    is_certain = direction is not Direction.NONE or after is not None
    return _finding(
        BLACKOUT,
        Culprit.path(direction),
        outage,
        left,
        f"{lasted}; {why}",
        Confidence.PROVEN if is_certain else Confidence.PROVISIONAL,
        direction,
    )


def _finding(
    kind: Kind,
    culprit: Culprit,
    outage: Outage,
    explains: set[int],
    proof: str,
    confidence: Confidence,
    direction: Direction = Direction.NONE,
) -> Finding:
    figures: dict[str, float] = {"syns": outage.sent}
    if outage.ended_ns is not None:
        figures["duration_s"] = (outage.ended_ns - outage.began_ns) / 1e9
    return Finding(
        kind,
        culprit,
        proof,
        direction,
        confidence,
        figures,
        explains,
        began_ns=outage.began_ns,
    )


def _first_after(case: Case, outage: Outage) -> Probed | None:
    """Return the first good probe of after an outage."""
    if outage.ended_ns is None:
        return None
    good = (probe for probe in case.window.probes if probe.reason is Reason.OK)
    return next((probe for probe in good if probe.ended_ns >= outage.ended_ns), None)


def _met_before(case: Case, outage: Outage) -> set[bytes]:
    return {who for who, at_ns in case.window.met.items() if at_ns < outage.began_ns}


def _is_held_unasked(case: Case, outage: Outage) -> bool:
    """Whether a held connection stood all the time, of which nobody knows if it was silent."""
    looks = case.window.held_looks
    if not case.window.is_held or not looks or looks[-1].opened_ns > outage.began_ns:
        return False
    # What has been sent again was sent so long before.
    was_silent = any(look.in_vain for look in looks if outage.holds(look.at_ns - _RTO_NS))
    lasts = not outage.is_over and case.window.now_ns - outage.began_ns >= _UNASKED_NS
    return not (was_silent or lasts)


def _direction(case: Case, outage: Outage, testimony: Testimony | None) -> tuple[Direction, str]:
    """Return in which direction nothing got through, and what shows it."""
    came = _came_meanwhile(case, outage)
    synacks = _synacks(case, outage, testimony)
    # Those whose last ACK was the first to be lost have their SYN-ACK sent again as well: as many
    # as come to be in one round trip. Where our SYNs arrive, all of them have.
    if synacks is not None and 2 * synacks >= len(outage.numbers) > 0:
        return Direction.REVERSE, f"the server sent {counted(synacks, 'SYN-ACK')} again meanwhile"
    if came:
        what = f"{counted(came, 'segment')} came on the held connection meanwhile"
        return Direction.FORWARD, f"{what}, and none acknowledged ours"
    if synacks is not None and came == 0:
        what = f"the server sent {counted(synacks, 'SYN-ACK')} again"
        return Direction.NONE, f"{what}, and nothing came on the held connection"
    if _first_after(case, outage) is not None:
        return Direction.NONE, "the same process answers again"
    if outage.is_over:
        return Direction.NONE, "SYNs are answered again"
    return Direction.NONE, "the server cannot be asked"


def _came_meanwhile(case: Case, outage: Outage) -> int | None:
    """Return how many segments came on the held connection while ours had no answer.

    None where nothing need have come, or where that is not known.
    """
    looks = [
        look
        for look in case.window.held_looks
        # It may go on a little before the first new connection does.
        if outage.holds(look.at_ns) and look.heard_ns <= outage.began_ns
    ]
    if not looks:
        return None
    first, last = looks[0], looks[-1]
    if first.opened_ns != last.opened_ns or first.segs_in is None or last.segs_in is None:
        return None
    if (last.in_vain or 0) < _FEW:
        return None
    came = last.segs_in - first.segs_in
    # One may be what the server sent as the path came back, if nothing of ours failed after it.
    if came >= _FEW or (came and _sent_since(case, outage, last.at_ns) >= _FEW):
        return came
    was_long = last.at_ns - outage.began_ns >= _KEEPALIVES_NS
    return came if last.probes_silence and was_long else None


def _sent_since(case: Case, outage: Outage, at_ns: int) -> int:
    """Return how many connections were begun in vain in an outage since a moment."""
    window = case.window
    begun = [row.began_ns for row in window.odd if row.number in outage.numbers]
    begun += [each.began_ns for each in window.waiting if each.connected_ns is None]
    return sum(outage.holds(began_ns) and began_ns > at_ns for began_ns in begun)


def _synacks(case: Case, outage: Outage, testimony: Testimony | None) -> int | None:
    """Return how many SYN-ACKs the server sent again meanwhile; None where it did not say.

    Both tell it: connections that came to be afterwards, and the server's host.
    """
    counts = [
        probe.synacks_resent
        for probe in case.window.odd
        if probe.number in outage.numbers and probe.syns_resent and probe.synacks_resent is not None
    ]
    told = testimony.host.tcp.syn_retrans if testimony is not None else None
    if told is None:
        return sum(counts) if len(counts) >= _FEW else None
    return max(told, sum(counts))
