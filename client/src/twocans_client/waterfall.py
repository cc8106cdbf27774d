"""One probe as bars, for people. Text only, no I/O."""

from collections.abc import Iterator

from .results import ProbeResult
from .shown import printable, show_ns

__all__ = ["waterfall"]

_BAR = 30
_NOTES = 100 - 10 - 10 - 2 - _BAR - 2  # what is left of a hundred columns
_WORTH_TELLING_NS = 5_000
_ROWS = ("resolve", "connect", "greet", "exchange", "close")


def waterfall(result: ProbeResult) -> str:
    """Return one probe as bars, one below the other, in the order in which things happened.

    Beside a bar stands what its time was made of. No line is longer than 100 columns, but for
    the name of a server or an error.
    """
    rows = _rows(result)
    in_all_ns = result.total_ns + (result.resolve_ns or 0)
    rest_ns = in_all_ns - sum(ns for _, ns, _ in rows)
    if rest_ns > 0 and rows:
        rows.append(("our own", rest_ns, []))
    total_ns = max(1, sum(ns for _, ns, _ in rows))
    lines = []
    begun_ns = 0
    for phase, ns, notes in rows:
        start = begun_ns * _BAR // total_ns
        width = max(1, (begun_ns + ns) * _BAR // total_ns - start)
        bar = " " * min(start, _BAR - 1) + "█" * width
        first, *others = _wrapped(notes)
        lines.append(f"{phase:10}{show_ns(ns):>10}  {bar:{_BAR + 1}} {first}".rstrip())
        lines += [" " * (100 - _NOTES) + line for line in others]
        begun_ns += ns
    return "\n".join([*lines, *_verdict(result, in_all_ns)])


def _rows(result: ProbeResult) -> list[tuple[str, int, list[str]]]:
    """Return each phase with its time, and what that was made of."""
    rows: list[tuple[str, int, list[str]]] = []
    exchanges = iter(result.exchanges)
    for phase, clock, ns in result.phases(tainted=True):
        if phase in _ROWS:
            rows.append((phase, ns, []))
        elif phase == "handshake" or clock == "user":
            rows[-1][2].append(f"{phase} {show_ns(ns)}")
        if phase == "greet" and (result.accept_ns or 0) >= _WORTH_TELLING_NS:
            rows[-1][2].append(f"accept {show_ns(result.accept_ns)}")
        if phase == "exchange":
            exchange = next(exchanges)
            if exchange.split is not None:
                named = {"network": "recovery"} if exchange.resent else {}
                parts = [(named.get(part, part), ns) for part, ns in exchange.split.parts() if ns]
                rows[-1][2].extend(f"{part} {show_ns(ns)}" for part, ns in parts)
    return rows


def _wrapped(notes: list[str]) -> Iterator[str]:
    """Yield lines of notes, at least one; no note is broken."""
    line = ""
    for note in notes:
        longer = f"{line}, {note}" if line else note
        if line and len(longer) >= _NOTES:
            yield line + ","
            longer = note
        line = longer
    yield line


def _verdict(result: ProbeResult, in_all_ns: int) -> Iterator[str]:
    verdict = result.outcome if result.reason == "ok" else f"{result.outcome}: {result.reason}"
    detail = f" ({printable(result.detail)})" if result.detail else ""
    yield f"{verdict}, {show_ns(in_all_ns)} in all{detail}"
    if result.tainted:
        yield f"we stood still meanwhile: {result.tainted}"
    server = result.server
    resent = (result.retrans or 0) + (
        (result.server_ended.total_retrans or 0) if result.server_ended else 0
    )
    if resent:
        yield f"segments sent again: {resent}, both ends together"
    if server is not None:
        who = ", ".join(filter(None, (server.name, server.node, server.zone)))
        yield f"server {who or 'unnamed'}, twocans {server.version}"
