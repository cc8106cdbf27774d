"""What one path may cost, in bytes an hour. No I/O: time is an argument.

Counted is what our connections put into IP packets, in both directions: the bytes of the protocol,
and for each segment that either end sent the headers of IP and TCP, timestamps included. Those are
52 bytes over IPv4 and 72 over IPv6, times what the kernel counted (``tcpi_segs_out`` and
``tcpi_segs_in``), or an estimate where it does not. Not counted are link headers, look-ups, and the
greeting of an address before it is a path.
"""

import enum
import math
from collections.abc import Callable

from twocans_client.evidence.results import ProbeResult, Reason
from twocans_core.protocol.frames import EXCHANGE_HEAD_SIZE, HEADER_SIZE

__all__ = [
    "AT_ONCE",
    "Cost",
    "Purse",
    "cost_of",
    "exchange_bytes",
    "held_bytes",
    "probe_bytes",
]

AT_ONCE = 0.1
"""The share of the budget that may be spent at once. The rest flows in evenly, so that in no hour,
wherever it begins, more is spent than the budget."""
_HEADERS = {"4": 52, "6": 72}
# Of a connection beside its exchanges. HELLO, WELCOME, FOLLOW_UP and two GOODBYEs with names of
# usual length; handshake, ACKs and both FINs.
_GREETING_BYTES = 560
_GREETING_SEGMENTS = 10
_MSS = 1_448
# Between two exchanges 10 s apart; each is answered.
_HELD_PROBES = 7
_HOUR_NS = 3_600 * 1_000_000_000


class Cost(enum.StrEnum):
    """What bytes are spent on. Values are metric labels: never rename them."""

    PROBE = "probe"
    HELD = "held"
    SIZED = "sized"
    IDLE = "idle"
    WITNESS = "witness"

    @property
    def is_extra(self) -> bool:
        """Whether it is left out before the ordinary."""
        return self not in (Cost.PROBE, Cost.HELD)


class Purse:
    """What one path may still spend: a token bucket, of which extras may use the upper half only.

    So while the ordinary needs all that there is, extras get nothing.

    Args:
        bytes_per_hour: The budget.
        left_out: Called with the kind of what may not be spent.

    Attributes:
        bytes_per_hour: The budget.
    """

    def __init__(
        self, bytes_per_hour: int, left_out: Callable[[Cost], None] = lambda _: None
    ) -> None:
        self.bytes_per_hour = bytes_per_hour
        self._left_out = left_out
        self._ns_per_byte = _HOUR_NS / (bytes_per_hour * (1 - AT_ONCE))
        self._depth_ns = int(bytes_per_hour * AT_ONCE * self._ns_per_byte)
        # The bucket in one number: when all that was spent would have flowed in again.
        self._full_ns = 0

    def takes(self, kind: Cost, count: int, now_ns: int) -> bool:
        """Spend bytes, if there are enough; returns whether.

        Args:
            kind: What for.
            count: How many, as far as one knows before.
            now_ns: CLOCK_MONOTONIC.
        """
        depth_ns = self._depth_ns // 2 if kind.is_extra else self._depth_ns
        full_ns = max(self._full_ns, now_ns) + int(count * self._ns_per_byte)
        if full_ns > now_ns + depth_ns:
            self._left_out(kind)
            return False
        self._full_ns = full_ns
        return True

    def spend(self, count: int, now_ns: int) -> None:
        """Spend bytes that nobody was asked for; negative: give back what was taken too much.

        What is not there is a debt, which later bytes have to wait for.
        """
        self._full_ns = max(self._full_ns, now_ns) + int(count * self._ns_per_byte)


def exchange_bytes(payload_bytes: int, family: str = "6") -> int:
    """Estimate what an exchange costs, both directions.

    Args:
        payload_bytes: Of the request.
        family: ``4`` or ``6``.
    """
    message = payload_bytes + HEADER_SIZE + EXCHANGE_HEAD_SIZE
    # Each way as many segments, and an ACK for every other of them.
    return 2 * message + 3 * math.ceil(message / _MSS) * _HEADERS[family]


def probe_bytes(exchanges: int, payload_bytes: int, family: str = "6") -> int:
    """Estimate what a probe costs: all of its connection."""
    greeting = _GREETING_BYTES + _GREETING_SEGMENTS * _HEADERS[family]
    return greeting + exchanges * exchange_bytes(payload_bytes, family)


def held_bytes(payload_bytes: int, family: str = "6") -> int:
    """Estimate what an exchange on the held connection costs, and the silence before it."""
    # The server is asked to probe the silence, once a second after three: ``Features.KEEPALIVE``.
    return exchange_bytes(min(payload_bytes, 1_024), family) + _HELD_PROBES * 2 * _HEADERS[family]


def cost_of(result: ProbeResult) -> int:
    """Return what a probe has cost, in bytes as defined above."""
    if result.address is None or not result.dialled:
        return 0
    headers = _HEADERS[result.address.family]
    if result.connected is None:  # nothing but SYNs, those that were answered by a reset too
        answered = result.reason is not Reason.CONNECT_TIMEOUT
        return (1 + (result.retrans or 0) + answered) * headers
    counters = result.bye.read if result.bye is not None else result.ended or result.connected
    said = result.bytes_sent + result.bytes_received
    if counters.segs_out is None or counters.segs_in is None:
        segments = _GREETING_SEGMENTS + said * 3 // (2 * _MSS)
    else:
        segments = counters.segs_out + counters.segs_in + 2  # our FIN, and the ACK for it
    # What was sent again is in the segments, but its payload is in no count of ours.
    theirs = result.server_ended.total_retrans if result.server_ended is not None else 0
    again = (result.retrans or 0) + (theirs or 0)
    largest = (result.payload_bytes or 0) + HEADER_SIZE + EXCHANGE_HEAD_SIZE
    return said + segments * headers + again * min(largest, counters.snd_mss or _MSS)
