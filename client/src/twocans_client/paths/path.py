"""The history of one path, in plain numbers. No I/O.

``scheduled = ok + fail + void + missed + in_flight`` holds after every call, and
``in_flight`` is 0 once every probe has ended.
"""

import enum
from collections import Counter
from collections.abc import Set
from typing import TYPE_CHECKING, NamedTuple

from twocans_client.discovery.specs import Target, Who
from twocans_client.evidence.direction import Growth, OneWay
from twocans_client.evidence.loss import Segments
from twocans_client.evidence.overflows import Overflows
from twocans_client.evidence.proxy import Proxy, breaks
from twocans_client.evidence.results import Exchange, Outcome, ProbeResult, Reason
from twocans_core.protocol.messages import Identity

from .renames import Renames
from .responder import Heard, Responder

if TYPE_CHECKING:
    from twocans_client.verdicts.engine import Standing

__all__ = ["LAST_PARTS", "PATH_PHASES", "Change", "Learnt", "News", "Path", "PathState"]

# What a path keeps sums of; every phase has a histogram by zone besides.
PATH_PHASES = ("connect", "network", "server", "client")

# Of what a path keeps the newest value.
LAST_PARTS = (
    "handshake",
    "client_send",
    "network",
    "server_wakeup",
    "server_app",
    "server_send",
    "client_wakeup",
)
# Across a step of our clock the times of an exchange do not belong together, and whether there was
# one in a probe that was cancelled nobody knows: that reason comes first.
_UNTIMED = frozenset({Reason.CLOCK_STEP, Reason.SHUTDOWN})
# Reasons that a path tells by name; those that come later are "other". Each is a series.
_REASONS_NAMED = 4


class PathState(enum.StrEnum):
    """How a path is. Values are in logs: never rename them."""

    UNKNOWN = "unknown"
    OK = "ok"
    FAILING = "failing"
    DRAINING = "draining"


class Change(NamedTuple):
    """A path's state became another.

    Attributes:
        before: What it was.
        after: What it is.
        probes: How many probes the old state lasted for.
    """

    before: PathState
    after: PathState
    probes: int


class News(NamedTuple):
    """What one result changed, for those who act on it.

    Attributes:
        change: The path's state became another; None: it did not.
        heard: What it shows of who answers.
    """

    change: Change | None
    heard: Heard


class Learnt(NamedTuple):
    """What the measurements of one probe showed.

    Attributes:
        segments: What became of its segments, or the SYNs of a connection that never came to be;
            None where that is not known, or not to be claimed.
        clock_steps: How often the offset of the server's clock jumped.
        proxy_changed: A sign of a proxy appeared, changed or went.
        boxes: What else was found on the path for the first time: ``Proxy.boxes``.
    """

    segments: Segments | None
    clock_steps: int
    proxy_changed: bool
    boxes: Set[str]


class Path:
    """One client to one server address.

    Args:
        target: Where to. ``target`` may be replaced while the path lives.
        drain_grace_ns: How long a server's GOODBYE excuses its silence.
        renames: What its server was called before, if it was a path before.

    Attributes:
        responder: Who answers here.
        label: What series call the server: its name, made unique by the path's owner.
        state: How it is.
        scheduled: Slots that became due.
        missed: Slots that nobody could probe in.
        in_flight: Probes under way.
        outcomes: Probes ended, by outcome.
        reasons: Those that were not ok, by reason and outcome; the first four reasons by name.
        phase_ns: Sums of durations, by phase of ``PATH_PHASES``.
        phase_count: How many each sum has.
        retrans: Segments sent again, by our end (``client``) and by theirs (``server``).
        resenders: Those of the two ends whose kernel counts that, as far as is known.
        last_ns: Of the newest exchange with all its timestamps, by part of ``LAST_PARTS``; a stall
            of the server's program is in ``server_wakeup``. ``handshake`` is of the newest probe.
        growth: By how much that exchange was slower than the quickest of the last day, and in
            which direction.
        segments: What became of them; nothing is added while ``proxy`` has a sign.
        is_counted: Whether both kernels count segments, as far as is known.
        proxy: Whether both ends are of one connection.
        is_held: Whether the held connection is open.
        one_way: The one-way delays.
        last_ok_real_ns: When the newest good probe started, CLOCK_REALTIME; 0 before the first.
        verdicts: Those that stand.
        newest: The newest result.
        told: The newest that told how the path is: a void one does not.
    """

    def __init__(
        self, target: Target, *, drain_grace_ns: int, renames: Renames | None = None
    ) -> None:
        self.target = target
        self.responder = Responder(drain_grace_ns=drain_grace_ns, renames=renames)
        self.label = ""
        self.state = PathState.UNKNOWN
        self.scheduled = 0
        self.missed = 0
        self.in_flight = 0
        self.outcomes = dict.fromkeys(Outcome, 0)
        self.reasons: Counter[tuple[str, Outcome]] = Counter()
        self._named = 0
        self.phase_ns = dict.fromkeys(PATH_PHASES, 0)
        self.phase_count = dict.fromkeys(PATH_PHASES, 0)
        self.retrans = {"client": 0, "server": 0}
        self.resenders = set(self.retrans)
        self.last_ok_real_ns = 0
        self.newest: ProbeResult | None = None
        self.told: ProbeResult | None = None
        self.last_ns: dict[str, int] = {}
        self.growth: Growth | None = None
        self.segments = Segments()
        self.is_counted = True
        self.proxy = Proxy()
        self.is_held = False
        self.one_way = OneWay()
        self.verdicts: Standing = {}
        self._overflows = Overflows()
        self._clock_of = b""
        self._streak = 0

    @property
    def server(self) -> Who:
        """What series and logs call the server that answers here."""
        return self.responder.who

    def slots(self, scheduled: int, missed: int) -> None:
        """Count slots that became due, and those of them that nobody can probe in any more."""
        self.scheduled += scheduled
        self.missed += missed

    def miss(self) -> None:
        """Count one more of the slots that became due as missed."""
        self.missed += 1

    def begin(self) -> None:
        """A probe starts, in a slot that was counted in ``scheduled``."""
        self.in_flight += 1

    def record(self, result: ProbeResult) -> News:
        """Take in a probe that ended, judged: it is not changed any more."""
        heard = self.responder.hear(result, self.target.who)
        self.in_flight -= 1
        self.newest = result
        self.outcomes[result.outcome] += 1
        if result.reason is not Reason.OK:
            self._count_reason(result)
        else:
            self.last_ok_real_ns = result.started_real_ns
        return News(self._change(result), heard)

    def measure(self, result: ProbeResult) -> Learnt:
        """Take in what a recorded probe measured, which may be done later."""
        steps, sign, boxes = self.one_way.steps, self.proxy.sign, self.proxy.boxes
        for phase, _, ns in result.phases():
            if phase in self.phase_ns:
                self.phase_ns[phase] += ns
                self.phase_count[phase] += 1
        if result.handshake_ns is not None:
            self.last_ns["handshake"] = result.handshake_ns
        for exchange in result.exchanges if result.reason not in _UNTIMED else ():
            self.learn(exchange, result.ended_ns, result.server)
        self.retrans["client"] += result.retrans or 0
        if result.server_ended is not None:
            self.retrans["server"] += result.server_ended.total_retrans or 0
        for end, counters in (("client", result.ended), ("server", result.server_ended)):
            if counters is not None and counters.total_retrans is None:
                # A kernel that does not count has no series: 0 would say that it sent nothing
                # again.
                self.resenders.discard(end)
            elif counters is not None:
                self.resenders.add(end)
        if result.bye is not None:
            ours, theirs = result.bye.sent.data_segs_out, result.bye.server.data_segs_in
            self.is_counted = ours is not None and theirs is not None
        # Before the segments: they are computed with it.
        result.overflows = self._overflows.since(result)
        segments = self.proxy.probe(result)
        if segments is not None and not self._add(segments):
            segments = None
        return Learnt(
            segments,
            self.one_way.steps - steps,
            self.proxy.sign != sign,
            self.proxy.boxes - boxes,
        )

    def learn(self, exchange: Exchange, now_ns: int, server: Identity | None) -> int:
        """Take in the times of one exchange, on a fresh connection or the held one.

        Args:
            exchange: Complete.
            now_ns: About when it was, CLOCK_MONOTONIC.
            server: Whose clock is in it: behind a load balancer they are many.

        Returns:
            How often the offset of the server's clock jumped: 0 or 1.
        """
        split = exchange.split
        # The wait for a retransmission is no delay of the path, and would be taken for one of a
        # direction.
        if split is None or exchange.resent:
            return 0
        last = self.last_ns
        last["client_send"] = split.client_send_ns
        last["network"] = split.network_ns
        last["server_wakeup"] = split.server_wakeup_ns + (split.server_stall_ns or 0)
        last["server_app"] = split.server_app_ns
        last["server_send"] = split.server_send_ns
        last["client_wakeup"] = split.client_wakeup_ns
        instance = server.instance if server is not None else b""
        # Another process may be on another host, whose clock is another.
        if instance != self._clock_of:
            self.one_way.reset()
            self._clock_of = instance
        steps = self.one_way.steps
        self.growth = self.one_way.observe(now_ns, split.forward_ns, split.reverse_ns)
        return self.one_way.steps - steps

    def count(self, segments: Segments) -> bool:
        """Take in what became of a connection's segments; False if it cannot be claimed."""
        self.proxy.segments(segments)
        return self._add(segments)

    def _add(self, segments: Segments) -> bool:
        # An account that contradicts itself is left out even while that is not yet a sign of a
        # proxy.
        if self.proxy.sign or breaks(segments):
            return False
        self.segments += segments
        return True

    def _count_reason(self, result: ProbeResult) -> None:
        reason: str = result.reason
        if (reason, result.outcome) not in self.reasons and self._named >= _REASONS_NAMED:
            reason = "other"
        self._named += (reason, result.outcome) not in self.reasons
        self.reasons[reason, result.outcome] += 1

    def _change(self, result: ProbeResult) -> Change | None:
        self._streak += 1
        if result.reason is Reason.DRAINING or (result.draining and result.reason is Reason.OK):
            after = PathState.DRAINING
        elif result.outcome is Outcome.OK:
            after = PathState.OK
        elif result.outcome is Outcome.FAIL:
            after = PathState.FAILING
        else:
            return None
        self.told = result
        if after is self.state:
            return None
        change = Change(self.state, after, self._streak - 1)
        self.state, self._streak = after, 1
        return change
