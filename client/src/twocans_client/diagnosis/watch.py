"""The running client's work, for some seconds: each address is a path, watched ten times a second.

Its held connection, its sized exchanges, its walk through the local ports and its questions to the
witness are the running client's, and so are evidence, rules and verdicts.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from twocans_client.config import ClientConfig
from twocans_client.discovery.resolver import Resolution
from twocans_client.discovery.specs import Spec
from twocans_client.evidence.results import Outcome, ProbeResult, Reason
from twocans_client.paths.path import Path
from twocans_client.paths.tally import ClientTally
from twocans_client.probes.connect import ConnectAttempt
from twocans_client.probes.probe import Attempt, Plan
from twocans_client.probes.tools import Toolbox
from twocans_client.report.diagnosis import Examined, examine
from twocans_client.service.budget import Budget
from twocans_client.service.fleet import Fleet
from twocans_client.service.intake import Intake
from twocans_client.service.monitor import Monitor, Shared
from twocans_client.verdicts.engine import Began, Confirmed, Ended, Standing
from twocans_client.verdicts.verdict import Confidence
from twocans_core.clock import Clock
from twocans_core.host import procfs

from .names import MOST, Names

if TYPE_CHECKING:
    from twocans_client.evidence.rows import Resolved

__all__ = ["Watch"]

_LOOK_S = 0.1
# Ten probes a second are what verdicts were measured at; eight addresses take eighty.
_INTERVAL_S, _AT_ONCE = 0.1, 8
# Enough for 32 local ports and more, and for the second probe of every kind.
_LEAST_S = 6.0
# A fault that stands for so long will hardly be told better by waiting.
# One that is provisional for as long as that will not be confirmed: there is nobody to ask.
_FIRM_NS, _PROVISIONAL_NS = 3_000_000_000, 9_000_000_000
# Of the time there is; what is odd and has no name yet gets the rest.
_CALM_SHARE = 0.6
_IDLE_CONNECTIONS = 16


class Watch:
    """One target under watch, until enough is known of it.

    Args:
        names: Its addresses, looked up once at least.
        toolbox: What with.
        clock: The clocks.
        worst_lag_since: As of ``Shared``.
        timeout_s: Of a probe.
        only_connects: Whether to say nothing.
        idles: Whether to watch idle connections as well.

    Attributes:
        look_ups: Of its name.
        monitors: Of its paths, from ``stop`` on.
    """

    def __init__(
        self,
        names: Names,
        toolbox: Toolbox,
        clock: Clock,
        worst_lag_since: Callable[[int], int],
        *,
        timeout_s: float,
        only_connects: bool,
        idles: bool,
    ) -> None:
        self.look_ups: list[Resolved] = []
        self.monitors: list[Monitor] = []
        self._names, self._clock = names, clock
        self._results: dict[str, list[ProbeResult]] = {}
        self._found: dict[str, Standing] = {}  # all that was not withdrawn
        self._standing: dict[str, Standing] = {}  # until now
        self._since_ns: dict[bool, int] = {}  # when a verdict stood first, by whether it is firm
        self._only_connects = only_connects
        self._intake = Intake(asyncio.get_running_loop())
        config = ClientConfig(
            interval_s=_INTERVAL_S * max(1.0, len(names.targets) / _AT_ONCE),
            exchanges=0 if only_connects else 1,
            timeout_s=timeout_s,
            idle_connections=_IDLE_CONNECTIONS if idles else 0,
        )
        shared = Shared(
            asyncio.get_running_loop(),
            clock,
            Plan(int(timeout_s * 1e9), config.exchanges, config.payload_bytes),
            lambda: toolbox.tools,
            worst_lag_since,
            Budget(config.max_in_flight),
            self._intake,
            ClientTally(),
            procfs.local_ports(),
            procfs.HostWatch(clock.mono_ns, procfs.TcpReader()),
            ConnectAttempt if only_connects else Attempt,
            self._judged,
        )
        self._fleet = Fleet(
            config,
            shared,
            max_held=0 if only_connects else MOST,
            max_idle=0 if only_connects else config.idle_connections,
            met=lambda *_: None,
            observer=lambda result: self._results.setdefault(result.path, []).append(result),
        )
        self._fleet.retarget(names.targets)

    @property
    def results(self) -> list[ProbeResult]:
        """Of all probes that have ended."""
        return [result for results in self._results.values() for result in results]

    def resolved(self, spec: Spec, resolution: Resolution) -> None:
        """Take in a look-up, and the addresses that it gave."""
        self._fleet.retarget(self._names.targets)
        told = self._fleet.resolved(spec, resolution)
        if told is not None:
            self.look_ups.append(told)

    async def run(
        self, most_s: float, idle_s: float, progress: Callable[[str, float], None]
    ) -> bool:
        """Watch until enough is known.

        Args:
            most_s: So long at most.
            idle_s: But for so long in any case.
            progress: As of ``Battery``.

        Returns:
            False: the far end speaks another protocol, and so it told nothing.
        """
        begun_ns, last_s = self._clock.mono_ns(), max(most_s, idle_s)
        while True:
            await asyncio.sleep(_LOOK_S)
            since_s = (self._clock.mono_ns() - begun_ns) / 1e9
            results = self.results
            good = sum(result.outcome is Outcome.OK for result in results)
            progress(f"{len(results)} probes, {good} ok", since_s / last_s)
            if not self._only_connects and any(map(_is_strange, results)):
                return False
            is_enough = since_s >= most_s or self._is_enough(since_s, most_s)
            if is_enough and since_s >= idle_s:
                return True

    async def stop(self) -> None:
        """Draw the verdicts, and end all probes: what waits would wait for its time-out."""
        self._intake.flush()
        self.monitors = self._fleet.monitors
        self.conclude(self.monitors)
        for monitor in self.monitors:
            for task in monitor.probes:
                task.cancel()
        await self._fleet.stop()

    def conclude(self, monitors: Iterable[Monitor]) -> None:
        """Draw the verdicts from all that is known by now."""
        now_ns = self._clock.mono_ns()
        for monitor in monitors:
            self._judged(monitor.path, monitor.inquiry.conclude(now_ns))

    def examined(self) -> list[Examined]:
        """Return what was found of each address."""
        return [self._examined(monitor) for monitor in self.monitors]

    def _examined(self, monitor: Monitor) -> Examined:
        key, window = monitor.path.target.key, monitor.inquiry.window
        found = examine(monitor.path.target.address, self._results.get(key, ()))
        standing = self._standing.get(key, {})
        over = {k: v for k, v in self._found.get(key, {}).items() if k not in standing}
        found.verdicts = found.report.verdicts = [*standing.values(), *over.values()]
        found.standing = len(standing)
        found.report.only_connects = self._only_connects
        found.testimonies = len(window.testimonies)
        sizes = window.sizes.forward.mtu, window.sizes.reverse.mtu
        found.mtu = (sizes[0] or found.mtu[0], sizes[1] or found.mtu[1])
        if monitor.idle is not None:
            found.idle_good_ns = monitor.idle.ladder.good_ns
            found.idle_bad = monitor.idle.ladder.bracket()
        return found

    def _is_enough(self, since_s: float, most_s: float) -> bool:
        if since_s < min(_LEAST_S, most_s):
            return False
        now_ns = self._clock.mono_ns()
        if self._since_ns:
            firm_ns = self._since_ns.get(True, now_ns)
            since_ns = self._since_ns.get(False, now_ns)
            return now_ns - firm_ns >= _FIRM_NS or now_ns - since_ns >= _PROVISIONAL_NS
        monitors = self._fleet.monitors
        is_calm = not any(monitor.inquiry.window.is_puzzling for monitor in monitors)
        return is_calm and since_s >= most_s * _CALM_SHARE

    def _judged(self, path: Path, changes: Sequence[Began | Confirmed | Ended]) -> None:
        """Keep what was found, if it has not been withdrawn."""
        found = self._found.setdefault(path.target.key, {})
        for change in changes:
            if isinstance(change, Ended) and change.withdrawn:
                found.pop(change.verdict.finding.key, None)
        self._standing[path.target.key] = dict(path.verdicts)
        found |= path.verdicts
        standing = {
            verdict.finding.confidence is not Confidence.PROVISIONAL
            for every in self._found.values()
            for verdict in every.values()
            if not verdict.finding.kind.is_info
        }
        now_ns = self._clock.mono_ns()
        self._since_ns = {firm: self._since_ns.get(firm, now_ns) for firm in standing}


def _is_strange(result: ProbeResult) -> bool:
    """Whether the far end spoke, and another protocol than ours."""
    if result.reason is not Reason.PROTOCOL_ERROR or result.server is not None:
        return False
    # A twocans server of another version says that it is one.
    return not result.detail.startswith("the server says")
