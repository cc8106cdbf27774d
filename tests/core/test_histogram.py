import itertools

from hypothesis import given
from hypothesis import strategies as st

from twocans_core.histogram import PHASE_BOUNDS_S, Histogram
from twocans_core.host.lag import LAG_BOUNDS_S

durations = st.lists(st.integers(0, 20_000_000_000))


@given(durations)
def test_every_observation_is_in_the_bucket_whose_bounds_hold_it(observed):
    histogram = Histogram()
    for ns in observed:
        histogram.observe(ns)
    edges = [-1.0, *PHASE_BOUNDS_S, float("inf")]
    expected = [
        sum(1 for ns in observed if low < ns / 1e9 <= high)
        for low, high in itertools.pairwise(edges)
    ]
    assert histogram.counts == expected
    assert histogram.sum_ns == sum(observed)


def test_a_bound_belongs_to_the_bucket_below_it():
    histogram = Histogram((0.001, 0.002))
    for ns in (0, 1_000_000, 1_000_001, 2_000_000, 2_000_001):
        histogram.observe(ns)
    assert histogram.counts == [2, 2, 1]


def test_two_histograms_share_nothing():
    one, other = Histogram(), Histogram()
    one.observe(1)
    assert other.counts == [0] * (len(PHASE_BOUNDS_S) + 1)


def test_bounds_rise():
    for bounds in (PHASE_BOUNDS_S, LAG_BOUNDS_S):
        assert list(bounds) == sorted(set(bounds))


def test_retransmission_timers_fall_over_a_bound():
    # A bound just under 0.2, 1, 3 and 7 s: one above the time-out would hide it.
    for timer_s in (0.2, 1.0, 3.0, 7.0):
        assert any(timer_s * 0.9 <= bound < timer_s for bound in PHASE_BOUNDS_S)
