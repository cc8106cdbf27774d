"""The recording rules and alerts, with promtool; without it, skipped or, where required, failed."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from scripts import generate_docs, generate_rules

from rules.case import Alert, Case, server_down
from rules.cases import calm, clients, latency, limits, names, segments, servers, verdicts, zones
from rules.tool import run
from rules.world import Span, World, selector
from twocans_core.host.lag import LAG_BOUNDS_S

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "observability/prometheus/rules/twocans.yml"
GROUPS = yaml.safe_load(RULES.read_text())["groups"]
EVERY = [rule for group in GROUPS for rule in group["rules"]]
ALERTS = sorted({rule["alert"] for rule in EVERY if "alert" in rule})
RECORDS = sorted({rule["record"] for rule in EVERY if "record" in rule})
GROUPS_OF_CASES = (servers, calm, zones, segments, latency, names, clients, limits, verdicts)
CASES = [one for group in GROUPS_OF_CASES for one in group.CASES]


def test_promtool_accepts_the_rules(promtool):
    run(promtool, "check", "rules", "--lint=all", "--lint-fatal", str(RULES))


def test_promtool_accepts_the_configuration_and_finds_the_rules_through_it(promtool):
    said = run(promtool, "check", "config", str(ROOT / "observability/prometheus/prometheus.yml"))
    assert f"{len(EVERY)} rules found" in said


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_alerts(case, promtool, tmp_path):
    if case in CASES[::2]:  # every case twice would take twice as long
        case = with_own_labels(case)
    check(case, promtool, tmp_path)


def check(case: Case, promtool: str, folder: Path) -> None:
    file = folder / "case.yml"
    # JSON is YAML, and written much sooner.
    file.write_text(json.dumps(case.world.document(str(RULES), promtool_tests(case))))
    run(promtool, "test", "rules", str(file))


def promtool_tests(case: Case) -> dict[str, Any]:
    firing = 'ALERTS{alertstate="firing"}'
    expressions = [
        (minute, firing, [(series(one), 1.0) for one in alerts])
        for minute, alerts in case.fires.items()
    ]
    expressions += [(*key, samples) for key, samples in case.expressions.items()]
    if case.near_miss:
        # At any time, not only when somebody looked.
        names = "|".join(case.near_miss)
        never = f'count_over_time(ALERTS{{alertstate="firing", alertname=~"{names}"}}[1d])'
        expressions.append((case.world.minutes, never, []))
    return {
        "promql_expr_test": [
            {
                "expr": expression,
                "eval_time": f"{minute}m",
                "exp_samples": [{"labels": name, "value": value} for name, value in samples],
            }
            for minute, expression, samples in expressions
        ],
        "alert_rule_test": [
            {
                "eval_time": f"{minute}m",
                "alertname": name,
                "exp_alerts": [expected(*one) for one in texts],
            }
            for (minute, name), texts in case.texts.items()
        ],
    }


def series(alert: Alert) -> str:
    return f"ALERTS{selector({**alert, 'alertstate': 'firing'})}"


def expected(alert: Alert, summary: str, description: str) -> dict[str, Any]:
    labels = {name: value for name, value in alert.items() if name != "alertname" and value}
    url = runbook(alert["alertname"])
    notes = {"summary": summary, "description": description, "runbook_url": url}
    return {"exp_labels": labels, "exp_annotations": notes}


def runbook(name: str) -> str:
    page = "https://github.com/twocans/twocans/blob/main/docs/operations.md"
    return f"{page}#{name.lower()}"


# --- Targets with labels of their own ----------------------------------------------------------

# Every label that the rules read of a can, those that they make themselves, and a stranger.
# fmt: off
READ = {
    "name", "node", "zone", "target", "server", "family", "outcome", "reason", "phase",
    "direction", "fate", "limit", "cause", "verdict", "culprit",
}
MADE = {
    "client", "source_node", "source_zone", "target_node", "target_zone", "host", "process",
    "scope",
}
# fmt: on
OWN = dict.fromkeys((*sorted(READ | MADE), "team"), "of-the-target")


def with_own_labels(case: Case) -> Case:
    """Give the targets labels of their own, but those that some can of this case leaves empty.

    There a target's label stands in for the can's: nothing shows whose it is.
    """
    names = ("_info", "_verdict")
    infos = [text for text in case.world.series if text.partition("{")[0].endswith(names)]
    may_be_empty = {"node": "_info", "zone": "_info", "server": "path_", "direction": "_verdict"}
    labels = {
        label: text
        for label, text in OWN.items()
        if all(f'{label}="' in info for info in infos if may_be_empty.get(label, "not") in info)
    }
    return case._replace(world=case.world.labelled(labels))


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_has_a_case_in_which_it_fires_though_targets_have_labels(name):
    assert [case.name for case in CASES[::2] if fires_at(case, name)]


@pytest.mark.parametrize("label", OWN)
def test_a_server_that_is_down_is_told_with_any_one_label_more(label, promtool, tmp_path):
    world = World(8)
    client = world.client("c", "n0", "a")
    for number in (1, 2):
        fail = [Span(1, 1e9)] if number == 1 else []
        world.path(client, world.server(f"s{number}", f"n{number}", "a"), fail=fail)
    case = Case("", world.labelled({label: "x"}), {7: [server_down("s1@n1/a")]})
    check(case, promtool, tmp_path)


def test_no_rule_selects_raw_series_by_a_label_that_a_target_may_have():
    """``le`` apart: a target that is called so breaks every histogram of everybody."""
    found = {match for text in texts() for match in re.findall(r"\btwocans_\w+{(\w+)", text)}
    assert found == {"le", "phase", "exported_phase"}


# --- What has to have a test ------------------------------------------------------------------


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_has_a_case_in_which_it_fires(name):
    assert [case.name for case in CASES if fires_at(case, name)]


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_has_a_case_in_which_it_nearly_fires(name):
    assert [case.name for case in CASES if name in case.near_miss]


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_has_a_case_in_which_it_resolves(name):
    assert [
        case.name
        for case in CASES
        for last in [max(fires_at(case, name), default=None)]
        if last is not None and max(case.fires) > last
    ]


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_has_a_case_with_its_words(name):
    assert [case.name for case in CASES if name in {alert for _, alert in case.texts}]


@pytest.mark.parametrize("name", RECORDS)
def test_every_recorded_series_is_looked_at_or_used_by_another_rule(name):
    looked_at = "\n".join(text for case in CASES for _, text in case.expressions)
    used = "\n".join(rule["expr"] for rule in EVERY)
    assert re.search(rf"{name}\b", f"{looked_at}\n{used}")


def test_a_near_miss_is_declared_only_where_nothing_fires():
    assert [
        (case.name, name) for case in CASES for name in case.near_miss if fires_at(case, name)
    ] == []


def fires_at(case: Case, name: str) -> list[int]:
    return [
        minute
        for minute, alerts in case.fires.items()
        if name in {alert["alertname"] for alert in alerts}
    ]


# --- Names ------------------------------------------------------------------------------------


def test_every_metric_in_the_rules_is_exported_or_recorded():
    exported = {"up"}
    for family in [*generate_docs.client_families(), *generate_docs.server_families()]:
        exported |= {sample.name for sample in family.samples}
    named = {name for text in texts() for name in re.findall(r"\btwocans_\w+", text)}
    recorded = {name for text in texts() for name in re.findall(r"\b\w+:twocans_\w+:\w+", text)}
    middles = {name.split(":")[1] for name in recorded}
    assert recorded - set(RECORDS) == set()
    assert named - middles - exported == set()


def texts() -> Iterator[str]:
    for rule in EVERY:
        yield rule["expr"]
        yield from rule.get("annotations", {}).values()


def test_every_bound_of_the_lag_histogram_in_the_rules_is_one():
    bounds = {bound for text in texts() for bound in re.findall(r'le="([^"]+)"', text)}
    assert bounds == {"0.1"}
    assert bounds <= {repr(bound) for bound in LAG_BOUNDS_S}


@pytest.mark.parametrize("rule", [r for r in EVERY if "alert" in r], ids=lambda r: r["alert"])
def test_every_alert_says_how_bad_it_is_what_it_is_and_where_to_read_on(rule):
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == runbook(rule["alert"])


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_has_a_runbook(name):
    page = ROOT / "docs/operations.md"
    assert page.exists(), "docs/operations.md is missing"
    headings = re.findall(r"^#+ (.+?) *$", page.read_text(), re.MULTILINE)
    assert name in headings


# --- The copy for Kubernetes ------------------------------------------------------------------


def test_the_prometheus_rule_is_current():
    assert generate_rules.TARGET.read_text() == generate_rules.prometheus_rule(), "run make docs"


def test_the_prometheus_rule_has_the_same_groups():
    rule = yaml.safe_load(generate_rules.TARGET.read_text())
    assert (rule["apiVersion"], rule["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
    assert rule["spec"] == {"groups": GROUPS}


def test_a_stale_prometheus_rule_is_told(tmp_path, monkeypatch, capsys):
    stale = tmp_path / "prometheusrule.yaml"
    stale.write_text(generate_rules.TARGET.read_text().replace("for: 2m", "for: 3m", 1))
    monkeypatch.setattr(generate_rules, "TARGET", stale)
    assert generate_rules.main(["--check"]) == 1
    assert "is stale" in capsys.readouterr().err
    assert generate_rules.main([]) == 0
    assert generate_rules.main(["--check"]) == 0
