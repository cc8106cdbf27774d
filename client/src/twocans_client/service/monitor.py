"""One path under watch: when it is probed, and what becomes of each result."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from twocans_client.evidence.blame import judge_probe
from twocans_client.evidence.idle import Controls, IdleResult, Way
from twocans_client.evidence.loss import Segments
from twocans_client.evidence.results import Exchange, Outcome, ProbeResult, Reason
from twocans_client.export.journal import Journal
from twocans_client.paths.path import News, Path, PathState
from twocans_client.paths.purse import (
    Cost,
    Purse,
    cost_of,
    exchange_bytes,
    held_bytes,
    probe_bytes,
)
from twocans_client.paths.tally import ClientTally
from twocans_client.probes.endings import Ending
from twocans_client.probes.ports import Ports
from twocans_client.probes.probe import (
    MOST_SIZED_BYTES,
    Attempt,
    MakeAttempt,
    Plan,
    probe,
    sized_payload,
)
from twocans_client.probes.schedule import Schedule, SizedTurns
from twocans_client.probes.tools import Tools
from twocans_client.verdicts.engine import Began, Confirmed, Ended
from twocans_core.clock import Clock
from twocans_core.host.procfs import LocalPorts
from twocans_core.host.stalls import STALL_NS
from twocans_core.kernel.tcpinfo import NO_TCP_COUNTS, Limited, TcpCounts
from twocans_core.process.jsonlog import report_bug
from twocans_core.protocol.messages import Identity

from .budget import Budget
from .inquiry import Inquiry
from .intake import Intake

if TYPE_CHECKING:
    from twocans_client.probes.held import Held
    from twocans_client.probes.idle import Idle

__all__ = ["Monitor", "Owner", "Shared"]

log = logging.getLogger(__name__)


class Shared(NamedTuple):
    """What all monitors of a client work with.

    Attributes:
        loop: Where they run.
        clock: Its clocks.
        plan: What each probe is to do.
        tools: Gives what with; our identity in them may change.
        worst_lag_since: By how much the loop was late at worst since a moment of CLOCK_MONOTONIC;
            nanoseconds both.
        budget: The probes under way.
        intake: Takes in what they measured.
        tally: Counts it over all paths.
        local_ports: Those that the kernel chooses from; None: it does not say, and shall choose.
        load: Counts all that our host sends and receives by TCP.
        make_attempt: How probes talk.
        judged: Is told which of a path's verdicts began, were confirmed and ended.
    """

    loop: asyncio.AbstractEventLoop
    clock: Clock
    plan: Plan
    tools: Callable[[], Tools]
    worst_lag_since: Callable[[int], int]
    budget: Budget
    intake: Intake
    tally: ClientTally
    local_ports: LocalPorts | None = None
    load: Callable[[], TcpCounts] = lambda: NO_TCP_COUNTS
    make_attempt: MakeAttempt = Attempt
    judged: Callable[[Path, Sequence[Began | Confirmed | Ended]], None] = lambda *_: None


class Owner(Protocol):
    """Who has all monitors."""

    @property
    def count(self) -> int:
        """How many paths are being probed."""

    def check_clocks(self) -> int:
        """Look whether our clock was stepped; returns when that was last seen, CLOCK_MONOTONIC."""

    def named(self, monitor: "Monitor") -> None:
        """Its path has a name now, which its first line is to have."""

    def heard(self, monitor: "Monitor", result: ProbeResult, news: News) -> None:
        """A probe has ended, and its path knows of it."""

    def over(self, monitor: "Monitor") -> None:
        """No probe of it is under way any more."""


class Monitor:
    """One path under watch. It observes the path's held connection as well, and its idle ones.

    Args:
        path: Which.
        schedule: When to probe it.
        purse: What that may cost.
        sized: Which probes are sized.
        shared: What with.
        owner: Who has this monitor, and the others.
    """

    def __init__(
        self,
        path: Path,
        schedule: Schedule,
        purse: Purse,
        sized: SizedTurns,
        shared: Shared,
        owner: Owner,
    ) -> None:
        self.path = path
        self.schedule = schedule
        self.purse = purse
        self._sized = sized
        # As the newest that was good cost, and until then by estimate.
        plan = shared.plan
        self._probe_bytes = probe_bytes(plan.exchanges, plan.payload_bytes)
        self._sized_bytes = exchange_bytes(sized_payload(None, MOST_SIZED_BYTES))
        self._idle_bytes = probe_bytes(2, min(plan.payload_bytes, 1_024))
        self._held_bytes = held_bytes(plan.payload_bytes)
        self._controls = Controls()
        self.journal = Journal(path)
        self.held: Held | None = None
        self.idle: Idle | None = None
        self.probes: set[asyncio.Task[None]] = set()
        self.inquiry = Inquiry(
            path, purse, shared.tools, shared.clock, held=lambda: self.held, load=shared.load
        )
        self._shared = shared
        self._owner = owner
        self._timer: asyncio.TimerHandle | None = None
        # By chance, so that a client that starts again does not use again what it used just now.
        ports = shared.local_ports
        start = shared.tools().rng.getrandbits(16)
        self._ports = Ports(*ports, start=start) if ports is not None else None
        self._is_stale = False  # what the held connection shows next was before a clock step

    def start(self) -> None:
        """Probe from the next slot on."""
        delay_s = (self.schedule.next_ns - self._shared.clock.mono_ns()) / 1e9
        self._timer = self._shared.loop.call_later(max(0.0, delay_s), self._tick)

    def stop(self) -> None:
        """Begin no more probes, and end the held connection; probes under way go on."""
        if self._timer is not None:
            self._timer.cancel()
        self.inquiry.stop()
        if self.held is not None:
            self.look_at_held()
            self.held.stop()
        if self.idle is not None:
            self.idle.stop()

    def forget_clocks(self) -> None:
        """Our clock was stepped: one-way times from before it cannot be compared any more."""
        self.path.one_way.forget_clocks()
        self._is_stale = self.held is not None and self.held.is_connected
        self.inquiry.stepped()

    # --- probing --------------------------------------------------------------------------

    def _tick(self) -> None:
        shared, path = self._shared, self.path
        now_ns, due_ns = shared.clock.mono_ns(), self.schedule.next_ns
        intended_ns, scheduled, missed = self.schedule.take(now_ns)
        # The next slot's timer first: whatever goes wrong below, the schedule goes on.
        self.start()
        path.slots(scheduled, missed)
        if now_ns - due_ns >= STALL_NS:
            self.inquiry.kept(due_ns, now_ns, shared.tools().stalled_since(due_ns))
        if missed:
            # Since the slot before the first that was missed: the lag that explains it began after
            # that.
            since_ns = now_ns - (missed + 1) * self.schedule.interval_ns
            self.journal.missed(missed, shared.worst_lag_since(since_ns) / 1e9)
        if intended_ns is not None:
            if not shared.budget.allows(path.in_flight, self._owner.count):
                path.miss()
                self.journal.over_budget(shared.budget.in_flight)
            elif not self.purse.takes(Cost.PROBE, self._probe_bytes, now_ns):
                path.miss()
                self.journal.over_bytes(self.purse.bytes_per_hour)
            else:
                self._begin(intended_ns, now_ns)
        self.journal.write(now_ns)
        self._look(now_ns)

    def _look(self, now_ns: int) -> None:
        """Have the verdicts drawn: what is found is kept by ``path`` and the log."""
        changes = self.inquiry.look(now_ns)
        self.journal.judge(changes, now_ns)
        self._shared.judged(self.path, changes)
        if self.inquiry.window.wants_sized:
            self.want_sized()
        for port in self.inquiry.take_ports():
            self.want_port(port)

    def want_port(self, port: int) -> None:
        """Have one of the next probes use this local port again, if it is free."""
        if self._ports is not None:
            self._ports.want(port)

    def want_sized(self) -> None:
        """Have a sized exchange as soon as may be: in the next probe, if the budget allows it."""
        self._sized.want()

    def _begin(self, intended_ns: int, now_ns: int) -> None:
        sized = self._sized.take(now_ns)
        if sized and not self.purse.takes(Cost.SIZED, self._sized_bytes, now_ns):
            self._sized.end()
            sized = False
        self._owner.check_clocks()  # what happened before is not this probe's
        self.path.begin()
        self._shared.budget.in_flight += 1
        task = self._shared.loop.create_task(self._probe(intended_ns, sized=sized))
        self.probes.add(task)
        task.add_done_callback(self.probes.discard)
        task.add_done_callback(report_bug)

    async def _probe(self, intended_ns: int, *, sized: bool) -> None:
        clock = self._shared.clock
        taken = self._probe_bytes + (self._sized_bytes if sized else 0)
        note_control = None if sized else self._controls.begin(clock.mono_ns())
        result = ProbeResult(
            intended_ns=intended_ns,
            started_ns=clock.mono_ns(),
            started_real_ns=clock.real_ns(),
        )
        self.inquiry.begun(result)
        try:
            await self._attempt(result, sized=sized)
        except asyncio.CancelledError:
            result.reason = Reason.SHUTDOWN
            raise
        except Exception:
            log.exception("bug", extra={"limited": True})
            result.reason = Reason.INTERNAL_ERROR
        finally:
            self.inquiry.over(result)
            # Also after a cancellation: each probe that began must end in an outcome, or the counts
            # would not add up (``Path``).
            result.ended_ns = result.ended_ns or clock.mono_ns()
            if sized:
                self._sized.end()
            self._pay(result, taken)
            self.settle(result)
            if note_control is not None:
                tells = result.outcome is not Outcome.VOID
                is_good = result.reason is Reason.OK if tells else None
                whose = result.server.instance if result.server else b""
                note_control(is_good, Way.of(whose, result.local, result.seen_as))
            self._owner.over(self)

    def _pay(self, result: ProbeResult, taken: int) -> None:
        """Put right what was taken for a probe before one knew what it would cost."""
        cost = cost_of(result)
        self.purse.spend(cost - taken, self._shared.clock.mono_ns())
        if result.reason is not Reason.OK:
            return
        if result.is_sized:
            self._sized_bytes = max(0, cost - self._probe_bytes)
        else:
            self._probe_bytes = cost

    async def _attempt(self, result: ProbeResult, *, sized: bool) -> None:
        target, shared = self.path.target, self._shared
        if target.address is None:
            result.reason = target.problem or Reason.DNS_FAILURE
        else:
            ports = self._ports.take() if self._ports is not None else ()
            plan = shared.plan._replace(local_ports=ports, sized=sized)
            tools, make_attempt = shared.tools(), shared.make_attempt
            await probe(target.address, plan, tools, attempt_type=make_attempt, result=result)

    def settle(self, result: ProbeResult) -> None:
        """Take a probe that has ended through its stations, each of which hears of it once.

        The order matters. A clock step is looked for first, because it voids what it spoils. Then
        the result is judged, and nobody changes it any more. The path has to know of it before
        the log can say how the path is, and the path must have its name by then. What was measured
        can wait. The owner comes last: it may put another monitor into this one's place.
        """
        shared, path = self._shared, self.path
        result.path = path.target.key
        shared.budget.in_flight -= 1
        stepped_ns = self._owner.check_clocks()
        judge_probe(
            result,
            said_goodbye=path.responder.said_goodbye(result),
            stepped=result.started_ns < stepped_ns,
        )
        news = path.record(result)
        shared.intake.add(self._measure, result)
        shared.tally.server_restarts += news.heard.restarted
        if news.heard.named:
            self._owner.named(self)
        self.journal.take(news, shared.clock.mono_ns())
        self._owner.heard(self, result, news)

    def _measure(self, result: ProbeResult) -> None:
        tally = self._shared.tally
        learnt = self.path.measure(result)
        tally.observe(result, self.path.server.zone)
        if learnt.segments is not None:
            tally.count_segments(learnt.segments, self.path.server.zone)
        tally.server_clock_steps += learnt.clock_steps
        self.journal.learn(learnt)
        self.inquiry.probed(result, learnt)
        self._look(self._shared.clock.mono_ns())

    # --- what the idle connections show ------------------------------------------------------

    def affords_idle(self) -> bool:
        # On a path that fails they show nothing.
        is_well = self.path.state is PathState.OK
        now_ns = self._shared.clock.mono_ns()
        return is_well and self.purse.takes(Cost.IDLE, self._idle_bytes, now_ns)

    def control_since(self, at_ns: int, way: Way, silent_ns: int) -> bool | None:
        return self._controls.since(at_ns, way, silent_ns)

    def idled(self, result: IdleResult) -> None:
        self._shared.tally.idled(result)
        bracket = self.idle.ladder.bracket() if self.idle is not None else None
        self.inquiry.window.idled(result, bracket)

    # --- what the held connection shows -----------------------------------------------------

    def affords_held(self) -> bool:
        return self.purse.takes(Cost.HELD, self._probe_bytes, self._shared.clock.mono_ns())

    def exchanged(self, exchange: Exchange, server: Identity, tainted: str) -> None:
        now_ns = self._shared.clock.mono_ns()
        # Not asked for: a held connection that is silenced would be ended by the server.
        self.purse.spend(self._held_bytes, now_ns)
        steps = 0
        if not self._is_stale:
            steps = self.path.learn(exchange, now_ns, server)
            self._shared.tally.server_clock_steps += steps
        self.inquiry.exchanged(exchange, is_stale=self._is_stale, stepped=steps > 0)
        self._is_stale = False
        self._shared.tally.observe_held(exchange, self.path.server.zone, tainted=bool(tainted))

    def skipped(self, count: int) -> None:
        self._shared.tally.held_skipped += count

    def counted(self, segments: Segments) -> None:
        if self.path.count(segments):
            self._shared.tally.count_segments(segments, self.path.server.zone)
            self.inquiry.window.counted(segments)

    def limited(self, limited: Limited) -> None:
        self._shared.tally.count_limited(limited)

    def ended(self, ending: Ending) -> None:
        self.inquiry.held_ended(ending)
        if ending.lasted_ns is not None:  # of what was never greeted the probes speak
            if not ending.own:
                self._controls.lost(self._shared.clock.mono_ns())
            own = "yes" if ending.own else "no"
            self._shared.tally.held_endings[str(ending.reason), own] += 1
            self.journal.note_held(ending)

    def look_at_held(self) -> None:
        """See whether the held connection is open."""
        if self.held is not None:
            self.path.is_held = self.held.is_connected
