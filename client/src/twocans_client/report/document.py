"""The report of many probes as one JSON document, for programs. Text only, no I/O."""

import json
from collections.abc import Iterable, Mapping

from twocans_client.evidence.intervals import wilson
from twocans_client.evidence.loss import Fates, Segments
from twocans_client.evidence.results import Exchange, ProbeResult
from twocans_client.verdicts.verdict import Finding

from .summary import HOLDERS, QUANTILES, Report

__all__ = ["directions_of", "report_document", "report_json", "verdict_document"]

_SCHEMA = 5


def report_json(report: Report, results: Iterable[ProbeResult], target: str) -> str:
    """Return ``report_document`` as text."""
    return json.dumps(report_document(report, results, target), indent=2)


def report_document(
    report: Report, results: Iterable[ProbeResult], target: str
) -> dict[str, object]:
    """Return the report with every probe. Durations are in seconds, raw timestamps in nanoseconds.

    What was not measured is left out.
    """
    return {
        "schema": _SCHEMA,
        "target": target,
        "state": report.state,
        "verdicts": [verdict_document(verdict.finding) for verdict in report.verdicts or ()],
        **({"missing_evidence": report.lacking} if report.is_unexplained else {}),
        **({"only_connects": True} if report.only_connects else {}),
        "outcomes": {str(name): count for name, count in report.outcomes.items()},
        "reasons": dict(report.reasons),
        "bytes_sent": report.bytes_sent,
        "bytes_received": report.bytes_received,
        **_measured({"retransmits": report.retransmits}),
        "phases": _phases(report),
        "where": _where(report),
        "splits": dict(report.splits),
        "tainted": dict(report.tainted),
        "direction": _direction(report),
        "segments": _segments(report),
        "probes": [
            _probe(result) | ({} if report.is_proxied(result) else _fate(result))
            for result in results
        ],
    }


def verdict_document(finding: Finding) -> dict[str, object]:
    """Return what is wrong, whose doing it is, and the proof."""
    return {
        "name": finding.kind.name,
        "title": finding.kind.title,
        "culprit": finding.culprit,
        "direction": finding.direction,
        "confidence": finding.confidence,
        "proof": finding.proof,
        "figures": dict(finding.figures),
        "look_next": finding.kind.look,
    }


def _phases(report: Report) -> dict[str, dict[str, object]]:
    """Return figures by phase or part, and by clock."""
    phases: dict[str, dict[str, object]] = {}
    for (what, clock), count in report.rows().items():
        figures = {f"{name}_s": report.quantile(what, clock, q) for name, q in QUANTILES}
        in_seconds = {name: ns / 1e9 for name, ns in figures.items() if ns is not None}
        phases.setdefault(what, {})[clock] = {"samples": count, **in_seconds}
    return phases


def _where(report: Report) -> dict[str, object]:
    """Return mean shares of an exchange by clock: they add up to it."""
    return {
        clock: {
            "exchanges": count,
            "mean_s": {
                holder: report.spent_ns[clock, holder] / count / 1e9
                for holder in HOLDERS
                if (clock, holder) in report.spent_ns
            },
        }
        for clock, count in report.spent_on.items()
    }


def _direction(report: Report) -> dict[str, object]:
    found: dict[str, object] = {
        "unjudged": report.unjudged,
        "grew": {direction or "none": count for direction, count in report.directions.items()},
    }
    if report.offset is not None:
        found["offset_s"] = report.offset.ns / 1e9
        found["offset_bound_s"] = report.offset.bound_ns / 1e9
    return found


def _segments(report: Report) -> dict[str, object]:
    is_least = report.unaccounted.total() > 0
    found: dict[str, object] = {
        "connections": report.accounts,
        "unaccounted": dict(report.unaccounted),
        "unanswered_syns": report.unanswered,
        "proxies": report.proxies,
        "boxes": report.boxes,
    }
    if report.segments is not None:
        found |= {"lost_is_least": is_least, **directions_of(report.segments, is_least=is_least)}
    return found


def directions_of(segments: Segments, *, is_least: bool = False) -> dict[str, object]:
    """Return what became of segments, by direction."""
    forward, reverse = segments
    return {
        "forward": _fates(forward, is_least=is_least),
        "reverse": _fates(reverse, is_least=is_least),
    }


def _fates(fates: Fates, *, is_least: bool) -> dict[str, object]:
    low, high = wilson(fates.lost, fates.sent)
    interval = (low, 1.0 if is_least else high)
    return {**_measured(fates._asdict()), "lost_interval": interval}


def _probe(result: ProbeResult) -> dict[str, object]:
    fields: dict[str, object] = {
        "outcome": result.outcome,
        "reason": result.reason,
        "started_s": result.started_real_ns / 1e9,
        "total_s": result.total_ns / 1e9,
        "worst_lag_s": result.worst_lag_ns / 1e9,
    }
    if result.detail:
        fields["detail"] = result.detail
    if result.unfinished is not None:
        phase, ns = result.unfinished
        fields["unfinished"] = {"phase": phase, "duration_s": ns / 1e9}
    if result.tainted:
        fields["tainted"] = result.tainted
    if result.server is not None:
        names = result.server._asdict()
        fields["server"] = {**names, "instance": result.server.instance.hex()}
    for name, address in (
        ("address", result.address),
        ("local", result.local),
        ("seen_as", result.seen_as),
    ):
        if address is not None:
            fields[name] = list(address)
    phases: dict[str, list[float]] = {}
    # Programs get all of them, and beside them what spoiled them.
    for phase, _, ns in result.phases(tainted=True):
        phases.setdefault(phase, []).append(ns / 1e9)
    parts = {"client_connect": result.client_connect_ns, "accept": result.accept_ns}
    phases |= {part: [part_ns / 1e9] for part, part_ns in parts.items() if part_ns is not None}
    fields["phases_s"] = phases
    fields["exchanges"] = [_exchange(exchange) for exchange in result.exchanges]
    for name, counters in (
        ("client_tcp_info_connected", result.connected),
        ("client_tcp_info", result.ended),
        ("server_tcp_info_greeted", result.server_greeted),
        ("server_tcp_info", result.server_ended),
    ):
        if counters is not None:
            fields[name] = _measured(counters._asdict())
    return fields


def _fate(result: ProbeResult) -> dict[str, object]:
    """Return what became of one probe's segments, if that is known."""
    segments = result.segments
    return {} if segments is None else {"segments": directions_of(segments)}


def _exchange(exchange: Exchange) -> dict[str, object]:
    fields: dict[str, object] = {
        "sequence": exchange.sequence,
        "duration_s": exchange.duration_ns / 1e9,
        "resent": exchange.resent,
        "stamps_ns": _measured(exchange.stamps._asdict()),
    }
    if exchange.refusal is not None:
        fields["refusal"] = exchange.refusal
    if exchange.split is not None:
        fields["parts_s"] = {part: ns / 1e9 for part, ns in exchange.split.parts()}
    return fields


def _measured(table: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in table.items() if value is not None}
