"""A diagnosis, for a tired person. Text only, no I/O."""

from collections.abc import Iterator, Mapping

from twocans_client.evidence.bulk import Load
from twocans_client.evidence.loss import Segments
from twocans_client.evidence.results import Outcome, ProbeResult
from twocans_client.verdicts.engine import Verdict

from .diagnosis import Diagnosis, Examined
from .excluded import excluded, unknowable
from .shown import WIDTH, printable, show_ns, show_share, wrapped
from .text import facts, failures
from .waterfall import waterfall

__all__ = ["diagnosis_text", "headline"]

# Less is the scheduling of either end.
_FELT_NS = 100_000


def diagnosis_text(found: Diagnosis, width: int = WIDTH) -> str:
    """Return the page: what is wrong first. No line is longer than the page, except for names."""
    blocks = [
        list(_first(found, width)),
        [line for fact in _evidence(found) for line in wrapped(*fact, width)],
        [line for fact in _exclusions(found) for line in wrapped(*fact, width)],
        [line for fact in _load(found) for line in wrapped(*fact, width)],
        list(_waterfall(found, width)),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def headline(found: Diagnosis) -> str:
    """Return in one sentence what it amounts to."""
    if found.faults:
        path, verdict = found.faults[0]
        return _sentence(found, path, verdict)
    counts = found.counts
    failed, whole = counts[Outcome.FAIL], sum(counts.values())
    if failed:
        return f"{failed} of {whole} probes failed, and nothing can be named"
    if not counts[Outcome.OK]:
        return "nothing was measured"
    if not found.speaks:
        handshakes = sorted(r.handshake_ns for r in found.results if r.handshake_ns is not None)
        took = show_ns(handshakes[len(handshakes) // 2]) if handshakes else "of unknown length"
        return f"{found.target} takes connections: {whole} of {whole}, a handshake is {took}"
    bounds = _bounds(found)
    if found.exit_code:
        return f"segments of {found.target} were lost or sent again, too few to name a fault" + (
            f": {bounds}" if bounds else ""
        )
    return f"{found.target} is healthy" + (f": {bounds}" if bounds else "")


def _sentence(found: Diagnosis, path: Examined, verdict: Verdict) -> str:
    finding = verdict.finding
    direction = f", {finding.direction}" if finding.direction else ""
    where = f" (at {path.address})" if len(found.paths) > 1 and path.address is not None else ""
    what = f"{finding.kind.name}: {finding.kind.title}{where}"
    return f"{what}. Whose doing: {finding.culprit}{direction}"


def _bounds(found: Diagnosis) -> str:
    parts = [] if found.network_ns is None else [f"round trip {show_ns(found.network_ns)}"]
    for way in ("forward", "reverse"):
        share = found.lost_at_most(way)
        if share is not None:
            parts.append(f"loss {way} below {100 * share:.2g} % (95 %)")
    forward, reverse = found.mtu(0), found.mtu(1)
    if forward and reverse:
        back = "both ways" if forward == reverse else f"forward, {reverse:,} reverse"
        parts.append(f"packets of {forward:,} bytes pass {back}")
    load = found.load
    if load is not None and load.sustained_bits_per_s is not None and not load.problem:
        parts.append(f"{_rate(load.sustained_bits_per_s)} or more each way")
    return ", ".join(parts)


def _rate(bits_per_s: float) -> str:
    for unit, size in (("Gbit/s", 1e9), ("Mbit/s", 1e6), ("kbit/s", 1e3)):
        if bits_per_s >= size:
            return (
                f"{bits_per_s / size:.2g} {unit}"
                if bits_per_s < 100 * size
                else (f"{bits_per_s / size:.0f} {unit}")
            )
    return f"{bits_per_s:.0f} bit/s"


def _first(found: Diagnosis, width: int) -> Iterator[str]:
    if not found.faults:
        yield from wrapped(found.state, f"{printable(headline(found))}.", width)
    for path, verdict in found.faults:
        finding = verdict.finding
        label = "verdict" if path.stands(verdict) else "earlier"
        yield from wrapped(label, f"{_sentence(found, path, verdict)}.", width)
        yield from wrapped("proof", f"{printable(finding.proof)} ({finding.confidence}).", width)
        yield from wrapped("next", f"{finding.kind.look}.".replace("`", ""), width)
    if found.faults and found.unexplained:
        failed = sum(path.report.outcomes[Outcome.FAIL] for path in found.unexplained)
        yield from wrapped("unknown", f"{failed} probes failed, most for another reason.", width)
    for path in found.unexplained:
        yield from failures(path.report, width)
    if not found.faults or found.unexplained:
        yield from wrapped("next", f"{_next(found)}.", width)
    for path, verdict in found.notes:
        yield from wrapped("note", f"{_sentence(found, path, verdict)}.", width)
        yield from wrapped("", f"{printable(verdict.finding.proof)}.", width)


def _next(found: Diagnosis) -> str:
    if found.state == "ok" and found.speaks:
        return (
            "the programs that use this path. If it comes and goes, watch it: twocans-client run "
            f"--target {found.target}"
        )
    if found.state == "ok":
        return "run twocans-server there, on another port, to see both ends"
    if found.speaks is None and any(result.connect_ns is not None for result in found.results):
        return "if it is no twocans server, --connect-only; if it is, its log and its CPU"
    lacking = [each for path in found.paths for each in path.report.lacking if "count" not in each]
    missing = f". Missing evidence: {'; '.join(dict.fromkeys(lacking))}" if lacking else ""
    return f"watch it for longer: --watch-s 60{missing}"


def _evidence(found: Diagnosis) -> Iterator[tuple[str, str]]:
    counts = _counts(found.counts)
    rest = f"; {found.under_way} more were under way" if found.under_way else ""
    rest += "" if found.is_whole else "; it was cut off"
    yield (
        "evidence",
        f"{sum(found.counts.values())} probes in {show_ns(found.took_ns)}: {counts}{rest}",
    )
    if len(found.paths) > 1 or found.no_route or found.left_out:
        for path in found.paths:
            report = path.report
            probes = ", ".join(
                f"{count} {name}" for name, count in report.outcomes.items() if count
            )
            yield "address", f"{path.address}: {report.state}, {probes or 'no probe'}"
        for address in found.no_route:
            yield "address", f"{address}: not tried, our own host has no route to it"
        if found.left_out:
            yield "address", f"{found.left_out} more were not tried"
    if not found.faults and found.exit_code:
        yield from (fact for path in found.paths for fact in facts(path.report))
    for path in found.paths:
        if path.idle_good_ns:
            yield "idle", f"a silence of {show_ns(path.idle_good_ns)} did no harm"
        if path.idle_bad is not None:
            yield "idle", f"a silence of {show_ns(path.idle_bad.bad_ns)} did"
    for fact in unknowable(found):
        yield "unknown", f"{fact}."


def _counts(outcomes: Mapping[Outcome, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in outcomes.items())


def _exclusions(found: Diagnosis) -> Iterator[tuple[str, str]]:
    for what, how in excluded(found):
        yield "excluded", f"{what}: {how}"


def _load(found: Diagnosis) -> Iterator[tuple[str, str]]:
    load = found.load
    if load is None:
        if found.speaks:
            yield "load", f"none was made: {found.no_load}"
        return
    size = f"{load.payload_bytes:,} bytes"
    if load.problem:
        yield "load", f"it ended after {load.exchanges} exchanges of {size}: {load.problem}"
    else:
        rate = load.sustained_bits_per_s
        carried = "" if rate is None else f": {_rate(rate)} each way"
        yield "load", f"{load.exchanges} exchanges of {size} each way{carried}"
    for title, way in (("forward", load.forward), ("reverse", load.reverse)):
        if way.burst_bits_per_s is not None:
            grew = "" if way.grew_ns is None else _grew(way.grew_ns)
            yield f"  {title}", f"such a burst comes at {_rate(way.burst_bits_per_s)}{grew}"
    if load.idle_ns is not None and load.loaded_ns is not None:
        yield (
            "  round trip",
            f"{show_ns(load.idle_ns)} before, {show_ns(load.loaded_ns)} under load",
        )
    yield from _limits(load)


def _grew(grew_ns: int) -> str:
    return f"; small messages {show_ns(grew_ns)} later" if grew_ns >= _FELT_NS else ""


def _limits(load: Load) -> Iterator[tuple[str, str]]:
    if load.busy_s:
        shares = [
            f"{who} {show_share(round(1000 * share), 1000)}"
            for who, share in (
                ("the server's window", load.receiver_share),
                ("our send buffer", load.buffer_share),
            )
            if share is not None
        ]
        yield "  limited by", f"{', '.join(shares)} of {load.busy_s:.2g} s of sending"
    if load.segments is not None:
        yield "  lost", _lost(load.segments)


def _lost(segments: Segments) -> str:
    return ", ".join(
        f"{fates.lost:,} of {fates.sent:,} {way}"
        for way, fates in (("forward", segments.forward), ("reverse", segments.reverse))
    )


def _waterfall(found: Diagnosis, width: int) -> Iterator[str]:
    """Yield the newest probe that failed, or one of usual length."""
    results = found.results
    failed = [result for result in results if result.outcome is Outcome.FAIL]
    chosen = failed[-1] if failed else _usual(results) or next(iter(results), None)
    if chosen is not None:
        state = "a failure" if failed else "a probe"
        yield waterfall(chosen, state, width)


def _usual(results: list[ProbeResult]) -> ProbeResult | None:
    good = [result for result in results if result.outcome is Outcome.OK and not result.is_sized]
    good.sort(key=lambda result: result.total_ns)
    return good[len(good) // 2] if good else None
