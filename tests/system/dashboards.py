"""The dashboards as files: what is in them, and what they ask Prometheus.

What Grafana does to a query before it asks is done here in its stead: it finds the values of
the variables, one after the other, and puts them in.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "observability/grafana/dashboards").glob("*.json"))

# Not the $1 of label_replace().
_VARIABLE = re.compile(r"\$\{?([A-Za-z_]\w*)\}?")
_LABEL_VALUES = re.compile(r"label_values\((?P<series>.+), (?P<label>\w+)\)")

# What Grafana fills in of itself: the time shown, and the least window with two scrapes in it.
TIMES = {"__rate_interval": "20s", "__range": "1m"}


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


def variables(dashboard: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the dashboard's variables by name, but for the data source."""
    listed = dashboard["templating"]["list"]
    return {each["name"]: each for each in listed if each["type"] != "datasource"}


def variables_in(something: Any) -> set[str]:
    """Return the variables named anywhere in something, without those that Grafana knows itself."""
    return {name for name in _VARIABLE.findall(json.dumps(something)) if name[:2] != "__"}


def fill_in(text: str, values: Mapping[str, str]) -> str:
    """Put values in the place of variables.

    Raises:
        KeyError: There is a variable that has none.
    """
    known = {**TIMES, **values}
    return _VARIABLE.sub(lambda match: known[match[1]], text)


class Chosen(NamedTuple):
    """What is chosen above a dashboard when somebody opens it.

    Attributes:
        values: By variable, as Grafana puts them into queries.
        found: What each variable's query found.
    """

    values: dict[str, str]
    found: dict[str, list[str]]


def choose(
    dashboard: dict[str, Any],
    label_values: Callable[[str, str], Iterable[str]],
    first: Mapping[str, str] | None = None,
) -> Chosen:
    """Choose as Grafana does: all where one may, else the first.

    Args:
        dashboard: The dashboard.
        label_values: Asks Prometheus for the values of a label on series.
        first: What a link that somebody followed chose, by variable.
    """
    chosen = Chosen({}, {})
    for name, variable in variables(dashboard).items():
        if variable["type"] == "custom":
            found = variable["query"].split(",")
        else:
            match = _LABEL_VALUES.fullmatch(variable["query"]["query"])
            assert match, f"{name}: {variable['query']}"
            series = fill_in(match["series"], chosen.values)
            found = chosen.found[name] = sorted(label_values(series, match["label"]))
        if first and name in first:
            value = first[name]
        elif not variable["includeAll"]:
            value = found[0] if found else ""
        else:
            value = variable.get("allValue") or f"({'|'.join(map(re.escape, found))})"
        chosen.values[name] = value.replace("\\", "\\\\")
    return chosen


def queries(dashboard: dict[str, Any], values: Mapping[str, str]) -> list[Query]:
    """Return what the panels ask when these values are chosen."""
    return [
        Query(panel["title"], target["refId"], fill_in(target["expr"], values))
        for panel in panels(dashboard)
        for target in panel["targets"]
    ]
