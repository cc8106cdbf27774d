"""The client's Prometheus metrics of all paths together. docs/metrics.md lists every one.

Two resolutions. Histograms by phase and pair of zones, which are few; ``path_series`` has what
is of one path.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from twocans_client.paths.tally import ClientTally
from twocans_core.process.telemetry import add_histogram, politely

from .path_series import path_families
from .snapshot import View, snapshot

__all__ = ["ClientCollector"]

# Fields of ``Fates`` that are exported; what could not be measured is left out.
# fmt: off
_FATES = (
    "sent", "lost", "duplicated", "resent", "spurious", "damaged", "unsent", "reordered",
    "acks_lost", "syns", "syns_lost",
)
# fmt: on
_FATES_FORWARD = ("overflowed", "unanswered")


class ClientCollector(Collector):
    """Render the tally and the paths at scrape.

    Only a snapshot is taken on the loop; everything else is done in the scrape's own thread.

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

    def collect(self) -> Iterable[Metric]:
        return politely(self._collect())

    def _collect(self) -> Iterator[Metric]:
        # First: it also has the loop take in what probes have measured (``Intake``), so that what
        # is read of the tally below is not a second older than the paths.
        view = snapshot(self._view, self._loop)
        yield from path_families(view.paths)
        yield from _durations(self._tally, view.zone)
        yield from _exchanges(self._tally, view.zone)
        yield from _probing(self._tally, view)
        yield from _events(self._tally)


def _durations(tally: ClientTally, zone: str) -> Iterator[Metric]:
    phases = HistogramMetricFamily(
        "twocans_client_phase_duration_seconds",
        "Duration of the phases of probes. docs/measuring.md defines where each begins and ends.",
        labels=["phase", "clock", "source_zone", "target_zone"],
    )
    # Copies, here and below: the loop goes on counting, and may add a key.
    for (phase, clock, target_zone), values in sorted(tally.phases.copy().items()):
        add_histogram(phases, [phase, clock, zone, target_zone], values)
    yield phases
    parts = HistogramMetricFamily(
        "twocans_client_exchange_part_seconds",
        "Where the time of exchanges went, by kernel timestamps. All parts except accept, "
        "client_connect and client_qdisc add up to the exchange. docs/measuring.md defines each "
        "part.",
        labels=["part", "source_zone", "target_zone"],
    )
    for (part, target_zone), values in sorted(tally.parts.copy().items()):
        add_histogram(parts, [part, zone, target_zone], values)
    yield parts


def _exchanges(tally: ClientTally, zone: str) -> Iterator[Metric]:
    """Yield what is known of exchanges and segments, on fresh and on held connections."""
    segments = CounterMetricFamily(
        "twocans_client_segments",
        "TCP segments by direction and fate, from both ends' counters, in connections that "
        "reached their end. While probes fail, lost is a lower bound. docs/measuring.md defines "
        "each fate.",
        labels=["direction", "fate", "source_zone", "target_zone"],
    )
    for target_zone, both in sorted(tally.segments.copy().items()):
        for direction, fates in both._asdict().items():
            for fate in _FATES if direction == "reverse" else _FATES + _FATES_FORWARD:
                # No sample where a kernel did not count: 0 would say that nothing happened.
                value = getattr(fates, fate)
                if value is not None:
                    segments.add_metric([direction, fate, zone, target_zone], value)
    yield segments
    yield _filled(
        CounterMetricFamily,
        "exchange_splits",
        "Exchanges by whether their time could be split: split, or the reason why not.",
        tally.splits.copy(),
        ["result"],
    )
    yield _filled(
        CounterMetricFamily,
        "tainted_probes",
        "Good probes during which we stalled, by cause: their user-clock phases are not counted.",
        tally.tainted.copy(),
        ["cause"],
    )
    yield _filled(
        CounterMetricFamily,
        "held_endings",
        "Held connections that ended, by reason, and by whether that was our own doing.",
        tally.held_endings.copy(),
        ["reason", "own"],
    )
    yield _filled(
        CounterMetricFamily,
        "idle_connections",
        "Idle connections that were used after their silence, by result: ok; the reason that they "
        "failed, while fresh probes were good; void, if it may have been anything else.",
        tally.idle_connections.copy(),
        ["result"],
    )
    yield _filled(
        CounterMetricFamily,
        "held_limited_seconds",
        "Time that held connections had something to send (busy), and the parts of it that they "
        "waited for the receiver's window or for our send buffer, by our kernel (tcp_info).",
        {by: us / 1e6 for by, us in tally.limited_us.copy().items()},
        ["by"],
    )


def _probing(tally: ClientTally, view: View) -> Iterator[Metric]:
    yield _filled(
        GaugeMetricFamily,
        "proxied_paths",
        "Paths on which a proxy was recognised: no loss is claimed for them.",
        sum(bool(path.proxy.sign) for path in view.paths),
    )
    delay = HistogramMetricFamily(
        "twocans_client_start_delay_seconds",
        "Delay of a probe's start after its slot in the schedule.",
    )
    add_histogram(delay, [], tally.start_delay)
    yield delay
    yield _filled(
        CounterMetricFamily,
        "resolutions",
        "Look-ups of target names, and updates from the watch of a Service, by outcome.",
        tally.resolutions.copy(),
        ["outcome"],
    )
    yield _filled(
        CounterMetricFamily,
        "introductions",
        "Greetings of new addresses, to learn their node and zone, by outcome.",
        tally.introductions.copy(),
        ["outcome"],
    )
    yield _filled(
        CounterMetricFamily,
        "over_budget",
        "What was left out because its path had spent its budget, by kind: probes (their slots are "
        "missed), held connections not opened, sized exchanges, idle connections and questions to "
        "the witness.",
        tally.over_budget.copy(),
        ["kind"],
    )
    yield _filled(GaugeMetricFamily, "paths", "Paths being probed.", len(view.paths))
    yield _filled(
        GaugeMetricFamily,
        "paths_left_out",
        "Paths that are not probed because of max_paths.",
        view.left_out,
    )
    yield _filled(
        GaugeMetricFamily,
        "targets_refused",
        "Wrong groups, targets and labels of the targets file, which are left out; 1 if the whole "
        "file cannot be read, and the last good list stays.",
        view.refused,
    )
    yield _filled(
        GaugeMetricFamily,
        "discovered_addresses",
        "Addresses that a dns: or endpointslices: target has, probed or not.",
        view.discovered,
        ["target"],
    )
    yield _filled(
        GaugeMetricFamily,
        "unusable_addresses",
        "Addresses that are not probed because this machine has no route to their family, while "
        "the target has another.",
        view.unusable,
        ["target", "family"],
    )
    probed = {path.server.zone for path in view.paths} - {""}
    yield _filled(
        GaugeMetricFamily,
        "zones",
        "Zones of servers: known, and probed.",
        {"known": len(view.zones | probed), "probed": len(probed)},
        ["state"],
    )


def _events(tally: ClientTally) -> Iterator[Metric]:
    for name, text, value in (
        (
            "late_probes",
            "Probes whose answer was only found by a last read after the deadline.",
            tally.late,
        ),
        (
            "server_restarts",
            "Times that a server answered as a new process under the same name.",
            tally.server_restarts,
        ),
        (
            "clock_steps",
            "Times that our clock was stepped or our host was suspended.",
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
            "Slots of held connections that were skipped because the previous exchange had no "
            "reply yet.",
            tally.held_skipped,
        ),
        ("sent_bytes", "Bytes sent on measured connections.", tally.bytes_sent),
        ("received_bytes", "Bytes read on measured connections.", tally.bytes_received),
    ):
        yield _filled(CounterMetricFamily, name, text, value)


def _filled(
    kind: type[CounterMetricFamily | GaugeMetricFamily],
    name: str,
    text: str,
    values: float | Mapping[str, float] | Mapping[tuple[str, str], float],
    labels: Sequence[str] = (),
) -> Metric:
    """Return a family with one value, or with one by each value of its label or two labels."""
    family = kind(f"twocans_client_{name}", text, labels=labels)
    if not isinstance(values, Mapping):
        family.add_metric((), values)
        return family
    for key, value in sorted(values.items()):
        family.add_metric((key,) if isinstance(key, str) else key, value)
    return family
