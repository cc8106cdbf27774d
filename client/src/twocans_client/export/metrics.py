"""The client's Prometheus metrics: every name and help text. docs/metrics.md lists them.

Two resolutions. Histograms by phase and pair of zones, which are few. For each path only
counters, sums and last values: at most 40 series, however it fails.
"""

import asyncio
import concurrent.futures
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

from twocans_client.evidence.direction import Growth
from twocans_client.evidence.loss import Segments
from twocans_client.paths.path import Path
from twocans_client.paths.tally import ClientTally
from twocans_core.process.telemetry import add_histogram, paced, politely

__all__ = ["ClientCollector", "View"]

# Fields of ``Fates`` that are exported; what could not be measured is left out.
_FATES = (
    *("sent", "lost", "duplicated", "resent", "spurious", "damaged", "unsent", "reordered"),
    *("acks_lost", "syns", "syns_lost"),
)
_FATES_FORWARD = ("overflowed", "unanswered")

_SNAPSHOT_S = 5.0
# Paths copied in one turn of the loop, about 8 us each.
_COPIED_A_TURN = 25


class View(NamedTuple):
    """What a client is at, at one moment.

    Attributes:
        zone: Its own zone.
        paths: Those being probed.
        left_out: How many more there would be, but for ``max_paths``.
        refused: What of the targets file is not taken.
        discovered: Addresses of each name with many servers.
        unusable: Addresses left out for want of a route, by name and family.
        zones: Zones that those servers were heard to be in.
    """

    zone: str
    paths: list[Path]
    left_out: int = 0
    refused: int = 0
    discovered: Mapping[str, int] = {}
    unusable: Mapping[tuple[str, str], int] = {}
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
    reasons: dict[tuple[str, str], int]
    phase_ns: dict[str, int]
    phase_count: dict[str, int]
    retrans: dict[str, int]
    last_ok_real_ns: int
    last_ns: dict[str, int]
    growth: Growth | None
    segments: Segments
    is_held: bool
    is_proxied: bool
    is_counted: bool


def _row(path: Path) -> _PathRow:
    return _PathRow(
        labels=(path.target.spec.text, path.label, path.target.family),
        info=path.server[1:],
        extra=path.target.spec.labels,
        scheduled=path.scheduled,
        missed=path.missed,
        in_flight=path.in_flight,
        outcomes={str(key): value for key, value in path.outcomes.items()},
        reasons={(str(key[0]), str(key[1])): n for key, n in path.reasons.items()},
        phase_ns=path.phase_ns.copy(),
        phase_count=path.phase_count.copy(),
        retrans={end: n for end, n in path.retrans.items() if end in path.resenders},
        last_ok_real_ns=path.last_ok_real_ns,
        last_ns=path.last_ns.copy(),
        growth=path.growth,
        segments=path.segments,
        is_held=path.is_held,
        is_proxied=bool(path.proxy.sign),
        is_counted=path.is_counted,
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
        yield from _render_exchanges(tally, view.zone)
        yield GaugeMetricFamily(
            "twocans_client_proxied_paths",
            "Paths on which a proxy was recognised: their loss is not claimed.",
            value=sum(row.is_proxied for row in rows),
        )
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
        yield GaugeMetricFamily(
            "twocans_client_targets_refused",
            "Groups, targets and labels of the targets file that are not taken; 1 where it cannot "
            "be read as a whole, and the last good list stays.",
            value=view.refused,
        )
        discovered = GaugeMetricFamily(
            "twocans_client_discovered_addresses",
            "Addresses that a dns: or endpointslices: target has now, probed or not.",
            labels=["target"],
        )
        for target, count in sorted(view.discovered.items()):
            discovered.add_metric([target], count)
        yield discovered
        unusable = GaugeMetricFamily(
            "twocans_client_unusable_addresses",
            "Addresses that are not probed because this machine has no route to their family, and "
            "the target has another.",
            labels=["target", "family"],
        )
        for of, count in sorted(view.unusable.items()):
            unusable.add_metric(of, count)
        yield unusable
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
            (
                "server_clock_steps",
                "Times that the offset between a server's clock and ours jumped.",
                tally.server_clock_steps,
            ),
            ("held_exchanges", "Exchanges on held connections.", tally.held_exchanges),
            (
                "held_skipped",
                "Slots of held connections in which the exchange before was still waited for.",
                tally.held_skipped,
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
_DIRECTIONS = ("forward", "reverse")


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
        "Probes that were not ok, by reason; of a path the first six reasons have a name.",
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
    last = GaugeMetricFamily(
        "twocans_client_path_last_seconds",
        "Where the time of the newest exchange went, by kernel stamps; handshake: of the newest "
        "probe.",
        labels=[*_PATH, "part"],
    )
    growth = GaugeMetricFamily(
        "twocans_client_path_growth_seconds",
        "By how much the newest exchange was slower than the quickest of the last day, on each "
        "way; what both exceed the whole by is doubt. Absent while it may be all or nothing.",
        labels=[*_PATH, "direction"],
    )
    segments = CounterMetricFamily(
        "twocans_client_path_segments",
        "Segments with data or SYN sent and lost in each direction, by both ends' counters, in "
        "connections that came to their end; while probes fail, at least so many were lost. Absent "
        "where a proxy is on the path, or a kernel is not asked to count.",
        labels=[*_PATH, "direction", "fate"],
    )
    held = GaugeMetricFamily(
        "twocans_client_path_held", "1 while the held connection is open, else 0.", labels=_PATH
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
        for (reason, outcome), value in sorted(row.reasons.items()):
            reasons.add_metric([*row.labels, outcome, reason], value)
        for phase, count in row.phase_count.items():
            phases.add_metric([*row.labels, phase], count, row.phase_ns[phase] / 1e9)
        for end, value in row.retrans.items():
            retrans.add_metric([*row.labels, end], value)
        for part, ns in row.last_ns.items():
            last.add_metric([*row.labels, part], ns / 1e9)
        if row.growth is not None:
            for direction, grown_ns in (
                ("forward", row.growth.forward_ns),
                ("reverse", row.growth.reverse_ns),
            ):
                if grown_ns is not None:
                    growth.add_metric([*row.labels, direction], grown_ns / 1e9)
        if row.is_counted and not row.is_proxied:
            for direction, fates in zip(_DIRECTIONS, row.segments, strict=True):
                segments.add_metric([*row.labels, direction, "sent"], fates.sent + fates.syns)
                segments.add_metric([*row.labels, direction, "lost"], fates.lost + fates.syns_lost)
        held.add_metric(row.labels, int(row.is_held))
    yield from (info, probes, reasons, scheduled, missed, in_flight, last_ok, phases, retrans)
    yield from (last, growth, segments, held)


def _render_exchanges(tally: ClientTally, zone: str) -> Iterable[Metric]:
    """Yield what is known of exchanges and segments, on fresh and on held connections."""
    parts = HistogramMetricFamily(
        "twocans_client_exchange_part_seconds",
        "Where the time of exchanges went, by kernel stamps. All parts but accept, client_connect "
        "and client_qdisc add up to the exchange. docs/measuring.md says from when to when.",
        labels=["part", "source_zone", "target_zone"],
    )
    for (part, target_zone), values in sorted(tally.parts.copy().items()):
        add_histogram(parts, [part, zone, target_zone], values)
    yield parts
    segments = CounterMetricFamily(
        "twocans_client_segments",
        "What became of TCP segments in each direction, by both ends' counters, in "
        "connections that came to their end; while probes fail, at least so many were lost. "
        "docs/measuring.md says what each fate is.",
        labels=["direction", "fate", "source_zone", "target_zone"],
    )
    for target_zone, both in sorted(tally.segments.copy().items()):
        for direction, fates in zip(_DIRECTIONS, both, strict=True):
            for fate in _FATES if direction == "reverse" else _FATES + _FATES_FORWARD:
                value = getattr(fates, fate)
                if value is not None:
                    segments.add_metric([direction, fate, zone, target_zone], value)
    yield segments
    for name, text, labels, counts in (
        (
            "exchange_splits",
            "Exchanges, by whether their time could be split: split, or why not.",
            ["result"],
            {(key,): count for key, count in tally.splits.copy().items()},
        ),
        (
            "tainted_probes",
            "Good probes in whose time we stood still: their user-clock phases are not counted.",
            ["cause"],
            {(key,): count for key, count in tally.tainted.copy().items()},
        ),
        (
            "held_endings",
            "Held connections that ended, by reason, and whether that was our own doing.",
            ["reason", "own"],
            tally.held_endings.copy(),
        ),
        (
            "held_limited_seconds",
            "How long held connections had something to send (busy), and what of that they waited "
            "for the receiver's window or our send buffer; by our kernel (tcp_info).",
            ["by"],
            {(key,): us / 1e6 for key, us in tally.limited_us.copy().items()},
        ),
    ):
        family = CounterMetricFamily(f"twocans_client_{name}", text, labels=labels)
        for key, value in sorted(counts.items()):
            family.add_metric(key, value)
        yield family
