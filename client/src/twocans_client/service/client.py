"""The client's service: the pipeline, joined together.

targets -> schedule -> probe -> results -> path -> metrics, logs
"""

import asyncio
import functools
import gc
import logging
import os
from collections.abc import Callable
from pathlib import Path as File
from random import Random

from twocans_client.config import ClientConfig
from twocans_client.discovery.endpointslices import Watch
from twocans_client.discovery.explorer import Greeting
from twocans_client.discovery.neighbours import Neighbourhood, Who
from twocans_client.discovery.resolver import LOOKUP_S, Resolution, Resolver, lookup_of
from twocans_client.discovery.specs import Spec, Target, parse_spec
from twocans_client.discovery.targets import Found, Policy, Targets
from twocans_client.evidence.blame import judge_probe
from twocans_client.evidence.loss import Segments
from twocans_client.evidence.results import Exchange, Outcome, ProbeResult, Reason
from twocans_client.export.journal import Journal, OwnTrouble, names_of
from twocans_client.export.metrics import ClientCollector, View
from twocans_client.paths.labels import Labels
from twocans_client.paths.path import Path
from twocans_client.paths.renames import Renames
from twocans_client.paths.tally import ClientTally
from twocans_client.probes.held import Ending, Held, HeldPlan
from twocans_client.probes.probe import Plan, Tools, probe
from twocans_client.probes.schedule import Schedule, phase_ns
from twocans_core import __version__
from twocans_core.clock import SYSTEM_CLOCK, Clock, StepDetector
from twocans_core.host import procfs
from twocans_core.host.stalls import StallWatch
from twocans_core.kernel.tcpinfo import Limited
from twocans_core.net.poller import Poller
from twocans_core.net.sockets import Address, Kernel, open_keeper
from twocans_core.net.streams import connect
from twocans_core.process.http import HttpServer
from twocans_core.process.jsonlog import LogPipe, report_bug
from twocans_core.process.telemetry import SelfCollector, make_registry
from twocans_core.protocol.messages import Identity

__all__ = ["Client", "grace_ns_of", "policy_of"]

log = logging.getLogger(__name__)

_RESERVED_DESCRIPTORS = 128
# What probes have measured is taken in when so many have ended, or after so long.
_MEASURED_AT_ONCE = 50
_MEASURED_AFTER_S = 1.0
# While stopping: how often to look whether all probes have ended, and how long a held
# connection may take to say GOODBYE.
_LOOK_S = 0.01
_PART_S = 2.0
# What a server was called is remembered for so long after it was a target.
_RENAMES_KEPT_NS = 3_600_000_000_000
# Until the cluster's resolver knows that a server has gone.
_MARGIN_S = 10.0


class _Runner:
    """One path, its schedule, its journal, and what of it is on the loop.

    It is told what the path's held connection shows.

    Attributes:
        is_stale: The exchange that it is told of next was before our clock was stepped.
    """

    def __init__(self, path: Path, schedule: Schedule, tally: ClientTally, clock: Clock) -> None:
        self.path = path
        self.schedule = schedule
        self.journal = Journal(path)
        self.timer: asyncio.TimerHandle | None = None
        self.probes: set[asyncio.Task[None]] = set()
        self.held: Held | None = None
        self.is_stale = False
        self._skipped = 0
        self._tally = tally
        self._clock = clock

    def exchanged(self, exchange: Exchange, tainted: str) -> None:
        server = self.held.server if self.held is not None else None
        steps = self.path.one_way.steps
        if not self.is_stale:
            self.path.learn(exchange, self._clock.mono_ns(), server)
        self.is_stale = False
        self._tally.server_clock_steps += self.path.one_way.steps - steps
        self._tally.observe_held(exchange, self.path.zone, tainted=bool(tainted))

    def counted(self, segments: Segments) -> None:
        if self.path.count(segments):
            self._tally.count_segments(segments, self.path.zone)

    def limited(self, limited: Limited) -> None:
        self._tally.count_limited(limited)

    def ended(self, ending: Ending) -> None:
        if ending.lasted_ns is not None:  # what was never greeted is what probes tell of
            own = "yes" if ending.own else "no"
            self._tally.held_endings[str(ending.reason), own] += 1
            self.journal.note_held(ending)

    def look_at_held(self) -> None:
        """Take over what the held connection counts by itself."""
        held = self.held
        if held is not None:
            self.path.is_held = held.is_connected
            self._tally.held_skipped += held.skipped - self._skipped
            self._skipped = held.skipped


class Client:
    """Everything of one client but its process: made, started and stopped on one loop.

    Args:
        config: Its settings.
        logs: For the count of dropped lines; None in tests.
        clock: Its clocks.
        rng: Draws payloads and jitter.
        resolver: Looks names up.
        observer: Called with every result, after it was counted.

    Raises:
        ListenError: The HTTP address cannot be had.
        ValueError: A target is not written right.
    """

    def __init__(
        self,
        config: ClientConfig,
        logs: LogPipe | None = None,
        *,
        clock: Clock = SYSTEM_CLOCK,
        rng: Random | None = None,
        resolver: Resolver | None = None,
        observer: Callable[[ProbeResult], None] | None = None,
    ) -> None:
        self._observer = observer
        self._config = config
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._interval_ns = int(config.interval_s * 1e9)
        self._grid_ns = int(config.grid_s * 1e9)
        self._runners: dict[str, _Runner] = {}
        self._retired: set[_Runner] = set()
        self._labels = Labels()
        self._renames: dict[str, Renames] = {}
        self._holding: set[asyncio.Task[None]] = set()
        self._in_flight = 0
        self._unmeasured: list[tuple[_Runner, ProbeResult]] = []
        self._measure_timer: asyncio.TimerHandle | None = None
        self._max_in_flight, self._max_held = _share_descriptors(config)
        self._steps = StepDetector(clock)
        self._own_trouble = OwnTrouble()
        self._stopping = False
        self._left_out = 0
        self.tally = ClientTally()
        self.totals = dict.fromkeys((*Outcome, "scheduled", "missed"), 0)
        self.about = config.about()
        self.identity = Identity(
            os.urandom(16), self.about["name"], config.node, config.zone, __version__
        )
        rng = rng or Random()  # noqa: S311 - payloads and jitter, no secrets
        self._stalls = StallWatch(clock)
        registry = None
        if config.metrics:
            registry = make_registry(
                SelfCollector("client", self._stalls, logs, self.about),
                ClientCollector(self.tally, self._view, self._loop),
            )
        specs = [parse_spec(text) for text in config.targets]
        self._http = HttpServer(
            config.http_host,
            config.http_port,
            registry,
            can="client",
            is_healthy=self._stalls.is_turning,
            is_ready=lambda: self._targets.is_settled and self._stalls.is_turning(),
        )
        self._close_keeper = open_keeper() if config.stamps else None
        self._poller = Poller(self._loop)
        self._plan = Plan(int(config.timeout_s * 1e9), config.exchanges, config.payload_bytes)
        self._held_plan = HeldPlan(
            int(config.held_interval_s * 1e9),
            config.payload_bytes,
            self._plan.timeout_ns,
            int(config.drain_grace_s * 1e9),
            grid_ns=self._grid_ns,
        )
        kernel = Kernel(stamps=config.stamps, tcp_info=config.tcp_info)
        dial = functools.partial(connect, poller=self._poller, clock=clock, kernel=kernel)
        attention = self._stalls.attention
        host = procfs.HostWatch(clock.mono_ns, procfs.HostReader(None))
        self._tools = Tools(dial, self.identity, rng, self._stalls.since, clock, attention, host)
        self._targets = Targets(
            specs,
            File(config.targets_file) if config.targets_file else None,
            policy_of(config, self.identity.name),
            resolver=resolver
            or Resolver(
                lookup_of(config.family),
                clock=clock,
                stalled_since=self._stalls.since,
                attention=attention,
            ),
            introduce=self._introduce,
            rng=rng,
            changed=self._retarget,
            resolved=self._resolved,
            watch=functools.partial(Watch, namespace=config.namespace, rng=rng),
            watch_failed=self._watch_failed,
            clock=clock,
        )

    @property
    def http_address(self) -> Address:
        """Where /metrics is; the port is the real one."""
        return self._http.address

    @property
    def paths(self) -> list[Path]:
        """The paths being probed now."""
        return [runner.path for runner in self._runners.values()]

    def _view(self) -> View:
        self._learn_own_zone()  # which is no change of what is probed
        self._measure()
        for runner in self._runners.values():
            runner.look_at_held()
        zones = {path.zone for path in self.paths}
        self.tally.keep_zones(zones, self._clock.mono_ns())
        return View(
            self.about["zone"],
            self.paths,
            self._left_out,
            self._targets.refused,
            self._targets.discovered,
            self._targets.unusable,
            self._targets.zones,
        )

    def start(self) -> None:
        """Begin to probe."""
        self._say_if_few_descriptors()
        self._stalls.start()
        self._http.start()
        self._watcher = self._loop.create_task(self._targets.run())
        self._watcher.add_done_callback(report_bug)
        # What lives now lives for ever: the collector need not look at it again and again.
        gc.collect()
        gc.freeze()

    def _say_if_few_descriptors(self) -> None:
        config = self._config
        if (self._max_in_flight, self._max_held) != _wanted(config):
            fields = {
                "twocans.descriptors.limit": procfs.descriptor_limit(),
                "twocans.descriptors.wanted": _RESERVED_DESCRIPTORS + sum(_wanted(config)),
                "twocans.probes.max_in_flight": self._max_in_flight,
                "twocans.held.max": self._max_held,
            }
            log.warning("few_descriptors", extra=fields)

    def reread_targets(self) -> None:
        """Read the targets' file at once, whether or not it looks changed."""
        self._targets.reread()

    async def stop(self) -> None:
        """Start no more probes, let those under way end, then stop serving metrics."""
        self._stopping = True
        self._watcher.cancel()
        await asyncio.gather(self._watcher, return_exceptions=True)
        for key in list(self._runners):
            self._retire(key)
        deadline_ns = self._clock.mono_ns() + int((self._config.timeout_s + 1) * 1e9)
        while self._retired and self._clock.mono_ns() < deadline_ns:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_S)
        late = [task for runner in self._retired for task in runner.probes]
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        if self._holding:
            _, stuck = await asyncio.wait(self._holding, timeout=_PART_S)
            for task in stuck:
                task.cancel()
            await asyncio.gather(*stuck, return_exceptions=True)
        self._measure()
        self._stalls.stop()
        self._poller.close()
        if self._close_keeper is not None:
            self._close_keeper()
        self._http.close()

    # --- targets --------------------------------------------------------------------------

    def _retarget(self, found: Found) -> None:
        if self._stopping:
            return  # a look-up that ended just now
        self._left_out = found.left_out
        self._learn_own_zone()
        wanted = {target.key: target for target in found.targets}
        for key in self._runners.keys() - wanted.keys():
            path = self._runners[key].path
            fields = {
                "twocans.server.name": path.server,
                "twocans.server.node": path.node,
                "twocans.path.state": path.state,
            }
            log.info("path_removed", extra={**names_of(path.target), **fields})
            self._retire(key)
        forget_ns = self._clock.mono_ns() - _RENAMES_KEPT_NS
        self._renames = {
            key: renames
            for key, renames in self._renames.items()
            if key in wanted or renames.used_ns > forget_ns
        }
        for key, target in wanted.items():
            runner = self._runners.get(key)
            if runner is not None:
                runner.path.target = target
            else:
                self._open(key, target)

    def _learn_own_zone(self) -> None:
        """Be in the zone of our node's server, where nobody has told us another."""
        zone = self._targets.own_zone
        if zone and not self.about["zone"]:
            self.about["zone"] = zone
            self.identity = self.identity._replace(zone=zone)
            self._tools = self._tools._replace(identity=self.identity)

    def _open(self, key: str, target: Target) -> None:
        phase = phase_ns(self.identity.name, key, self._interval_ns, self._grid_ns)
        schedule = Schedule(self._interval_ns, phase, self._clock.mono_ns())
        self._labels.give(path := self._path(target))
        log.info("path_added", extra=names_of(target))
        self._begin(key, path, schedule)

    def _begin(self, key: str, path: Path, schedule: Schedule) -> None:
        runner = self._runners[key] = _Runner(path, schedule, self.tally, self._clock)
        if len(self._holding) < self._max_held:
            runner.held = held = Held(
                key,
                lambda: path.target.address,
                self._held_plan._replace(
                    drain_grace_ns=grace_ns_of(self._config, path.target.spec)
                ),
                lambda: self._tools,
                runner,
            )
            task = self._loop.create_task(held.run())
            self._holding.add(task)
            task.add_done_callback(self._holding.discard)
            task.add_done_callback(report_bug)
        self._arm(runner)

    def _path(self, target: Target) -> Path:
        renames = self._renames.setdefault(target.key, Renames())
        grace_ns = grace_ns_of(self._config, target.spec)
        path = Path(target, drain_grace_ns=grace_ns, renames=renames)
        if target.who is not None:
            path.expect(target.who, self._clock.mono_ns())
        return path

    def _replace(self, key: str, runner: _Runner, names: Who) -> None:
        """Another server answers at this address: its numbers start from nothing."""
        path = self._path(runner.path.target)
        path.name(names, self._clock.mono_ns())
        fields = {
            "twocans.server.name": path.server,
            "twocans.server.name_before": runner.path.server,
        }
        log.info("server_replaced", extra={**names_of(path.target), **fields})
        path.state = runner.path.state
        self._retire(key)
        self._labels.give(path)
        self._begin(key, path, runner.schedule)

    def _retire(self, key: str) -> None:
        runner = self._runners.pop(key)
        if not self._stopping:
            runner.journal.close()
        self._labels.take(runner.path)
        if runner.timer is not None:
            runner.timer.cancel()
        if runner.held is not None:
            runner.look_at_held()
            runner.held.stop()
        self._retired.add(runner)
        self._forget_if_over(runner)

    def _forget_if_over(self, runner: _Runner) -> None:
        """Add a retired path to the totals as soon as its last probe has ended."""
        if runner in self._retired and not runner.path.in_flight:
            self._retired.remove(runner)
            for outcome, value in runner.path.outcomes.items():
                self.totals[outcome] += value
            self.totals["scheduled"] += runner.path.scheduled
            self.totals["missed"] += runner.path.missed

    async def _introduce(self, address: Address) -> Greeting:
        """Greet an address, without an exchange, to learn who is there."""
        plan = self._plan._replace(exchanges=0)
        try:
            result = await probe(address, plan, self._tools)
        except Exception:
            log.exception("bug", extra={"limited": True})
            self.tally.introductions[Outcome.VOID] += 1
            return Greeting(Outcome.VOID)
        judge_probe(result)
        self.tally.introductions[result.outcome] += 1
        return Greeting(result.outcome, _who(result), result.draining)

    def _resolved(self, spec: Spec, resolution: Resolution) -> None:
        self.tally.observe_resolution(resolution)
        if resolution.problem is not None:
            fields = {"error.type": resolution.problem, "error.message": resolution.detail}
            fields["twocans.target"] = spec.text
            log.warning("resolve_failed", extra={**fields, "limited": True})

    def _watch_failed(self, spec: Spec, problem: str) -> None:
        self.tally.resolutions["watch_failure"] += 1
        fields = {"twocans.target": spec.text, "error.message": problem, "limited": True}
        log.warning("watch_failed", extra=fields)

    # --- probing --------------------------------------------------------------------------

    def _arm(self, runner: _Runner) -> None:
        delay_s = (runner.schedule.next_ns - self._clock.mono_ns()) / 1e9
        runner.timer = self._loop.call_later(max(0.0, delay_s), self._tick, runner)

    def _tick(self, runner: _Runner) -> None:
        path = runner.path
        now_ns = self._clock.mono_ns()
        intended_ns, scheduled, missed = runner.schedule.take(now_ns)
        self._arm(runner)
        path.scheduled += scheduled
        path.missed += missed
        if missed:
            lag_s = self._stalls.worst_since(now_ns - (missed + 1) * self._interval_ns) / 1e9
            lost = {"twocans.probes.missed": missed, "twocans.loop.lag_s": lag_s}
            log.warning("slots_missed", extra={**names_of(path.target), **lost, "limited": True})
        if intended_ns is not None and self._is_over_share(path):
            path.missed += 1
            fields = {
                "twocans.probes.in_flight": self._in_flight,
                "twocans.path.in_flight": path.in_flight,
            }
            log.warning(
                "in_flight_limit_reached",
                extra={**names_of(path.target), **fields, "limited": True},
            )
        elif intended_ns is not None:
            self._check_clocks()  # what happened before is not this probe's
            path.begin()
            self._in_flight += 1
            task = self._loop.create_task(self._probe(runner, intended_ns))
            runner.probes.add(task)
            task.add_done_callback(runner.probes.discard)
            task.add_done_callback(report_bug)
        runner.journal.write(now_ns)

    def _is_over_share(self, path: Path) -> bool:
        """Whether this path must let others go first: a dead one must not blind the rest."""
        if self._in_flight < self._max_in_flight // 2:
            return False
        share = max(2, self._max_in_flight // len(self._runners))
        return path.in_flight >= share or self._in_flight >= self._max_in_flight

    async def _probe(self, runner: _Runner, intended_ns: int) -> None:
        path = runner.path
        result = self._blank(intended_ns)
        try:
            target = path.target
            if target.address is None:
                result.reason = target.problem or Reason.DNS_FAILURE
            else:
                result = await probe(
                    target.address, self._plan, self._tools, intended_ns=intended_ns
                )
        except asyncio.CancelledError:
            result.reason = Reason.SHUTDOWN
            raise
        except Exception:
            log.exception("bug", extra={"limited": True})
            result.reason = Reason.INTERNAL_ERROR
        finally:
            result.ended_ns = result.ended_ns or self._clock.mono_ns()
            self._settle(runner, result)
            self._forget_if_over(runner)

    def _blank(self, intended_ns: int) -> ProbeResult:
        return ProbeResult(
            intended_ns=intended_ns,
            started_ns=self._clock.mono_ns(),
            started_real_ns=self._clock.real_ns(),
        )

    def _settle(self, runner: _Runner, result: ProbeResult) -> None:
        path = runner.path
        result.path = path.target.key
        self._in_flight -= 1
        self._check_clocks()
        stepped = result.started_ns < self._steps.newest_ns
        judge_probe(result, said_goodbye=path.said_goodbye(result), stepped=stepped)
        was_named, was_over = path.is_named, path.renames.is_over
        change = path.record(result)
        self._unmeasured.append((runner, result))
        if len(self._unmeasured) >= _MEASURED_AT_ONCE:
            self._measure()
        elif self._measure_timer is None:
            self._measure_timer = self._loop.call_later(_MEASURED_AFTER_S, self._measure)
        if self._observer is not None:
            self._observer(result)
        self._own_trouble.note(result, self._clock.mono_ns())
        if path.is_named and not was_named:
            self._labels.give(path)
        is_probed = self._runners.get(path.target.key) is runner
        if path.restarted:
            self.tally.server_restarts += 1
        if path.restarted and is_probed:
            log.info("server_restarted", extra={**names_of(path.target), "limited": True})
        if change is not None:
            runner.journal.note(change)
        runner.journal.write(self._clock.mono_ns())
        if not is_probed:
            return
        if path.replaced_by is not None:
            self._replace(path.target.key, runner, path.replaced_by)
        if path.renames.is_over and not was_over:
            log.warning("server_renamed_often", extra={**names_of(path.target), "limited": True})
        who = _who(result)
        if who is not None:
            self._targets.saw(path.target, who, leaving=result.draining)

    def _measure(self) -> None:
        """Take in what probes have measured since the last time.

        Many at once cost half of what each costs alone, out of cold caches.
        """
        if self._measure_timer is not None:
            self._measure_timer.cancel()
            self._measure_timer = None
        unmeasured, self._unmeasured = self._unmeasured, []
        for runner, result in unmeasured:
            try:
                self._measure_one(runner, result)
            except Exception:
                log.exception("bug", extra={"limited": True})

    def _measure_one(self, runner: _Runner, result: ProbeResult) -> None:
        path, tally = runner.path, self.tally
        steps, sign, boxes = path.one_way.steps, path.proxy.sign, path.proxy.boxes
        segments = path.measure(result)
        if self._config.metrics:
            tally.observe(result, path.zone)
            if segments is not None:
                tally.count_segments(segments, path.zone)
        tally.server_clock_steps += path.one_way.steps - steps
        if path.proxy.sign != sign:
            runner.journal.note_proxy()
        for box in path.proxy.boxes - boxes:
            runner.journal.note_box(box)

    def _check_clocks(self) -> None:
        step = self._steps.check()
        if step is not None:
            self._measure()
            self.tally.clock_steps += 1
            fields = {
                "twocans.clock.stepped_s": step.stepped_ns / 1e9,
                "twocans.clock.suspended_s": step.suspended_ns / 1e9,
            }
            log.warning("clock_stepped", extra=fields)
            for runner in self._runners.values():
                runner.path.one_way.forget_clocks()
                runner.is_stale = runner.held is not None and runner.held.is_connected


def grace_ns_of(config: ClientConfig, spec: Spec) -> int:
    """Return for how long a server's GOODBYE excuses its silence.

    Where a name gave the address, for as long as the name may go on giving it.
    """
    grace_s = config.drain_grace_s
    if spec.literal is None:
        next_s = config.resolve_interval_s * 1.2 + LOOKUP_S
        grace_s = max(grace_s, config.dns_cache_s + _MARGIN_S + next_s)
    return int(grace_s * 1e9)


def policy_of(config: ClientConfig, name: str) -> Policy:
    """Return how a client of these settings, called so, finds whom to probe."""
    return Policy(
        config.resolve_interval_s,
        config.explore_per_s,
        config.max_paths,
        functools.partial(
            Neighbourhood,
            client=name,
            node=config.node,
            limit=config.neighbours,
            probe_self=config.probe_self,
            leaving_ns=int(max(config.drain_grace_s, config.dns_cache_s + _MARGIN_S) * 1e9),
            linger_ns=int(config.linger_s * 1e9),
        ),
        config.family,
    )


def _who(result: ProbeResult) -> Who | None:
    server = result.server
    if server is None:
        return None
    return Who(server.name, server.node, server.zone, server.version)


def _wanted(config: ClientConfig) -> tuple[int, int]:
    """Return how many probes under way and held connections there may be by the settings."""
    return config.max_in_flight, config.max_paths if config.held else 0


def _share_descriptors(config: ClientConfig) -> tuple[int, int]:
    """Return the same by what descriptors there are: at most half for held connections.

    A probe that finds none left measures nothing; one that is not begun is at least known to be
    missed, and a path without a held connection is probed like any other.
    """
    probes, held = _wanted(config)
    left = max(2, procfs.descriptor_limit() - _RESERVED_DESCRIPTORS)
    held = min(held, max(left // 2, left - probes))
    return min(probes, left - held), held
