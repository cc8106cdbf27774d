"""What the two ends of each connection agreed on in its handshake, and what they agreed on before.

No I/O. Both hosts offer the same in each handshake, as long as nobody changes their settings, and
say what that is. So what one server's connections had and have no more, though both offer it, was
taken out on the way.
"""

from typing import NamedTuple

from .results import ProbeResult

__all__ = ["OPTIONS", "Agreed", "Agreements"]

OPTIONS = {1: "timestamps", 2: "SACK", 4: "window scaling"}
"""TCPI_OPT_TIMESTAMPS, _SACK and _WSCALE (linux/tcp.h), and what they are called."""
_ENOUGH = 3
# RFC 9293, 3.7.1: what is assumed where a SYN names no MSS, over IPv4 and over IPv6.
_DEFAULT_MSS = {536, 1_220}
_TIMESTAMP_BYTES = 12


class Agreed(NamedTuple):
    """What one connection agreed on.

    Attributes:
        ours: Options, as our kernel sees it; bits of ``OPTIONS``.
        theirs: As the server's does.
        mss: Bytes of a full segment of ours, timestamps not counted in.
    """

    ours: int
    theirs: int
    mss: int

    @property
    def has_default_mss(self) -> bool:
        """Whether the MSS is what is assumed where none was named."""
        return self.mss in _DEFAULT_MSS


class Agreements:
    """What a path's connections agreed on: the newest, and those before it changed.

    Attributes:
        before: What three connections in a row with this server agreed on first, and more than the
            newest; None while nothing is missing.
        now: What the newest agreed on; None before the first.
        count: How many in a row have agreed on that.
        since_ns: When the first of them began, CLOCK_MONOTONIC.
        offered: Options that both hosts offer, bits of ``OPTIONS``; None: not both say.
    """

    def __init__(self) -> None:
        self.before: Agreed | None = None
        self.now: Agreed | None = None
        self.count = 0
        self.since_ns = 0
        self.offered: int | None = None
        self._instance = b""

    def take(self, result: ProbeResult) -> None:
        """Take in a probe; nothing of one that was not greeted, or of a kernel that is silent."""
        connected, greeted = result.connected, result.server_greeted
        if result.server is None or connected is None or greeted is None:
            return
        if None in (connected.options, greeted.options, connected.snd_mss):
            return
        offers, theirs = result.offers, result.server_offers
        self.offered = None if offers is None or theirs is None else offers & theirs & sum(OPTIONS)
        ours, mss = connected.options or 0, connected.snd_mss or 0
        agreed = Agreed(
            ours & sum(OPTIONS),
            (greeted.options or 0) & sum(OPTIONS),
            mss + (_TIMESTAMP_BYTES if ours & 1 else 0),
        )
        if result.server.instance != self._instance:
            # Another process may be on another host, with other settings.
            self._instance, self.before, self.now = result.server.instance, None, None
        if agreed != self.now:
            if self.now is not None and self.count >= _ENOUGH and self.before is None:
                self.before = self.now
            self.now, self.count, self.since_ns = agreed, 0, result.started_ns
        self.count += 1
        if self.before == agreed:
            self.before = None

    @property
    def missing(self) -> tuple[str, ...]:
        """What the newest three connections lack, and both hosts offer, or had before."""
        before, now = self.before, self.now
        if now is None or self.count < _ENOUGH:
            return ()
        wanted = self.offered
        if wanted is None:  # then what it was before is all that is known
            wanted = before.ours if before is not None else 0
        gone = wanted & ~now.ours
        names = tuple(name for bit, name in OPTIONS.items() if gone & bit)
        if now.has_default_mss and before is not None and not before.has_default_mss:
            names += ("MSS",)
        return names
