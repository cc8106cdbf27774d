"""What a window keeps: one row for each thing that happened to a path. No I/O.

Times are ns of CLOCK_MONOTONIC, ours, unless said otherwise.
"""

from typing import NamedTuple

from twocans_core.host.stalls import NEVER, Stalled

from .loss import Segments
from .results import OUTCOMES, Outcome, ProbeResult, Reason
from .split import Split

__all__ = [
    "SERVER_SLOW_NS",
    "Exchanged",
    "HeldEnded",
    "HeldLook",
    "Kept",
    "Probed",
    "Resolved",
    "Waiting",
]

SERVER_SLOW_NS = 5_000_000
"""A server that keeps a probe waiting for longer is slow: ours answers within 0.1 ms."""


class Probed(NamedTuple):
    """One fresh probe, boiled down.

    Attributes:
        number: Of this path's probes, in the order in which they ended.
        began_ns: When it started.
        ended_ns: When it ended.
        reason: As judged.
        detail: More about it, for people.
        damaged_in: As in ``ProbeResult``.
        phase: The phase that it ended in, where that has no end; ``""`` of a good probe.
        payload_bytes: Of its largest request.
        address: Where it went; ``""`` if it went nowhere.
        local_port: Ours, as we see it.
        seen_as: Our address and port as the server saw them.
        is_translated: Whether these are others than we have: a NAT is on the way.
        instance: Of the server that greeted us.
        server_began_ns: When that process began, or up to a round trip earlier.
        connect_ns: As in ``ProbeResult``; so are the next.
        handshake_ns: By our kernel.
        greet_ns: HELLO to WELCOME.
        accept_ns: What of it the HELLO lay in the server's accept queue.
        close_ns: GOODBYE to the end.
        total_ns: From the real start to the end.
        syns_resent: SYNs that we sent again (k_c).
        synacks_resent: SYN-ACKs that the server's kernel sent again (k_s).
        retrans: Segments that we sent again.
        sent_in_vain: How often in a row, when it failed, nothing answered our kernel.
        segments: What became of its segments; None where that is not known or not to be claimed.
        split: Where the time of its newest exchange went that nothing was sent again in.
        stalled: How we stood still meanwhile.
        draining: The server said that it leaves.
        result: All of it, kept of a probe that was not good or had anything sent again.
    """

    number: int
    began_ns: int
    ended_ns: int
    reason: Reason
    detail: str = ""
    damaged_in: str = ""
    phase: str = ""
    payload_bytes: int = 0
    address: str = ""
    local_port: int | None = None
    seen_as: tuple[str, int] | None = None
    is_translated: bool = False
    instance: bytes = b""
    server_began_ns: int | None = None
    connect_ns: int | None = None
    handshake_ns: int | None = None
    greet_ns: int | None = None
    accept_ns: int | None = None
    close_ns: int | None = None
    total_ns: int = 0
    syns_resent: int | None = None
    synacks_resent: int | None = None
    retrans: int | None = None
    sent_in_vain: int = 0
    segments: Segments | None = None
    split: Split | None = None
    stalled: Stalled = NEVER
    draining: bool = False
    result: ProbeResult | None = None

    @classmethod
    def of(cls, number: int, result: ProbeResult, segments: Segments | None) -> "Probed":
        """Boil a result down.

        Args:
            number: Of this path's probes.
            result: Judged.
            segments: As the path has counted them, or not.
        """
        connected, greeted = result.connected, result.server_greeted
        splits = [each.split for each in result.exchanges if each.split and not each.resent]
        is_plain = result.reason is Reason.OK and not result.retrans
        return cls(
            number=number,
            began_ns=result.started_ns,
            ended_ns=result.ended_ns,
            reason=result.reason,
            detail=result.detail,
            damaged_in=result.damaged_in,
            payload_bytes=result.payload_bytes or 0,
            phase=result.unfinished.phase if result.unfinished else "",
            address=result.address.host if result.address else "",
            local_port=result.local[1] if result.local else None,
            seen_as=result.seen_as,
            is_translated=_is_translated(result),
            instance=result.server.instance if result.server else b"",
            server_began_ns=result.server_began_ns,
            connect_ns=result.connect_ns,
            handshake_ns=result.handshake_ns,
            greet_ns=result.greet_ns,
            accept_ns=result.accept_ns,
            close_ns=result.close_ns,
            total_ns=result.total_ns,
            syns_resent=connected.total_retrans if connected else None,
            synacks_resent=greeted.total_retrans if greeted else None,
            retrans=result.retrans,
            sent_in_vain=result.sent_in_vain,
            segments=segments,
            split=splits[-1] if splits else None,
            stalled=result.stalled,
            draining=result.draining,
            result=None if is_plain else result,
        )

    @property
    def connection(self) -> int | None:
        """The number of its HELLO; None of a good probe, or if none was sent."""
        return self.result.connection if self.result is not None else None

    @property
    def outcome(self) -> Outcome:
        """Whose doing the ending was."""
        return OUTCOMES[self.reason]

    @property
    def is_failure(self) -> bool:
        """Whether the path or the far end failed it."""
        return self.outcome is Outcome.FAIL

    @property
    def server_held_ns(self) -> int:
        """How long the server's host and program kept us waiting, at most; 0: not known."""
        split = self.split
        exchange_ns = split.server_ns if split is not None else 0
        return max(exchange_ns, self.accept_ns or 0)

    @property
    def is_odd(self) -> bool:
        """Whether a verdict may be about it: ``Window.odd``."""
        return bool(
            self.reason is not Reason.OK
            or self.retrans
            or self.synacks_resent
            or self.stalled.cause
            or self.server_held_ns >= SERVER_SLOW_NS
        )

    @property
    def is_unanswered(self) -> bool:
        """Whether nothing answered our SYNs."""
        return self.reason is Reason.CONNECT_TIMEOUT


def _is_translated(result: ProbeResult) -> bool:
    if result.seen_as is None or result.local is None:
        return False
    host, port = result.local
    return (host.partition("%")[0], port) != result.seen_as


class Waiting(NamedTuple):
    """A probe that is under way for longer than a probe takes.

    Attributes:
        began_ns: When it started.
        connected_ns: When it was connected; None: nobody has answered its SYN.
        local_port: Ours.
        greeted: The server has greeted us.
    """

    began_ns: int
    connected_ns: int | None
    local_port: int | None
    greeted: bool


class Kept(NamedTuple):
    """A stall of ours, as something of this path waited in it.

    Attributes:
        since_ns: Since when that waited: when the first probe was due that could not begin.
        until_ns: Until when.
        stalled: How we stood still meanwhile.
    """

    since_ns: int
    until_ns: int
    stalled: Stalled


class Exchanged(NamedTuple):
    """One exchange on the held connection.

    Attributes:
        at_ns: When it was complete.
        split: Where its time went; None if not known, or if something was sent again in it.
        resent: Something was.
        duration_ns: Of all of it, by our program.
    """

    at_ns: int
    split: Split | None
    resent: bool
    duration_ns: int


class HeldLook(NamedTuple):
    """How the held connection stood at a moment when something was wrong.

    Attributes:
        at_ns: That moment.
        opened_ns: When the connection was greeted.
        heard_ns: When its far end was heard last, as it should be.
        segs_in: Segments that had come, by our kernel; None where it does not count.
        in_vain: How often in a row nothing had answered our kernel; None likewise.
        probes_silence: Whether the server's kernel sends something after 3 s of silence.
        connection: The number of its HELLO.
        port: Ours.
    """

    at_ns: int
    opened_ns: int
    heard_ns: int
    segs_in: int | None = None
    in_vain: int | None = None
    probes_silence: bool = False
    connection: int | None = None
    port: int | None = None


class HeldEnded(NamedTuple):
    """The held connection ended, or could not be had.

    Attributes:
        at_ns: When.
        reason: As judged.
        detail: More about it, for people.
        lasted_ns: As in ``Ending``.
        began_ns: When it was begun.
        connection: The number of its HELLO; None if none was sent.
        port: Ours.
        damaged_in: As in ``ProbeResult``.
    """

    at_ns: int
    reason: Reason
    detail: str
    lasted_ns: int | None
    began_ns: int | None = None
    connection: int | None = None
    port: int | None = None
    damaged_in: str = ""


class Resolved(NamedTuple):
    """One look-up of the path's name.

    Attributes:
        at_ns: When it ended.
        duration_ns: getaddrinfo() called to returned; None when it did not return in time.
        reason: ``ok``, or why it failed.
        detail: The resolver's words.
        retry_ns: After so long without an answer our host asks a name server again.
    """

    at_ns: int
    duration_ns: int | None
    reason: Reason
    detail: str = ""
    retry_ns: int = 5_000_000_000

    @property
    def was_lost(self) -> bool:
        """Whether a question or its answer was lost: it took a second one, or none helped."""
        if self.reason not in (Reason.OK, Reason.DNS_FAILURE):
            return self.reason is Reason.DNS_TIMEOUT
        # A twentieth less: the resolver's clock has its own grain.
        return self.duration_ns is not None and self.duration_ns >= self.retry_ns * 19 // 20
