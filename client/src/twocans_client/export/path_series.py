"""The series of each path, as one table. No I/O.

A number that is counted in ``Path`` and has a row here is exported; nothing else needs to know it.
For each path only counters, sums and last values: at most 40 series, however it fails.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    SummaryMetricFamily,
)

from twocans_client.paths.path import Path
from twocans_core.process.telemetry import paced

__all__ = ["path_families"]

_LABELS = ("target", "server", "family")

Family = CounterMetricFamily | GaugeMetricFamily | SummaryMetricFamily
# By the values of a row's own labels; of a summary count and sum.
Values = Mapping[tuple[str, ...], float | tuple[int, float]]


class _Series(NamedTuple):
    """One family.

    Attributes:
        kind: Its class.
        name: Without ``twocans_client_``.
        text: The help.
        labels: Besides those of every path.
        values: Takes them from a path that stays as it is (``snapshot``).
    """

    kind: type[Family]
    name: str
    text: str
    labels: tuple[str, ...]
    values: Callable[[Path], Values]


def _growth(path: Path) -> Values:
    if path.growth is None:
        return {}
    grown = {"forward": path.growth.forward_ns, "reverse": path.growth.reverse_ns}
    return {(direction,): ns / 1e9 for direction, ns in grown.items() if ns is not None}


def _claims_loss(path: Path) -> bool:
    """Two halves of a proxied connection share no counters, and what is counted is no loss."""
    return path.is_counted and not path.proxy.sign


def _segments(path: Path) -> Values:
    if not _claims_loss(path):
        return {}
    values: dict[tuple[str, ...], float] = {}
    for direction, fates in zip(("forward", "reverse"), path.segments, strict=True):
        values[direction, "sent"] = fates.sent + fates.syns
        values[direction, "lost"] = fates.lost + fates.syns_lost
    return values


def _retransmitted(path: Path) -> Values:
    # Instead of them: with both there would be more than forty.
    if _claims_loss(path):
        return {}
    return {(end,): n for end, n in path.retrans.items() if end in path.resenders}


_SERIES = (
    _Series(
        CounterMetricFamily,
        "probes",
        "Finished probes, by outcome.",
        ("outcome",),
        lambda path: {(outcome,): count for outcome, count in path.outcomes.items()},
    ),
    _Series(
        CounterMetricFamily,
        "probe_reasons",
        "Probes that were not ok, by reason. A path's first four reasons have a name, later ones "
        "are other.",
        ("outcome", "reason"),
        lambda path: {(why[1], why[0]): path.reasons[why] for why in sorted(path.reasons)},
    ),
    _Series(
        CounterMetricFamily,
        "probes_scheduled",
        "Slots of the schedule that became due.",
        (),
        lambda path: {(): path.scheduled},
    ),
    _Series(
        CounterMetricFamily,
        "probes_missed",
        "Slots in which no probe could start.",
        (),
        lambda path: {(): path.missed},
    ),
    _Series(
        GaugeMetricFamily,
        "probes_in_flight",
        "Probes in flight.",
        (),
        lambda path: {(): path.in_flight},
    ),
    _Series(
        GaugeMetricFamily,
        "last_success_timestamp_seconds",
        "Unix time of the start of the newest good probe; 0 before the first.",
        (),
        lambda path: {(): path.last_ok_real_ns / 1e9},
    ),
    _Series(
        SummaryMetricFamily,
        "path_phase_seconds",
        "Sum and count of the durations of a phase on this path.",
        ("phase",),
        lambda path: {
            (phase,): (count, path.phase_ns[phase] / 1e9)
            for phase, count in path.phase_count.items()
        },
    ),
    _Series(
        CounterMetricFamily,
        "retransmitted_segments",
        "Segments retransmitted on this path, by the end that sent them. Absent where "
        "path_segments tells what was lost.",
        ("end",),
        _retransmitted,
    ),
    _Series(
        GaugeMetricFamily,
        "path_last_seconds",
        "Where the time of the newest exchange went, by kernel timestamps; handshake: of the "
        "newest probe.",
        ("part",),
        lambda path: {(part,): ns / 1e9 for part, ns in path.last_ns.items()},
    ),
    _Series(
        GaugeMetricFamily,
        "path_growth_seconds",
        "By how much, at most, the newest exchange was slower in each direction than the quickest "
        "of the last day. What both exceed the total by is doubt. Absent while it could be all or "
        "nothing.",
        ("direction",),
        _growth,
    ),
    _Series(
        CounterMetricFamily,
        "path_segments",
        "Segments with data or SYN sent and lost, by direction, from both ends' counters, in "
        "connections that reached their end. While probes fail, lost is a lower bound. Absent "
        "while a proxy is on the path, or if the kernel's counters are not read.",
        ("direction", "fate"),
        _segments,
    ),
    _Series(
        GaugeMetricFamily,
        "path_held",
        "1 while the held connection is open, else 0.",
        (),
        lambda path: {(): int(path.is_held)},
    ),
    _Series(
        GaugeMetricFamily,
        "path_verdict",
        "1 while a verdict stands: what is wrong, whose doing it is and in which direction; 0 if "
        "it is only worth knowing. Absent while all is well. docs/verdicts.md has the names.",
        ("verdict", "culprit", "direction"),
        lambda path: {
            key: int(not verdict.finding.kind.is_info) for key, verdict in path.verdicts.items()
        },
    ),
)


def path_families(paths: Iterable[Path]) -> Iterator[Metric]:
    """Yield all families of paths that stay as they are."""
    info = GaugeMetricFamily(
        "twocans_client_path_info",
        "Always 1. The server that answers on this path, and the path's labels from the targets "
        "file.",
    )
    families: list[Family] = [
        series.kind(f"twocans_client_{series.name}", series.text, labels=_LABELS + series.labels)
        for series in _SERIES
    ]
    rows = [
        (series.values, _adder(family)) for series, family in zip(_SERIES, families, strict=True)
    ]
    # By path, not by series: a scrape's thread gives way after every few of them.
    for path in paced(paths):
        of = (path.target.spec.text, path.label, path.target.family)
        info.add_sample(info.name, {**dict(zip(_LABELS, of, strict=True)), **_about(path)}, 1)
        for values, add in rows:
            for labels, value in values(path).items():
                add(of + labels, value)
    yield info
    yield from families


def _about(path: Path) -> dict[str, str]:
    """Return labels of the info alone: each path has its own, by its target."""
    _, node, zone, version = path.server
    extra = {f"label_{name}": value for name, value in path.target.spec.labels}
    return {"node": node, "zone": zone, "version": version, **extra}


def _adder(family: Family) -> Callable[[tuple[str, ...], Any], None]:
    if isinstance(family, SummaryMetricFamily):
        return lambda labels, pair: family.add_metric(labels, *pair)
    return family.add_metric
