"""The dashboards as files: what is in them, and what they ask Prometheus."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "observability/grafana/dashboards").glob("*.json"))

# What Grafana would put in. `.*` is what its "All" stands for.
_VARIABLES = {
    "__rate_interval": "20s",
    "__range": "1m",
    "client": ".*",
    "target": ".*",
    "server": ".*",
    "phase": "network",
}


class Query(NamedTuple):
    """One query of one panel.

    Attributes:
        panel: The panel's title.
        ref: The query's letter.
        text: PromQL, with Grafana's variables filled in.
    """

    panel: str
    ref: str
    text: str


def load(file: Path) -> dict[str, Any]:
    """Read a dashboard."""
    dashboard: dict[str, Any] = json.loads(file.read_text())
    return dashboard


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the panels, and those inside of rows; no rows."""
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            yield from panel["panels"]
        else:
            yield panel


def fill_in(text: str) -> str:
    """Put values in the place of Grafana's variables.

    Raises:
        KeyError: There is a variable that is not known here.
    """
    return re.sub(r"\$\{?(\w+)\}?", lambda match: _VARIABLES[match[1]], text)


def queries(dashboard: dict[str, Any]) -> list[Query]:
    """Return what the panels ask."""
    return [
        Query(panel["title"], target["refId"], fill_in(target["expr"]))
        for panel in panels(dashboard)
        for target in panel["targets"]
    ]
