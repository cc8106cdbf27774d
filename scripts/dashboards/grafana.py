"""Grafana's JSON: panels, variables, links, and where on the page each panel goes.

The dashboards name their panels and queries, and nothing of this. A query is plain PromQL in
which words in capitals stand for the dashboard's selectors.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

__all__ = [
    "CONNECT_STEPS",
    "LOSS_STEPS",
    "SERIOUS",
    "Dashboard",
    "Panel",
    "Steps",
    "choice",
    "constant_choice",
    "heatmap",
    "matrix",
    "render",
    "spelled_out",
    "stat",
    "state_timeline",
    "table",
    "timeseries",
]

Json = dict[str, Any]
Panel = Json
Steps = Sequence[tuple[float | None, str]]
States = Sequence[tuple[float, float, str, str]]
"""From, to, text and colour."""

WIDTH = 24
UIDS = {"paths": "twocans-paths", "path": "twocans-path", "processes": "twocans-processes"}
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}

# A failed probe in five minutes of one a second is 0.3 %.
LOSS_STEPS: Steps = ((None, "green"), (0.001, "yellow"), (0.01, "orange"), (0.1, "red"))
# Blue is distance. A mean of 0.2 s or 1 s has retransmissions or lost SYNs in it.
CONNECT_STEPS: Steps = (
    (None, "super-light-blue"),
    (0.0005, "light-blue"),
    (0.002, "blue"),
    (0.01, "semi-dark-blue"),
    (0.05, "dark-blue"),
    (0.2, "orange"),
    (1, "red"),
)
SERIOUS: Steps = ((None, "green"), (1, "red"))


class Dashboard(NamedTuple):
    """One dashboard.

    Attributes:
        key: Of ``UIDS``.
        title: As Grafana lists it.
        description: What it answers.
        selectors: What the words in capitals of its queries stand for.
        variables: What can be chosen above it.
        rows: Panels by the heading that they are under, from left to right.
    """

    key: str
    title: str
    description: str
    selectors: Mapping[str, str]
    variables: Sequence[Json]
    rows: Mapping[str, Sequence[Panel]]


def render(dashboard: Dashboard) -> str:
    """Return the dashboard as Grafana's JSON."""
    panels: list[Json] = []
    y = 0
    for title, contents in dashboard.rows.items():
        heading = {"type": "row", "title": title, "collapsed": False, "panels": []}
        panels.append({**heading, "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1}})
        y += 1
        x = height = 0
        for panel in contents:
            size = panel["gridPos"]
            if x + size["w"] > WIDTH:
                x, y, height = 0, y + height, 0
            panels.append({**panel, "gridPos": {"x": x, "y": y, **size}})
            x += size["w"]
            height = max(height, size["h"])
        y += height
    document = {
        "uid": UIDS[dashboard.key],
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": ["twocans"],
        "schemaVersion": 41,
        "version": 1,
        "id": None,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-15m", "to": "now"},
        "timezone": "browser",
        "links": [_dashboard_link(key) for key in UIDS if key != dashboard.key],
        "annotations": {"list": []},
        "templating": {"list": [_DATASOURCE, *dashboard.variables]},
        "panels": [{"id": number, **panel} for number, panel in enumerate(panels, start=1)],
    }
    return json.dumps(_with_queries(document, dashboard.selectors), indent=2) + "\n"


def _with_queries(value: Any, selectors: Mapping[str, str]) -> Any:
    """Put selectors in the place of their names, in every query."""
    if isinstance(value, list):
        return [_with_queries(item, selectors) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: spelled_out(item, selectors)
        if key in ("expr", "definition", "query") and isinstance(item, str)
        else _with_queries(item, selectors)
        for key, item in value.items()
    }


def spelled_out(query: str, selectors: Mapping[str, str]) -> str:
    """Put selectors in the place of their names, in one query."""
    names = re.compile(rf"\b({'|'.join(selectors)})\b")
    while names.search(query):  # one may be made of others
        query = names.sub(lambda match: selectors[match[1]], query)
    return " ".join(query.split())


# --- links ----------------------------------------------------------------------------------


def _dashboard_link(key: str) -> Json:
    return {
        "type": "link",
        "title": f"twocans: {key}",
        "url": f"/d/{UIDS[key]}",
        "icon": "dashboard",
        "tags": [],
        "asDropdown": False,
        "targetBlank": False,
        "keepTime": True,
        "includeVars": True,
        "tooltip": "",
    }


def _data_link(key: str, title: str, variables: Mapping[str, str]) -> Json:
    """Return a link from a cell to a dashboard, of the same time, with variables set."""
    chosen = "&".join(f"var-{name}={value}" for name, value in variables.items())
    return {
        "title": title,
        "url": f"/d/{UIDS[key]}?${{__url_time_range}}&${{datasource:queryparam}}&{chosen}",
    }


# --- variables ------------------------------------------------------------------------------

_DATASOURCE = {
    "name": "datasource",
    "label": "Prometheus",
    "type": "datasource",
    "query": "prometheus",
    "current": {},
    "refresh": 1,
    "multi": False,
    "includeAll": False,
}


def choice(name: str, query: str, *, label: str = "", several: bool = True) -> Json:
    """Return a variable whose values Prometheus knows.

    Args:
        name: What queries call it.
        query: Grafana's ``label_values(SERIES, LABEL)``.
        label: What people read; without one it is hidden, and stands for all that it finds.
        several: Whether one may choose several, or all.
    """
    variable: Json = {
        "name": name,
        "label": label or name,
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": query, "refId": name, "qryType": 1},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": several,
        "includeAll": several,
    }
    if not label:
        return {**variable, **_ALL, "hide": 2, "skipUrlSync": True}
    # No value may be empty, but that of a label which a series lacks: `.*` is all of them.
    return {**variable, **_ALL, "allValue": ".*"} if several else variable


_ALL = {"current": {"selected": True, "text": ["All"], "value": ["$__all"]}}


def constant_choice(name: str, label: str, values: Sequence[str]) -> Json:
    """Return a variable with values of its own; the first is chosen."""
    return {
        "name": name,
        "label": label,
        "type": "custom",
        "query": ",".join(values),
        "current": {"text": values[0], "value": values[0]},
        "options": [],
        "multi": False,
        "includeAll": False,
    }


# --- panels ---------------------------------------------------------------------------------


def timeseries(
    title: str,
    description: str,
    queries: Mapping[str, str],
    *,
    unit: str,
    empty: str,
    width: int = 12,
    height: int = 8,
    stacked: bool = False,
    bars: bool = False,
) -> Panel:
    """Return lines, areas or bars over time.

    Args:
        title: A question, or a fact.
        description: What is shown, and how to read it.
        queries: By legend; ``{{label}}`` in a legend is that label's value.
        unit: Grafana's name of it, for all of the panel.
        empty: What it means when there is nothing.
        width: Of 24.
        height: In rows of the grid.
        stacked: Whether the values add up to something.
        bars: Whether each value stands for itself: counts of what should not be.
    """
    look: Json = {"lineWidth": 1, "fillOpacity": 0, "showPoints": "never", "axisSoftMin": 0}
    if stacked or bars:
        look |= {"stacking": {"mode": "normal", "group": "A"}, "fillOpacity": 30}
    if bars:
        look |= {"drawStyle": "bars", "lineWidth": 0, "fillOpacity": 80}
    told_apart = len(queries) > 1 or any("{{" in legend for legend in queries)
    panel = _panel("timeseries", title, description, unit, empty, width, height)
    panel["fieldConfig"]["defaults"] |= {"custom": look, "color": {"mode": "palette-classic"}}
    panel["options"] = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": told_apart},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    panel["targets"] = _targets(queries)
    return panel


def stat(
    title: str,
    description: str,
    query: str,
    *,
    unit: str,
    empty: str,
    steps: Steps = ((None, "text"),),
    states: States = (),
    width: int = 4,
) -> Panel:
    """Return one number, as it is now.

    Args:
        title: A question, or a fact.
        description: What is shown, and how to read it.
        query: Gives one value.
        unit: Of it.
        empty: What it means when there is nothing.
        steps: Its colours, from which value on.
        states: Words and colours that stand for values.
        width: Of 24.
    """
    panel = _panel("stat", title, description, unit, empty, width, 4)
    panel["fieldConfig"]["defaults"] |= _thresholds(steps)
    if states:
        panel["fieldConfig"]["defaults"]["mappings"] = _mappings(states)
    panel["options"] = {
        "colorMode": "background" if len(steps) > 1 or states else "value",
        "graphMode": "none",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "textMode": "value",
    }
    panel["targets"] = _targets({title: query}, instant=True)
    return panel


def table(
    title: str,
    description: str,
    queries: Mapping[str, str],
    *,
    columns: Sequence[str],
    empty: str,
    units: Mapping[str, tuple[str, Steps]] | None = None,
    links: Mapping[str, tuple[str, Sequence[str]]] | None = None,
    worst_first: Sequence[str] = (),
    width: int = 24,
    height: int = 10,
) -> Panel:
    """Return a table: a line for each set of labels, a column for each query.

    Args:
        title: A question, or a fact.
        description: What is shown, and how to read it.
        queries: By the heading of their column. A column without units is not shown.
        columns: Labels that are shown, from left to right.
        empty: What it means when there is nothing.
        units: Of each query's column, and its colours.
        links: Dashboard and its variables, by the label whose cells lead there. A variable
            is given the label of its own name, or, after ``name=``, another.
        worst_first: Columns that it is sorted by, falling.
        width: Of 24.
        height: In rows of the grid.
    """
    units = units or {}
    panel = _panel("table", title, description, "short", empty, width, height)
    panel["fieldConfig"]["defaults"]["custom"] = {"align": "auto", "filterable": True}
    panel["fieldConfig"]["overrides"] += [
        {
            "matcher": {"id": "byName", "options": heading},
            "properties": [
                {"id": "unit", "value": unit},
                {"id": "thresholds", "value": _thresholds(steps)["thresholds"]},
                {"id": "color", "value": {"mode": "thresholds"}},
                {"id": "custom.cellOptions", "value": _CELL_COLOURED},
            ],
        }
        for heading, (unit, steps) in units.items()
    ] + [
        {
            "matcher": {"id": "byName", "options": label},
            "properties": [{"id": "links", "value": [_cell_link(*link)]}],
        }
        for label, link in (links or {}).items()
    ]
    panel["options"] = {
        "showHeader": True,
        "cellHeight": "sm",
        "sortBy": [{"displayName": heading, "desc": True} for heading in worst_first],
    }
    panel["targets"] = _targets(queries, instant=True, form="table")
    # Grafana calls the only query's column Value, and one of several Value #A.
    values = [f"Value #{target['refId']}" for target in panel["targets"]]
    values = values if len(values) > 1 else ["Value"]
    shown = [
        *columns,
        *(value for value, name in zip(values, queries, strict=True) if name in units),
    ]
    # Lines are merged that agree in all that both have: so without __name__.
    panel["transformations"] = [
        {"id": "filterFieldsByName", "options": {"include": {"names": shown}}},
        {"id": "merge", "options": {}},
        {
            "id": "organize",
            "options": {
                "excludeByName": {},
                "indexByName": {name: index for index, name in enumerate(shown)},
                "renameByName": dict(zip(values, queries, strict=True)),
            },
        },
    ]
    return panel


def _cell_link(key: str, variables: Sequence[str]) -> Json:
    pairs = (name.partition("=") for name in variables)
    fields = {name: f"${{__data.fields.{label or name}:percentencode}}" for name, _, label in pairs}
    return _data_link(key, f"Show it on twocans: {key}", fields)


def matrix(
    title: str,
    description: str,
    query: str,
    *,
    by: str,
    unit: str,
    empty: str,
    steps: Steps,
    height: int = 10,
) -> Panel:
    """Return a matrix of sources, one a line, and targets, one a column.

    Args:
        title: A question, or a fact.
        description: What is shown, and how to read it.
        query: Has the labels ``source_BY`` and ``target_BY``.
        by: ``node`` or ``zone``.
        unit: Of all cells.
        empty: What it means when there is nothing.
        steps: Colours of cells, from which value on.
        height: In rows of the grid.
    """
    row, column = f"source_{by}", f"target_{by}"
    panel = _panel("table", title, description, unit, empty, 12, height)
    panel["fieldConfig"]["defaults"] |= {
        **_thresholds(steps),
        "custom": {"align": "center", "minWidth": 60, "cellOptions": _CELL_COLOURED},
        # A cell without a path has no colour: it is neither good nor bad.
        "mappings": [
            {
                "type": "special",
                "options": {
                    "match": "null",
                    "result": {"text": "\N{MIDDLE DOT}", "color": "transparent", "index": 0},
                },
            }
        ],
        "links": [
            _data_link(
                "paths",
                "Only these paths",
                {
                    f"source_{by}": "${__data.fields[0]:percentencode}",
                    f"target_{by}": "${__field.name:percentencode}",
                },
            )
        ],
    }
    panel["fieldConfig"]["overrides"].append(
        {
            "matcher": {"id": "byType", "options": "string"},
            "properties": [
                {"id": "custom.cellOptions", "value": {"type": "auto"}},
                {"id": "custom.align", "value": "left"},
                {"id": "displayName", "value": "from \\ to"},
                {"id": "links", "value": []},
            ],
        }
    )
    panel["options"] = {"showHeader": True, "cellHeight": "sm"}
    panel["targets"] = _targets({title: query}, instant=True, form="table")
    # Columns come in the order in which the lines name them; lines are sorted at the end.
    panel["transformations"] = [
        _sorted_by(column),
        {
            "id": "groupingToMatrix",
            "options": {
                "rowField": row,
                "columnField": column,
                "valueField": "Value",
                "emptyValue": "null",
            },
        },
        _sorted_by(f"{row}\\{column}"),
    ]
    return panel


def _sorted_by(field: str) -> Json:
    return {"id": "sortBy", "options": {"fields": {}, "sort": [{"field": field}]}}


def state_timeline(
    title: str,
    description: str,
    queries: Mapping[str, str],
    *,
    unit: str,
    empty: str,
    states: States,
    height: int = 10,
) -> Panel:
    """Return a line for each series, coloured by states."""
    panel = _panel("state-timeline", title, description, unit, empty, WIDTH, height)
    panel["fieldConfig"]["defaults"] |= {
        "custom": {"lineWidth": 0, "fillOpacity": 80},
        "color": {"mode": "thresholds"},
        "mappings": _mappings(states),
    }
    panel["options"] = {
        "mergeValues": True,
        "showValue": "never",
        "alignValue": "left",
        "rowHeight": 0.8,
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "single", "sort": "none"},
    }
    panel["targets"] = _targets(queries)
    return panel


def heatmap(
    title: str, description: str, query: str, *, unit: str, empty: str, height: int = 9
) -> Panel:
    """Return a histogram's buckets over time; the query is by ``le``."""
    panel = _panel("heatmap", title, description, unit, empty, 12, height)
    panel["fieldConfig"]["defaults"]["custom"] = {"scaleDistribution": {"type": "linear"}}
    panel["options"] = {
        "calculate": False,
        "cellGap": 1,
        "cellValues": {"unit": "short"},
        "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64, "exponent": 0.5},
        "filterValues": {"le": 1e-09},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "tooltip": {"mode": "single", "yHistogram": False},
        "yAxis": {"axisPlacement": "left", "unit": unit},
    }
    panel["targets"] = _targets({"{{le}}": query}, form="heatmap")
    return panel


_CELL_COLOURED = {"type": "color-background", "mode": "basic"}


def _panel(
    kind: str, title: str, description: str, unit: str, empty: str, width: int, height: int
) -> Panel:
    panel: Panel = {
        "type": kind,
        "title": title,
        "description": " ".join(description.split()),
        "datasource": _SOURCE,
        "gridPos": {"w": width, "h": height},
        "fieldConfig": {"defaults": {"unit": unit, "noValue": empty}, "overrides": []},
    }
    if kind == "table":
        # What the whole panel says when it is empty is not for each empty cell.
        panel["fieldConfig"]["overrides"] = [
            {
                "matcher": {"id": "byType", "options": kind_of_cell},
                "properties": [{"id": "noValue", "value": nothing}],
            }
            for kind_of_cell, nothing in (("string", ""), ("number", "-"))
        ]
    return panel


def _targets(
    queries: Mapping[str, str], *, instant: bool = False, form: str = "time_series"
) -> list[Json]:
    return [
        {
            "refId": chr(ord("A") + index),
            "datasource": _SOURCE,
            "editorMode": "code",
            "expr": query,
            "legendFormat": legend,
            "format": form,
            "instant": instant,
            "range": not instant,
        }
        for index, (legend, query) in enumerate(queries.items())
    ]


def _mappings(states: States) -> list[Json]:
    return [
        {
            "type": "range",
            "options": {
                "from": low,
                "to": high,
                "result": {"text": text, "color": colour, "index": index},
            },
        }
        for index, (low, high, text, colour) in enumerate(states)
    ]


def _thresholds(steps: Steps) -> Json:
    listed = [{"color": colour, "value": value} for value, colour in steps]
    return {
        "thresholds": {"mode": "absolute", "steps": listed},
        "color": {"mode": "thresholds"},
    }
