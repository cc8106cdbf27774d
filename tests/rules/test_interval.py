"""The interval that a dashboard computes in PromQL is the one that ``probe`` reports."""

import json

import pytest
from scripts.dashboards.grafana import spelled_out
from scripts.dashboards.path import PATH

from rules.tool import run
from rules.world import Span, World
from system.dashboards import fill_in
from twocans_client.evidence.intervals import wilson

MINUTES = 10
SENT = {"forward": 200, "reverse": 300}  # a minute

CHOSEN = dict.fromkeys(("instance", "target", "server", "family"), ".*")


@pytest.mark.parametrize("fails", [False, True], ids=["all good", "some fail"])
@pytest.mark.parametrize("lost", [0, 1, 27, 2000], ids=lambda lost: f"{lost} of 2000")
def test_the_panel_shows_wilsons_interval_or_three_over_n(lost, fails, promtool, tmp_path):
    sent = {direction: a_minute * MINUTES for direction, a_minute in SENT.items()}
    world = World(MINUTES)
    share = [Span(0, 1e9, lost / sent["forward"])]
    ends = world.client("c"), world.server("s")
    fail = [Span(3, 4, 0.2)] if fails else []
    world.path(*ends, lost={"forward": share}, segments_a_minute=SENT, fail=fail)
    low, high = wilson(lost, sent["forward"])
    expected = {
        "Sent": sent,
        "Lost": {"forward": lost, "reverse": 0},
        "Share": {"forward": lost / sent["forward"], "reverse": 0},
        "At least": {"forward": low, "reverse": 0},
        "At most": {
            "forward": high if lost else 3 / sent["forward"],
            "reverse": 3 / sent["reverse"],
        },
    }
    if fails:
        expected["At most"] = {}
    (table,) = [
        panel
        for panel in PATH.rows["Is anything lost on the path?"]
        if panel["title"] == "How much is lost in which direction?"
    ]
    tests = [
        {
            # 1.96 in the panel is 1.959964 here.
            "expr": f"round(({query(target['expr'])}) * 1e5)",
            "eval_time": f"{MINUTES}m",
            "exp_samples": [
                {"labels": f'{{direction="{direction}"}}', "value": round(value * 1e5)}
                for direction, value in expected[target["legendFormat"]].items()
            ],
        }
        for target in table["targets"]
    ]
    file = tmp_path / "interval.yml"
    document = world.document("none.yml", {"promql_expr_test": tests})
    file.write_text(json.dumps({**document, "rule_files": [], "group_eval_order": []}))
    run(promtool, "test", "rules", str(file))


def query(text: str) -> str:
    spelled = spelled_out(text, PATH.selectors).replace("$__range", f"{MINUTES}m")
    return fill_in(spelled, CHOSEN)
