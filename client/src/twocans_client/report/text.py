"""The report of many probes, for people. Text only, no I/O."""

from collections.abc import Iterable, Iterator, Mapping

from twocans_client.evidence.direction import Direction
from twocans_client.evidence.intervals import in_words
from twocans_client.evidence.loss import Fates, Segments
from twocans_client.evidence.results import Outcome, ProbeResult, Reason
from twocans_core.net.sockets import Address

from .next_steps import how_it_ended, next_step
from .shown import UNKNOWN_TO_ONE_END, WIDTH, printable, show_ns, show_share, show_where, wrapped
from .summary import HOLDERS, QUANTILES, Report

__all__ = ["facts", "failures", "report_text", "reports_text"]

# In the order in which a probe goes through them; indented ones are parts of the one above. Of
# the sums by host only the user's clock is shown, which knows nothing smaller.
_ROWS = (
    ("resolve", "resolve"),
    ("connect", "connect"),
    ("handshake", "  handshake"),
    ("client_connect", "  client_connect"),
    ("greet", "greet"),
    ("accept", "  accept"),
    ("exchange", "exchange"),
    ("client_send", "  client_send"),
    ("client_qdisc", "    qdisc"),
    ("network", "  network"),
    ("recovery", "  recovery"),
    ("server_wakeup", "  server_wakeup"),
    ("server_stall", "  server_stall"),
    ("server_app", "  server_app"),
    ("server_send", "  server_send"),
    ("server", "  server"),
    ("client_wakeup", "  client_wakeup"),
    ("close", "close"),
)
_HIDDEN = {("server", "kernel")}
_WORST = ("fail", "degraded", "unknown", "ok")

_SIGNS = {
    "options": "the two ends agreed on different TCP options",
    "segments": "the two ends' segment counts do not belong to one connection",
    "nearer": "handshakes and exchanges differ in their round-trip times",
}
_BOXES = {
    "options_rewritten": "TCP options are rewritten on the path",
    "handshake_answered": "a middlebox answers our handshake for the server, as SYNPROXY does",
}


def reports_text(reports: Iterable[Report], width: int = WIDTH) -> str:
    """Return the reports of several paths, the worst first, below a line of each."""
    worst_first = sorted(reports, key=lambda report: _WORST.index(report.state))
    texts = [report_text(report, width) for report in worst_first]
    if len(texts) <= 1:
        return "".join(texts)
    heads = [line for report in worst_first for line in _head(report, width)]
    return "\n\n".join(["\n".join(heads), *texts])


def report_text(report: Report, width: int = WIDTH) -> str:
    """Return the report, what is wrong first. No line is longer than the page, except for names."""
    verdicts = [line for each in _verdicts(report) for line in wrapped(*each, width)]
    blocks = [[*verdicts, *_head(report, width)], list(failures(report, width))]
    blocks.append(list(_table(report)))
    blocks.append([line for fact in facts(report) for line in wrapped(*fact, width)])
    return "\n".join([*blocks[0], *blocks[1], *("\n".join(["", *b]) for b in blocks[2:] if b)])


def _verdicts(report: Report) -> Iterator[tuple[str, str]]:
    """Yield (label, text): what is wrong, whose doing it is, the proof, and where to look next."""
    for finding in (verdict.finding for verdict in report.verdicts or ()):
        direction = f", {finding.direction}" if finding.direction else ""
        what = f"{finding.kind.name}: {finding.kind.title}"
        yield "verdict", f"{what}. Whose doing: {finding.culprit}{direction}."
        yield "", f"{printable(finding.proof)} ({finding.confidence})."
        yield "", f"Look next: {finding.kind.look}.".replace("`", "")
    if report.is_unexplained:
        missing = "; ".join(report.lacking)
        rest = f" Missing evidence: {missing}." if missing else ""
        yield "verdict", f"unknown: probes failed, and nothing can be named.{rest}"


def _head(report: Report, width: int) -> list[str]:
    counts = ", ".join(f"{count} {name}" for name, count in report.outcomes.items())
    whole = sum(report.outcomes.values())
    probes = f"{whole} probe{'s' * (whole != 1)}, {counts}"
    lossy = ", segments lost or retransmitted" if report.is_lossy else ""
    where = show_where(report.path, report.addresses)
    return wrapped(report.state, f"{where}: {probes}{lossy}", width)


def failures(report: Report, width: int) -> Iterator[str]:
    """Yield lines: for each reason how often, what the newest was like, and where to look next."""
    for reason, count in report.reasons.most_common():
        if reason != Reason.OK:
            yield from wrapped(
                reason if len(reason) < 13 else reason + ":",
                f"{count}; the newest {_newest(report.newest[Reason(reason)])}",
                width,
            )
            yield from wrapped("", next_step(Reason(reason)), width)


def _newest(result: ProbeResult) -> str:
    """Say from where to where a probe went that was not ok, and how it ended."""
    local = f"from {Address(*result.local)} " if result.local else ""
    to = f"to {result.address}" if result.address else "had no address to go to"
    phase = ""
    if result.unfinished is not None:
        ended = how_it_ended(result.reason)
        words = f", {ended}" if ended != result.reason else ""
        phase = f", {result.unfinished.phase} {show_ns(result.unfinished.ns)}{words}"
    detail = f" ({printable(result.detail)})" if result.detail else ""
    return f"{local}{to}{phase}{detail}"


def _table(report: Report) -> Iterator[str]:
    counts = report.rows()
    rows = []
    for what, title in _ROWS:
        for clock in ("user", "kernel", "both"):
            count = counts.get((what, clock))
            if not count or (what, clock) in _HIDDEN:
                continue
            figures = [report.quantile(what, clock, q) for _, q in QUANTILES]
            if figures[-1] == 0:
                continue  # nobody ever waited for it
            cells = "".join(f"{show_ns(ns) if ns else 'none':>10}" for ns in figures)
            rows.append(f"{title:18}{clock:8}{cells}{count:>9}")
    if rows:
        names = "".join(f"{name:>10}" for name, _ in QUANTILES)
        yield f"{'phase':18}{'clock':8}{names}  samples"
        yield from rows


def facts(report: Report) -> Iterator[tuple[str, str]]:
    """Yield (label, fact): where the time went, and what became of the segments."""
    if report.spent_on:
        yield "where", _where(report)
    refused = {why: count for why, count in report.splits.items() if why != "split"}
    if refused:
        yield "not split", f"{_of(refused, report.splits.total())} exchanges: {_listed(refused)}"
    if report.tainted:
        yield (
            "tainted",
            f"{report.tainted.total()} ok, but we stalled meanwhile ({_listed(report.tainted)}):"
            " left out of user-clock rows",
        )
    yield from _directions(report)
    measured = report.outcomes[Outcome.OK] > 0  # else nothing came to an end to be accounted for
    if report.only_connects:
        yield "not known", UNKNOWN_TO_ONE_END
    else:
        yield from _losses(report)
    if measured or report.bytes_sent:
        yield "bytes", f"{report.bytes_sent:,} sent, {report.bytes_received:,} received"
    resent = report.retransmits
    if resent is not None and (measured or resent):
        ends = "SYNs" if report.only_connects else "both ends together"
        yield "retransmits", f"{resent:,}, {ends}"
    elif measured:
        yield "retransmits", "not measured"


def _where(report: Report) -> str:
    """Say who had the time, by means: they add up, as quantiles do not."""
    clock = "kernel" if report.spent_on["kernel"] else "user"
    spent = {holder: report.spent_ns[clock, holder] for holder in HOLDERS}
    whole_ns, count = max(1, sum(spent.values())), report.spent_on[clock]
    titles = {holder: holder.replace("_", " ") for holder in HOLDERS}
    if clock == "user":
        titles["network"] = "network and wake-ups"
    shares = ", ".join(
        f"{titles[holder]} {show_share(ns, whole_ns)}"
        for holder, ns in spent.items()
        if (clock, holder) in report.spent_ns
    )
    return f"{shares} of {show_ns(whole_ns // count)}" + (" (mean)" if count > 1 else "")


def _directions(report: Report) -> Iterator[tuple[str, str]]:
    judged, grew = report.directions.total(), report.directions.copy()
    quiet = grew.pop(Direction.NONE, 0)
    if not judged and not report.unjudged:
        return
    if not judged:
        yield "delay grew", "unknown: too few exchanges with all timestamps"
    elif quiet == judged:
        yield "delay grew", f"in none of {judged} exchanges"
    else:
        directions = ", ".join(
            f"{grew[direction]} {title}"
            for direction, title in (
                (Direction.FORWARD, "forward"),
                (Direction.REVERSE, "reverse"),
                (Direction.BOTH, "both"),
                (Direction.UNKNOWN, "unknown"),
            )
            if grew[direction]
        )
        yield "delay grew", f"in {judged - quiet} of {judged} exchanges: {directions}"
    offset = report.offset
    if offset is not None:
        side = "behind" if offset.ns < 0 else "ahead of"
        bound = show_ns(offset.bound_ns)
        yield (
            "clocks",
            f"the server's is {show_ns(abs(offset.ns))} {side} ours, give or take {bound}",
        )


def _losses(report: Report) -> Iterator[tuple[str, str]]:
    segments, proxies = report.segments, report.proxies
    for sign in sorted(set(proxies)):
        yield "loss", f"not claimed: signs of a proxy: {_SIGNS[sign]}"
    if segments is not None:
        yield from _account(segments, is_least=report.unaccounted.total() > 0)
    elif not proxies and report.outcomes[Outcome.OK]:
        yield "loss", "not measured: no connection ended with matching counts from both kernels"
    if report.unaccounted and (segments is not None or report.unanswered):
        syns = f"; {report.unanswered:,} SYNs went unanswered" if report.unanswered else ""
        count, whole = report.unaccounted.total(), sum(report.outcomes.values())
        yield "unaccounted", f"{count:,} of {whole:,} probes failed and may have lost more{syns}"
    for box in report.boxes:
        yield "on the path", _BOXES[box]


def _account(segments: Segments, *, is_least: bool) -> Iterator[tuple[str, str]]:
    for title, fates, host in (
        ("lost forward", segments.forward, "our own host"),
        ("lost reverse", segments.reverse, "the server's host"),
    ):
        notes = "".join(f", {note}" for note in _notes(fates))
        yield title, f"{in_words(fates.lost, fates.sent, is_least=is_least)}{notes}"
        if fates.unsent:
            yield (
                "unsent",
                f"{fates.unsent:,} more, dropped by {host} (firewall or full queue)",
            )
    for title, fates in (("lost SYN", segments.forward), ("lost SYN-ACK", segments.reverse)):
        if fates.syns_lost:
            yield title, in_words(fates.syns_lost, fates.syns, is_least=is_least)
    if segments.forward.overflowed:
        count = f"{segments.forward.overflowed:,} segments"
        yield "overflowed", f"{count} that the server's full accept queue may have dropped"


def _notes(fates: Fates) -> Iterator[str]:
    for count, name in (
        (fates.acks_lost, "ACKs lost"),
        (fates.duplicated, "duplicated"),
        (fates.spurious, "spurious"),
        (fates.damaged, "damaged"),
        (fates.reordered, "reordered"),
    ):
        if count:
            yield f"{count:,} {name}"


def _of(part: Mapping[str, int], whole: int) -> str:
    return f"{sum(part.values()):,} of {whole:,}"


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items()))
