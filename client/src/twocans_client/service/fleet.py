"""All paths of a client: which there are, who answers on them, and what befalls all at once."""

import asyncio
import logging
from collections.abc import Callable, Iterable

from twocans_client.config import ClientConfig
from twocans_client.discovery.resolver import LOOKUP_S, Resolution, retry_ns
from twocans_client.discovery.specs import Spec, Target, Who
from twocans_client.evidence.results import Outcome, ProbeResult, Reason
from twocans_client.evidence.rows import Resolved
from twocans_client.export.journal import OwnTrouble
from twocans_client.paths.labels import Labels
from twocans_client.paths.path import News, Path
from twocans_client.paths.purse import Purse
from twocans_client.paths.renames import Renames
from twocans_client.probes.held import Held
from twocans_client.probes.held_connection import HeldPlan
from twocans_client.probes.idle import Idle, IdlePlan
from twocans_client.probes.schedule import Schedule, SizedTurns, phase_ns
from twocans_core.clock import StepDetector
from twocans_core.process.jsonlog import report_bug

from .monitor import Monitor, Shared

__all__ = ["DNS_MARGIN_S", "Fleet", "grace_ns_of"]

log = logging.getLogger(__name__)

DNS_MARGIN_S = 10.0
"""Until the cluster's resolver knows that a server has gone."""
# While stopping: how often to look whether all probes have ended, and how long a held
# connection may take to say GOODBYE.
_LOOK_S = 0.01
_PART_S = 2.0
# What a server was called is remembered for so long after it was a target.
_RENAMES_KEPT_NS = 3_600_000_000_000
# One probe of so many is sized, at least.
_SIZED_OF = 20


class Fleet:
    """The monitors of all paths: it makes, replaces and retires them, and owns what they share.

    Args:
        config: The client's settings.
        shared: What monitors work with.
        max_held: How many held connections there may be.
        max_idle: How many idle connections there may be.
        met: Called with every answer: the target, who answered, whether it is leaving.
        observer: Called with every result, after it was counted.

    Attributes:
        totals: Of paths that are no more: probes by outcome, slots scheduled and missed.
    """

    def __init__(
        self,
        config: ClientConfig,
        shared: Shared,
        *,
        max_held: int,
        max_idle: int = 0,
        met: Callable[[Target, Who, bool], None],
        observer: Callable[[ProbeResult], None] | None = None,
    ) -> None:
        self.totals = dict.fromkeys((*Outcome, "scheduled", "missed"), 0)
        self._config = config
        self._shared = shared
        self._max_held = max_held
        self._idle_places = max_idle
        self._met = met
        self._observer = observer
        self._interval_ns = int(config.interval_s * 1e9)
        self._grid_ns = int(config.grid_s * 1e9)
        # A path that is probed often is to show soon what only large packets meet.
        often_s = min(config.sized_interval_s, _SIZED_OF * config.interval_s)
        self._sized_ns = int(often_s * 1e9)
        self._held_plan = HeldPlan(
            int(config.held_interval_s * 1e9),
            config.payload_bytes,
            shared.plan.timeout_ns,
            int(config.drain_grace_s * 1e9),
            grid_ns=self._grid_ns,
        )
        self._monitors: dict[str, Monitor] = {}
        self._retired: set[Monitor] = set()
        self._holding: set[asyncio.Task[None]] = set()
        self._idling: set[asyncio.Task[None]] = set()
        self._labels = Labels()
        self._renames: dict[str, Renames] = {}
        self._steps = StepDetector(shared.clock)
        self._own_trouble = OwnTrouble()
        self._stopping = False

    @property
    def monitors(self) -> list[Monitor]:
        """Those of the paths being probed now."""
        return list(self._monitors.values())

    @property
    def count(self) -> int:
        """How many paths are being probed now."""
        return len(self._monitors)

    # --- which paths there are ------------------------------------------------------------

    def retarget(self, targets: Iterable[Target]) -> None:
        """Probe these from now on, and nothing else. A path that stays is not disturbed."""
        if self._stopping:
            return  # a look-up that ended just now
        wanted = {target.key: target for target in targets}
        for key in self._monitors.keys() - wanted.keys():
            self._monitors[key].journal.removed()
            self._retire(key)
        self._forget_renames(wanted)
        for key, target in wanted.items():
            monitor = self._monitors.get(key)
            if monitor is not None:
                monitor.path.target = target
            else:
                self._open(key, target)

    def _forget_renames(self, wanted: dict[str, Target]) -> None:
        forget_ns = self._shared.clock.mono_ns() - _RENAMES_KEPT_NS
        self._renames = {
            key: renames
            for key, renames in self._renames.items()
            if key in wanted or renames.used_ns > forget_ns
        }

    def _open(self, key: str, target: Target) -> None:
        name = self._shared.tools().identity.name
        # By names, not by chance: a restart finds the same slots, and the load on servers is as it
        # was.
        phase = phase_ns(name, key, self._interval_ns, self._grid_ns)
        schedule = Schedule(self._interval_ns, phase, self._shared.clock.mono_ns())
        purse = Purse(self._config.budget, self._shared.tally.leave_out)
        self._begin(key, self._path(target), schedule, purse).journal.added()

    def _path(self, target: Target) -> Path:
        renames = self._renames.setdefault(target.key, Renames())
        grace_ns = grace_ns_of(self._config, target.spec)
        path = Path(target, drain_grace_ns=grace_ns, renames=renames)
        if target.who is not None:
            path.responder.expect(target.who, self._shared.clock.mono_ns())
        return path

    def _begin(self, key: str, path: Path, schedule: Schedule, purse: Purse) -> Monitor:
        self._labels.give(path)
        sized = SizedTurns(self._sized_schedule(key))
        monitor = Monitor(path, schedule, purse, sized, self._shared, self)
        self._monitors[key] = monitor
        if len(self._holding) < self._max_held:
            self._hold(key, monitor)
        connections = min(self._config.idle_connections, self._idle_places)
        if connections:
            self._be_idle(monitor, connections)
        monitor.start()
        return monitor

    def _be_idle(self, monitor: Monitor, connections: int) -> None:
        path, config = monitor.path, self._config
        # Two slots, of which one may be missed, and the time that a probe may take.
        control_ns = self._shared.plan.timeout_ns + 2 * self._interval_ns
        plan = IdlePlan(connections, config.payload_bytes, self._shared.plan.timeout_ns, control_ns)
        idle = Idle(lambda: path.target.address, plan, self._shared.tools, monitor)
        monitor.idle = idle
        self._idle_places -= connections

        def give_back(task: asyncio.Task[None]) -> None:
            self._idling.discard(task)
            self._idle_places += connections

        task = self._shared.loop.create_task(idle.run())
        self._idling.add(task)
        task.add_done_callback(give_back)
        task.add_done_callback(report_bug)

    def _sized_schedule(self, key: str) -> Schedule | None:
        # A server that is probed with 0 exchanges may be one that takes none.
        if not self._sized_ns or not self._config.exchanges:
            return None
        name = self._shared.tools().identity.name
        phase = phase_ns(name, f"sized {key}", self._sized_ns)
        return Schedule(self._sized_ns, phase, self._shared.clock.mono_ns())

    def _hold(self, key: str, monitor: Monitor) -> None:
        path = monitor.path
        grace_ns = grace_ns_of(self._config, path.target.spec)
        held = monitor.held = Held(
            key,
            lambda: path.target.address,
            self._held_plan._replace(drain_grace_ns=grace_ns),
            self._shared.tools,
            monitor,
            monitor.affords_held,
        )
        task = self._shared.loop.create_task(held.run())
        self._holding.add(task)
        task.add_done_callback(self._holding.discard)
        task.add_done_callback(report_bug)

    def _replace(self, key: str, monitor: Monitor, who: Who) -> None:
        """Another server answers at this address: its numbers start from nothing."""
        was_over = monitor.path.responder.renames.is_over  # the new path's as well
        path = self._path(monitor.path.target)
        path.responder.name(who, self._shared.clock.mono_ns())
        # It is the same address: an outage that goes on is not to be logged as a new one.
        path.state = monitor.path.state
        self._retire(key)
        # The schedule goes on, so the slots are those of before and none is missed; and what was
        # spent is spent.
        journal = self._begin(key, path, monitor.schedule, monitor.purse).journal
        journal.replaces(monitor.path.server.name)
        if path.responder.renames.is_over and not was_over:
            journal.renamed_often()

    def _retire(self, key: str) -> None:
        monitor = self._monitors.pop(key)
        if not self._stopping:
            monitor.journal.close()
        self._labels.take(monitor.path)
        monitor.stop()
        self._retired.add(monitor)
        self.over(monitor)

    def over(self, monitor: Monitor) -> None:
        """Add a retired path to the totals as soon as its last probe has ended."""
        if monitor in self._retired and not monitor.path.in_flight:
            self._retired.remove(monitor)
            for outcome, value in monitor.path.outcomes.items():
                self.totals[outcome] += value
            self.totals["scheduled"] += monitor.path.scheduled
            self.totals["missed"] += monitor.path.missed

    def close(self) -> None:
        """Open no more paths: what discovery still finds comes too late."""
        self._stopping = True

    async def stop(self) -> None:
        """Begin no more probes, and let those under way end, and held connections say GOODBYE."""
        self.close()
        await asyncio.sleep(0)  # a probe that was cancelled before it ran could not settle
        # Everything is told to stop before anything is waited for, so that the waits overlap.
        for key in list(self._monitors):
            self._retire(key)
        clock = self._shared.clock
        # A probe ends by its own time-out at the latest. The second is for its last look and our
        # lateness.
        deadline_ns = clock.mono_ns() + self._shared.plan.timeout_ns + 1_000_000_000
        while self._retired and clock.mono_ns() < deadline_ns:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_S)
        late = [task for monitor in self._retired for task in monitor.probes]
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        if self._holding or self._idling:
            _, stuck = await asyncio.wait(self._holding | self._idling, timeout=_PART_S)
            for task in stuck:
                task.cancel()
            await asyncio.gather(*stuck, return_exceptions=True)
        self._shared.intake.flush()

    # --- what befalls them ------------------------------------------------------------------

    def check_clocks(self) -> int:
        """Look whether our clock was stepped; returns when that was last seen, CLOCK_MONOTONIC."""
        step = self._steps.check()
        if step is not None:
            # What was measured before the step must not meet what the step has reset.
            self._shared.intake.flush()
            self._shared.tally.clock_steps += 1
            fields = {
                "twocans.clock.stepped_s": step.stepped_ns / 1e9,
                "twocans.clock.suspended_s": step.suspended_ns / 1e9,
            }
            log.warning("clock_stepped", extra=fields)
            for monitor in self._monitors.values():
                monitor.forget_clocks()
        return self._steps.newest_ns

    def named(self, monitor: Monitor) -> None:
        """Call its series as its server is called, from the first line and the next scrape on."""
        if self._monitors.get(monitor.path.target.key) is monitor:
            self._labels.give(monitor.path)

    def resolved(self, spec: Spec, resolution: Resolution) -> Resolved | None:
        """Tell the paths of a name how its look-up went; a watch asks nobody, so nothing of it.

        Returns:
            What they were told.
        """
        if resolution.duration_ns is None and resolution.problem is None:
            return None
        now_ns = self._shared.clock.mono_ns()
        reason, detail = resolution.problem or Reason.OK, resolution.detail
        found = Resolved(now_ns, resolution.duration_ns, reason, detail, retry_ns())
        for monitor in self._monitors.values():
            if monitor.path.target.spec.text == spec.text:
                monitor.inquiry.window.resolved(found)
        return found

    def heard(self, monitor: Monitor, result: ProbeResult, news: News) -> None:
        """Take in what one probe means for more than its own path."""
        path, heard = monitor.path, news.heard
        if self._observer is not None:
            self._observer(result)
        self._own_trouble.note(result, self._shared.clock.mono_ns())
        key = path.target.key
        if self._monitors.get(key) is not monitor:
            return  # a late result of a path that is no more
        if heard.replaced_by is not None:
            self._replace(key, monitor, heard.replaced_by)
        if result.server is not None:
            self._met(path.target, Who.of(result.server), result.draining)


def grace_ns_of(config: ClientConfig, spec: Spec) -> int:
    """Return for how long a server's GOODBYE excuses its silence.

    Where a name gave the address, for as long as the name may go on giving it.
    """
    grace_s = config.drain_grace_s
    if spec.literal is None:
        # A look-up may come a fifth later than asked for (``targets``), and take as long as it may.
        next_s = config.resolve_interval_s * 1.2 + LOOKUP_S
        grace_s = max(grace_s, config.dns_cache_s + DNS_MARGIN_S + next_s)
    return int(grace_s * 1e9)
