"""Segments: lost, late, twice or damaged, and in which direction. No I/O.

Both ends' counts say so (``evidence.loss``), so what is uncertain is never whether something was
lost, but whether it is lost more often than on a good path.
"""

from collections.abc import Iterator

from twocans_client.evidence.lanes import Lane, Rare
from twocans_client.evidence.results import Reason

from .case import Case
from .queues import is_of_load
from .verdict import Confidence, Culprit, Direction, Finding, Kind
from .words import counted, share, shares, span

__all__ = ["KINDS", "judge"]

_RECENT_NS = 15_000_000_000
# Which of two explanations of losses that are there anyhow: the wrong one in a hundred.
_DECIDED = 1e-2
_ENOUGH = 12
# Both tests of it are asked again with each account, so it takes more to be sure.
_CLUMPED = 1e-4
_OFTEN = (
    "Page's tests of one in 10,000 against one in 500 and against one in 50: on a path that always "
    "has one in 10,000, one false alarm in 12 million segments"
)
_DIRECTIONS = (Direction.FORWARD, Direction.REVERSE)
_CULPRITS = (Culprit.PATH_FORWARD, Culprit.PATH_REVERSE)

LOSS = Kind(
    "loss",
    "segments are lost",
    (*_CULPRITS, Culprit.CLIENT_HOST, Culprit.SERVER_HOST),
    needs="both ends' counts of segments sent and received on each connection",
    apart="burst_loss: losses come in clumps; ack_loss: only segments without data are lost; "
    "policing: losses come with load, or in large exchanges only; mtu_blackhole: only large "
    "packets are lost; corruption: segments arrive with a wrong checksum. Where the culprit is a "
    "host, they never left it",
    threshold=_OFTEN,
    look="the drop counters of the interfaces on the path, in that direction; duplex, optics, "
    "queues",
    directions=_DIRECTIONS,
)
BURST_LOSS = Kind(
    "burst_loss",
    "segments are lost in bursts",
    _CULPRITS,
    needs="both ends' counts of segments sent and received on each connection",
    apart="loss: segments are lost one by one; policing: losses come with load, or in large "
    "exchanges only",
    threshold="as for loss, and chance brings losses so close together once in 10,000 times",
    look="a link that flaps, a queue that overflows briefly, radio",
    directions=_DIRECTIONS,
)
ACK_LOSS = Kind(
    "ack_loss",
    "acknowledgements are lost, but data is not",
    _CULPRITS,
    needs="both ends' counts of segments with and without data, sized exchanges among them",
    apart="loss: data is lost too (here at less than a quarter of the rate, and so little by "
    "chance once in 100 times); reordering: segments of sized exchanges overtake each other",
    threshold=_OFTEN,
    look="a device that drops or thins out small packets in that direction",
    directions=_DIRECTIONS,
)
REORDERING = Kind(
    "reordering",
    "segments overtake each other",
    _CULPRITS,
    needs="large exchanges in which nothing was missing but segments came out of order "
    "(tcpi_rcv_ooopack; on older kernels tcpi_reord_seen of the sender)",
    apart="loss: it leaves a gap, so everything behind the gap comes out of order",
    threshold=_OFTEN,
    look="links of different delay that share one flow packet by packet, in that direction",
    directions=_DIRECTIONS,
)
DUPLICATION = Kind(
    "duplication",
    "segments arrive twice",
    _CULPRITS,
    needs="both ends' counts: more segments arrived than were sent, TCP's own copies included",
    apart="a needless retransmission by TCP: it counts as sent twice, and is no duplicate",
    threshold=_OFTEN,
    look="a loop on layer 2, a mirrored port, a bond that sends everything twice",
    directions=_DIRECTIONS,
)
CORRUPTION = Kind(
    "corruption",
    "segments are damaged, and TCP's checksum shows it",
    _CULPRITS,
    needs="the receiving host's InCsumErrors, while segments were missing or unusable",
    apart="loss: there are no such errors; silent_corruption: the checksum is right",
    threshold=_OFTEN,
    look="in that direction, a bad cable, a bad card, or an offload that computes wrong checksums",
    directions=_DIRECTIONS,
)
SILENT_CORRUPTION = Kind(
    "silent_corruption",
    "bytes are changed on the path, and TCP does not notice",
    (*_CULPRITS, Culprit.PATH),
    needs="the CRC-32 of each frame, which both ends check, and each reply compared with what we "
    "sent",
    apart="corruption: TCP notices and sends the segment again",
    threshold="the first one is enough: chance never makes a CRC-32 wrong",
    look="a device on the path that rewrites payload or recomputes checksums; bad memory",
    directions=(Direction.NONE, *_DIRECTIONS),
)
KINDS = (SILENT_CORRUPTION, CORRUPTION, DUPLICATION, REORDERING, LOSS, BURST_LOSS, ACK_LOSS)


def judge(case: Case) -> Iterator[Finding]:
    """Yield what happens to segments on their way."""
    yield from _silent_corruption(case)
    window = case.window
    for direction, lane in (
        (Direction.FORWARD, window.forward),
        (Direction.REVERSE, window.reverse),
    ):
        if lane.is_quiet:
            continue
        yield from _corruption(case, direction, lane)
        yield from _oddities(case, direction, lane)
        yield from _unsent(case, direction, lane)
        yield from _missing(case, direction, lane)


def _silent_corruption(case: Case) -> Iterator[Finding]:
    now_ns = case.window.now_ns
    probes = case.ended(Reason.WRONG_BYTES, Reason.DAMAGED, since_ns=_RECENT_NS)
    held = [
        ending
        for ending in case.window.held_endings
        if ending.reason in (Reason.WRONG_BYTES, Reason.DAMAGED)
        and ending.at_ns >= now_ns - _RECENT_NS
    ]
    found: dict[str, list[tuple[int, str]]] = {}
    for probe in probes:
        found.setdefault(probe.damaged_in, []).append((probe.began_ns, probe.detail))
    for ending in held:
        found.setdefault(ending.damaged_in, []).append((ending.at_ns, ending.detail))
    for word, damage in found.items():
        direction = Direction(word)
        yield Finding(
            SILENT_CORRUPTION,
            Culprit.path(direction),
            f"{counted(len(damage), 'connection')} in 15 s carried changed bytes with a right TCP "
            f"checksum: {damage[-1][1]}",
            direction,
            Confidence.PROVEN,
            {"damaged": len(damage)},
            {probe.number for probe in probes if probe.damaged_in == word},
            min(began_ns for began_ns, _ in damage),
        )


def _corruption(case: Case, direction: Direction, lane: Lane) -> Iterator[Finding]:
    """Short segments never come to be counted: the kernel verifies them first, and drops them.

    Longer ones are counted by their connection, and verified when they are read
    (skb_checksum_init, CHECKSUM_BREAK of linux/skbuff.h).
    """
    rares = [
        rare
        for rare in (lane.damaged, lane.missing)
        if rare.is_alarmed and (rare is lane.damaged or _has_errors(rare))
    ]
    if not rares:
        return
    hits = {hit.number for rare in rares for hit in rare.hits}
    errors = max(rare.errors for rare in rares)
    sent = max(rare.total.sent + rare.total.acks for rare in rares)
    began_ns = min(rare.began_ns for rare in rares)
    yield Finding(
        CORRUPTION,
        Culprit.path(direction),
        f"{counted(errors, 'segment')} reached the {_receiver(direction)} with a wrong checksum "
        f"while {counted(len(hits), 'connection')} lacked some; {sent} segments were sent in the "
        f"{direction} direction in {span(case, began_ns)}",
        direction,
        figures={"damaged": errors, "sent": sent},
        explains=hits - {0},
        began_ns=began_ns,
    )


def _oddities(case: Case, direction: Direction, lane: Lane) -> Iterator[Finding]:
    for kind, rare, what in (
        (DUPLICATION, lane.duplicated, "arrived more often than they were sent"),
        (REORDERING, lane.reordered, "were overtaken"),
    ):
        if not rare.is_alarmed:
            continue
        total = rare.total
        count = total.duplicated if kind is DUPLICATION else total.reordered or 0
        yield Finding(
            kind,
            Culprit.path(direction),
            f"{count} of {total.sent} segments {what} in the {direction} direction in "
            f"{span(case, rare.began_ns)}, {share(count, total.sent)}",
            direction,
            figures={"count": count, **shares(count, total.sent)},
            explains={hit.number for hit in rare.hits} - {0},
            began_ns=rare.began_ns,
        )


def _unsent(case: Case, direction: Direction, lane: Lane) -> Iterator[Finding]:
    rare = lane.unsent
    if not rare.is_alarmed:
        return
    is_ours = direction is Direction.FORWARD
    whose = "our own" if is_ours else "the server's"
    unsent, tried = rare.total.unsent, rare.total.unsent + rare.total.sent
    yield Finding(
        LOSS,
        Culprit.CLIENT_HOST if is_ours else Culprit.SERVER_HOST,
        f"{unsent} of {tried} segments never left {whose} host "
        f"in {span(case, rare.began_ns)}, {share(unsent, tried)}",
        direction,
        figures={"lost": unsent, **shares(unsent, tried)},
        explains={hit.number for hit in rare.hits} - {0},
        began_ns=rare.began_ns,
    )


def _missing(case: Case, direction: Direction, lane: Lane) -> Iterator[Finding]:
    rare = lane.missing
    if not rare.is_alarmed or _has_errors(rare) or is_of_load(case, rare):
        return
    hits = [hit for hit in rare.hits if not case.is_explained(hit.number)]
    if 2 * len(hits) < len(rare.hits):
        return  # it has another name
    total = rare.total
    lost, sent = total.lost + total.acks_lost, total.sent + total.acks
    lasted = span(case, rare.began_ns)
    figures = {"lost": lost, "lost_data": total.lost, **shares(lost, sent)}
    if lane.may_be_overtaken:
        return
    if rare.is_of_acks_alone:
        if _is_translated(case):
            return
        kind = ACK_LOSS
        lost, sent = total.acks_lost, total.acks
        figures = {"lost": lost, "lost_data": total.lost, **shares(lost, sent)}
        proof = (
            f"{lost} of {sent} segments without data were lost in the {direction} direction in "
            f"{lasted}, {share(lost, sent)}; with data, {total.lost} of {total.sent} were lost"
        )
    elif total.lost:
        clumping = rare.clumping()
        if clumping.is_bursty and _CLUMPED <= clumping.chance < _DECIDED and rare.events < _ENOUGH:
            return  # it looks like bursts, and a few more will tell
        kind = BURST_LOSS if clumping.is_bursty and clumping.chance < _CLUMPED else LOSS
        proof = (
            f"{lost} of {sent} segments were lost in the {direction} direction in {lasted}, "
            f"{share(lost, sent)}"
        )
        if kind is BURST_LOSS:
            figures["burst"] = clumping.mean
            proof += f", on average {clumping.mean:.1f} in each 0.1 s that lost any"
    else:
        return  # too few to tell whether it is the acknowledgements alone
    yield Finding(
        kind,
        Culprit.path(direction),
        proof,
        direction,
        figures=figures,
        explains={hit.number for hit in hits} - {0}
        | _of_the_same(case, min(1.0, lost / max(1, sent))),
        began_ns=rare.began_ns,
    )


def _of_the_same(case: Case, lost: float) -> set[int]:
    """Return the probes that so much loss makes fail, now and then: all of many tries were lost."""
    return {
        probe.number
        for probe in case.odd(_RECENT_NS)
        if probe.syns_resent
        or probe.synacks_resent
        or (probe.is_failure and lost ** (1 + probe.sent_in_vain) > _DECIDED)
    }


def _is_translated(case: Case) -> bool:
    """Whether the server sees us at another port than we have.

    Then a proxy may stand between: it passes on as many segments with data as it gets, as a rule,
    and acknowledges as it likes.
    """
    return any(
        probe.seen_as is not None and probe.seen_as[1] != probe.local_port
        for probe in (case.window.last_good, *case.window.probes)
        if probe is not None
    )


def _has_errors(rare: Rare) -> bool:
    """Whether it is the receiver that drops them, for their wrong checksum: mostly is enough."""
    return 2 * rare.errors > rare.events


def _receiver(direction: Direction) -> str:
    return "server's host" if direction is Direction.FORWARD else "client's host"
