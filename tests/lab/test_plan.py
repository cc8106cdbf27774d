import contextlib
from collections import Counter

import pytest
from lab.cases import Case, Expected, Truth
from lab.faults.doubles import together
from lab.plan import plan


@contextlib.contextmanager
def inject(scene, drawn):
    yield Truth({})


def case(name, *verdicts):
    expected = tuple(Expected(verdict, "path") for verdict in verdicts)
    return Case(name, name, expected, lambda random: {}, inject)


ALL = [
    case("loss_forward", "loss"),
    case("loss_reverse", "loss"),
    *[case(verdict, verdict) for verdict in "abcdefghi"],
    case("loss_and_a", "loss", "a"),
    case("quiet"),
    case("far_away"),
]
CASES = {one.name: one for one in ALL}


def verdicts_in(table):
    return Counter(len(CASES[one.case].expected) for one in table)


def test_the_same_seed_draws_the_same_table_and_another_another():
    assert plan(CASES, 7) == plan(CASES, 7)
    assert plan(CASES, 7) != plan(CASES, 8)


def test_each_verdict_is_drawn_once():
    table = plan(CASES, 7)
    singles = [one.case for one in table if len(CASES[one.case].expected) == 1]
    assert sorted(CASES[name].expected[0].verdict for name in singles) == [*"abcdefghi", "loss"]


def test_another_seed_may_draw_another_case_of_a_verdict():
    drawn = {one.case for seed in range(20) for one in plan(CASES, seed)}
    assert {"loss_forward", "loss_reverse"} <= drawn


@pytest.mark.parametrize("repeats", [0, 1, 5])
def test_two_in_five_are_healthy_and_one_in_ten_has_two_faults(repeats):
    kinds = verdicts_in(plan(CASES, 7, repeats=repeats))
    total = kinds.total()
    assert kinds[0] / total >= 0.4
    assert kinds[2] / total == pytest.approx(0.1, abs=0.5 / total)


def test_a_fault_lasts_as_long_as_its_case_has_to_and_two_as_long_as_the_longer():
    long = CASES["a"]._replace(lasts_s=60.0)
    both = together(CASES["b"], long)
    (alone,) = (one for one in plan({"a": long, "quiet": CASES["quiet"]}, 7) if one.case == "a")
    assert (alone.lasts_s, CASES["a"].lasts_s, both.lasts_s) == (60.0, 16.0, 60.0)


def test_every_case_is_repeated():
    drawn = Counter(one.case for one in plan(CASES, 7, repeats=3))
    assert all(drawn[one.name] == 3 for one in ALL if len(one.expected) == 1)


def test_every_control_comes_before_one_comes_again():
    drawn = Counter(one.case for one in plan(CASES, 7) if not CASES[one.case].expected)
    assert drawn.keys() == {"quiet", "far_away"}
    assert max(drawn.values()) - min(drawn.values()) <= 1


def test_no_two_runs_have_the_same_name_or_seed():
    table = plan(CASES, 7, repeats=3)
    assert len({one.run for one in table}) == len({one.seed for one in table}) == len(table)


def test_paths_and_onsets_differ():
    table = plan(CASES, 7, repeats=5)
    assert {one.base.rtt_s for one in table} == {0.00005, 0.002, 0.02, 0.08}
    assert len({one.onset_s for one in table}) > len(table) / 2


def test_faults_come_in_no_order():
    names = [one.case for one in plan(CASES, 7, repeats=3)]
    assert names != sorted(names, key=list(CASES).index)


def test_only_healthy_cases_make_no_table():
    assert plan({"quiet": CASES["quiet"]}, 7) == []
