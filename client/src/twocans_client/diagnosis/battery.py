"""Everything that can be tried of one target within half a minute.

The running client does the work: a path for each address, watched ten times a second, with its held
connection, its sized exchanges, its walk through the local ports and its questions to the witness.
So the verdicts are those that it would give, by the same evidence and the same rules. Afterwards a
short load shows what the path carries; no verdict is drawn from that but who limits it.
"""

import asyncio
import os
from collections.abc import Callable, Iterable, Sequence
from random import Random

from twocans_client.config import ClientConfig, DiagnoseConfig
from twocans_client.discovery.resolver import LOOKUP_S, Resolution, Resolver, lookup_of
from twocans_client.discovery.specs import Kind, Spec, Target
from twocans_client.evidence.results import Outcome, ProbeResult, Reason
from twocans_client.paths.path import Path
from twocans_client.paths.tally import ClientTally
from twocans_client.probes.connect import ConnectAttempt
from twocans_client.probes.probe import Attempt, Plan
from twocans_client.probes.tools import Toolbox
from twocans_client.report.diagnosis import Diagnosis, examine
from twocans_client.service.budget import Budget
from twocans_client.service.fleet import Fleet
from twocans_client.service.intake import Intake
from twocans_client.service.monitor import Monitor, Shared
from twocans_client.verdicts.engine import Began, Confirmed, Ended, Standing
from twocans_client.verdicts.verdict import Confidence
from twocans_core.clock import SYSTEM_CLOCK, Clock
from twocans_core.host import procfs
from twocans_core.host.stalls import StallWatch
from twocans_core.net.sockets import Address, Kernel, has_route

from .load import find_limits, make_load

__all__ = ["Battery"]

_STAMPING_S = 0.05
_LOOK_S = 0.1
_LOOK_UP_S = 1.0
# Ten probes a second are what verdicts were measured at; eight addresses take eighty.
_INTERVAL_S, _AT_ONCE = 0.1, 8
_MOST_ADDRESSES = 64
# Enough for 32 local ports and more, and for the second probe of every kind.
_LEAST_S = 6.0
# A fault that stands for so long will hardly be told better by waiting.
_FIRM_NS = 3_000_000_000
# Of the time there is; what is odd and has no name yet gets the rest.
_CALM_SHARE = 0.6
_IDLE_CONNECTIONS = 16


class Battery:
    """The tests of one target.

    Args:
        spec: It.
        config: How.
        connect_only: Whether to say nothing. Found out where the far end speaks another protocol.
        progress: Called with what is being done, and the share of it that is done.
        clock: The clocks.
        lookup: Looks names up; see ``Resolver``.
    """

    def __init__(
        self,
        spec: Spec,
        config: DiagnoseConfig,
        *,
        connect_only: bool = False,
        progress: Callable[[str, float], None] = lambda *_: None,
        clock: Clock = SYSTEM_CLOCK,
        lookup: Callable[[str, int], list[Address]] | None = None,
    ) -> None:
        self._spec, self._config, self._progress, self._clock = spec, config, progress, clock
        self._lookup = lookup or lookup_of(config.family)
        self._begun_ns = clock.mono_ns()
        self._says = Diagnosis(target=spec.text)
        self._results: dict[str, list[ProbeResult]] = {}
        self._targets: list[Target] = []
        self._found: dict[str, Standing] = {}
        self._firm_ns: int | None = None
        self._only_connects = connect_only

    async def run(self) -> None:
        """Do it all. Who cancels this has in ``diagnosis`` what was done by then."""
        stalls = StallWatch(self._clock, say=False)
        rng = Random()  # noqa: S311 - no secrets
        kernel = Kernel(stamps=self._config.stamps, tcp_info=self._config.tcp_info)
        name = self._config.name or os.uname().nodename
        toolbox = Toolbox(stalls, rng, name=name, clock=self._clock, kernel=kernel)
        resolver = Resolver(
            self._lookup,
            clock=self._clock,
            stalled_since=stalls.since,
            attention=stalls.attention,
        )
        toolbox.start()
        try:
            await asyncio.sleep(_STAMPING_S)
            while not await self._watch(toolbox, stalls, resolver):
                self._only_connects = True  # it is a stranger
                self._results.clear()
                self._found.clear()
            address = self._targets[0].address
            if self._may_load() and address is not None:
                self._progress("a short load", 0.9)
                self._says.load = await make_load(address, toolbox.tools, self._timeout_ns)
            self._says.is_whole = True
        finally:
            self._says.took_ns = self._clock.mono_ns() - self._begun_ns
            toolbox.close()

    @property
    def diagnosis(self) -> Diagnosis:
        """What was found so far."""
        return self._says

    # --- names --------------------------------------------------------------------------------

    async def _look_up(self, resolver: Resolver) -> Resolution | None:
        """Look the name up once, and take in its addresses; None: it is an address."""
        spec = self._spec
        if spec.literal is not None:
            self._targets = [Target(spec, spec.literal)]
            return None
        found = await resolver.resolve(spec.host, spec.port, timeout_s=LOOKUP_S)
        if found.problem is None:
            self._take(list(dict.fromkeys(found.addresses)))
        elif not self._targets:
            self._targets = [Target(spec, None, found.problem)]
        return found

    def _take(self, addresses: Sequence[Address]) -> None:
        """Choose which addresses are tried: all that there is a way to, in their order."""
        routed = [address for address in addresses if has_route(address)]
        tried = (routed or list(addresses))[:_MOST_ADDRESSES]
        self._says.no_route = [each for each in addresses if routed and each not in routed]
        self._says.left_out = len(addresses) - len(tried) - len(self._says.no_route)
        many = self._spec._replace(kind=Kind.DNS)  # each address is a path
        self._targets = [Target(many, address) for address in tried]

    async def _keep_looking_up(self, resolver: Resolver, fleet: Fleet) -> None:
        while True:
            await asyncio.sleep(_LOOK_UP_S)
            self._tell(await self._look_up(resolver), fleet)

    def _tell(self, found: Resolution | None, fleet: Fleet) -> None:
        fleet.retarget(self._targets)
        if found is None:
            return
        told = fleet.resolved(self._spec, found)
        if told is not None:
            self._says.look_ups.append(told)

    # --- the watch ----------------------------------------------------------------------------

    async def _watch(self, toolbox: Toolbox, stalls: StallWatch, resolver: Resolver) -> bool:
        """Watch until enough is known; returns False if it has to begin anew, only connecting."""
        self._progress("looking the name up", 0.0)
        found = await self._look_up(resolver)
        intake = Intake(asyncio.get_running_loop())
        fleet = self._fleet(toolbox, stalls, intake)
        self._tell(found, fleet)
        names = asyncio.create_task(self._keep_looking_up(resolver, fleet))
        try:
            is_told = await self._until_enough(fleet)
        finally:
            names.cancel()
            intake.flush()
            monitors = fleet.monitors
            self._conclude(monitors)
            await self._stop(fleet)
            self._sum_up(monitors)
        address = self._targets[0].address
        if is_told and monitors and address is not None and self._may_load():
            self._progress("large exchanges", 0.8)
            limits = monitors[0].inquiry.window.limits
            await find_limits(address, toolbox.tools, self._timeout_ns, limits)
            self._conclude(monitors[:1])
            self._sum_up(monitors)
        return is_told

    async def _stop(self, fleet: Fleet) -> None:
        for monitor in fleet.monitors:
            for task in monitor.probes:
                task.cancel()  # what waits until now would wait for its time-out
        await fleet.stop()

    def _fleet(self, toolbox: Toolbox, stalls: StallWatch, intake: Intake) -> Fleet:
        config, connects = self._config, self._only_connects
        each_s = _INTERVAL_S * max(1.0, len(self._targets) / _AT_ONCE)
        service = ClientConfig(
            interval_s=each_s,
            exchanges=0 if connects else 1,
            timeout_s=config.timeout_s,
            idle_connections=_IDLE_CONNECTIONS if config.idle_s else 0,
        )
        shared = Shared(
            asyncio.get_running_loop(),
            self._clock,
            Plan(self._timeout_ns, service.exchanges, service.payload_bytes),
            lambda: toolbox.tools,
            stalls.worst_since,
            Budget(service.max_in_flight),
            intake,
            ClientTally(),
            procfs.local_ports(),
            procfs.HostWatch(self._clock.mono_ns, procfs.TcpReader()),
            ConnectAttempt if connects else Attempt,
            self._judged,
        )
        return Fleet(
            service,
            shared,
            max_held=0 if connects else _MOST_ADDRESSES,
            max_idle=0 if connects else service.idle_connections,
            met=lambda *_: None,
            observer=lambda result: self._results.setdefault(result.path, []).append(result),
        )

    @property
    def _timeout_ns(self) -> int:
        return int(self._config.timeout_s * 1e9)

    async def _until_enough(self, fleet: Fleet) -> bool:
        begun_ns = self._clock.mono_ns()
        most_s = max(self._config.watch_s, self._config.idle_s)
        while True:
            await asyncio.sleep(_LOOK_S)
            since_s = (self._clock.mono_ns() - begun_ns) / 1e9
            every = [result for results in self._results.values() for result in results]
            good = sum(result.outcome is Outcome.OK for result in every)
            self._progress(f"{len(every)} probes, {good} ok", since_s / most_s)
            if not self._only_connects and any(_is_strange(result) for result in every):
                return False
            if since_s >= most_s or (not self._config.idle_s and self._is_enough(fleet, since_s)):
                return True

    def _is_enough(self, fleet: Fleet, since_s: float) -> bool:
        if since_s < min(_LEAST_S, self._config.watch_s):
            return False
        now_ns = self._clock.mono_ns()
        if self._firm_ns is not None:
            return now_ns - self._firm_ns >= _FIRM_NS
        is_calm = not any(monitor.inquiry.window.is_puzzling for monitor in fleet.monitors)
        return is_calm and since_s >= self._config.watch_s * _CALM_SHARE

    def _judged(self, path: Path, changes: Sequence[Began | Confirmed | Ended]) -> None:
        found = self._found.setdefault(path.target.key, {})
        for change in changes:
            if isinstance(change, Ended) and change.withdrawn:
                found.pop(change.verdict.finding.key, None)
        found |= path.verdicts
        firm = any(
            verdict.finding.confidence is not Confidence.PROVISIONAL
            and not verdict.finding.kind.is_info
            for standing in self._found.values()
            for verdict in standing.values()
        )
        if not firm:
            self._firm_ns = None
        elif self._firm_ns is None:
            self._firm_ns = self._clock.mono_ns()

    def _conclude(self, monitors: Iterable[Monitor]) -> None:
        now_ns = self._clock.mono_ns()
        for monitor in monitors:
            self._judged(monitor.path, monitor.inquiry.conclude(now_ns))

    # --- what follows -------------------------------------------------------------------------

    def _may_load(self) -> bool:
        """Whether a load would tell anything: not where the path is broken, or is no echo."""
        if self._only_connects:
            self._says.no_load = "the far end does not speak our protocol"
        elif any(result.outcome is Outcome.FAIL for result in self._newest(20)):
            self._says.no_load = "probes fail"
        elif not any(result.reason is Reason.OK for result in self._newest(20)):
            self._says.no_load = "no probe was good"
        else:
            return True
        return False

    def _newest(self, count: int) -> list[ProbeResult]:
        results = self._results.get(self._targets[0].key, []) if self._targets else []
        return results[-count:]

    def _sum_up(self, monitors: Iterable[Monitor]) -> None:
        says = self._says
        says.paths = []
        for monitor in monitors:
            key, window = monitor.path.target.key, monitor.inquiry.window
            found = examine(monitor.path.target.address, self._results.get(key, ()))
            found.verdicts = list(self._found.get(key, {}).values())
            found.report.verdicts = found.verdicts
            found.testimonies = len(window.testimonies)
            gates = (window.sizes.forward.mtu, window.sizes.reverse.mtu)
            found.mtu = (gates[0] or found.mtu[0], gates[1] or found.mtu[1])
            if monitor.idle is not None:
                found.idle_good_ns = monitor.idle.ladder.good_ns
                found.idle_bad = monitor.idle.ladder.bracket()
            says.paths.append(found)
        greeted = any(result.server is not None for result in says.results)
        says.speaks = True if greeted else False if self._only_connects else None


def _is_strange(result: ProbeResult) -> bool:
    """Whether the far end spoke, and another protocol than ours."""
    if result.reason is not Reason.PROTOCOL_ERROR or result.server is not None:
        return False
    # A twocans server of another version says that it is one.
    return not result.detail.startswith("the server says")
