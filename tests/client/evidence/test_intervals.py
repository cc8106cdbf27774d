import pytest
from hypothesis import given
from hypothesis import strategies as st

from twocans_client.evidence.intervals import in_words, wilson


# Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
@pytest.mark.parametrize(
    ("lost", "sent", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (0, 1, 0, 0.7935),
        (1, 1, 0.2065, 1),
    ],
)
def test_intervals_are_those_of_the_literature(lost, sent, low, high):
    assert wilson(lost, sent) == pytest.approx((low, high), abs=0.00005)


def test_of_nothing_sent_everything_is_possible():
    assert wilson(0, 0) == (0.0, 1.0)


@given(st.integers(1, 10**9).flatmap(lambda sent: st.tuples(st.integers(0, sent), st.just(sent))))
def test_an_interval_holds_the_share_and_stays_within_bounds(numbers):
    lost, sent = numbers
    low, high = wilson(lost, sent)
    assert 0 <= low <= lost / sent <= high <= 1


@pytest.mark.parametrize(
    ("lost", "sent", "words"),
    [
        (0, 0, "nothing sent"),
        (0, 1, "none of 1: less than 100 %"),
        (0, 30_000_000, "none of 30,000,000: less than 0.00001 %"),
        (0, 1200, "none of 1,200: less than 0.25 %"),
        (3, 1200, "3 of 1,200: 0.085 % to 0.73 %"),
        (12, 20, "12 of 20: 39 % to 78 %"),
    ],
)
def test_a_share_is_said_with_what_is_certain_of_it(lost, sent, words):
    assert in_words(lost, sent) == words


@pytest.mark.parametrize(
    ("lost", "sent", "words"),
    [(0, 0, "nothing sent"), (0, 87, "none of 87"), (3, 1200, "3 of 1,200: 0.085 % or more")],
)
def test_where_loss_keeps_others_out_only_the_lower_end_is_certain(lost, sent, words):
    assert in_words(lost, sent, is_least=True) == words


def test_a_share_over_all_is_all():
    assert wilson(7, 5) == wilson(5, 5)
    assert wilson(-1, 5) == wilson(0, 5)
