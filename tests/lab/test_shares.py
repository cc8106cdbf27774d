import pytest
from lab.shares import quantile, share, upper_bound


def test_none_of_a_thousand_is_the_rule_of_three():
    assert upper_bound(0, 1000) == pytest.approx(0.00299, abs=1e-5)


@pytest.mark.parametrize(
    ("count", "of", "bound"),
    [(1, 100, 0.0466), (2, 10, 0.5069), (3, 4, 0.9873)],  # Clopper and Pearson, one-sided
)
def test_the_bound_is_the_textbooks(count, of, bound):
    assert upper_bound(count, of) == pytest.approx(bound, abs=2e-4)


@pytest.mark.parametrize(("count", "of"), [(0, 0), (4, 4)])
def test_nothing_bounds_what_was_not_seen_or_always(count, of):
    assert upper_bound(count, of) == 1.0


def test_thousands_fit_into_a_float():
    assert 0.5 < upper_bound(3000, 6000) < 0.52


def test_a_share_of_nothing_is_unknown():
    assert share(0, 0)["share"] is None
    assert share(3, 4)["share"] == 0.75


@pytest.mark.parametrize(
    ("values", "part", "expected"),
    [([], 0.5, None), ([7.0], 0.95, 7.0), ([1, 2, 3, 4], 0.5, 2), (list(range(1, 21)), 0.95, 19)],
)
def test_a_quantile_is_a_value_that_was_there(values, part, expected):
    assert quantile(values, part) == expected
