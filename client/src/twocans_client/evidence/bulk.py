"""What a short paced load showed: rates, what held it up, and what others felt of it. No I/O.

A request of many segments arrives later than a small one by the time that the rest of it took. So
its size over that is how fast the direction takes a burst, at the least: the sender may not have
had all of it under way at once. The two hosts' clocks cancel, as both are compared on the same two.
"""

from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import NamedTuple

from .loss import Segments
from .proxy import breaks
from .results import Exchange, ProbeResult

__all__ = ["Load", "Way", "load_of"]

# Until the congestion window is that large, a request waits for itself.
_SLOW_START = 4
# By the receiver's clock less the sender's: only differences are a time.
_Arrived = Callable[[Exchange], int | None]


class Way(NamedTuple):
    """One direction.

    Attributes:
        burst_bits_per_s: How fast a request or reply of that size came; None: not known. What a
            shaper lets through at once is faster than what it carries for long.
        grew_ns: By how much later small messages arrived under load than before, the median; None
            likewise.
    """

    burst_bits_per_s: float | None
    grew_ns: int | None


class Load(NamedTuple):
    """What it showed.

    Attributes:
        payload_bytes: Of each large request, and of its reply.
        exchanges: Of those.
        sustained_bits_per_s: What each direction carried of it, the other's turns included; None:
            not known.
        forward, reverse: The directions.
        idle_ns: Time in the network of a small exchange, there and back, before it; the median.
        loaded_ns: Under load.
        busy_s: How long our kernel had something of it to send.
        receiver_share: For how much of that it waited for the server's window.
        buffer_share: For how much for room in our own send buffer.
        segments: What became of its segments; None: not known, or not to be claimed.
        problem: How it ended, unless it was well.
    """

    payload_bytes: int
    exchanges: int
    sustained_bits_per_s: float | None
    forward: Way
    reverse: Way
    idle_ns: int | None
    loaded_ns: int | None
    busy_s: float | None
    receiver_share: float | None
    buffer_share: float | None
    segments: Segments | None
    problem: str = ""


def load_of(
    before: ProbeResult, beside: ProbeResult, bulk: ProbeResult, *, is_proxied: bool = False
) -> Load:
    """Return what a load showed.

    Args:
        before: Small exchanges, before the load.
        beside: Small exchanges, while it went on.
        bulk: It.
        is_proxied: Whether the two ends may be of two connections.
    """
    large = bulk.exchanges[_SLOW_START:] or bulk.exchanges[1:]
    limited = bulk.limited
    busy_us = limited.busy_us if limited is not None else None
    quiet, loud = _network(before.exchanges), _network(beside.exchanges)
    size = bulk.payload_bytes or 0
    segments = bulk.segments
    if is_proxied or (segments is not None and breaks(segments)):
        segments = None
    return Load(
        size,
        len(bulk.exchanges),
        _sustained(size, bulk.exchanges),
        Way(_rate(size, before.exchanges, large, _forward), _grew(before, beside, _forward)),
        Way(_rate(size, before.exchanges, large, _reverse), _grew(before, beside, _reverse)),
        quiet,
        loud,
        None if busy_us is None else busy_us / 1e6,
        _share(limited.rwnd_limited_us, busy_us) if limited is not None else None,
        _share(limited.sndbuf_limited_us, busy_us) if limited is not None else None,
        segments,
        "" if bulk.reason == "ok" else f"{bulk.reason} {bulk.detail}".strip(),
    )


def _share(waited_us: int | None, busy_us: int | None) -> float | None:
    return waited_us / busy_us if waited_us is not None and busy_us else None


def _forward(exchange: Exchange) -> int | None:
    stamps = exchange.stamps
    return None if stamps.t2k is None else stamps.t2k - stamps.t1u


def _reverse(exchange: Exchange) -> int | None:
    stamps = exchange.stamps
    arrived = stamps.t4u if stamps.t4k is None else stamps.t4k
    return None if stamps.t3u is None else arrived - stamps.t3u


def _taken(exchanges: Iterable[Exchange], arrived: _Arrived) -> list[int]:
    return [ns for ns in map(arrived, exchanges) if ns is not None]


def _rate(
    size: int, small: Sequence[Exchange], large: Sequence[Exchange], way: _Arrived
) -> float | None:
    quick, slow = _taken(small, way), _taken(large, way)
    if not quick or not slow or not size:
        return None
    rest_ns = median(slow) - median(quick)
    return size * 8e9 / rest_ns if rest_ns > 0 else None


def _sustained(size: int, exchanges: Sequence[Exchange]) -> float | None:
    lasted_ns = exchanges[-1].stamps.t4u - exchanges[0].stamps.t1u if exchanges else 0
    return size * len(exchanges) * 8e9 / lasted_ns if lasted_ns > 0 else None


def _grew(before: ProbeResult, beside: ProbeResult, way: _Arrived) -> int | None:
    quiet, loud = _taken(before.exchanges, way), _taken(beside.exchanges, way)
    return round(median(loud) - median(quiet)) if quiet and loud else None


def _network(exchanges: Iterable[Exchange]) -> int | None:
    times = [each.split.network_ns for each in exchanges if each.split is not None]
    return round(median(times)) if times else None
