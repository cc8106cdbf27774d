"""What both ends measured of a path lately: the evidence that verdicts are drawn from. No I/O.

The window is fed with the same news as the path and the log, and keeps what a verdict can use: each
probe boiled down to a row, the exchanges and endings of the held connection, what discovery looked
up, and what the witness and our own host said. It forgets by age and count, so a path costs some
50 KiB at most, however it fails.

Times are ns of CLOCK_MONOTONIC, ours, unless said otherwise.
"""

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from twocans_core.host.stalls import NEVER, Stalled

from .lanes import Hit, Lane
from .loss import Segments
from .results import OUTCOMES, Outcome, ProbeResult, Reason, grown
from .split import Split

if TYPE_CHECKING:
    from .direction import Growth

# fmt: off
__all__ = [
    "KEPT_NS", "LARGE_BYTES", "SERVER_SLOW_NS",
    "Exchanged", "HeldEnded", "Probed", "Resolved", "Window",
]
# fmt: on

KEPT_NS = 60_000_000_000
"""How long a row is kept."""
SERVER_SLOW_NS = 5_000_000
"""A server that keeps a probe waiting for longer is slow: ours answers within 0.1 ms."""
LARGE_BYTES = 1_200
"""A larger payload takes several segments, one at most takes one: see ``loss``."""
_ROWS = 256
# Results do not come in the order in which counts were read, so a count may be a little lower than
# the one before. It has 32 bits, and is then ahead by almost all of them.
_AHEAD = 1 << 31
# A path that is probed every few minutes has this many rows all the same, as old as they are.
_FEWEST = 8


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
        instance: Of the server that greeted us.
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
    instance: bytes = b""
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
            payload_bytes=result.bytes_sent // max(1, len(result.exchanges)),
            phase=result.unfinished.phase if result.unfinished else "",
            address=result.address.host if result.address else "",
            local_port=result.local[1] if result.local else None,
            seen_as=result.seen_as,
            instance=result.server.instance if result.server else b"",
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


class HeldEnded(NamedTuple):
    """The held connection ended, or could not be had.

    Attributes:
        at_ns: When.
        reason: As judged.
        detail: More about it, for people.
        lasted_ns: As in ``Ending``.
        damaged_in: As in ``ProbeResult``.
    """

    at_ns: int
    reason: Reason
    detail: str
    lasted_ns: int | None
    damaged_in: str = ""


class Resolved(NamedTuple):
    """One look-up of the path's name.

    Attributes:
        at_ns: When it ended.
        duration_ns: getaddrinfo() called to returned; None when it did not return in time.
        reason: ``ok``, or why it failed.
        detail: The resolver's words.
    """

    at_ns: int
    duration_ns: int | None
    reason: Reason
    detail: str


class Window:
    """The evidence of one path.

    Attributes:
        now_ns: When something was last fed, or ``forget`` called.
        probes: The newest probes, oldest first.
        odd: Those of them that were not good, had anything sent again, a stall of ours in them, or
            a server that was slow. On a path that is well it is empty, and to judge it costs next
            to nothing.
        exchanges: Of the held connection, likewise.
        held_endings: Of it, likewise.
        is_held: Whether it is open.
        held_heard_ns: When it last showed that the far end lives; None before.
        look_ups: Of the path's name.
        growth: Of the newest exchange, by how much it was slower than the day's quickest.
        proxy_sign: As ``Proxy.sign``.
        boxes: As ``Proxy.boxes``.
        server_steps: When the offset of the server's clock jumped.
        own_steps: When our own clock was stepped.
        forward, reverse: What became of the segments of that direction.
    """

    def __init__(self) -> None:
        self.now_ns = 0
        self.probes: deque[Probed] = deque(maxlen=_ROWS)
        self.odd: deque[Probed] = deque(maxlen=_ROWS)
        self.exchanges: deque[Exchanged] = deque(maxlen=_ROWS)
        self.held_endings: deque[HeldEnded] = deque(maxlen=_ROWS)
        self.is_held = False
        self.held_heard_ns: int | None = None
        self.look_ups: deque[Resolved] = deque(maxlen=_FEWEST)
        self.growth: Growth | None = None
        self.proxy_sign = ""
        self.boxes: frozenset[str] = frozenset()
        self.server_steps: deque[int] = deque(maxlen=_FEWEST)
        self.own_steps: deque[int] = deque(maxlen=_FEWEST)
        self.forward, self.reverse = Lane(), Lane()
        self._count = 0
        # Of segments with a wrong checksum: whose count, and how many.
        self._server_errors: tuple[bytes, int | None] = b"", None
        self._own_errors: int | None = None

    # --- what is fed --------------------------------------------------------------------------

    def probed(self, result: ProbeResult, segments: Segments | None) -> None:
        """Take in a probe that was judged and measured."""
        self._count += 1
        row = Probed.of(self._count, result, segments)
        self.probes.append(row)
        if row.is_odd:
            self.odd.append(row)
        if segments is not None:
            is_large = row.payload_bytes > LARGE_BYTES
            self._account(segments, row.began_ns, row.number, is_large=is_large)
        self._saw_errors(result)
        self.forget(result.ended_ns)

    def exchanged(self, exchanged: Exchanged) -> None:
        """Take in an exchange of the held connection."""
        self.exchanges.append(exchanged)
        self.held_heard_ns = exchanged.at_ns
        self.forget(exchanged.at_ns)

    def counted(self, segments: Segments) -> None:
        """Take in an account of the held connection."""
        self._account(segments, self.now_ns)

    def held_ended(self, ended: HeldEnded) -> None:
        """Take in an ending of the held connection."""
        self.held_endings.append(ended)
        self.forget(ended.at_ns)

    def resolved(self, resolved: Resolved) -> None:
        """Take in a look-up of the path's name."""
        self.look_ups.append(resolved)
        self.forget(resolved.at_ns)

    def forget(self, now_ns: int) -> None:
        """Forget what is too old."""
        self.now_ns = max(self.now_ns, now_ns)
        oldest_ns = self.now_ns - KEPT_NS
        while len(self.probes) > _FEWEST and self.probes[0].ended_ns < oldest_ns:
            self.probes.popleft()
        while self.odd and self.odd[0].number < self.probes[0].number:
            self.odd.popleft()
        while len(self.exchanges) > _FEWEST and self.exchanges[0].at_ns < oldest_ns:
            self.exchanges.popleft()
        while self.held_endings and self.held_endings[0].at_ns < oldest_ns:
            self.held_endings.popleft()

    def _account(
        self,
        segments: Segments,
        began_ns: int,
        number: int = 0,
        *,
        is_large: bool = False,
    ) -> None:
        forward, reverse = segments
        self.forward.feed(Hit(began_ns, number, forward, is_large))
        self.reverse.feed(Hit(began_ns, number, reverse, is_large))

    def _saw_errors(self, result: ProbeResult) -> None:
        """Note what the two hosts counted since the probe before, of segments that were damaged."""
        server, told = result.server, result.host_ended
        if server is not None and told is not None:
            whose, count = self._server_errors
            if whose == server.instance:
                self.forward.saw_errors(_newer(count, told.csum_errors))
            self._server_errors = server.instance, told.csum_errors
        self.reverse.saw_errors(_newer(self._own_errors, result.csum_errors))
        self._own_errors = result.csum_errors

    # --- what is read -------------------------------------------------------------------------

    def newest(self, count: int) -> list[Probed]:
        """Return the newest probes that tell how the path is: no void ones; oldest first."""
        found: list[Probed] = []
        for probe in reversed(self.probes):
            if probe.outcome is not Outcome.VOID:
                found.append(probe)
                if len(found) == count:
                    break
        return found[::-1]


def _newer(before: int | None, now: int | None) -> int:
    """Return by how much a host's count grew; 0 where it is an older one, or not known."""
    grew = grown(before, now) or 0
    return grew if grew < _AHEAD else 0
