"""What both ends measured of a path lately: the evidence that verdicts are drawn from. No I/O.

The window is fed with the same news as the path and the log, and keeps what a verdict can use: each
probe boiled down to a row, the exchanges and endings of the held connection, what discovery looked
up, and what the witness and our own host said. It forgets by age and count, so a path costs some
50 KiB at most, however it fails.

Times are ns of CLOCK_MONOTONIC, ours, unless said otherwise.
"""

from collections import deque
from typing import TYPE_CHECKING

from .agreements import Agreements
from .delays import Delays
from .idle import Bracket, IdleResult
from .lanes import ENOUGH_LARGE, Hit, Lane
from .limits import Limits
from .loads import Loads
from .loss import Segments
from .results import Outcome, ProbeResult, Reason, grown
from .rows import Exchanged, HeldEnded, HeldLook, Kept, Probed, Resolved, Waiting
from .sizes import Sizes
from .testimony import Seen, Testimony, Unanswered

if TYPE_CHECKING:
    from .direction import Growth

__all__ = ["KEPT_NS", "LARGE_BYTES", "Window"]

KEPT_NS = 60_000_000_000
"""How long a row is kept."""
LARGE_BYTES = 1_200
"""A larger payload takes several segments, one at most takes one: see ``loss``."""
_ROWS = 256
# Results do not come in the order in which counts were read, so a count may be a little lower than
# the one before. It has 32 bits, and is then ahead by almost all of them.
_AHEAD = 1 << 31
_LOOKS = 64
_TWICE = 2
_LATELY_NS = 30_000_000_000
_SECOND_NS = 1_000_000_000
_HINT_NS = 3_000_000_000
# A path that is probed every few minutes has this many rows all the same, as old as they are.
_FEWEST = 8


class Window:
    """The evidence of one path.

    Attributes:
        now_ns: When something was last fed, or ``forget`` called.
        probes: The newest probes, oldest first.
        odd: Those of them that were not good, had anything sent again, a stall of ours in them, or
            a server that was slow. On a path that is well it is empty, and to judge it costs next
            to nothing.
        waiting: Probes under way for a second and longer, oldest first.
        kept: Stalls of ours by which probes began late or not at all, oldest first.
        last_good: The newest good probe.
        quickest_ns: The least time that a handshake took since this path is watched.
        met: When each server had first answered a probe, by its instance; the newest eight.
        exchanges: Of the held connection, oldest first.
        held_endings: Of it, likewise.
        is_held: Whether it is open.
        held_looks: How it stood, once a second while something is odd; oldest first.
        testimonies: What servers said that they saw, oldest first.
        unanswered: The newest question that nobody answered.
        agreements: What its connections agreed on in their handshakes.
        idle_bracket: Where an idle time-out lies; None while nothing shows one.
        look_ups: Of the path's name.
        growth: Of the newest exchange, by how much it was slower than the day's quickest.
        proxy_sign: As ``Proxy.sign``.
        boxes: As ``Proxy.boxes``.
        server_steps: When the offset of the server's clock jumped.
        own_steps: When our own clock was stepped.
        forward, reverse: What became of the segments of that direction.
        sizes: Which sizes of packets pass.
        delays: Whether the path takes longer than it did.
        loads: What our own host has to send and to receive besides.
        limits: What holds up large exchanges at the ends.
    """

    def __init__(self) -> None:
        self.now_ns = 0
        self.probes: deque[Probed] = deque(maxlen=_ROWS)
        self.odd: deque[Probed] = deque(maxlen=_ROWS)
        self.waiting: tuple[Waiting, ...] = ()
        self.kept: deque[Kept] = deque(maxlen=_LOOKS)
        self.last_good: Probed | None = None
        self.quickest_ns: int | None = None
        self.exchanges: deque[Exchanged] = deque(maxlen=_ROWS)
        self.held_endings: deque[HeldEnded] = deque(maxlen=_ROWS)
        self.is_held = False
        self.held_looks: deque[HeldLook] = deque(maxlen=_LOOKS)
        self.testimonies: deque[Testimony] = deque(maxlen=_FEWEST)
        self.unanswered: Unanswered | None = None
        self.met: dict[bytes, int] = {}
        self.agreements = Agreements()
        self.idle_bracket: Bracket | None = None
        self.look_ups: deque[Resolved] = deque(maxlen=_FEWEST)
        self.growth: Growth | None = None
        self.proxy_sign = ""
        self.boxes: frozenset[str] = frozenset()
        self.server_steps: deque[int] = deque(maxlen=_FEWEST)
        self.own_steps: deque[int] = deque(maxlen=_FEWEST)
        self.forward, self.reverse = Lane(), Lane()
        self.sizes = Sizes()
        self.delays, self.loads, self.limits = Delays(), Loads(), Limits()
        self._count = 0
        # Of segments with a wrong checksum: whose count, and how many.
        self._server_errors: tuple[bytes, int | None] = b"", None
        self._own_errors: int | None = None
        self._overtaken_ns: int | None = None  # when a FIN came out of order

    # --- what is fed --------------------------------------------------------------------------

    def probed(self, result: ProbeResult, segments: Segments | None) -> None:
        """Take in a probe that was judged and measured."""
        self._count += 1
        self.agreements.take(result)
        row = Probed.of(self._count, result, segments)
        self.probes.append(row)
        if row.is_odd:
            self.odd.append(row)
        if row.reason is Reason.OK:
            self.last_good = row
            if row.instance not in self.met:
                # Not when it began: its SYN may have waited for that server to come.
                self.met[row.instance] = row.ended_ns
                if len(self.met) > _FEWEST:
                    del self.met[next(iter(self.met))]
        if row.handshake_ns is not None:
            self.quickest_ns = min(row.handshake_ns, self.quickest_ns or row.handshake_ns)
        if segments is not None:
            is_large = row.payload_bytes > LARGE_BYTES
            self._account(segments, row.began_ns, row.number, is_large=is_large)
        if result.is_sized:
            self.sizes.look(result, row.number)
        self.limits.take(result, row.number)
        self._saw_errors(result)
        if _is_fin_late(result):
            self._overtaken_ns = result.ended_ns
        if row.split is not None:
            self.delays.feed(result.ended_ns, row.split, self.growth)
        self.loads.own(result.segments_seen)
        self.forget(result.ended_ns)

    def exchanged(self, exchanged: Exchanged) -> None:
        """Take in an exchange of the held connection."""
        self.exchanges.append(exchanged)
        if exchanged.split is not None:
            self.delays.feed(exchanged.at_ns, exchanged.split, self.growth)
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

    def held_looked(self, look: HeldLook) -> None:
        """Take in how the held connection stands."""
        self.held_looks.append(look)

    def idled(self, result: IdleResult, bracket: Bracket | None) -> None:
        """Take in what became of an idle connection, and where a time-out now lies."""
        self.idle_bracket = bracket
        self.forget(result.ended_ns)

    def testified(self, answer: Testimony | Unanswered) -> None:
        """Take in what a server said when it was asked, or that it said nothing."""
        if isinstance(answer, Unanswered):
            self.unanswered = answer
        else:
            self.testimonies.append(answer)

    # --- what is read -------------------------------------------------------------------------

    @property
    def is_puzzling(self) -> bool:
        """Whether anything was odd lately, so that it is worth looking closer."""
        return bool(self.waiting or (self.odd and self.odd[-1].ended_ns > self.now_ns - _LATELY_NS))

    @property
    def wants_sized(self) -> bool:
        """Whether a sized exchange now would tell more than one at its time.

        A loss or two may be chance: a sized exchange tells sooner, as it is many segments. One that
        is late may have been overtaken, which only several segments in a row show; and so may a
        FOLLOW_UP, by the FIN behind it. Of one that hung a second one shows whether it was that.
        """
        if self._overtaken_ns is not None and self.now_ns - self._overtaken_ns < _HINT_NS:
            return True
        gates = self.sizes.forward, self.sizes.reverse
        if any(1 <= len(gate.stuck) <= _TWICE for gate in gates) or self.delays.is_uneasy:
            return True
        return any(
            (lane.reordered.events and not lane.reordered.is_alarmed)
            or (
                lane.missing.events
                and (not lane.missing.is_alarmed or lane.missing.large_trials < ENOUGH_LARGE)
            )
            for lane in (self.forward, self.reverse)
        )

    def heard_since(self, at_ns: int) -> bool:
        """Whether a held connection that was open at a moment was heard a second after it."""
        if not self.held_looks:
            return False
        newest = self.held_looks[-1]
        return newest.opened_ns < at_ns and newest.heard_ns > at_ns + _SECOND_NS

    def seen(self, of: Probed | HeldEnded) -> tuple[Testimony, Seen] | None:
        """Return what a server said of one of our connections, if it was asked about it."""
        port = of.local_port if isinstance(of, Probed) else of.port
        for testimony in reversed(self.testimonies):
            for seen in testimony.of:
                question = seen.question
                # A port is used again.
                if question.port == port and (
                    question.since_ns == of.began_ns
                    or (of.connection is not None and question.connection == of.connection)
                ):
                    return testimony, seen
        return None

    def newest(self, count: int) -> list[Probed]:
        """Return the newest probes that tell how the path is: no void ones; oldest first."""
        found: list[Probed] = []
        for probe in reversed(self.probes):
            if probe.outcome is not Outcome.VOID:
                found.append(probe)
                if len(found) == count:
                    break
        return found[::-1]


def _is_fin_late(result: ProbeResult) -> bool:
    """Whether the end of the stream came before the FOLLOW_UP, which was overtaken, or lost."""
    bye = result.bye
    return bye is not None and bool(grown(bye.sent.rcv_ooopack, bye.read.rcv_ooopack))


def _newer(before: int | None, now: int | None) -> int:
    """Return by how much a host's count grew; 0 where it is an older one, or not known."""
    grew = grown(before, now) or 0
    return grew if grew < _AHEAD else 0
