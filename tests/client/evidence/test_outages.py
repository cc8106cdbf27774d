from hypothesis import given

from client.verdicts.evidence import MS, S, every, good, healthy, refused, silent, window, windows
from twocans_client.evidence.outages import Outage, outage_of
from twocans_client.evidence.rows import Waiting
from twocans_client.evidence.window import Window

BEFORE = [good(at) for at in every(100 * MS, 0, 2 * S)]
DARK = [silent(at) for at in every(500 * MS, 2 * S, 5 * S)]


def found(made: Window) -> Outage:
    outage = outage_of(made)
    assert outage is not None
    return outage


def test_it_lasts_from_the_first_syn_without_an_answer():
    outage = found(window(*BEFORE, *DARK))
    assert (outage.began_ns, outage.ended_ns, outage.sent) == (2 * S, None, 30)
    assert outage.heard_ns == 1_900 * MS + 500_000
    assert len(outage.numbers) == 6
    assert not outage.is_over


def test_it_ends_with_the_first_answer_which_may_be_a_reset():
    assert found(window(*BEFORE, *DARK, good(7 * S))).ended_ns == 7 * S + 100_000
    assert found(window(*BEFORE, *DARK, refused(7 * S))).ended_ns == 7 * S + 100_000


def test_a_second_syn_that_was_answered_ends_it_and_the_first_was_in_it():
    late = [good(at, syns_lost=4) for at in every(100 * MS, 2 * S, 3 * S)]
    outage = found(window(*BEFORE, *late))
    assert (outage.sent, outage.ended_ns) == (40, 6 * S + 100_000)


def test_a_syn_that_was_refused_at_last_was_not_answered_before():
    back = [refused(at, 9 * S - at, retrans=4) for at in every(200 * MS, 5 * S, 6 * S)]
    outage = found(window(*BEFORE, *back))
    assert (outage.began_ns, outage.ended_ns, outage.sent) == (5 * S, 9 * S, 20)


def test_probes_under_way_are_in_it():
    made = window(*BEFORE)
    made.waiting = tuple(Waiting(at, None, 1, False) for at in every(100 * MS, 2 * S, 3_500 * MS))
    made.forget(4_500 * MS)
    assert found(made).sent == 15
    made.waiting = tuple(each._replace(connected_ns=3 * S) for each in made.waiting)
    assert outage_of(made) is None


def test_nine_syns_are_no_outage_nor_is_less_than_a_second():
    assert outage_of(window(*BEFORE, silent(2 * S, resent=8))) is None
    assert outage_of(window(*BEFORE, silent(2 * S, resent=9))) is not None
    quick = [silent(2 * S + at, took_ns=100 * MS, resent=0) for at in every(MS, 0, 20 * MS)]
    assert outage_of(window(*BEFORE, *quick)) is None


def test_losses_among_answers_are_none():
    assert (
        outage_of(window(*(good(at, syns_lost=at // S % 2) for at in every(S, 0, 30 * S)))) is None
    )


def test_of_two_it_is_the_newer():
    later = [silent(at) for at in every(500 * MS, 20 * S, 23 * S)]
    assert found(window(*BEFORE, *DARK, good(12 * S), *later)).began_ns == 20 * S


@given(windows())
def test_no_evidence_makes_it_raise(made):
    outage = outage_of(made)
    if outage is not None:
        assert outage.sent >= 10
        assert outage.ended_ns is None or outage.ended_ns >= outage.began_ns


@given(healthy())
def test_a_good_path_has_none(made):
    assert outage_of(made) is None
