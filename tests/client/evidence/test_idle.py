from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twocans_client.evidence.idle import Bracket, IdleResult, Ladder
from twocans_client.evidence.results import Reason

S = 1_000_000_000
LOCAL = ("192.0.2.1", 40_000)


def ended(age_ns: int, reason: Reason = Reason.OK, *, control: bool | None = True) -> IdleResult:
    return IdleResult(age_ns, reason, "", 1, LOCAL, 0, age_ns, control)


def good(age_s: float) -> IdleResult:
    return ended(int(age_s * S))


def bad(age_s: float, reason: Reason = Reason.REPLY_TIMEOUT) -> IdleResult:
    return ended(int(age_s * S), reason)


def search(
    ladder: Ladder, timeout_s: Callable[[float], float], places: int, *, until_s: float
) -> list[tuple[float, Bracket]]:
    """Run so many connections at once behind a box that forgets after ``timeout_s(now)``.

    Returns:
        When there was which bracket.
    """
    now_ns, found = 0, []
    silent: list[tuple[int, int]] = []  # until, age
    while now_ns < until_s * S:
        while len(silent) < places:
            age = ladder.next_age([age for _, age in silent])
            assert age is not None
            silent.append((now_ns + age, age))
        silent.sort()
        now_ns, age = silent.pop(0)
        late_ns = 3_000_000  # a timer is never early
        is_good = age + late_ns < timeout_s(now_ns / S) * S
        ladder.take(ended(age + late_ns, Reason.OK if is_good else Reason.REPLY_TIMEOUT))
        bracket = ladder.bracket()
        if bracket is not None:
            found.append((now_ns / S, bracket))
    return found


def test_ages_go_up_from_rung_to_rung_some_at_once():
    ladder = Ladder(300 * S)
    ages: list[int] = []
    for _ in range(4):
        age = ladder.next_age(ages)
        assert age is not None
        ages.append(age)
    assert ages == [17 * S, 65 * S, 250 * S, 300 * S]
    ladder.take(good(17.004))
    assert ladder.next_age([]) == 65 * S
    assert ladder.bracket() is None


def test_no_age_is_longer_than_the_server_allows():
    ladder = Ladder()
    ladder.limit(100 * S)
    for age in (17, 65, 100):
        assert ladder.next_age() == age * S
        ladder.take(good(age))
    assert {ladder.next_age() for _ in range(3)} == {17 * S, 65 * S, 100 * S}


@pytest.mark.parametrize("limit_s", [0.5, 0, -1])
def test_a_server_that_allows_no_silence_is_not_asked(limit_s):
    ladder = Ladder()
    ladder.limit(int(limit_s * S))
    assert ladder.next_age() is None


@pytest.mark.parametrize("places", [1, 3])
@pytest.mark.parametrize("timeout_s", [3, 10, 15, 30, 60, 120, 180, 240, 299])
def test_a_time_out_is_found_to_a_second_and_confirmed(timeout_s, places):
    ladder = Ladder(300 * S)
    found = search(ladder, lambda _: timeout_s, places, until_s=7_200)
    brackets = [bracket for _, bracket in found]
    assert all(each.good_ns < timeout_s * S <= each.bad_ns for each in brackets)
    narrow_s = next(at for at, bracket in found if bracket.is_narrow)
    assert narrow_s < 3_600
    last = brackets[-1]
    assert last.confirmed
    assert last.bad_ns - last.good_ns <= max(S, 0.02 * last.bad_ns)


def test_three_at_once_are_sooner_done_than_one():
    took_s = []
    for places in (1, 3):
        found = search(Ladder(300 * S), lambda _: 180, places, until_s=7_200)
        took_s.append(next(at for at, bracket in found if bracket.is_narrow))
    assert took_s[1] < took_s[0] * 0.7


def test_a_time_out_that_came_or_became_shorter_is_found_though_all_was_good():
    ladder = Ladder(300 * S)
    found = search(ladder, lambda now: 1e9 if now < 3_600 else 30, 3, until_s=7_200)
    assert found[0][0] < 3_600 + 300
    last = found[-1][1]
    assert last.good_ns < 30 * S <= last.bad_ns
    assert last.confirmed


def test_a_time_out_that_has_gone_is_forgotten():
    ladder = Ladder(300 * S)
    found = search(ladder, lambda now: 30 if now < 3_600 else 1e9, 3, until_s=7_200)
    assert found[-1][0] < 3_600 + 300
    assert ladder.bracket() is None


@pytest.mark.parametrize(
    "result",
    [
        ended(65 * S, Reason.REPLY_TIMEOUT, control=False),
        ended(65 * S, Reason.RESET, control=None),
        ended(65 * S, Reason.SELF_STALL),
        ended(65 * S, Reason.DRAINING),
        ended(65 * S, Reason.BUSY),
    ],
)
def test_without_a_good_probe_or_with_another_reason_an_age_is_not_bad(result):
    ladder = Ladder()
    ladder.take(result)
    assert ladder.bracket() is None
    assert not result.is_bad


def test_a_bracket_says_how_connections_failed():
    ladder = Ladder()
    ladder.take(bad(65, Reason.RESET))
    assert ladder.bracket() == Bracket(0, 65 * S, Reason.RESET, confirmed=False)


def test_a_lower_limit_forgets_what_is_beyond_it():
    ladder = Ladder()
    ladder.take(good(100))
    ladder.take(bad(200))
    ladder.limit(50 * S)
    assert (ladder.good_ns, ladder.bracket()) == (50 * S, None)


ages = st.integers(0, 10_000 * S)


@given(
    st.lists(st.tuples(ages, st.sampled_from(Reason), st.sampled_from([True, False, None]))),
    st.integers(-S, 8_000 * S),
    st.lists(ages, max_size=8),
)
def test_whatever_happens_the_next_age_is_within_bounds(results, limit_ns, under_way):
    ladder = Ladder()
    ladder.limit(limit_ns)
    for age, reason, control in results:
        ladder.take(ended(age, reason, control=control))
        bracket = ladder.bracket()
        if bracket is not None:
            assert 0 <= bracket.good_ns < max(bracket.bad_ns, 1)
        following = ladder.next_age(under_way)
        if following is not None:
            assert S <= following <= max(limit_ns, S)
