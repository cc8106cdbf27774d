"""What can be said about the dashboards without Prometheus or Grafana."""

import pytest

from system.dashboards import FILES, fill_in, load, panels, queries


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def dashboard(request):
    """Give one dashboard after the other."""
    return load(request.param)


def test_there_is_a_dashboard():
    assert [file.name for file in FILES][:1] == ["paths.json"]


def test_a_dashboards_address_never_changes(request, dashboard):
    assert dashboard["uid"] == f"twocans-{request.node.callspec.id}"
    assert dashboard["id"] is None


def test_every_panel_says_what_it_shows_in_which_unit_and_what_empty_means(dashboard):
    for panel in panels(dashboard):
        defaults = panel["fieldConfig"]["defaults"]
        assert len(panel["title"]) > 5, panel["id"]
        assert len(panel["description"]) > 20, panel["title"]
        assert defaults["unit"], panel["title"]
        assert defaults["noValue"], panel["title"]


def test_titles_and_ids_are_no_ones_elses(dashboard):
    everything = [*panels(dashboard), *(p for p in dashboard["panels"] if p["type"] == "row")]
    for key in ("id", "title"):
        values = [panel[key] for panel in everything]
        assert len(values) == len(set(values)), key


def test_no_panel_lies_over_another(dashboard):
    taken: dict[tuple[int, int], str] = {}
    for panel in panels(dashboard):
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                other = taken.setdefault((x, y), panel["title"])
                assert other == panel["title"]


def test_every_query_goes_to_the_prometheus_that_is_chosen_above(dashboard):
    assert dashboard["templating"]["list"][0]["name"] == "datasource"
    for panel in panels(dashboard):
        for asking in (panel, *panel["targets"]):
            assert asking["datasource"]["uid"] == "${datasource}", panel["title"]


def test_every_variable_in_a_query_is_one_of_the_dashboards(dashboard):
    known = {variable["name"] for variable in dashboard["templating"]["list"]}
    assert {"client", "target", "server"} <= known
    assert queries(dashboard)
    for variable in dashboard["templating"]["list"][1:]:
        assert "$" not in fill_in(str(variable["query"]))
