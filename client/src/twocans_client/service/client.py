"""The running client: it makes the stations of the pipeline, joins them, starts and stops them.

targets -> fleet -> monitors -> probes -> paths -> metrics, logs
"""

import asyncio
import functools
import gc
import logging
from collections.abc import Callable
from pathlib import Path as File
from random import Random

from twocans_client.config import ClientConfig
from twocans_client.discovery.endpointslices import Watch
from twocans_client.discovery.explorer import Greeting
from twocans_client.discovery.neighbours import Neighbourhood
from twocans_client.discovery.resolver import Resolution, Resolver, lookup_of
from twocans_client.discovery.specs import Spec, Target, Who, parse_spec
from twocans_client.discovery.targets import Found, Policy, Targets
from twocans_client.evidence.blame import judge_probe
from twocans_client.evidence.results import Outcome, ProbeResult
from twocans_client.export.metrics import ClientCollector
from twocans_client.export.snapshot import View
from twocans_client.paths.path import Path
from twocans_client.paths.tally import ClientTally
from twocans_client.probes.probe import Plan, probe
from twocans_client.probes.tools import Toolbox
from twocans_core.clock import SYSTEM_CLOCK, Clock
from twocans_core.host import procfs
from twocans_core.host.stalls import StallWatch
from twocans_core.net.sockets import Address, Kernel
from twocans_core.process.http import HttpServer
from twocans_core.process.jsonlog import LogPipe, report_bug
from twocans_core.process.telemetry import SelfCollector, make_registry
from twocans_core.protocol.messages import Identity

from .budget import RESERVED_DESCRIPTORS, Budget, Places
from .fleet import DNS_MARGIN_S, Fleet
from .intake import Intake
from .monitor import Shared

__all__ = ["Client", "policy_of"]

log = logging.getLogger(__name__)


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
        specs = [parse_spec(text) for text in config.targets]
        rng = rng or Random()  # noqa: S311 - payloads and jitter, no secrets
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._watcher: asyncio.Task[None] | None = None
        self._places = Places(config)
        self._left_out = 0
        self.about = config.about()
        self.tally = ClientTally()
        self._stalls = StallWatch(clock)
        registry = None
        if config.metrics:
            registry = make_registry(
                SelfCollector("client", self._stalls, logs, self.about),
                ClientCollector(self.tally, self._view, self._loop),
            )
        # Listen first: what cannot listen must not have begun anything else.
        self._http = HttpServer(
            config.http_host,
            config.http_port,
            registry,
            role="client",
            is_healthy=self._stalls.is_turning,
            # The targets are made below. Nobody asks before ``start``.
            is_ready=lambda: self._targets.is_settled and self._stalls.is_turning(),
        )
        self._plan = Plan(int(config.timeout_s * 1e9), config.exchanges, config.payload_bytes)
        self._toolbox = Toolbox(
            self._stalls,
            rng,
            name=self.about["name"],
            node=config.node,
            zone=config.zone,
            clock=clock,
            kernel=Kernel(stamps=config.stamps, tcp_info=config.tcp_info),
        )
        self._intake = Intake(self._loop)
        shared = Shared(
            self._loop,
            clock,
            self._plan,
            lambda: self._toolbox.tools,
            self._stalls.worst_since,
            Budget(self._places.probes),
            self._intake,
            self.tally,
            procfs.local_ports(),
            procfs.HostWatch(clock.mono_ns, procfs.TcpReader()),
        )
        self._fleet = Fleet(
            config,
            shared,
            max_held=self._places.held,
            max_idle=self._places.idle,
            met=self._met,
            observer=observer,
        )
        self._targets = Targets(
            specs,
            File(config.targets_file) if config.targets_file else None,
            policy_of(config, self.about["name"]),
            resolver=resolver
            or Resolver(
                lookup_of(config.family),
                clock=clock,
                stalled_since=self._stalls.since,
                attention=self._stalls.attention,
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
    def identity(self) -> Identity:
        """What servers are told of us."""
        return self._toolbox.tools.identity

    @property
    def http_address(self) -> Address:
        """Where /metrics is; the port is the real one."""
        return self._http.address

    @property
    def paths(self) -> list[Path]:
        """The paths being probed now."""
        return [monitor.path for monitor in self._fleet.monitors]

    @property
    def totals(self) -> dict[str, int]:
        """Of paths that are no more: probes by outcome, slots scheduled and missed."""
        return self._fleet.totals

    def start(self) -> None:
        """Begin to probe."""
        if self._places.are_few:
            fields = {
                "twocans.descriptors.limit": self._places.limit,
                "twocans.descriptors.wanted": RESERVED_DESCRIPTORS + sum(self._places.wanted),
                "twocans.probes.max_in_flight": self._places.probes,
                "twocans.held.max": self._places.held,
                "twocans.idle.max": self._places.idle,
            }
            log.warning("few_descriptors", extra=fields)
        self._toolbox.start()
        self._http.start()
        self._watcher = self._loop.create_task(self._targets.run())
        self._watcher.add_done_callback(report_bug)
        # What lives now lives as long as we do: the collector need not look at it again and again.
        gc.collect()
        gc.freeze()

    def reread_targets(self) -> None:
        """Read the targets' file at once, whether or not it looks changed."""
        self._targets.file.reread()

    async def stop(self) -> None:
        """Begin no more probes, let those under way end, then stop serving metrics."""
        # First: a look-up or a probe that ends now must not open paths.
        self._fleet.close()
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        await self._fleet.stop()
        # The poller goes when nothing is connected, /metrics last, so that a scrape sees the end.
        self._toolbox.close()
        self._http.close()

    def _view(self) -> View:
        """Return what a scrape shows, up to date."""
        self._learn_own_zone()  # which changes nothing about what is probed
        self._intake.flush()
        for monitor in self._fleet.monitors:
            monitor.look_at_held()
        zones = {path.server.zone for path in self.paths}
        self.tally.keep_zones(zones, self._clock.mono_ns())
        return View(
            self.about["zone"],
            self.paths,
            self._left_out,
            self._targets.file.refused,
            self._targets.discovered,
            self._targets.crowds.unusable,
            self._targets.crowds.zones,
        )

    # --- what discovery and the fleet tell each other --------------------------------------

    def _retarget(self, found: Found) -> None:
        self._left_out = found.left_out
        # First, so that new paths greet their servers with it.
        self._learn_own_zone()
        self._fleet.retarget(found.targets)

    def _learn_own_zone(self) -> None:
        """Be in the zone of our node's server, if the settings name none."""
        zone = self._targets.crowds.own_zone
        if zone and not self.about["zone"]:
            self.about["zone"] = zone
            self._toolbox.move(zone)

    def _met(self, target: Target, who: Who, leaving: bool) -> None:
        self._targets.saw(target, who, leaving=leaving)

    async def _introduce(self, address: Address) -> Greeting:
        """Greet an address, without an exchange, to learn who is there."""
        plan = self._plan._replace(exchanges=0)
        try:
            result = await probe(address, plan, self._toolbox.tools)
        except Exception:
            log.exception("bug", extra={"limited": True})
            self.tally.introductions[Outcome.VOID] += 1
            return Greeting(Outcome.VOID)
        judge_probe(result)
        self.tally.introductions[result.outcome] += 1
        who = None if result.server is None else Who.of(result.server)
        return Greeting(result.outcome, who, result.draining)

    def _resolved(self, spec: Spec, resolution: Resolution) -> None:
        self.tally.observe_resolution(resolution)
        self._fleet.resolved(spec, resolution)
        if resolution.problem is not None:
            fields = {"error.type": resolution.problem, "error.message": resolution.detail}
            fields["twocans.target"] = spec.text
            log.warning("resolve_failed", extra={**fields, "limited": True})

    def _watch_failed(self, spec: Spec, problem: str) -> None:
        self.tally.resolutions["watch_failure"] += 1
        fields = {"twocans.target": spec.text, "error.message": problem, "limited": True}
        log.warning("watch_failed", extra=fields)


def policy_of(config: ClientConfig, name: str) -> Policy:
    """Return how a client of these settings, called so, finds what to probe."""
    leaving_s = max(config.drain_grace_s, config.dns_cache_s + DNS_MARGIN_S)
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
            leaving_ns=int(leaving_s * 1e9),
            linger_ns=int(config.linger_s * 1e9),
        ),
        config.family,
    )
