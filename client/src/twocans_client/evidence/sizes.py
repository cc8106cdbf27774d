"""Which sizes of packets a path lets pass, in each direction. No I/O.

A sized exchange (``probe.Plan``) has eight full segments and a short tail. Where it hangs, its end
says in which direction: if what hangs is our request, nothing of it but the tail was acknowledged,
however often the rest was sent again; if it is the reply, our request was acknowledged, and of the
reply only the tail came, out of order. Then exchanges of one segment each, of many sizes at once,
narrow down what passes, to the byte.

Where a router says that a packet was too big (path MTU discovery, RFC 1191), the sender uses
smaller ones from then on, and its kernel tells.

Sizes are those of IP packets, headers included, in bytes.
"""

from collections import deque
from typing import NamedTuple

from twocans_core.protocol.frames import EXCHANGE_HEAD_SIZE, HEADER_SIZE

from .results import ProbeResult, Reason

__all__ = ["FRAME_BYTES", "Gate", "Sizes", "Tried", "headers_of", "passed", "stuck_in"]

FRAME_BYTES = HEADER_SIZE + EXCHANGE_HEAD_SIZE
"""Of a request or reply beside its payload."""
_IP_HEADERS = {"4": 20, "6": 40}
_TCP_HEADER, _TIMESTAMPS = 20, 12
_OPT_TIMESTAMPS, _OPT_SACK = 1, 2  # TCPI_OPT_*
# Sizes tried at once: of the 1,340 between a small packet and a full one two rounds leave one.
_AT_ONCE = 40
_STUCK = 8
# Of a hanging request sent again in vain: twice is 0.6 s, the shortest that a kernel waits.
_IN_VAIN = 2
# Out of order came the tail, and copies of it (the tail loss probe, RFC 8985 7): of whatever else
# may be missing, more would come.
_FEW = 3


def headers_of(family: str, options: int | None) -> int:
    """Return the bytes of IP and TCP headers of a packet with data."""
    is_timed = options is None or options & _OPT_TIMESTAMPS
    return _IP_HEADERS[family] + _TCP_HEADER + (_TIMESTAMPS if is_timed else 0)


def stuck_in(result: ProbeResult) -> str:
    """Return the direction in which a sized exchange hangs: ``forward``, ``reverse`` or ``""``.

    Args:
        result: Of a probe that failed in it, or is in it for a second and longer.
    """
    standing, counted = result.standing, result.ended
    if not result.is_sized or result.sized is not None or standing is None or counted is None:
        return ""
    unacked, sacked = standing.unacked or 0, standing.sacked or 0
    if unacked:
        # Of a connection of which nothing passes any more the tail does not either.
        has_sack = ((result.connected or counted).options or 0) & _OPT_SACK
        is_all = (sacked == 1 if has_sack else not sacked) and unacked > sacked
        return "forward" if is_all and (standing.retransmits or 0) >= _IN_VAIN else ""
    if standing.notsent_bytes:
        return ""
    return "reverse" if 1 <= (counted.rcv_ooopack or 0) <= _FEW else ""


class Tried(NamedTuple):
    """An exchange of one segment that was tried for its size.

    Attributes:
        size: Of the packet, either way.
        passed_forward: Whether it arrived; None: nobody knows.
        passed_reverse: Likewise.
        segments: Sent and received for it, as far as is known.
    """

    size: int
    passed_forward: bool | None
    passed_reverse: bool | None
    segments: int = 0


class Gate:
    """What one direction lets pass, since something hung in it.

    Attributes:
        stuck: When each sized exchange that hung here began; the newest eight.
        numbers: Of those probes, as far as they have ended.
        passed: The largest packet that is known to pass; 0: none is.
        dropped: The smallest that is known not to, or one of the full packets of what hung; None
            likewise.
        is_tried: Whether one of that size was tried alone.
    """

    def __init__(self) -> None:
        self.stuck: deque[int] = deque(maxlen=_STUCK)
        self.numbers: deque[int] = deque(maxlen=_STUCK)
        self.heal()

    def heal(self) -> None:
        """Large packets pass."""
        self.stuck.clear()
        self.numbers.clear()
        self.passed = self._full = 0
        self.dropped: int | None = None
        self.is_tried = False

    @property
    def mtu(self) -> int | None:
        """The largest packet that passes, to the byte; None: that is not known."""
        is_known = self.is_tried and self.dropped == self.passed + 1
        return self.passed if is_known else None

    def hang(self, began_ns: int, full: int, small: int) -> None:
        """A sized exchange hung.

        Args:
            began_ns: When it began; an exchange that is said to hang twice is one.
            full: Size of its full packets.
            small: Of the packets before it, which passed.
        """
        if began_ns not in self.stuck:
            self.stuck.append(began_ns)
        self._full = max(self._full, full)
        if self.dropped is None or full < self.dropped:
            self.dropped, self.is_tried = full, False
        self._passed(small)

    def tried(self, size: int, *, passed: bool) -> None:
        """A packet of this size was tried."""
        if passed and size >= self._full:
            self.heal()  # what hung did so for another reason than its size
        elif passed:
            self._passed(size)
        elif size > self.passed and (self.dropped is None or size <= self.dropped):
            self.dropped, self.is_tried = size, True

    def _passed(self, size: int) -> None:
        self.passed = max(self.passed, size)
        if self.dropped is not None and self.dropped <= size:
            self.dropped = None  # the path has changed, or it was lost by chance

    def candidates(self) -> list[int]:
        """Return sizes to try next, all at once; none if the answer is known, or nothing hangs.

        A full packet is among them: what hung were many in a row, which a rate may limit.
        """
        low, high = self.passed, self.dropped
        if not self.stuck or high is None or self.mtu is not None:
            return []
        step = max(1.0, (high - low) / (_AT_ONCE + 1))
        even = {int(low + step * turn) for turn in range(1, _AT_ONCE + 1)}
        between = {size for size in even if low < size < high}
        return sorted(between if self.is_tried else between | {high})


class Reduced(NamedTuple):
    """A direction's path MTU fell, because somebody said so.

    Attributes:
        at_ns: When that was seen first.
        before: What it was.
        mtu: What it is.
        number: Of the probe that showed it.
    """

    at_ns: int
    before: int
    mtu: int
    number: int


class Sizes:
    """Both directions.

    Attributes:
        forward, reverse: The gates.
        reduced: By direction, where the path MTU is less than it was.
        options: Agreed with the server (``Counters.options``), as far as is known.
    """

    def __init__(self) -> None:
        self.forward, self.reverse = Gate(), Gate()
        self.reduced: dict[str, Reduced] = {}
        self._most: dict[str, int] = {}
        self.options: int | None = None

    @property
    def is_stuck(self) -> bool:
        """Whether large packets do not pass, in either direction."""
        return bool(self.forward.stuck or self.reverse.stuck)

    def gate(self, way: str) -> Gate:
        """Return that of a direction."""
        return self.forward if way == "forward" else self.reverse

    def look(self, result: ProbeResult, number: int = 0) -> None:
        """Take in a sized probe, ended or not.

        Args:
            result: Of the probe.
            number: Of the probe, if it has ended.
        """
        if result.address is None or result.connected is None:
            return
        self.options = result.connected.options
        if not number or result.reason is not Reason.OK:
            self._look_at_stuck(result, number)
        elif result.sized is not None:
            self.forward.heal()
            self.reverse.heal()
        if number:
            headers = headers_of(result.address.family, result.connected.options)
            self._look_at_mtu(result, headers, number)

    def _look_at_stuck(self, result: ProbeResult, number: int) -> None:
        way = stuck_in(result)
        if not way or result.address is None or result.connected is None:
            return
        sender = result.connected if way == "forward" else result.server_greeted
        if sender is None or sender.snd_mss is None:
            return
        headers = headers_of(result.address.family, result.connected.options)
        gate = self.gate(way)
        # Timestamps are not in ``snd_mss``.
        gate.hang(result.started_ns, sender.snd_mss + headers, FRAME_BYTES + headers)
        if number:
            gate.numbers.append(number)

    def _look_at_mtu(self, result: ProbeResult, headers: int, number: int) -> None:
        standing, greeted, ended = result.standing, result.server_greeted, result.server_ended
        if standing is not None and standing.pmtu and result.is_sized:
            self._note("forward", standing.pmtu, standing.pmtu, result.ended_ns, number)
        if greeted is not None and ended is not None and greeted.snd_mss and ended.snd_mss:
            # Before: as the server began. It may be low because our own device's is.
            before = greeted.snd_mss + headers
            self._note("reverse", before, ended.snd_mss + headers, result.ended_ns, number)

    def _note(self, way: str, before: int, now: int, at_ns: int, number: int) -> None:
        known = self.reduced.get(way)
        most = self._most[way] = max(before, self._most.get(way, 0) if way == "forward" else 0)
        if known is not None:
            if now >= known.before:
                del self.reduced[way]
            elif now < known.mtu:
                self.reduced[way] = known._replace(mtu=now, number=number)
        elif now < most:
            self.reduced[way] = Reduced(at_ns, most, now, number)

    def tried(self, tried: Tried) -> None:
        """Take in a size that was tried."""
        for way, passed in (("forward", tried.passed_forward), ("reverse", tried.passed_reverse)):
            if passed is not None:
                self.gate(way).tried(tried.size, passed=passed)

    def candidates(self) -> list[int]:
        """Return sizes to try next; none if there is nothing to find out."""
        return self.forward.candidates() or self.reverse.candidates()


def passed(result: ProbeResult) -> tuple[int, int] | None:
    """Return the size of the full packets that a good sized exchange had, forward and reverse."""
    ours, theirs = result.ended, result.server_ended
    if result.sized is None or result.address is None or ours is None or theirs is None:
        return None
    if ours.snd_mss is None or theirs.snd_mss is None:
        return None
    headers = headers_of(result.address.family, ours.options)
    return ours.snd_mss + headers, theirs.snd_mss + headers
