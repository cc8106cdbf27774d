"""Queues and rate limits: delay, and loss that comes with load. No I/O."""

from collections.abc import Iterator

from twocans_client.evidence import direction as grown
from twocans_client.evidence.delays import Late
from twocans_client.evidence.lanes import Rare
from twocans_client.evidence.loads import Surge

from .case import Case
from .verdict import Confidence, Culprit, Direction, Finding, Kind
from .words import share, shares, span

__all__ = ["KINDS", "is_of_load", "judge"]

_DIRECTIONS = (Direction.FORWARD, Direction.REVERSE)
_CULPRITS = (Culprit.PATH_FORWARD, Culprit.PATH_REVERSE, Culprit.PATH)
_OF_GROWTH = {
    grown.Direction.FORWARD: Direction.FORWARD,
    grown.Direction.REVERSE: Direction.REVERSE,
}
_MS = 1e6

DELAY_INCREASE = Kind(
    "delay_increase",
    "the path takes longer than before",
    _CULPRITS,
    needs="the network's share of exchanges, by the kernels' timestamps, and their one-way values",
    apart="bufferbloat: it came with our own host's load; slow_app, cpu_throttled: the network's "
    "share does not grow",
    threshold="for 2 s and at least seven exchanges, the network's share exceeds the earlier "
    "median by 1 ms, by a tenth, and by three times the excess of the slowest one in 20; while "
    "all is well, once in a billion exchanges",
    look="a route that changed, a detour; `mtr` in that direction",
    directions=(Direction.NONE, *_DIRECTIONS),
)
BUFFERBLOAT = Kind(
    "bufferbloat",
    "a long queue fills while our own host sends or receives much",
    _CULPRITS,
    needs="as for delay_increase, and all TCP segments of our own network namespace",
    apart="delay_increase: our host sends and receives no more than before; policing: loss without "
    "delay",
    threshold="as for delay_increase; and within 3 s of its beginning our host's other traffic "
    "rose to three times what it was, plus 80 segments a second",
    look="the queue in front of the narrowest link: use fair queueing or a shorter queue, or send "
    "less",
    directions=(Direction.NONE, *_DIRECTIONS),
)
POLICING = Kind(
    "policing",
    "traffic above a rate is dropped instead of queued",
    (Culprit.PATH_FORWARD, Culprit.PATH_REVERSE),
    needs="both ends' counts, and all TCP segments of our own network namespace; or losses in "
    "sized exchanges alone",
    apart="loss: it does not come with load; bufferbloat: delay grows too",
    threshold="as for loss, and the path was no slower. Either the loss began within 3 s of our "
    "host's load and did not outlast it, or only sized exchanges lost anything, by chance once in "
    "100 times",
    look="the rate that was bought; the limits of that link, pod or instance",
    directions=_DIRECTIONS,
)
KINDS = (DELAY_INCREASE, BUFFERBLOAT, POLICING)


def judge(case: Case) -> Iterator[Finding]:
    """Yield what queues do, and what drops instead of queueing."""
    window = case.window
    late = window.delays.late(window.now_ns)
    if late is not None:
        yield _slower(late, window.loads.surge(late.began_ns))
    if window.delays.is_late or window.delays.is_uneasy:
        return  # what a queue drops that is full is the queue's doing
    for direction, lane in zip(_DIRECTIONS, (window.forward, window.reverse), strict=True):
        rare = lane.missing
        if window.delays.was_late_since(rare.began_ns):
            continue  # likewise, and the queue has drained since
        if rare.is_alarmed and not lane.may_be_overtaken and is_of_load(case, rare):
            surge = _surge(case, rare)
            if surge is None or window.loads.is_settled(surge):  # else a second later
                yield _policed(case, rare, direction, surge)


def _slower(late: Late, surge: Surge | None) -> Finding:
    direction = _OF_GROWTH.get(late.direction, Direction.NONE)
    where = f" in the {direction} direction" if direction else ""
    if late.direction is grown.Direction.BOTH:
        where = " in both directions"
    proof = (
        f"the network's share of an exchange rose from {late.usual_ns / _MS:.1f} ms to "
        f"{late.now_ns / _MS:.1f} ms{where}"
    )
    if surge is not None:
        proof += (
            f" when our own host's other traffic rose from {surge.before:.0f} to "
            f"{surge.now:.0f} segments a second"
        )
    return Finding(
        DELAY_INCREASE if surge is None else BUFFERBLOAT,
        Culprit.path(direction),
        proof,
        direction,
        Confidence.STATISTICAL,
        {"delay_s": late.grew_ns / 1e9, "usual_s": late.usual_ns / 1e9, "now_s": late.now_ns / 1e9},
        began_ns=late.began_ns,
    )


def is_of_load(case: Case, rare: Rare) -> bool:
    """Whether what is lost is lost because there was more than usual to carry."""
    if rare.is_of_acks_alone:
        return False
    return _surge(case, rare) is not None or rare.is_of_large_alone


def _surge(case: Case, rare: Rare) -> Surge | None:
    """The rise of our load with which losses began, and which lasted as long as they did."""
    if not rare.hits:
        return None
    return case.window.loads.surge(rare.began_ns, rare.hits[-1].began_ns)


def _policed(case: Case, rare: Rare, direction: Direction, surge: Surge | None) -> Finding:
    lost, sent = rare.total.lost + rare.total.acks_lost, rare.total.sent + rare.total.acks
    proof = (
        f"{lost} of {sent} segments were lost in the {direction} direction in "
        f"{span(case, rare.began_ns)}, {share(lost, sent)}, and the path was no slower"
    )
    if surge is not None:
        proof += (
            f"; it began when our own host's other traffic rose from {surge.before:.0f} to "
            f"{surge.now:.0f} segments a second"
        )
    else:
        proof += "; all of them were lost in sized exchanges"
    return Finding(
        POLICING,
        Culprit.path(direction),
        proof,
        direction,
        Confidence.STATISTICAL,
        {"lost": lost, **shares(lost, sent)},
        {hit.number for hit in rare.hits} - {0},
        rare.began_ns,
    )
