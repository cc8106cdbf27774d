"""Connections that die of silence, and those that die of something else."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.far_end import LOCAL
from twocans_client.evidence.idle import IdleResult, Ladder
from twocans_client.evidence.results import Reason
from twocans_client.evidence.window import Window
from twocans_client.verdicts import idle
from twocans_client.verdicts.case import Case
from twocans_client.verdicts.verdict import Confidence, Finding

SECOND = 1_000_000_000


def silent(age_s: float, reason: Reason = Reason.REPLY_TIMEOUT, **more: Any) -> IdleResult:
    age_ns = int(age_s * SECOND)
    known = {"control": None if reason is Reason.OK else True, **more}
    return IdleResult(age_ns, reason, "", 1, LOCAL, 0, age_ns, **known)


def found(*results: IdleResult) -> list[Finding]:
    """Judge connections of which each was made after the one before had ended."""
    now_ns, in_turn = 0, []
    for result in results:
        begun_ns, now_ns = now_ns, now_ns + result.age_ns
        in_turn.append(result._replace(started_ns=begun_ns, ended_ns=now_ns))
    return judged(*in_turn)


def judged(*results: IdleResult) -> list[Finding]:
    window, ladder = Window(), Ladder()
    for result in results:
        ladder.take(result)
        window.idled(result, ladder.bracket())
    return list(idle.judge(Case(window)))


def test_two_that_had_no_answer_after_a_silence_are_a_time_out_between_what_held_and_what_did_not():
    (verdict,) = found(silent(17, Reason.OK), silent(65), silent(41))
    assert verdict.kind.name == "idle_timeout"
    assert verdict.figures == {"idle_good_s": 17, "idle_bad_s": 41, "connections": 2}
    assert "got no answer after a silence of 41.0 s" in verdict.proof
    assert verdict.confidence is Confidence.STATISTICAL


def test_a_reset_is_said_to_be_one():
    (verdict,) = found(silent(17, Reason.RESET), silent(9, Reason.RESET))
    assert "were reset after a silence of 9.0 s" in verdict.proof


def test_both_ends_tried_again_are_proof():
    narrow = (silent(10, Reason.OK), silent(10.5))
    (verdict,) = found(*narrow, *narrow)
    assert verdict.confidence is Confidence.PROVEN


def test_one_may_be_chance():
    assert found(silent(17, Reason.OK), silent(65)) == []


@pytest.mark.parametrize("reason", [Reason.RESET, Reason.CLOSED_EARLY, Reason.REPLY_TIMEOUT])
def test_what_cut_all_at_once_was_not_their_silence(reason):
    """A proxy that ends, a NAT that starts anew: they end at one moment, whatever their ages."""
    at_ns = 100 * SECOND
    cut = [
        silent(age_s, reason)._replace(started_ns=at_ns - int(age_s * SECOND), ended_ns=at_ns)
        for age_s in (3.3, 12, 60)
    ]
    assert judged(*cut) == []
    again = silent(3.3)._replace(started_ns=at_ns, ended_ns=at_ns + 4 * SECOND)
    (verdict,) = judged(*cut, again)
    assert verdict.figures["connections"] == 2


def test_what_was_cut_once_a_day_was_not_its_silence():
    assert found(silent(100), silent(100, Reason.OK), silent(100), silent(285, Reason.OK)) == []
    assert found(silent(100), silent(100, Reason.OK), silent(100)) == []


def test_one_that_was_closed_is_said_to_have_been():
    (verdict,) = found(silent(17, Reason.CLOSED_EARLY), silent(17, Reason.CLOSED_EARLY))
    assert "were closed after" in verdict.proof


def test_where_fresh_probes_failed_too_it_was_no_silence():
    assert found(silent(17, control=False), silent(17, control=None), silent(65)) == []


def test_a_longer_silence_that_lived_takes_it_back():
    assert found(silent(17), silent(9), silent(65, Reason.OK)) == []


@given(
    st.lists(
        st.tuples(
            st.floats(0, 300),
            st.sampled_from(list(Reason)),
            st.sampled_from([True, False, None]),
        ),
        max_size=20,
    )
)
def test_no_evidence_makes_it_raise(results):
    found(*(silent(age_s, reason, control=control) for age_s, reason, control in results))


@given(st.lists(st.floats(1, 285), max_size=20))
def test_silence_that_does_no_harm_gives_no_verdict(ages):
    assert found(*(silent(age_s, Reason.OK) for age_s in ages)) == []
