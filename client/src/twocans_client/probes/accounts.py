"""What a held connection shows, reported once each, and when it is complete.

What an exchange shows is reported in two parts. Both ends' counters (a consistent cut) come with
the reply, and what became of the segments since the cut before is reported at once. But the
server's kernel timestamps a reply after it has left, so that timestamp comes with the next frame:
an exchange is reported when the next one is complete, or at the ending, then without the timestamp.
"""

from typing import Protocol

from twocans_client.evidence.loss import Ledger, Segments
from twocans_client.evidence.results import Exchange
from twocans_core.kernel.tcpinfo import Limited
from twocans_core.protocol.messages import Identity

from .conversation import Conversation
from .endings import Ending

__all__ = ["Accounts", "Observer"]


class Observer(Protocol):
    """Callbacks of a held connection. They must neither block nor raise."""

    def exchanged(self, exchange: Exchange, server: Identity, tainted: str) -> None:
        """One exchange, complete: it comes with the next, or at the ending.

        The last before a sudden end has no ``t3k``, and so no split. ``server`` is who greeted us
        on this connection: behind a load balancer not always who answers the probes. ``tainted``
        as in ``ProbeResult``.
        """

    def skipped(self, count: int) -> None:
        """So many slots had no exchange, because an answer was due or we were late."""

    def counted(self, segments: Segments) -> None:
        """What became of the segments since the last time."""

    def limited(self, limited: Limited) -> None:
        """For how long it was busy, and what it waited for, since the last time."""

    def ended(self, ending: Ending) -> None:
        """The connection is over. A new one follows, except after ``shutdown``."""


class Accounts:
    """What one connection has reported so far.

    Args:
        observer: Who hears of it. ``ended`` is not called here.

    Attributes:
        server: Who greeted us.
        exchanges: Those answered.
    """

    def __init__(self, observer: Observer) -> None:
        self.server: Identity | None = None
        self.exchanges = 0
        self._observer = observer
        self._ledger = Ledger()
        self._limits = Limited(0, 0, 0)
        self._tainted = ""  # the newest exchange

    def skipped(self, count: int) -> None:
        """So many slots had no exchange."""
        if count:
            self._observer.skipped(count)

    def answered(self, talk: Conversation, tainted: str) -> None:
        """One more exchange was answered; ``tainted`` as in ``ProbeResult``."""
        self.exchanges += 1
        if len(talk.exchanges) > 1:  # the frame that came has completed the one before
            self._exchanged(talk.exchanges.pop(0))
        self._tainted = tainted
        self.cut(talk)
        self.limited(talk.stream.limited())

    def incomplete(self, talk: Conversation) -> None:
        """No frame will complete the newest exchange: report it as it is."""
        for exchange in talk.exchanges:
            self._exchanged(exchange)
        talk.exchanges.clear()

    def cut(self, talk: Conversation) -> None:
        """Settle the segments since the cut before."""
        if talk.draining:
            return  # the GOODBYE may have crossed our request: then the counters do not match
        segments = self._ledger.feed(talk.cut) if talk.cut is not None else None
        if segments is not None:
            self._observer.counted(segments)

    def limited(self, now: Limited) -> None:
        """Report by how much it grew, for how long the connection was busy, and waited."""
        before = self._limits
        # Counted in jiffies, so on a quiet connection they mostly have not moved.
        if now != before and None not in now:
            self._limits = now
            since = ((new or 0) - (old or 0) for new, old in zip(now, before, strict=True))
            self._observer.limited(Limited(*since))

    def _exchanged(self, exchange: Exchange) -> None:
        if self.server is not None:
            self._observer.exchanged(exchange, self.server, self._tainted)
