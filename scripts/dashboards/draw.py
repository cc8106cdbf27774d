"""Draw the node-by-node matrices of the dashboard Paths, as they are now, as an SVG.

python -m scripts.dashboards.draw http://localhost:9090 docs/images/matrix.svg

The queries, the colours and their steps are the dashboard's own.
"""

import argparse
import json
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

from .grafana import CONNECT_STEPS, LOSS_STEPS, Steps, spelled_out
from .paths import CONNECT_BY_NODE, LOSS_BY_NODE, PATHS

# Grafana's names of colours.
COLOURS = {
    "green": "#73bf69",
    "yellow": "#fade2a",
    "orange": "#ff9830",
    "red": "#f2495c",
    "super-light-blue": "#c0d8ff",
    "light-blue": "#8ab8ff",
    "blue": "#5794f2",
    "semi-dark-blue": "#3274d9",
    "dark-blue": "#1f60c4",
}
_WHITE_ON = {"semi-dark-blue", "dark-blue", "red"}

# Pixels.
CELL_WIDTH, CELL_HEIGHT, ZONE_GAP, MARGIN, CAPTION, CHARACTER = 64, 28, 8, 16, 52, 7.5

_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f; text-anchor: middle }
.card { fill: #ffffff; stroke: #d0d7de }
.head { font-weight: 600; text-anchor: start }
.row { text-anchor: end }
.none, .axis { fill: #6e7781 }
.axis { text-anchor: start }
.dark { fill: #1b1f24 }
.white { fill: #ffffff }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .card { fill: #0d1117; stroke: #30363d }
  .none, .axis { fill: #8b949e }
}
"""


class Cell(NamedTuple):
    """One pair of nodes."""

    source: str
    source_zone: str
    target: str
    target_zone: str
    value: float


def main() -> int:
    """Ask and draw; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prometheus", help="Its address, as http://localhost:9090.")
    parser.add_argument("file", type=Path, help="The SVG to write.")
    arguments = parser.parse_args()
    loss, connect = (ask(arguments.prometheus, query) for query in (LOSS_BY_NODE, CONNECT_BY_NODE))
    arguments.file.parent.mkdir(parents=True, exist_ok=True)
    arguments.file.write_text(draw(loss, connect))
    return 0


def ask(prometheus: str, query: str) -> list[Cell]:
    """Return what a matrix shows when nothing is chosen above it."""
    query = spelled_out(query, PATHS.selectors)
    for variable in PATHS.variables:
        query = query.replace(f"${variable['name']}", ".*")
    url = f"{prometheus}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    with urllib.request.urlopen(url, timeout=10) as response:  # noqa: S310 - as it was told
        series = json.load(response)["data"]["result"]
    return [_cell(each["metric"], each["value"][1]) for each in series]


def _cell(labels: Mapping[str, str], value: str) -> Cell:
    source, target = labels["source_node"], labels["target_node"]
    zones = labels.get("source_zone", ""), labels.get("target_zone", "")
    return Cell(source, zones[0], target, zones[1], float(value))


def draw(loss: Sequence[Cell], connect: Sequence[Cell]) -> str:
    """Return the SVG of both matrices, side by side."""
    both = [*loss, *connect]
    sources = sorted({(cell.source_zone, cell.source) for cell in both})
    targets = sorted({(cell.target_zone, cell.target) for cell in both})
    left = _Matrix("Failed probes", loss, LOSS_STEPS, _share)
    right = _Matrix("Mean connect time", connect, CONNECT_STEPS, _time)
    drawn, end, bottom = _drawn(left, sources, targets, x=MARGIN)
    more, end, _ = _drawn(right, sources, targets, x=end + 2 * MARGIN)
    width, height = round(end + MARGIN), round(bottom + MARGIN)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
            f' width="{width}" height="{height}" role="img">',
            "<title>Failed probes and connect time from node to node</title>",
            f"<style>{_STYLE}</style>",
            f'<rect class="card" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}"'
            ' rx="6"/>',
            *drawn,
            *more,
            "</svg>\n",
        ]
    )


class _Matrix(NamedTuple):
    """What one of the two shows, in which colours and words."""

    title: str
    cells: Sequence[Cell]
    steps: Steps
    text: Callable[[float], str]


Node = tuple[str, str]
"""A zone, and a node's name."""


def _drawn(
    matrix: _Matrix, sources: Sequence[Node], targets: Sequence[Node], *, x: float
) -> tuple[list[str], float, float]:
    """Return a matrix's elements, and where it ends to the right and below."""
    values = {(cell.source, cell.target): cell.value for cell in matrix.cells}
    labels = x + CHARACTER * max((len(name) for _, name in sources), default=0)
    columns = _places(targets, labels + 8, CELL_WIDTH)
    rows = _places(sources, MARGIN + CAPTION, CELL_HEIGHT)
    found = [
        f'<text class="head" x="{x:g}" y="{MARGIN + 8}">{escape(matrix.title)}</text>',
        f'<text class="axis" x="{x:g}" y="{MARGIN + CAPTION - 10}">from \\ to</text>',
    ]
    for target, left in columns.items():
        middle = left + CELL_WIDTH / 2
        found.append(f'<text x="{middle:g}" y="{MARGIN + CAPTION - 10}">{escape(target)}</text>')
    for source, top in rows.items():
        line = top + CELL_HEIGHT / 2 + 5
        found.append(f'<text class="row" x="{labels:g}" y="{line:g}">{escape(source)}</text>')
        for target, left in columns.items():
            middle = left + CELL_WIDTH / 2
            value = values.get((source, target))
            if value is None:
                found.append(f'<text class="none" x="{middle:g}" y="{line:g}">\u00b7</text>')
                continue
            colour = _colour(value, matrix.steps)
            shade = "white" if colour in _WHITE_ON else "dark"
            found += [
                f'<rect x="{left + 1:g}" y="{top + 1:g}" width="{CELL_WIDTH - 2}"'
                f' height="{CELL_HEIGHT - 2}" rx="3" fill="{COLOURS[colour]}"/>',
                f'<text class="{shade}" x="{middle:g}" y="{line:g}">{matrix.text(value)}</text>',
            ]
    right = max(columns.values(), default=labels) + CELL_WIDTH
    return found, right, max(rows.values(), default=0) + CELL_HEIGHT


def _places(nodes: Sequence[Node], start: float, size: float) -> dict[str, float]:
    """Return where each node begins, with a gap between zones."""
    places: dict[str, float] = {}
    zones = [zone for zone, _ in nodes]
    for index, (zone, name) in enumerate(nodes):
        if index and zone != zones[index - 1]:
            start += ZONE_GAP
        places[name] = start
        start += size
    return places


def _colour(value: float, steps: Steps) -> str:
    return [colour for least, colour in steps if least is None or value >= least][-1]


def _share(value: float) -> str:
    return f"{_short(value * 100)} %"


def _time(seconds: float) -> str:
    return f"{_short(seconds)} s" if seconds >= 1 else f"{_short(seconds * 1e3)} ms"


def _short(number: float) -> str:
    return f"{number:.0f}" if number >= 10 else f"{number:.2g}"


if __name__ == "__main__":
    raise SystemExit(main())
