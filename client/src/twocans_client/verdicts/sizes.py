"""Faults of large packets only. No I/O."""

from collections.abc import Iterator

from twocans_client.evidence.sizes import Gate

from .case import Case
from .verdict import Confidence, Culprit, Direction, Finding, Kind

__all__ = ["KINDS", "judge"]

_DIRECTIONS = (Direction.FORWARD, Direction.REVERSE)
_CULPRITS = (Culprit.PATH_FORWARD, Culprit.PATH_REVERSE)
_SURE = 2

MTU_BLACKHOLE = Kind(
    "mtu_blackhole",
    "large packets vanish silently",
    _CULPRITS,
    needs="our kernel's view of a sized exchange that hangs, and good probes beside it",
    apart="loss: small packets are lost too; mtu_reduced: a router says so, and TCP adapts; "
    "app_hung: the request was acknowledged, and nothing of the reply came",
    threshold="a sized exchange hangs: each of its full segments was lost three times in 1.2 s, "
    "its short tail was not, and a later probe was good. Then a lone segment of that size or less "
    "was lost three times too, or a second sized exchange hangs. A path that loses a tenth does "
    "the former once in 10 million. Provisional until the size is known to the byte or a second "
    "one hangs",
    look="the MTU of tunnels on the path, and what drops ICMP; until then, clamp the MSS",
    directions=_DIRECTIONS,
)
MTU_REDUCED = Kind(
    "mtu_reduced",
    "the path takes smaller packets than before, and says so",
    _CULPRITS,
    needs="our kernel's path MTU (tcpi_pmtu), or the segment size of the server's; in sized "
    "exchanges",
    apart="mtu_blackhole: no router says so, and large exchanges hang",
    threshold="the first one is enough: a kernel lowers it when a router says so",
    look="whether a tunnel was added to the path on purpose",
    directions=_DIRECTIONS,
    is_info=True,
)
KINDS = (MTU_BLACKHOLE, MTU_REDUCED)


def judge(case: Case) -> Iterator[Finding]:
    """Yield what large packets meet."""
    sizes = case.window.sizes
    if sizes.is_stuck:
        for direction in _DIRECTIONS:
            gate = sizes.gate(direction)
            if not gate.is_tried and len(gate.stuck) < _SURE:
                continue  # many in a row hang, which may be their rate or a queue
            if gate.stuck and _others_pass(case, gate) and not _may_be_loss(case, gate, direction):
                yield _blackhole(gate, direction)
    for way, reduced in sizes.reduced.items():
        direction = Direction(way)
        yield Finding(
            MTU_REDUCED,
            Culprit.path(direction),
            f"the path MTU in the {direction} direction fell from {reduced.before} to "
            f"{reduced.mtu} bytes, by the sender's kernel",
            direction,
            Confidence.PROVEN,
            {"mtu": reduced.mtu, "before": reduced.before},
            {reduced.number},
            reduced.at_ns,
        )


def _others_pass(case: Case, gate: Gate) -> bool:
    """Whether a small probe went through that began after the newest sized one that hangs."""
    began_ns, good = gate.stuck[-1], case.window.last_good
    return good is not None and good.began_ns > began_ns


def _may_be_loss(case: Case, gate: Gate, direction: Direction) -> bool:
    """Whether so much is lost of any size that one sized exchange may have been hit by chance."""
    window = case.window
    lane = window.forward if direction is Direction.FORWARD else window.reverse
    return lane.missing.is_alarmed and gate.mtu is None and len(gate.stuck) < _SURE


def _blackhole(gate: Gate, direction: Direction) -> Finding:
    mtu, figures = gate.mtu, {"mtu_low": float(gate.passed), "mtu_high": float(gate.dropped or 0)}
    if mtu is not None:
        what = f"packets of {mtu} bytes pass, and none of {mtu + 1} bytes does"
        figures = {"mtu": float(mtu)}
    elif gate.dropped is None:
        what = f"packets of {gate.passed} bytes pass"
    else:
        what = f"packets of {gate.passed} bytes pass, and none of {gate.dropped} bytes does"
    is_sure = mtu is not None or len(gate.stuck) >= _SURE
    return Finding(
        MTU_BLACKHOLE,
        Culprit.path(direction),
        f"large exchanges hang in the {direction} direction: {what}",
        direction,
        Confidence.PROVEN if is_sure else Confidence.PROVISIONAL,
        figures,
        set(gate.numbers),
        gate.stuck[0],
    )
