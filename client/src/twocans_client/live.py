"""The live table: rich where it is installed and stdout is a terminal, else plain lines."""

import asyncio
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from .path import Path
from .report import show_ns
from .results import Outcome, ProbeResult

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["show_paths"]

_TITLES = (
    *("target", "server", "state", "probes", "ok", "fail", "void", "missed"),
    *("connect", "network", "server host", "client host"),
)
_REFRESH_S = 0.5
_LINES_S = 1.0


async def show_paths(paths: Callable[[], list[Path]]) -> None:
    """Show the paths until cancelled."""
    if sys.stdout.isatty():
        try:
            from rich.live import Live
        except ImportError:
            pass
        else:
            with Live(_table(paths()), refresh_per_second=4, transient=True) as live:
                while True:
                    await asyncio.sleep(_REFRESH_S)
                    live.update(_table(paths()))
    while True:
        await asyncio.sleep(_LINES_S)
        for path in paths():
            print(_line(path), flush=True)


def _table(paths: list[Path]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(title="twocans", title_justify="left")
    for title in _TITLES:
        table.add_column(
            title, justify="left" if title in ("target", "server", "state") else "right"
        )
    colours = {"ok": "green", "failing": "bold red", "draining": "yellow"}
    for path in paths:
        style = colours.get(path.state, "")
        table.add_row(*(Text(cell) for cell in _cells(path)), style=style)
    return table


def _line(path: Path) -> str:
    cells = dict(zip(_TITLES, _cells(path), strict=True))
    counts = " ".join(f"{cells[name]} {name}" for name in ("ok", "fail", "void", "missed"))
    times = ", ".join(f"{name} {cells[name]}" for name in _TITLES[8:])
    return f"{cells['target']} {cells['state']}: {cells['probes']} probes, {counts}; {times}"


def _cells(path: Path) -> list[str]:
    newest = _newest_ns(path.newest)
    return [
        path.target.spec.text,
        path.server,
        path.state,
        str(sum(path.outcomes.values())),
        *(str(path.outcomes[outcome]) for outcome in Outcome),
        str(path.missed),
        *(show_ns(newest.get(phase)) for phase in ("connect", "network", "server", "client")),
    ]


def _newest_ns(result: ProbeResult | None) -> dict[str, int]:
    return {phase: ns for phase, _, ns in result.phases()} if result is not None else {}
