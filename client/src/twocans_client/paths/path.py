"""The history of one path, in plain numbers. No I/O.

``scheduled = ok + fail + void + missed + in_flight`` holds after every call, and
``in_flight`` is 0 once every probe has ended.
"""

import enum
from collections import Counter
from typing import NamedTuple

from twocans_client.discovery.neighbours import Who
from twocans_client.discovery.specs import Target
from twocans_client.evidence.direction import Growth, OneWay
from twocans_client.evidence.loss import Segments
from twocans_client.evidence.overflows import Overflows
from twocans_client.evidence.proxy import Proxy, breaks
from twocans_client.evidence.results import Exchange, Outcome, ProbeResult, Reason
from twocans_core.protocol.messages import Identity

from .renames import Renames

__all__ = ["LAST_PARTS", "PATH_PHASES", "Change", "Path", "PathState"]

# What a path keeps sums of; every phase has a histogram by zone besides.
PATH_PHASES = ("connect", "network", "server", "client")

# Of what a path keeps the newest value.
LAST_PARTS = (
    *("handshake", "client_send", "network", "server_wakeup", "server_app", "server_send"),
    "client_wakeup",
)
# Reasons that a path tells by name; those that come later are "other". Each is a series.
_REASONS_NAMED = 6

# Behind a load balancer each probe may find another server, and a hostile one makes names up.
# Every name is a new set of series, so a path keeps its name until as many answers in a row came
# from one other.
_REPLACED_AFTER = 10
# Replicas of one name are more than one process, and none of them was restarted. So one that
# begins is taken for a restart when it has answered so often and no older one did any more.
_RESTARTED_AFTER = 3
_INSTANCES_KEPT = 8


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


class _Processes:
    """The processes that answer under one name: which came in the place of the others."""

    def __init__(self) -> None:
        self._alive_ns: dict[bytes, int] = {}  # of each, when it answered last
        self._newest = b""  # may have come in the place of all others
        self._began_ns = 0
        self._answers = 0

    def answered(self, instance: bytes, began_ns: int | None, alive_ns: int) -> bool:
        """Take in an answer; returns whether it is certain now that there was a restart.

        All of CLOCK_MONOTONIC, ours.

        Args:
            instance: Who answered.
            began_ns: When that process began, or earlier; None where it does not say.
            alive_ns: When it answered.
        """
        known, is_certain = self._alive_ns, False
        is_new = instance not in known and bool(known)
        if is_new and began_ns is not None and began_ns > max(known.values()):
            # One that came and went before it was believed in was a restart as well.
            is_certain = self._answers > 0
            self._newest, self._began_ns, self._answers = instance, began_ns, 0
        known[instance] = max(alive_ns, known.pop(instance, 0))
        if len(known) > _INSTANCES_KEPT:
            del known[next(iter(known))]
        if instance == self._newest:
            self._answers += 1
            is_certain = is_certain or self._answers == _RESTARTED_AFTER
            if self._answers == _RESTARTED_AFTER:
                self._newest, self._answers = b"", 0
        elif alive_ns > self._began_ns:
            self._newest, self._answers = b"", 0  # both live: another server of the same name
        return is_certain


class Path:
    """One client to one server address.

    Args:
        target: Where to. ``target`` may be replaced while the path lives.
        drain_grace_ns: How long a server's GOODBYE excuses its silence.
        renames: What its server was called before, if it was a path before.

    Attributes:
        server: Name of the server, from its greeting; ``""`` before the first. So are node, zone
            and version. Once named, a path keeps its server's name; where the server is called
            anew too often, zone and node are no more what it says.
        is_named: Whether somebody greeted us.
        label: What series call the server: its name, made unique by the path's owner.
        restarted: Whether the newest result made it certain that its server was restarted.
        replaced_by: Another server that answers here now, ten times in a row; None while the old
            one does. Its path is another one.
        state: How it is.
        scheduled: Slots that became due.
        missed: Slots that nobody could probe in.
        in_flight: Probes under way.
        outcomes: Probes ended, by outcome.
        reasons: Those that were not ok, by reason and outcome; the first six reasons by name.
        phase_ns: Sums of durations, by phase of ``PATH_PHASES``.
        phase_count: How many each sum has.
        retrans: Segments sent again, by our end (``client``) and by theirs (``server``).
        resenders: Those of the two ends whose kernel counts that, as far as is known.
        last_ns: Of the newest exchange with all its stamps, by part of ``LAST_PARTS``; a stall of
            the server's program is in ``server_wakeup``. ``handshake`` is of the newest probe.
        growth: By how much that exchange was slower than the quickest of the last day, and on
            which way.
        segments: What became of them; nothing is added while ``proxy`` has a sign.
        is_counted: Whether both kernels count segments, as far as is known.
        proxy: Whether both ends are of one connection.
        is_held: Whether the held connection is open.
        one_way: The one-way delays.
        last_ok_real_ns: When the newest good probe started, CLOCK_REALTIME; 0 before the first.
        newest: The newest result.
        told: The newest that told how the path is: a void one does not.
    """

    def __init__(
        self, target: Target, *, drain_grace_ns: int, renames: Renames | None = None
    ) -> None:
        self.target = target
        self.renames = renames or Renames()
        self.server = self.node = self.zone = self.version = ""
        self.is_named = False
        self.label = ""
        self.restarted = False
        self.replaced_by: Who | None = None
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
        self._overflows = Overflows()
        self._drain_grace_ns = drain_grace_ns
        self._clock_of = b""
        self._processes = _Processes()
        self._draining_since_ns = self._draining_until_ns = 0
        self._streak = 0
        self._strangers = 0
        self._stranger = self._called = Who()

    def begin(self) -> None:
        """A probe starts, in a slot that was counted in ``scheduled``."""
        self.in_flight += 1

    def said_goodbye(self, result: ProbeResult) -> bool:
        """Whether the server had said that it leaves before a probe, not yet recorded, began.

        Not if the probe was answered by a process that came in the place of that one.
        """
        began_ns = result.server_began_ns
        is_another = began_ns is not None and began_ns > self._draining_since_ns
        return not is_another and result.started_ns < self._draining_until_ns

    def record(self, result: ProbeResult) -> Change | None:
        """Take in a probe that ended, judged; returns how the path's state changed, if it did."""
        self._learn_server(result)
        self.in_flight -= 1
        self.newest = result
        self.outcomes[result.outcome] += 1
        if result.reason is not Reason.OK:
            self._count_reason(result)
        else:
            self.last_ok_real_ns = result.started_real_ns
        return self._change(result)

    def measure(self, result: ProbeResult) -> Segments | None:
        """Take in what a recorded probe measured, which may be done later.

        Returns:
            What became of its segments, or the SYNs of a connection that never came to be; None
            where that is not known, or not to be claimed.
        """
        for phase, _, ns in result.phases():
            if phase in self.phase_ns:
                self.phase_ns[phase] += ns
                self.phase_count[phase] += 1
        if result.handshake_ns is not None:
            self.last_ns["handshake"] = result.handshake_ns
        for exchange in result.exchanges if result.reason is not Reason.CLOCK_STEP else ():
            self.learn(exchange, result.ended_ns, result.server)
        self.retrans["client"] += result.retrans or 0
        if result.server_ended is not None:
            self.retrans["server"] += result.server_ended.total_retrans or 0
        for end, counters in (("client", result.ended), ("server", result.server_ended)):
            if counters is not None and counters.total_retrans is None:
                self.resenders.discard(end)
            elif counters is not None:
                self.resenders.add(end)
        if result.bye is not None:
            ours, theirs = result.bye.sent.data_segs_out, result.bye.server.data_segs_in
            self.is_counted = ours is not None and theirs is not None
        result.overflows = self._overflows.since(result)
        segments = self.proxy.probe(result)
        return segments if segments is not None and self._add(segments) else None

    def learn(self, exchange: Exchange, now_ns: int, server: Identity | None) -> None:
        """Take in the times of one exchange, on a fresh connection or the held one.

        Args:
            exchange: Complete.
            now_ns: About when it was, CLOCK_MONOTONIC.
            server: Whose clock is in it: behind a load balancer they are many.
        """
        split = exchange.split
        if split is None or exchange.resent:
            return
        last = self.last_ns
        last["client_send"] = split.client_send_ns
        last["network"] = split.network_ns
        last["server_wakeup"] = split.server_wakeup_ns + (split.server_stall_ns or 0)
        last["server_app"] = split.server_app_ns
        last["server_send"] = split.server_send_ns
        last["client_wakeup"] = split.client_wakeup_ns
        instance = server.instance if server is not None else b""
        if instance != self._clock_of:
            self.one_way.reset()
            self._clock_of = instance
        self.growth = self.one_way.observe(now_ns, split.forward_ns, split.reverse_ns)

    def count(self, segments: Segments) -> bool:
        """Take in what became of a connection's segments; False if it cannot be claimed."""
        self.proxy.segments(segments)
        return self._add(segments)

    def _add(self, segments: Segments) -> bool:
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

    def _learn_server(self, result: ProbeResult) -> None:
        server = result.server
        self.restarted = False
        if server is not None:
            began_ns = result.server_began_ns
            if began_ns is not None and began_ns > self._draining_since_ns:
                self._draining_until_ns = 0  # it came in the place of the one that left
            names = Who(server.name, server.node, server.zone, server.version)
            names = names.or_else(self.target.who)
            if names == self._called:
                self._strangers = 0
            elif not self.is_named or server.name == self._called.name:
                self.name(names, result.ended_ns)
            elif not self.renames.is_over:
                self._strangers = self._strangers + 1 if names == self._stranger else 1
                self._stranger = names
                self.replaced_by = names if self._strangers >= _REPLACED_AFTER else None
            if server.name == self._called.name:
                alive_ns = result.started_ns + (result.connect_ns or 0) + (result.greet_ns or 0)
                self.restarted = self._processes.answered(server.instance, began_ns, alive_ns)
        if result.draining:
            self._draining_since_ns = result.ended_ns
            self._draining_until_ns = result.ended_ns + self._drain_grace_ns

    def expect(self, names: Who, now_ns: int) -> None:
        """Say who is there, before the first answer, as far as it is known."""
        self.name(names, now_ns)
        self.is_named = bool(names.name)

    def name(self, names: Who, now_ns: int) -> None:
        """Say who answers here."""
        is_same = bool(self.server) and names.name == self._called.name
        self.is_named, self._called = True, names
        called = self.renames.call(names, now_ns)
        # A name that series have already is kept: only what is new is not believed.
        server = self.server if is_same else called.name
        self.server, self.node, self.zone, self.version = called._replace(name=server)

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
