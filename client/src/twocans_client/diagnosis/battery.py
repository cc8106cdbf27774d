"""Everything that can be tried of one target within half a minute.

First a watch, by the running client's own means and rules. Then, if all is well enough, large
probes, which show who limits them, and a short load, which shows what the path carries: from that
no verdict is drawn, as it would be our own doing.
"""

import asyncio
import os
from collections.abc import Callable
from random import Random

from twocans_client.config import DiagnoseConfig
from twocans_client.discovery.resolver import Resolver, lookup_of
from twocans_client.discovery.specs import Spec
from twocans_client.evidence.results import Outcome, Reason
from twocans_client.probes.tools import Toolbox
from twocans_client.report.diagnosis import Diagnosis
from twocans_client.verdicts.verdict import Culprit
from twocans_core.clock import SYSTEM_CLOCK, Clock
from twocans_core.host.stalls import StallWatch
from twocans_core.net.sockets import Address, Kernel

from .load import find_limits, make_load
from .names import Names
from .watch import Watch

__all__ = ["Battery"]

# The kernel switches receive timestamping on a moment after it is asked to.
_STAMPING_S = 0.05
# Of the newest probes one that failed: a load would only fail as well.
_NEWEST = 20
# Where the fault lies on the way, a load has nothing to add. What is wrong with a host, it may.
_WAY = frozenset(
    {
        *(Culprit.PATH, Culprit.PATH_FORWARD, Culprit.PATH_REVERSE),
        *(Culprit.MIDDLEBOX, Culprit.DNS),
    }
)


class Battery:
    """The tests of one target.

    Args:
        spec: It.
        config: How.
        connect_only: Whether to say nothing. Found out where the far end speaks another protocol.
        progress: Called with what is being done, and the share of it that is done.
        clock: The clocks.
        lookup: Looks names up; see ``Resolver``.

    Attributes:
        diagnosis: What was found so far.
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
        self.diagnosis = Diagnosis(target=spec.text)
        self._spec, self._config, self._progress, self._clock = spec, config, progress, clock
        self._only_connects = connect_only
        self._stalls = StallWatch(clock, say=False)
        self._resolver = Resolver(
            lookup or lookup_of(config.family),
            clock=clock,
            stalled_since=self._stalls.since,
            attention=self._stalls.attention,
        )

    async def run(self) -> None:
        """Do it all. Who cancels this has in ``diagnosis`` what was done by then."""
        config, says, begun_ns = self._config, self.diagnosis, self._clock.mono_ns()
        toolbox = Toolbox(
            self._stalls,
            Random(),  # noqa: S311 - no secrets
            name=config.name or os.uname().nodename,
            clock=self._clock,
            kernel=Kernel(stamps=config.stamps, tcp_info=config.tcp_info),
        )
        toolbox.start()
        try:
            await asyncio.sleep(_STAMPING_S)
            if not await self._watch(toolbox):
                self._only_connects = True  # it is a stranger: all that was tried told nothing
                await self._watch(toolbox)
            address = says.paths[0].address if says.paths else None
            if address is not None and self._may_load():
                self._progress("a short load", 0.9)
                is_proxied = bool(says.paths[0].report.proxies)
                says.load = await make_load(
                    address, toolbox.tools, self._timeout_ns, is_proxied=is_proxied
                )
            says.is_whole = True
        finally:
            says.took_ns = self._clock.mono_ns() - begun_ns
            toolbox.close()

    @property
    def _timeout_ns(self) -> int:
        return int(self._config.timeout_s * 1e9)

    async def _watch(self, toolbox: Toolbox) -> bool:
        """Watch until enough is known; returns as ``Watch.run``."""
        config, spec = self._config, self._spec
        self._progress("looking the name up", 0.0)
        names = Names(spec, self._resolver)
        found = await names.look_up()
        watch = Watch(
            names,
            toolbox,
            self._clock,
            self._stalls.worst_since,
            timeout_s=config.timeout_s,
            only_connects=self._only_connects,
            idles=bool(config.idle_s),
        )
        if found is not None:
            watch.resolved(spec, found)
        looking = asyncio.create_task(names.keep(lambda found: watch.resolved(spec, found)))
        try:
            is_told = await watch.run(config.watch_s, config.idle_s, self._progress)
        finally:
            looking.cancel()
            try:
                await watch.stop()
            finally:
                self._sum_up(names, watch)
        address = watch.monitors[0].path.target.address if watch.monitors else None
        if is_told and address is not None and self._may_load():
            self._progress("large exchanges", 0.8)
            limits = watch.monitors[0].inquiry.window.limits
            await find_limits(address, toolbox.tools, self._timeout_ns, limits)
            watch.conclude(watch.monitors[:1])
            self._sum_up(names, watch)
        return is_told

    def _sum_up(self, names: Names, watch: Watch) -> None:
        says = self.diagnosis
        says.paths = watch.examined()
        says.look_ups, says.no_route, says.left_out = watch.look_ups, names.no_route, names.left_out
        is_ours = any(result.server is not None for result in says.results)
        says.speaks = True if is_ours else False if self._only_connects else None

    def _may_load(self) -> bool:
        """Whether a load would tell anything more: not where the path is broken, or is no echo."""
        says = self.diagnosis
        newest = says.paths[0].results[-_NEWEST:]
        if self._only_connects:
            says.no_load = "the far end is not known to speak our protocol"
        elif any(verdict.finding.culprit in _WAY for _, verdict in says.faults):
            says.no_load = "the path has a fault already"
        elif any(result.outcome is Outcome.FAIL for result in newest):
            says.no_load = "probes fail"
        elif not any(result.reason is Reason.OK for result in newest):
            says.no_load = "no probe was good"
        else:
            return True
        return False
