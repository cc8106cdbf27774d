"""What held up large exchanges: windows and buffers of the ends, and not the path. No I/O.

A request that is larger than what may be under way at once takes a round trip for each such piece.
Our kernel tells for how long it waited for the receiver's window (``tcpi_rwnd_limited``). It does
not tell that of its own send buffer, in so far as we fill that again as soon as there is room: but
then no more of the request left in a round trip than the buffer holds.
"""

from collections import deque
from typing import NamedTuple

from .results import Outcome, ProbeResult

__all__ = ["Held", "Limits"]

_WSCALE = 4  # TCPI_OPT_WSCALE
# Of the time in which it had something to send; less may be two ticks of the kernel's clock.
_SHARE = 0.2
_LEAST_US = 8_000
_UNSCALED = 65_535
_FEW = 3
_NEWEST = 8
# A buffer holds headers and bookkeeping as well: at least half of it is payload, and a transfer
# that it holds up uses a third at the least.
_USED = 3


class Held(NamedTuple):
    """What held up the newest large exchanges, three at least in a row.

    Attributes:
        by: ``receiver``: its window. ``window``: that it cannot be more than 64 KiB, for it is not
            scaled. ``sender``: our own send buffer.
        began_ns: Since when, CLOCK_MONOTONIC.
        numbers: Of those probes.
        share: Of the time in which there was something to send it was waited for; of ``sender``,
            1.
        limit_bytes: The window, or the buffer.
        request_bytes: What the largest of them had to send, in all.
        rtt_us: The least round trip of the newest.
    """

    by: str
    began_ns: int
    numbers: tuple[int, ...]
    share: float
    limit_bytes: int
    request_bytes: int
    rtt_us: int


class Limits:
    """The newest large exchanges of a path."""

    def __init__(self) -> None:
        self._newest: deque[tuple[str, Held]] = deque(maxlen=_NEWEST)

    def take(self, result: ProbeResult, number: int) -> None:
        """Take in a large probe that was good; of others it is not known what held them up."""
        if result.outcome is not Outcome.OK or result.limited is None or result.retrans:
            return
        self._newest.append(_judge(result, number))

    def held(self) -> Held | None:
        """Return what holds up large exchanges now; None if nothing does."""
        if not self._newest or not self._newest[-1][0]:
            return None
        by = self._newest[-1][0]
        row: list[Held] = []
        for each, held in reversed(self._newest):
            if each != by:
                break
            row.append(held)
        if len(row) < _FEW:
            return None
        newest, oldest = row[0], row[-1]
        numbers = tuple(number for held in row for number in held.numbers)
        return newest._replace(
            began_ns=oldest.began_ns,
            numbers=numbers,
            request_bytes=max(held.request_bytes for held in row),
            share=sum(held.share for held in row) / len(row),
        )


def _judge(result: ProbeResult, number: int) -> tuple[str, Held]:
    busy_us, waited_us, _ = result.limited or (0, 0, 0)
    busy_us, waited_us = busy_us or 0, waited_us or 0
    standing, connected = result.standing, result.connected
    window = (standing.snd_wnd or 0) if standing is not None else 0
    rtt_us = (standing.min_rtt_us or 0) if standing is not None else 0
    options = connected.options if connected is not None else None
    held = Held(
        "",
        result.started_ns,
        (number,),
        waited_us / max(1, busy_us),
        window,
        result.bytes_sent,
        rtt_us,
    )
    if waited_us >= _LEAST_US and held.share >= _SHARE and window:
        is_unscaled = options is not None and not options & _WSCALE
        by = "window" if is_unscaled and window > _UNSCALED // 2 else "receiver"
        return by, held._replace(by=by)
    buffer = result.send_buffer
    if buffer and rtt_us and buffer < held.request_bytes:
        # As much as left in each round trip, if it was evenly.
        sent = held.request_bytes * rtt_us / max(1, busy_us - rtt_us)
        if buffer / _USED <= sent <= buffer:
            return "sender", held._replace(by="sender", share=1.0, limit_bytes=buffer)
    return "", held
