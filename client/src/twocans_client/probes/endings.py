"""How a held connection ended, and when the next one is due. No I/O."""

from typing import NamedTuple

from twocans_client.evidence.loss import Cut
from twocans_client.evidence.results import OUTCOMES, Outcome, Reason
from twocans_core.kernel.errqueue import Icmp
from twocans_core.kernel.standing import Standing
from twocans_core.kernel.tcpinfo import Counters
from twocans_core.net.sockets import Address
from twocans_core.protocol.messages import Identity

__all__ = ["Backoff", "Ending", "Life", "joined"]

# A shorter life was not a good one: a server that ends us sooner, again and again, is failing.
_GOOD_LIFE_NS = 10_000_000_000
# Seconds.
_SOONEST = 0.1
_SOON = 2.0
_LATEST = 30.0
_DRAINED = (5.0, 10.0)


class Life(NamedTuple):
    """How one held connection stands: now, or when it ended. Moments are of CLOCK_MONOTONIC.

    While an answer is due, ``counters`` against ``asked`` show the direction in which the path is
    cut, if the server probes silence (docs/protocol.md, "Greeting"): while ours is not
    acknowledged, segments still come (``segs_in`` grows) as long as the reverse direction is good.

    Attributes:
        connection: The random number of our HELLO, by which the server remembers it; None if none
            was sent.
        local: Our own address and port; None where the kernel had not chosen them.
        began_ns: When we began to connect.
        opened_ns: When the WELCOME was read; None without one.
        heard_ns: When the far end was heard last, as it should be; the beginning, if never.
        asked_ns: When the answer that is due was asked for; None if none is due.
        probes_silence: Whether the server said that its kernel probes silence.
        server: Who greeted us.
        asked: Our counters right before the newest request.
        counters: Ours now, or at the end.
        cut: Both ends' at the newest exchange that was answered.
        in_vain: How often in a row our kernel had sent again, or probed, without an answer.
        at_ns: When this is: now, or the end.
    """

    connection: int | None
    local: tuple[str, int] | None
    began_ns: int
    opened_ns: int | None
    heard_ns: int
    asked_ns: int | None
    probes_silence: bool
    server: Identity | None
    asked: Counters | None
    counters: Counters
    cut: Cut | None
    in_vain: int | None
    at_ns: int

    @property
    def came_since_asked(self) -> int | None:
        """Segments that came since the newest request was sent; None where not known."""
        before = self.asked.segs_in if self.asked is not None else None
        now = self.counters.segs_in
        return None if before is None or now is None else now - before


class Ending(NamedTuple):
    """A held connection ended, or could not be had.

    Attributes:
        reason: Why. ``ok``: we had no more use for it.
        detail: More about it, for people.
        lasted_ns: From the WELCOME to the end, CLOCK_MONOTONIC; None when there was no WELCOME.
        exchanges: Those answered.
        address: Where it went.
        local: Our address and port, as in ``ProbeResult``; so are those below.
        errno: What the kernel called the end.
        icmp: Who said no while it connected.
        soft_error: What ICMP said later.
        standing: How our kernel saw it at the end; None where connect() was refused at once.
        life: What was known of the connection until then; None where nothing was.
        damaged_in: As in ``ProbeResult``.
    """

    reason: Reason
    detail: str
    lasted_ns: int | None
    exchanges: int
    address: Address | None = None
    local: tuple[str, int] | None = None
    errno: int | None = None
    icmp: Icmp | None = None
    soft_error: int | None = None
    standing: Standing | None = None
    life: "Life | None" = None
    damaged_in: str = ""

    @property
    def own(self) -> bool:
        """Whether it is neither the path's nor the far end's doing: ours, or announced."""
        return OUTCOMES[self.reason] is not Outcome.FAIL


class Backoff:
    """How long to wait before the next connection, in seconds from and to: jittered, exponential.

    The jitter spares the server: its clients do not come back all at once when it restarted. A
    server that said that it stops gets some seconds, one that turns us away sees us less and less.
    """

    first_s = (_SOONEST, _SOON)
    """Before the very first."""

    def __init__(self) -> None:
        self._failures = 0

    def after_s(self, ending: Ending) -> tuple[float, float]:
        """Return it after an ending: soon after a good life, longer with each failure in a row."""
        if ending.reason is Reason.DRAINING:
            return _DRAINED
        is_good = ending.lasted_ns is not None and ending.lasted_ns >= _GOOD_LIFE_NS
        self._failures = 0 if is_good or ending.reason is Reason.OK else self._failures + 1
        # Beyond 2 ** 9 the latest was reached long ago; an outage of a year must not overflow.
        return _SOONEST, min(_LATEST, _SOON * 2 ** min(self._failures, 9))


def joined(*details: str) -> str:
    """Return those that are not empty, as one."""
    return ", ".join(filter(None, details))
