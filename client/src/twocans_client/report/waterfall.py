"""One probe as bars, for people. Text only, no I/O."""

from collections.abc import Iterator

from twocans_client.evidence.results import ProbeResult, Reason
from twocans_core.net.sockets import Address

from .next_steps import how_it_ended, next_step
from .shown import WIDTH, printable, show_ns, show_where, wrapped

__all__ = ["waterfall"]

_BARS = (10, 30)  # columns, at least and at most
_LABELS = 15 + 8 + 2
_WORTH_TELLING_NS = 5_000
_ROWS = ("resolve", "connect", "greet", "exchange", "close")


def waterfall(result: ProbeResult, state: str, width: int = WIDTH) -> str:
    """Return one probe: how it ended, then its phases as bars, in the order in which they were.

    Beside a bar stands what its time was made of. No line is longer than the page, except for
    names.

    Args:
        result: The probe.
        state: What it amounts to, in a word.
        width: Columns of the page.
    """
    rows = _rows(result)
    in_all_ns = result.total_ns + ((result.resolve_ns or 0) if result.dialled else 0)
    rest_ns = in_all_ns - sum(ns for _, ns, _ in rows)
    if rest_ns > 0 and rows:
        rows.append(("client overhead", rest_ns, []))
    least, most = _BARS
    columns = min(most, max(least, (width - _LABELS) // 3))
    beside = _LABELS + columns + 2
    total_ns = max(1, sum(ns for _, ns, _ in rows))
    lines = [*_head(result, state, in_all_ns, width)]
    begun_ns = 0
    for phase, ns, notes in rows:
        start = begun_ns * columns // total_ns
        length = max(1, (begun_ns + ns) * columns // total_ns - start)
        bar = " " * min(start, columns - 1) + "█" * length
        first, *others = _wrapped(notes, width - beside)
        lines.append(f"{phase:15}{show_ns(ns):>8}  {bar:{columns + 1}} {first}".rstrip())
        lines += [" " * beside + line for line in others]
        begun_ns += ns
    return "\n".join([*lines, *_who(result, width)])


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
    if result.unfinished is not None:
        rows.append((*result.unfinished, [how_it_ended(result.reason)]))
    return rows


def _wrapped(notes: list[str], width: int) -> Iterator[str]:
    """Yield lines of notes, at least one; no note is broken."""
    line = ""
    for note in notes:
        longer = f"{line}, {note}" if line else note
        if line and len(longer) >= width:
            yield line + ","
            longer = note
        line = longer
    yield line


def _head(result: ProbeResult, state: str, in_all_ns: int, width: int) -> Iterator[str]:
    where = show_where(result.path, [result.address] if result.address else [])
    local = f", from {Address(*result.local)}" if result.local else ""
    reason = f"{result.reason}, " if result.reason is not Reason.OK else ""
    yield from wrapped(state, f"{where}{local}: {reason}{show_ns(in_all_ns)}", width)
    if result.detail:
        yield from wrapped("", printable(result.detail), width)
    if step := next_step(result.reason):
        yield from wrapped("", step, width)
    if result.tainted:
        yield from wrapped("", f"We stalled meanwhile: {result.tainted}.", width)
    theirs = result.server_ended.total_retrans if result.server_ended else None
    resent = (result.retrans or 0) + (theirs or 0)
    if resent:
        yield from wrapped("", f"Segments retransmitted: {resent}, both ends together.", width)


def _who(result: ProbeResult, width: int) -> Iterator[str]:
    server = result.server
    if server is not None:
        names = ", ".join(filter(None, (server.name, server.node, server.zone)))
        yield from wrapped("server", f"{names or 'unnamed'}, twocans {server.version}", width)
