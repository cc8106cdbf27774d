import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.far_end import ended
from twocans_client.evidence.results import Reason
from twocans_client.evidence.rows import Resolved
from twocans_client.evidence.window import Window
from twocans_client.verdicts import dns
from twocans_client.verdicts.case import Case
from twocans_client.verdicts.verdict import Confidence, Culprit, Finding

MS = 1_000_000
S = 1_000 * MS
GOOD = (MS, Reason.OK)
DENIED = (2 * MS, Reason.DNS_FAILURE)
GAVE_UP = (10_005 * MS, Reason.DNS_FAILURE)
"""What getaddrinfo() says when it has asked twice."""
SLOW = (2_010 * MS, Reason.OK)
RETRIED = (5_003 * MS, Reason.OK)
SILENT = (None, Reason.DNS_TIMEOUT)


def judge(*look_ups: tuple[int | None, Reason], retry_ns: int = 5 * S) -> list[Finding]:
    window = Window()
    for at, (duration_ns, reason) in enumerate(look_ups):
        words = "Name or service not known" if reason is Reason.DNS_FAILURE else ""
        window.resolved(Resolved((at + 1) * 5 * S, duration_ns, reason, words, retry_ns))
    return list(dns.judge(Case(window)))


@pytest.mark.parametrize(
    ("look_ups", "names"),
    [
        ([GOOD, DENIED, DENIED], ["dns_failing"]),
        ([GOOD, DENIED], []),
        ([DENIED, DENIED, GOOD], []),
        ([GOOD, SLOW, SLOW], ["dns_slow"]),
        ([GOOD, SLOW], []),
        ([SLOW, SLOW, GOOD], []),
        ([GOOD, RETRIED, GOOD, RETRIED], ["dns_loss"]),
        ([RETRIED, GOOD, RETRIED, GOOD], ["dns_loss"]),
        ([RETRIED, RETRIED, GOOD, GOOD], []),
        ([GOOD, RETRIED], []),
        ([SILENT, SILENT], ["dns_loss"]),
        ([GOOD, SILENT, RETRIED], ["dns_loss"]),
        ([GAVE_UP, GAVE_UP], ["dns_loss"]),
        ([SLOW, RETRIED], []),
        ([], []),
    ],
)
def test_it_is_named_after_what_the_look_ups_waited_for(look_ups, names):
    found = judge(*look_ups)
    assert [finding.kind.name for finding in found] == names
    assert {finding.culprit for finding in found} <= {Culprit.DNS}


def test_a_question_was_asked_again_after_what_the_resolver_is_told_to_wait():
    assert [finding.kind for finding in judge(SLOW, SLOW, retry_ns=2 * S)] == [dns.LOSS]
    assert [finding.kind for finding in judge(SLOW, SLOW, retry_ns=3 * S)] == [dns.SLOW]


def test_a_failed_look_up_is_proof_and_says_so_in_the_resolvers_words():
    (finding,) = judge(DENIED, DENIED)
    assert finding.confidence is Confidence.PROVEN
    assert finding.proof == "the last 2 look-ups failed: Name or service not known"


def test_a_lost_question_is_said_with_its_figures():
    (finding,) = judge(GOOD, SILENT, RETRIED)
    assert finding.proof == (
        "2 of 3 look-ups lost a question or an answer: the slowest took 5.003 s and 1 got no "
        "answer; our host asks again after 5 s"
    )
    assert finding.figures == {"look_ups": 2, "duration_s": 5.003}


def test_probes_that_have_no_address_need_no_other_explanation():
    window = Window()
    window.resolved(Resolved(S, MS, Reason.DNS_FAILURE, "no"))
    window.resolved(Resolved(2 * S, MS, Reason.DNS_FAILURE, "no"))
    for at in range(3):
        window.probed(ended(Reason.DNS_FAILURE, (3 + at) * S), None)
    window.probed(ended(Reason.REFUSED, 6 * S), None)
    (finding,) = dns.judge(Case(window))
    assert finding.explains == {1, 2, 3}


def test_look_ups_of_a_minute_ago_say_nothing_any_more():
    window = Window()
    for at in (1, 2):
        window.resolved(Resolved(at * S, MS, Reason.DNS_FAILURE, "no"))
    window.forget(70 * S)
    assert not list(dns.judge(Case(window)))


durations = st.none() | st.integers(0, 20 * S)
reasons = st.sampled_from([Reason.OK, Reason.DNS_FAILURE, Reason.DNS_TIMEOUT, Reason.SELF_STALL])


@given(st.lists(st.tuples(durations, reasons), max_size=12), st.integers(1, 30))
def test_no_evidence_makes_it_raise_and_there_is_one_name_at_most(look_ups, retry_s):
    assert len(judge(*look_ups, retry_ns=retry_s * S)) <= 1


@given(st.lists(st.integers(0, 99), max_size=20), st.integers(0, 20))
def test_quick_answers_and_a_single_lost_one_are_well(millis, lost_at):
    look_ups = [(ms * MS, Reason.OK) for ms in millis]
    look_ups[lost_at:lost_at] = [RETRIED]
    assert judge(*look_ups) == []
