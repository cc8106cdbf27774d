"""What can be said about the dashboards without Prometheus or Grafana."""

import re

import pytest
from scripts import generate_docs
from scripts.dashboards.__main__ import DASHBOARDS, FOLDER
from scripts.dashboards.grafana import render

from system.dashboards import FILES, ROOT, load, panels, variables, variables_in
from twocans_core.process.telemetry import make_registry

RULES = ROOT / "observability/prometheus/rules/twocans.yml"

# What Prometheus makes of itself, of every target or of rules.
PROMETHEUS_OWN = {"up", "scrape_samples_scraped", "ALERTS"}

UIDS = {f"twocans-{name}" for name in ("paths", "path", "processes")}


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def dashboard(request):
    """Give one dashboard after the other."""
    return load(request.param)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_is_what_the_generator_makes(name):
    assert (FOLDER / name).read_text() == render(DASHBOARDS[name]), (
        "run python -m scripts.dashboards"
    )


def test_there_is_no_other_dashboard():
    assert {file.name for file in FILES} == DASHBOARDS.keys()


def test_a_dashboards_address_never_changes(request, dashboard):
    assert dashboard["uid"] == f"twocans-{request.node.callspec.id}"
    assert dashboard["uid"] in UIDS
    assert dashboard["id"] is None


def test_every_panel_says_what_it_shows_in_which_unit_and_what_empty_means(dashboard):
    for panel in panels(dashboard):
        defaults = panel["fieldConfig"]["defaults"]
        assert len(panel["title"].split()) > 2, panel["id"]
        assert len(panel["description"]) > 20, panel["title"]
        assert defaults["unit"], panel["title"]
        assert len(defaults["noValue"]) > 5, panel["title"]
        assert panel["targets"], panel["title"]


def test_a_heading_is_a_question_or_a_place(dashboard):
    rows = [panel["title"] for panel in dashboard["panels"] if panel["type"] == "row"]
    assert rows
    assert all(row.endswith("?") or " by " in row for row in rows)


def test_a_panel_has_one_unit_and_a_table_one_for_each_column_of_numbers(dashboard):
    for panel in panels(dashboard):
        units = {
            override["matcher"]["options"]: each["value"]
            for override in panel["fieldConfig"]["overrides"]
            for each in override["properties"]
            if each["id"] == "unit"
        }
        assert units.keys() == value_columns(panel), panel["title"]
        assert all(units.values()), panel["title"]


def value_columns(panel):
    """Return the headings under which a table shows what its queries gave."""
    for step in panel.get("transformations", []):
        if step["id"] == "organize":
            options = step["options"]
            return {
                heading
                for name, heading in options["renameByName"].items()
                if name in options["indexByName"]
            }
    return set()


def test_a_table_of_several_queries_has_them_side_by_side_and_not_one_below_the_other(dashboard):
    for panel in panels(dashboard):
        steps = [step["id"] for step in panel.get("transformations", [])]
        if len(panel["targets"]) > 1 and panel["type"] == "table":
            # Lines are merged that agree in all that both have, and a name of a metric they
            # would not agree in.
            assert steps == ["filterFieldsByName", "merge", "organize"], panel["title"]
            (names,) = (
                step["options"]["include"]["names"]
                for step in panel["transformations"]
                if step["id"] == "filterFieldsByName"
            )
            assert not {"Time", "__name__"} & set(names), panel["title"]


def test_titles_and_ids_are_no_ones_elses_on_the_page(dashboard):
    everything = [*panels(dashboard), *(p for p in dashboard["panels"] if p["type"] == "row")]
    ids = [panel["id"] for panel in everything]
    assert len(ids) == len(set(ids))
    titles = [panel["title"] for panel in everything]
    assert len(titles) == len(set(titles))


def test_no_panel_lies_over_another(dashboard):
    taken: dict[tuple[int, int], str] = {}
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                other = taken.setdefault((x, y), panel["title"])
                assert other == panel["title"]


def test_a_legend_is_there_where_it_tells_lines_apart_and_nowhere_else(dashboard):
    for panel in panels(dashboard):
        if panel["type"] == "timeseries":
            legends = [target["legendFormat"] for target in panel["targets"]]
            needed = len(legends) > 1 or "{{" in legends[0]
            assert panel["options"]["legend"]["showLegend"] == needed, panel["title"]
            assert len(legends) == len(set(legends)), panel["title"]


def test_every_query_goes_to_the_prometheus_that_is_chosen_above(dashboard):
    source = dashboard["templating"]["list"][0]
    assert (source["name"], source["type"]) == ("datasource", "datasource")
    asking = [*panels(dashboard), *(t for p in panels(dashboard) for t in p["targets"])]
    asking += [each for each in variables(dashboard).values() if each["type"] == "query"]
    for each in asking:
        assert each["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, each


def test_every_variable_that_is_named_is_one_of_the_dashboards(dashboard):
    known = {"datasource"}
    for name, variable in variables(dashboard).items():
        # A variable can only be made of those before it.
        assert variables_in(variable["query"]) <= known, name
        known.add(name)
    assert variables_in(dashboard["panels"]) <= known


def test_every_variable_is_used_by_a_query(dashboard):
    used = variables_in(
        [target["expr"] for panel in panels(dashboard) for target in panel["targets"]]
    )
    for name in reversed(list(variables(dashboard))):
        # Or by another variable that is.
        assert name in used, name
        used |= variables_in(variables(dashboard)[name]["query"])


def test_every_dashboard_leads_to_the_others_and_keeps_the_time_and_what_is_chosen(dashboard):
    links = dashboard["links"]
    assert {link["url"] for link in links} == {f"/d/{uid}" for uid in UIDS - {dashboard["uid"]}}
    assert all(link["keepTime"] and link["includeVars"] for link in links)


def cell_links(dashboard):
    """Yield the panels' links, with the panel's title."""
    for panel in panels(dashboard):
        config = panel["fieldConfig"]
        for link in config["defaults"].get("links", []):
            yield panel["title"], link["url"]
        for override in config["overrides"]:
            for each in override["properties"]:
                if each["id"] == "links":
                    yield from ((panel["title"], link["url"]) for link in each["value"])


def test_a_cell_leads_to_a_dashboard_that_has_the_variables_it_sets(dashboard):
    known = {load(file)["uid"]: variables(load(file)).keys() for file in FILES}
    links = list(cell_links(dashboard))
    assert bool(links) == (dashboard["uid"] != "twocans-processes")  # which is the deepest
    for title, url in links:
        path, _, query = url.partition("?")
        uid = path.removeprefix("/d/")
        assert uid in known, title
        first, second, *chosen = query.split("&")
        assert (first, second) == ("${__url_time_range}", "${datasource:queryparam}"), title
        set_by_it = [re.fullmatch(r"var-(\w+)=\$\{__.+\}", each) for each in chosen]
        assert set_by_it, title
        for match in set_by_it:
            assert match, title
            assert match[1] in known[uid], title


def test_a_cell_takes_what_it_sets_from_a_column_of_its_own_table(dashboard):
    for panel in panels(dashboard):
        named = set(re.findall(r"__data\.fields\.(\w+)", str(panel["fieldConfig"])))
        if named:
            (shown,) = [
                step["options"]["include"]["names"]
                for step in panel["transformations"]
                if step["id"] == "filterFieldsByName"
            ]
            assert named <= set(shown), panel["title"]


def metric_names(promql):
    """Return the metrics that a query names, and the patterns of names that it gives."""
    patterns = set(re.findall(r'__name__=~"([^"]+)"', promql))
    text = re.sub(r'"[^"]*"', "", promql)
    text = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", text)
    grouping = r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)"
    text = re.sub(grouping, " ", text)
    words = re.findall(r"(?<![\w:.$])[a-zA-Z_:][\w:]*(?!\s*\(|[\w:])", text)
    return set(words) - {"and", "or", "unless", "bool", "offset"}, patterns


def exported():
    """Return every name of a sample that a can gives."""
    families = [
        *generate_docs.client_families(),
        *generate_docs.server_families(),
        *make_registry().collect(),
    ]
    return {sample.name for family in families for sample in family.samples}


def recorded():
    """Return every name that a rule records."""
    return set(re.findall(r"(?m)^\s*(?:- )?record: *['\"]?([\w:]+)", RULES.read_text()))


def asked(dashboard):
    """Return everything that a dashboard asks, variables too."""
    texts = [target["expr"] for panel in panels(dashboard) for target in panel["targets"]]
    for variable in variables(dashboard).values():
        if variable["type"] == "query":
            series, _, _ = variable["query"]["query"].removeprefix("label_values(").rpartition(",")
            texts.append(series)
    return texts


def test_every_metric_in_a_query_is_exported_by_a_can_or_recorded_by_a_rule(dashboard):
    known = exported() | recorded() | PROMETHEUS_OWN
    for text in asked(dashboard):
        names, patterns = metric_names(text)
        assert names or patterns, text
        assert names <= known, f"{names - known} in {text}"
        for pattern in patterns:
            # One name for each kind of can, and no other kind of pattern.
            for can in ("client", "server"):
                assert pattern.replace("(client|server)", can) in known, pattern


def test_the_names_of_metrics_are_found_in_a_query():
    assert metric_names(
        'sum by (a, up) (rate(x_total{b="c", d=~"$e"}[$__range])) / ignoring (f) group_left ()'
        ' 1e3 * y:z:mean5m and {__name__=~"p_(q|r)"} @ end() or topk(3, g) > 0.5'
    ) == ({"x_total", "y:z:mean5m", "g"}, {"p_(q|r)"})
