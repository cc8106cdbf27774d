"""The live table: rich where it is installed and stdout is a terminal, else plain lines."""

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from twocans_client.evidence.results import Outcome
from twocans_client.paths.path import Path, PathState
from twocans_client.report.shown import printable, show_ns
from twocans_core.process.output import say

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["Notes", "show_paths"]

_COUNTS = ("probes", "ok", "fail", "void", "missed")
_TIMES = ("connect", "network", "server", "client")
# With no column but the usual ones; each more takes five.
_TARGET_WIDTH = 27
_REFRESH_S = 0.5
_LINES_S = 1.0
# Told by a row, or by the report.
_IN_TABLE = {
    "path_failing",
    "slots_missed",
    "in_flight_limit_reached",
    "stalled",
    "verdict_began",
    "verdict_confirmed",
}
_COLOURS = {"ok": "green", "failing": "bold red", "draining": "yellow"}


_NOTES = 5
# Paths of which verdicts are shown: more do not fit below a table.
_VERDICTS = 5
# What a line is about, and what it says of it.
_TOLD = ("twocans.target", "file.path", "error.type", "error.message", "twocans.hint")


class Notes(logging.Handler):
    """What the log says that no row shows: where there is a table, nobody sees the log.

    Attributes:
        lines: The newest of each event and target, five at most.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._lines: dict[tuple[str, object], str] = {}

    @property
    def lines(self) -> list[str]:
        return list(self._lines.values())

    def emit(self, record: logging.LogRecord) -> None:
        event, fields = str(record.msg), vars(record)
        if event in _IN_TABLE:
            return
        key = event, fields.get("twocans.target")
        # Taken out, so that it becomes the newest: a dict keeps the order in which keys came.
        self._lines.pop(key, None)
        told = ", ".join(str(fields[name]) for name in _TOLD if fields.get(name))
        self._lines[key] = printable(f"{event}: {told}" if told else event)
        if len(self._lines) > _NOTES:
            del self._lines[next(iter(self._lines))]


async def show_paths(paths: Callable[[], list[Path]], notes: Notes) -> None:
    """Show the paths, and the notes below, until cancelled."""
    if os.isatty(1):
        try:
            from rich.live import Live
        except ImportError:
            pass
        else:
            with Live(_table(paths()), refresh_per_second=4, transient=False) as live:
                while True:
                    await asyncio.sleep(_REFRESH_S)
                    live.update(_table(paths(), notes.lines))
    said: list[str] = []
    while True:
        await asyncio.sleep(_LINES_S)
        told = notes.lines
        shown = paths()
        lines = [*map(_line, shown), *_verdicts(shown)]
        lines += [line for line in told if line not in said]
        said = told
        if lines:
            say("\n".join(lines))


def _table(paths: list[Path], notes: Sequence[str] = ()) -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    rows = [dict(zip(_COUNTS, _counts(path), strict=True)) for path in paths]
    # Eighty columns: no frame, and no column of zeroes.
    shown = ["probes", "fail", *(name for name in ("void", "missed") if _any(rows, name))]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for title in ("target", "state"):
        table.add_column(title, no_wrap=True)
    for title in (*shown, *_TIMES[1:]):
        table.add_column(title.replace("missed", "miss"), justify="right", no_wrap=True)
    for path, row in zip(paths, rows, strict=True):
        cells = [_shorten(path.target.key, _TARGET_WIDTH - 5 * (len(shown) - 2)), _state(path)]
        cells += [*(row[name] for name in shown), *_times(path)[1:]]
        table.add_row(*map(Text, cells), style=_COLOURS.get(path.state, ""))
    below = [*_verdicts(paths), *notes]
    if below:
        table.caption = Text("\n".join(below), style="yellow")
        table.caption_justify = "left"
    return table


def _verdicts(paths: list[Path]) -> list[str]:
    """Return a line for each verdict that stands; of the first few paths that have any."""
    lines = []
    for path in [path for path in paths if path.verdicts][:_VERDICTS]:
        for finding in (verdict.finding for verdict in path.verdicts.values()):
            direction = f", {finding.direction}" if finding.direction else ""
            what = f"{finding.kind.name} ({finding.culprit}{direction})"
            lines.append(printable(f"{path.target.key}: {what}: {finding.proof}"))
    return lines


def _any(rows: list[dict[str, str]], name: str) -> bool:
    return any(row[name] != "0" for row in rows)


def _shorten(text: str, width: int) -> str:
    """Cut a text in its middle: both a name's beginning and its port tell targets apart."""
    if len(text) <= width:
        return text
    return text[: width // 2 - 1] + "…" + text[-(width - width // 2) :]


def _state(path: Path) -> str:
    """Return how a path is; of one that fails, why."""
    if path.state is PathState.FAILING and path.told is not None:
        return path.told.reason
    return path.state


def _line(path: Path) -> str:
    counts = " ".join(f"{n} {name}" for name, n in zip(_COUNTS, _counts(path), strict=True))
    times = ", ".join(f"{name} {t}" for name, t in zip(_TIMES, _times(path), strict=True))
    return f"{path.target.key} {_state(path)}: {counts}; newest: {times}"


def _counts(path: Path) -> list[str]:
    outcomes = [path.outcomes[outcome] for outcome in Outcome]
    return [str(count) for count in (sum(outcomes), *outcomes, path.missed)]


def _times(path: Path) -> list[str]:
    """Return how long the phases of the newest probe took; of several exchanges the last."""
    newest = {phase: ns for phase, _, ns in path.newest.phases()} if path.newest else {}
    return [show_ns(newest.get(phase)) for phase in _TIMES]
