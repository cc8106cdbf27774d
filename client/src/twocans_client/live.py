"""The live table: rich where it is installed and stdout is a terminal, else plain lines."""

import asyncio
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from .path import Path
from .report import show_ns
from .results import Outcome

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["show_paths"]

_COUNTS = ("probes", "ok", "fail", "void", "missed")
_TIMES = ("connect", "network", "server", "client")
_REFRESH_S = 0.5
_LINES_S = 1.0
_COLOURS = {"ok": "green", "failing": "bold red", "draining": "yellow"}


async def show_paths(paths: Callable[[], list[Path]]) -> None:
    """Show the paths until cancelled."""
    if sys.stdout.isatty():
        try:
            from rich.live import Live
        except ImportError:
            pass
        else:
            with Live(_table(paths()), refresh_per_second=4, transient=False) as live:
                while True:
                    await asyncio.sleep(_REFRESH_S)
                    live.update(_table(paths()))
    while True:
        await asyncio.sleep(_LINES_S)
        for path in paths():
            print(_line(path), flush=True)


def _table(paths: list[Path]) -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    # Eighty columns: no frame, and of the names only the target.
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    table.add_column("target", min_width=14)
    table.add_column("state")
    for title in ("probes", "fail", "void", "miss", *_TIMES):
        table.add_column(title, justify="right", no_wrap=True)
    for path in paths:
        probes, _, *others = _counts(path)
        cells = (path.target.spec.text, path.state, probes, *others, *_times(path))
        table.add_row(*(Text(cell) for cell in cells), style=_COLOURS.get(path.state, ""))
    return table


def _line(path: Path) -> str:
    counts = " ".join(f"{n} {name}" for name, n in zip(_COUNTS, _counts(path), strict=True))
    times = ", ".join(f"{name} {t}" for name, t in zip(_TIMES, _times(path), strict=True))
    return f"{path.target.spec.text} {path.state}: {counts}; newest: {times}"


def _counts(path: Path) -> list[str]:
    outcomes = [path.outcomes[outcome] for outcome in Outcome]
    return [str(count) for count in (sum(outcomes), *outcomes, path.missed)]


def _times(path: Path) -> list[str]:
    """Return how long the phases of the newest probe took; of several exchanges the last."""
    newest = {phase: ns for phase, _, ns in path.newest.phases()} if path.newest else {}
    return [show_ns(newest.get(phase)) for phase in _TIMES]
