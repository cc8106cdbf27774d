import pytest
from lab.judge import CONSEQUENCES, judge
from lab.outcome import Fault, Name, Outcome, Said, from_json, to_json

LOSS = Name("loss", "path_forward", "forward")
SLOW = Name("dns_slow", "dns")


def fault(name=LOSS, onset_s=10.0, **more):
    return Fault("case", name, onset_s, 30.0, **more)


def said(name=LOSS, at_s=12.5, **more):
    return Said(name, at_s, **more)


def run(faults=(), verdicts=(), lasted_s=35.0, **more):
    return Outcome("run", "twocans", tuple(faults), tuple(verdicts), lasted_s, **more)


def judged(faults, verdicts):
    return judge(run(faults, verdicts))


def names_of_false(faults, verdicts):
    return [one.name for one in judged(faults, verdicts).false]


def test_a_fault_is_found_by_its_name_and_its_culprit():
    (match,) = judged([fault()], [said()]).matches
    assert match.found == said()
    assert match.time_to_name_s == 2.5
    assert names_of_false([fault()], [said()]) == []


def test_a_wrong_culprit_is_a_wrong_verdict():
    wrong = said(Name("loss", "server_host", "forward"))
    (match,) = judged([fault()], [wrong]).matches
    assert match.named == wrong
    assert match.found is None
    assert match.time_to_name_s is None
    assert names_of_false([fault()], [wrong]) == [wrong.name]


def test_a_path_without_a_direction_is_not_wrong():
    vague = said(Name("loss", "path"))
    (match,) = judged([fault()], [vague]).matches
    assert match.found == vague
    assert names_of_false([fault()], [vague]) == []


def test_the_other_direction_is_wrong():
    wrong = Name("loss", "path_reverse", "reverse")
    assert judged([fault()], [said(wrong)]).matches[0].found is None
    assert names_of_false([fault()], [said(wrong)]) == [wrong]


def test_a_path_is_wrong_about_a_host():
    true = fault(Name("cpu_throttled", "server_host"))
    assert names_of_false([true], [said(Name("cpu_throttled", "path"))])


def test_what_is_said_before_the_onset_is_false():
    early = said(at_s=9.9)
    assert judged([fault()], [early]).matches[0].named is None
    assert names_of_false([fault()], [early]) == [LOSS]


def test_what_is_said_afterwards_still_counts():
    assert judged([fault()], [said(at_s=33.0)]).matches[0].found


def test_the_first_right_verdict_counts():
    (match,) = judged([fault()], [said(at_s=9.0), said(at_s=14.0), said(at_s=20.0)]).matches
    assert match.time_to_name_s == 4.0


def test_a_false_verdict_said_often_is_one():
    assert names_of_false([], [said(at_s=at) for at in (1.0, 2.0, 3.0)]) == [LOSS]


def test_unknown_is_no_false_verdict_and_finds_nothing():
    one = judged([fault()], [said(Name("unknown", "path"))])
    assert one.matches[0].found is None
    assert one.false == ()
    assert one.unknown == 1


def test_what_is_worth_knowing_is_no_false_verdict_and_may_be_right():
    assert names_of_false([], [said(is_info=True)]) == []
    assert judged([fault()], [said(is_info=True)]).matches[0].found


@pytest.mark.parametrize(("starved", "false"), [(0.0, 1), (0.3, 0)])
def test_a_machine_that_is_short_of_cpu_may_be_told_so(starved, false):
    verdicts = [said(Name("cpu_starved", "client_host"))]
    assert len(judge(run([], verdicts, starved=starved)).false) == false


def test_a_busy_machine_excuses_nothing_else():
    assert judge(run([], [said()], starved=0.9)).false


def test_a_provisional_verdict_that_was_withdrawn_counts_for_nothing():
    taken_back = said(SLOW, confidence="provisional", is_withdrawn=True)
    assert names_of_false([], [taken_back]) == []
    mine = said(confidence="provisional", is_withdrawn=True)
    assert judged([fault()], [mine]).matches[0].named is None


def test_any_other_that_was_withdrawn_is_false():
    assert names_of_false([], [said(SLOW, confidence="high", is_withdrawn=True)]) == [SLOW]


def test_what_was_withdrawn_finds_nothing():
    one = judged([fault()], [said(confidence="high", is_withdrawn=True)])
    assert one.matches[0].named is None
    assert [false.name for false in one.false] == [LOSS]


def test_two_faults_are_found_by_two_verdicts():
    faults = [fault(), fault(SLOW, 12.0)]
    one = judged(faults, [said(), said(SLOW, 15.0)])
    assert [match.time_to_name_s for match in one.matches] == [2.5, 3.0]
    assert one.false == ()
    assert [match.found for match in judged(faults, [said()]).matches] == [said(), None]


def test_a_consequence_is_neither_false_nor_what_was_to_be_found():
    syns = said(Name("syn_loss", "path_forward", "forward"))
    one = judged([fault()], [syns])
    assert one.false == ()
    assert one.matches[0].named is None


@pytest.mark.parametrize(
    "wrong",
    [
        Name("syn_loss", "path_reverse", "reverse"),
        Name("syn_loss", "path_forward", "reverse"),
        Name("syn_loss", "client_host", "forward"),
        Name("bufferbloat", "path_forward", "forward"),
    ],
)
def test_what_the_fault_does_not_do_is_false(wrong):
    assert names_of_false([fault()], [said(wrong)]) == [wrong]


def test_a_consequence_does_not_come_before_its_fault():
    assert names_of_false([fault()], [said(Name("syn_loss", "path_forward", "forward"), 5.0)])


def test_no_fault_is_its_own_consequence():
    assert [name for name, effects in CONSEQUENCES.items() if name in effects] == []


def test_healthy_time_ends_with_the_first_fault():
    assert run().healthy_s == 35.0
    assert run([fault(), fault(onset_s=4.0)]).healthy_s == 4.0


def test_a_run_survives_being_written_down():
    one = run(
        [fault(severity=0.02, figures={"lost": 12})],
        [said(confidence="high", figures={"lost": 12}, proof="12 of 400")],
        counts={"lost_forward": (12.0, 12.0)},
    )
    assert from_json(to_json(one)) == one
