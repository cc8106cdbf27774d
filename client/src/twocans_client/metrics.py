"""The client's Prometheus metrics: every name and help text. docs/metrics.md lists them.

Two resolutions. Histograms by phase and pair of zones, which are few. For each path only
counters, sums and last values: at most 40 series, however it fails.
"""

import asyncio
import concurrent.futures
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from twocans_core.histogram import Histogram
from twocans_core.telemetry import add_histogram, paced, politely

from .path import Path
from .resolver import Resolution
from .results import OUTCOMES, Outcome, ProbeResult, Reason

__all__ = ["ClientCollector", "ClientTally", "View"]

# A server chooses the zone that it announces. This many are believed; the rest are "other".
_MAX_ZONES = 64
_SNAPSHOT_S = 5.0
# Paths copied in one turn of the loop, about 8 us each.
_COPIED_A_TURN = 25


class ClientTally:
    """What the client counts over all paths, in plain numbers. Written on the loop only.

    Attributes:
        phases: Durations, by phase, clock and the server's zone.
        start_delay: From the intended to the real start of a probe.
        late: Probes in which something was found only by the last look after a deadline.
        server_restarts: Greetings by a new process of a server that was known.
        clock_steps: Times that our clock was stepped or our host suspended.
        resolutions: Look-ups, by outcome.
        introductions: Greetings of new addresses, by outcome.
        bytes_sent: On measured connections, protocol included; so is the next.
        bytes_received: Read on them.
    """

    def __init__(self) -> None:
        self.phases: dict[tuple[str, str, str], Histogram] = {}
        self.start_delay = Histogram()
        self.late = 0
        self.clock_steps = 0
        self.server_restarts = 0
        self.resolutions: Counter[str] = Counter(
            {"ok": 0, "dns_failure": 0, "dns_timeout": 0, "watch_failure": 0}
        )
        self.introductions: Counter[str] = Counter(dict.fromkeys(map(str, Outcome), 0))
        self.bytes_sent = 0
        self.bytes_received = 0
        self._zones: set[str] = set()

    def observe(self, result: ProbeResult, zone: str) -> None:
        """Count one probe that ended.

        Args:
            result: What it found.
            zone: The server's, as far as the path knows it: a probe that nobody answered
                belongs beside the good ones of its path.
        """
        zone = self._known_zone(zone)
        for phase, clock, ns in result.phases():
            self._phase(phase, clock, zone).observe(ns)
        if result.dialled:
            self._phase("probe", "user", zone).observe(result.total_ns)
            self._phase("response", "user", zone).observe(result.response_ns)
        self.start_delay.observe(max(0, result.started_ns - result.intended_ns))
        self.late += result.late
        self.bytes_sent += result.bytes_sent
        self.bytes_received += result.bytes_received

    def observe_resolution(self, resolution: Resolution) -> None:
        """Count one look-up."""
        self.resolutions[str(resolution.problem or "ok")] += 1
        if resolution.duration_ns is not None:
            self._phase("resolve", "user", "").observe(resolution.duration_ns)

    def _phase(self, phase: str, clock: str, zone: str) -> Histogram:
        key = (phase, clock, zone)
        found = self.phases.get(key)
        if found is None:
            found = self.phases[key] = Histogram()
        return found

    def _known_zone(self, zone: str) -> str:
        if zone not in self._zones and len(self._zones) >= _MAX_ZONES:
            return "other"
        self._zones.add(zone)
        return zone


class View(NamedTuple):
    """What a client is at, at one moment.

    Attributes:
        zone: Its own zone.
        paths: Those being probed.
        left_out: How many more there would be, but for ``max_paths``.
        discovered: Addresses of each name with many servers.
        zones: Zones that those servers were heard to be in.
    """

    zone: str
    paths: list[Path]
    left_out: int = 0
    discovered: Mapping[str, int] = {}
    zones: AbstractSet[str] = frozenset()


class _PathRow(NamedTuple):
    """One path at one moment, taken on the loop."""

    labels: tuple[str, str, str]
    info: tuple[str, str, str]
    extra: tuple[tuple[str, str], ...]
    scheduled: int
    missed: int
    in_flight: int
    outcomes: dict[str, int]
    reasons: dict[str, int]
    phase_ns: dict[str, int]
    phase_count: dict[str, int]
    retrans: dict[str, int]
    last_ok_real_ns: int


def _row(path: Path) -> _PathRow:
    return _PathRow(
        labels=(path.target.spec.text, path.label, path.target.family),
        info=(path.node, path.zone, path.version),
        extra=path.target.spec.labels,
        scheduled=path.scheduled,
        missed=path.missed,
        in_flight=path.in_flight,
        outcomes={str(key): value for key, value in path.outcomes.items()},
        reasons={str(key): value for key, value in path.reasons.items()},
        phase_ns=path.phase_ns.copy(),
        phase_count=path.phase_count.copy(),
        retrans=path.retrans.copy(),
        last_ok_real_ns=path.last_ok_real_ns,
    )


class ClientCollector(Collector):
    """Render the tally and the paths at scrape.

    The paths are copied on the loop, a few in each turn, so that each is seen between two
    events and its numbers add up; everything else is done in the scrape's own thread.

    Args:
        tally: What is counted over all paths.
        view: Called on the loop.
        loop: The loop.
    """

    def __init__(
        self,
        tally: ClientTally,
        view: Callable[[], View],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._tally = tally
        self._view = view
        self._loop = loop

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        return politely(self._collect())

    def _collect(self) -> Iterable[Metric]:
        view, rows = self._snapshot()
        yield from _render_paths(rows)
        tally = self._tally
        phases = HistogramMetricFamily(
            "twocans_client_phase_duration_seconds",
            "How long the phases of probes took. docs/measuring.md says from when to when.",
            labels=["phase", "clock", "source_zone", "target_zone"],
        )
        for (phase, clock, zone), values in sorted(tally.phases.copy().items()):
            add_histogram(phases, [phase, clock, view.zone, zone], values)
        yield phases
        delay = HistogramMetricFamily(
            "twocans_client_start_delay_seconds",
            "How much later than scheduled probes started.",
        )
        add_histogram(delay, [], tally.start_delay)
        yield delay
        resolutions = CounterMetricFamily(
            "twocans_client_resolutions",
            "Look-ups of target names, and what a watch of a Service told.",
            labels=["outcome"],
        )
        for outcome, value in sorted(tally.resolutions.copy().items()):
            resolutions.add_metric([outcome], value)
        yield resolutions
        introductions = CounterMetricFamily(
            "twocans_client_introductions",
            "Greetings of new addresses, to learn their node and zone.",
            labels=["outcome"],
        )
        for outcome, value in sorted(tally.introductions.copy().items()):
            introductions.add_metric([outcome], value)
        yield introductions
        yield GaugeMetricFamily("twocans_client_paths", "Paths being probed.", value=len(rows))
        yield GaugeMetricFamily(
            "twocans_client_paths_left_out",
            "Paths that are not probed because there would be more than max_paths.",
            value=view.left_out,
        )
        discovered = GaugeMetricFamily(
            "twocans_client_discovered_addresses",
            "Addresses that a dns: or endpointslices: target has now, probed or not.",
            labels=["target"],
        )
        for target, count in sorted(view.discovered.items()):
            discovered.add_metric([target], count)
        yield discovered
        zones = GaugeMetricFamily(
            "twocans_client_zones",
            "Zones that servers are in: those heard of, and those with a server being probed.",
            labels=["state"],
        )
        probed = {row.info[1] for row in rows} - {""}
        zones.add_metric(["known"], len(view.zones | probed))
        zones.add_metric(["probed"], len(probed))
        yield zones
        for name, text, value in (
            (
                "late_probes",
                "Probes in which only a last look after the deadline found something.",
                tally.late,
            ),
            (
                "server_restarts",
                "Times that a server answered as a new process under its old name.",
                tally.server_restarts,
            ),
            (
                "clock_steps",
                "Times that our clock was stepped or our host suspended.",
                tally.clock_steps,
            ),
            ("sent_bytes", "Bytes sent on measured connections.", tally.bytes_sent),
            ("received_bytes", "Bytes read on measured connections.", tally.bytes_received),
        ):
            yield CounterMetricFamily(f"twocans_client_{name}", text, value=value)

    def _snapshot(self) -> tuple[View, list[_PathRow]]:
        taken: concurrent.futures.Future[tuple[View, list[_PathRow]]] = concurrent.futures.Future()

        rows: list[_PathRow] = []

        def begin() -> None:
            view = self._view()
            copy(view, view.paths)

        def copy(view: View, paths: list[Path]) -> None:
            rows.extend(map(_row, paths[:_COPIED_A_TURN]))
            rest = paths[_COPIED_A_TURN:]
            if rest:
                self._loop.call_soon_threadsafe(lambda: copy(view, rest))
            else:
                taken.set_result((view, rows))

        self._loop.call_soon_threadsafe(begin)
        return taken.result(_SNAPSHOT_S)


_PATH = ["target", "server", "family"]


def _render_paths(rows: list[_PathRow]) -> Iterable[Metric]:
    info = GaugeMetricFamily(
        "twocans_client_path_info",
        "Always 1. Who answers on this path, and its labels from the targets file.",
    )
    scheduled = CounterMetricFamily(
        "twocans_client_probes_scheduled", "Slots of the schedule that became due.", labels=_PATH
    )
    missed = CounterMetricFamily(
        "twocans_client_probes_missed", "Slots in which no probe could start.", labels=_PATH
    )
    in_flight = GaugeMetricFamily(
        "twocans_client_probes_in_flight", "Probes under way.", labels=_PATH
    )
    probes = CounterMetricFamily(
        "twocans_client_probes", "Probes ended, by outcome.", labels=[*_PATH, "outcome"]
    )
    reasons = CounterMetricFamily(
        "twocans_client_probe_reasons",
        "Probes that were not ok, by reason.",
        labels=[*_PATH, "outcome", "reason"],
    )
    last_ok = GaugeMetricFamily(
        "twocans_client_last_success_timestamp_seconds",
        "Unix time at which the newest good probe started; 0 before the first.",
        labels=_PATH,
    )
    phases = SummaryMetricFamily(
        "twocans_client_path_phase_seconds",
        "Sum and count of how long a phase took on this path.",
        labels=[*_PATH, "phase"],
    )
    retrans = CounterMetricFamily(
        "twocans_client_retransmitted_segments",
        "Segments sent again on this path, by the end that sent them.",
        labels=[*_PATH, "end"],
    )
    for row in paced(rows):
        names = dict(zip((*_PATH, "node", "zone", "version"), row.labels + row.info, strict=True))
        extra = {f"label_{name}": value for name, value in row.extra}
        info.add_sample(info.name, {**names, **extra}, 1)
        scheduled.add_metric(row.labels, row.scheduled)
        missed.add_metric(row.labels, row.missed)
        in_flight.add_metric(row.labels, row.in_flight)
        last_ok.add_metric(row.labels, row.last_ok_real_ns / 1e9)
        for outcome, value in row.outcomes.items():
            probes.add_metric([*row.labels, outcome], value)
        for reason, value in sorted(row.reasons.items()):
            reasons.add_metric([*row.labels, OUTCOMES[Reason(reason)], reason], value)
        for phase, count in row.phase_count.items():
            phases.add_metric([*row.labels, phase], count, row.phase_ns[phase] / 1e9)
        for end, value in row.retrans.items():
            retrans.add_metric([*row.labels, end], value)
    return info, probes, reasons, scheduled, missed, in_flight, last_ok, phases, retrans
