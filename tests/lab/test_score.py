import json

import pytest
from lab.outcome import Fault, Name, Outcome, Said
from lab.page import details, last_line
from lab.score import markdown, score

LOSS = Name("loss", "path_forward", "forward")
BACK = Name("loss", "path_reverse", "reverse")
SLOW = Name("dns_slow", "dns")
PAUSED = Name("process_paused", "server_host")


def hurt(*said, name=LOSS, severity=None, figures=None, **more):
    fault = Fault(f"{name.verdict}_case", name, 20.0, 40.0, severity, figures or {})
    return Outcome("hurt", "twocans", (fault,), said, 45.0, **more)


def healthy(*said, **more):
    return Outcome("healthy", "twocans", (), said, 45.0, **more)


def right(name=LOSS, at_s=22.0, **more):
    return Said(name, at_s, **more)


def test_all_right_is_one():
    summary = score([hurt(right()), hurt(right(SLOW, 23.0), name=SLOW), healthy()])
    assert summary["macro_f1"] == 1.0
    assert summary["precision"]["share"] == summary["recall"]["share"] == 1.0
    assert summary["false_alarms"]["alarmed"] == 0
    assert summary["never_named"] == []


def test_silence_has_no_precision_and_no_recall():
    summary = score([hurt(), healthy()])
    assert summary["precision"]["share"] is None
    assert summary["recall"]["share"] == 0.0
    assert summary["never_named"] == ["loss"]


def test_rare_faults_weigh_as_much_as_frequent_ones():
    summary = score([*[hurt(right())] * 9, hurt(name=SLOW)])
    assert summary["recall"]["share"] == 0.9
    assert summary["macro_f1"] == 0.5


def test_a_false_verdict_costs_the_fault_that_it_names_its_f1():
    summary = score([hurt(right()), healthy(right())])
    assert summary["by_fault"]["loss"]["f1"] == pytest.approx(2 / 3, abs=1e-4)
    assert summary["precision"]["share"] == 0.5


def test_direction_and_culprit_are_shares_of_what_was_named():
    runs = [
        hurt(right()),
        hurt(right(BACK)),  # wrong direction, wrong culprit
        hurt(right(Name("loss", "path"))),  # right as far as it goes, without a direction
        hurt(),
    ]
    summary = score(runs)
    assert (summary["culprit"]["count"], summary["culprit"]["of"]) == (2, 3)
    assert (summary["direction"]["count"], summary["direction"]["of"]) == (1, 3)


def test_a_first_wrong_culprit_is_not_made_good_by_a_later_right_one():
    summary = score([hurt(right(BACK, 21.0), right())])
    assert summary["culprit"]["count"] == 0
    assert summary["recall"]["share"] == 1.0
    assert summary["precision"]["share"] == 0.5


def test_a_fault_without_a_direction_is_not_asked_for_one():
    assert score([hurt(right(SLOW), name=SLOW)])["direction"]["of"] == 0


def test_unknown_is_a_miss_and_no_false_alarm():
    summary = score([hurt(right(Name("unknown", "path"))), healthy(right(Name("unknown", "path")))])
    assert summary["unknown"] == 2
    assert summary["abstained"] == 1
    assert summary["false_alarms"]["alarmed"] == 0
    assert summary["recall"]["share"] == 0.0


def test_false_alarms_are_counted_by_control_and_by_window():
    """Two windows of a fault's 20 s before its onset are healthy, four of a control's 45 s."""
    summary = score([healthy(right(SLOW, 3.0), right(PAUSED, 4.0)), healthy(), hurt(right())])
    alarms = summary["false_alarms"]
    assert (alarms["alarmed"], alarms["controls"]) == (1, 2)
    assert (alarms["spoilt"], alarms["windows"]) == (1, 10)
    assert alarms["upper"] > 0.3
    assert alarms["said"] == ["healthy: dns_slow", "healthy: process_paused"]


def test_an_alarm_before_the_onset_spoils_a_healthy_window():
    assert score([hurt(right(SLOW, 15.0))])["false_alarms"]["spoilt"] == 1


def test_a_run_with_a_problem_is_counted_and_shows_nothing():
    summary = score([hurt(problem="the server did not start"), healthy()])
    assert (summary["cases"], summary["problems"]) == (1, 1)
    assert summary["faults"] == 0


def test_time_to_name_is_from_the_true_onset():
    summary = score([hurt(right(at_s=at)) for at in (21.0, 24.0, 30.0)])
    assert summary["time_to_name_s"] == {"n": 3, "p50": 4.0, "p95": 10.0}


@pytest.mark.parametrize(
    ("name", "measured", "true", "agrees"),
    [
        ("mtu", 1300, 1300, 1),
        ("mtu", 1299, 1300, 0),
        ("delay_s", 0.0109, 0.01, 1),
        ("delay_s", 0.0004, 0.0001, 1),
        ("delay_s", 0.012, 0.01, 0),
        ("idle_s", 5.9, 5.0, 1),
        ("idle_s", 6.1, 5.0, 0),
        ("rate", 19.1e6, 20e6, 1),
        ("rate", 18.9e6, 20e6, 0),
        ("step_s", 0.509, 0.5, 1),
        ("step_s", 0.511, 0.5, 0),
    ],
)
def test_a_figure_agrees_as_its_kind_demands(name, measured, true, agrees):
    summary = score([hurt(right(figures={name: measured}), figures={name: true})])
    assert (summary["figures"][name]["count"], summary["figures"][name]["of"]) == (agrees, 1)


@pytest.mark.parametrize(
    ("figures", "true", "covered"),
    [
        ({"share_low": 0.01, "share_high": 0.1}, 0.03, 1),
        ({"share_low": 0.01, "share_high": 0.1}, 0.2, 0),
        ({"lost": 5, "sent": 100}, 0.03, 1),
        ({"lost": 5, "sent": 100}, 0.3, 0),
    ],
)
def test_the_interval_of_a_share_covers_what_was_drawn(figures, true, covered):
    shares = score([hurt(right(figures=figures), figures={"share": true})])["figures"]["share"]
    assert (shares["count"], shares["of"]) == (covered, 1)


def test_a_share_without_an_interval_is_not_compared():
    assert score([hurt(right(figures={"share": 0.1}), figures={"share": 0.1})])["figures"] == {}


def test_what_is_counted_until_the_end_is_not_compared_with_a_beginning():
    runs = [hurt(right(figures={"overflows": 3}), figures={"overflows": 90})]
    assert score(runs)["figures"] == {}


def test_every_miss_and_every_false_verdict_is_listed():
    runs = [hurt(right(SLOW, proof="2 look-ups")), healthy()]
    assert score(runs)["wrong"] == [
        "hurt: loss missed, said dns_slow",
        "hurt: dns_slow dns is false: 2 look-ups",
    ]


def test_figures_that_only_one_side_has_are_not_compared():
    assert score([hurt(right(figures={"sent": 10}), figures={"mtu": 1300})])["figures"] == {}


def test_counts_of_whole_runs_agree_only_if_they_are_the_same():
    runs = [healthy(counts={"lost_forward": pair}) for pair in ((3, 3), (0, 0), (4, 5))]
    lost = score(runs)["counts"]["lost_forward"]
    assert (lost["count"], lost["of"], lost["error_max"]) == (2, 3, 1)


def test_detectability_is_recall_by_thirds_of_what_was_drawn():
    runs = [hurt(*([right()] if drawn > 3 else []), severity=drawn) for drawn in range(1, 7)]
    thirds = score(runs)["by_fault"]["loss"]["severity"]
    assert [(row["from"], row["to"]) for row in thirds] == [(1, 2), (3, 4), (5, 6)]
    assert [row["recall"]["count"] for row in thirds] == [0, 1, 2]


def test_confusion_has_what_was_said_instead():
    runs = [hurt(right()), hurt(), hurt(right(SLOW)), healthy(), healthy(right(PAUSED))]
    assert score(runs)["confusion"] == {
        "healthy": {"nothing": 1, "process_paused": 1},
        "loss": {"dns_slow": 1, "loss": 1, "nothing": 1},
    }


def test_the_last_line_is_what_the_issue_asks_for():
    summary = score([hurt(right()), healthy()])
    others = {"ping": score([hurt(), healthy()])}
    assert last_line(summary, others) == (
        "truth: cases 2, macro-F1 1.000, precision 1.000, recall 1.000, culprit 1.000, "
        "direction 1.000, false alarms 0/1; best of the others F1 0.000"
    )
    assert last_line(score([healthy()]), {}) == (
        "truth: cases 1, macro-F1 none, precision none, recall none, culprit none, "
        "direction none, false alarms 0/1; best of the others F1 none"
    )


def test_the_table_has_a_row_for_each_fault():
    table = markdown(score([hurt(right()), hurt(name=SLOW)]))
    assert "| `loss` | 1 | 1 | 0 | 1.00 | 1/1 | 2.0 s, 2.0 s |" in table
    assert "| `dns_slow` | 1 | 0 | 0 | 0.00 |  |  |" in table


def test_a_machine_that_was_busy_is_said_to_have_been():
    busy = [line for line in details(score([healthy(starved=0.6)]), {}) if "short of CPU" in line]
    assert len(busy) == 1
    assert "60%" in busy[0]
    assert not any("short of CPU" in line for line in details(score([healthy()]), {}))


def test_the_details_name_what_was_never_named_and_score_the_others():
    others = {"ping": score([hurt(), healthy(right())])}
    lines = list(details(score([hurt(), healthy(right(SLOW))]), others))
    assert "never named: loss" in lines
    assert any(line.startswith("ping: cases 2, macro-F1 0.000") for line in lines)
    assert lines[:2] == ["hurt: loss missed, said nothing", "healthy: dns_slow dns is false: "]


def test_a_summary_can_be_written_down():
    summary = score([hurt(right()), healthy()])
    assert json.loads(json.dumps(summary)) == summary
