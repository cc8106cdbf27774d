import itertools
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twocans_client.evidence.idle import Bracket, Controls, IdleResult, Ladder, Way
from twocans_client.evidence.results import Reason

S = 1_000_000_000
LOCAL = ("192.0.2.1", 40_000)
WAY = Way(b"s", LOCAL[0], LOCAL[0])
FOREVER_S = 1e9
# None at a rung, where chance decides.
TIMEOUTS_S = st.integers(2, 283).map(lambda timeout_s: timeout_s + 0.55)
PLACES = st.sampled_from([1, 2, 3, 8, 16])


def ended(
    age_ns: int, reason: Reason = Reason.OK, *, control: bool | None = True, started_ns: int = 0
) -> IdleResult:
    return IdleResult(age_ns, reason, "", 1, LOCAL, started_ns, started_ns + age_ns, control)


def good(age_s: float) -> IdleResult:
    return ended(int(age_s * S))


def bad(age_s: float, reason: Reason = Reason.REPLY_TIMEOUT) -> IdleResult:
    return ended(int(age_s * S), reason)


def search(
    ladder: Ladder,
    timeout_s: Callable[[float], float],
    places: int,
    *,
    until_s: float,
    cuts_s: tuple[float, ...] = (),
) -> list[tuple[float, Bracket]]:
    """Run so many connections at once behind a box that forgets after ``timeout_s(now)``.

    At each of ``cuts_s`` it forgets all that it knows.

    Returns:
        When there was which bracket.
    """
    now_ns, found = 0, []
    silent: list[tuple[int, int, bool]] = []  # until, from, whether its age still tells anything
    while now_ns < until_s * S:
        while len(silent) < places:
            age = ladder.next_age([until - begun for until, begun, tells in silent if tells])
            assert age is not None
            silent.append((now_ns + age, now_ns, True))
        silent.sort()
        until_ns, begun_ns, _ = silent.pop(0)
        now_ns = max(now_ns, until_ns + 3_000_000)  # a timer is never early
        age = now_ns - begun_ns
        is_good = age < timeout_s(now_ns / S) * S
        is_good = is_good and not any(begun_ns < cut * S < now_ns for cut in cuts_s)
        reason = Reason.OK if is_good else Reason.REPLY_TIMEOUT
        ladder.take(ended(age, reason, started_ns=begun_ns))
        bracket = ladder.bracket()
        if bracket is not None:
            found.append((now_ns / S, bracket))
            bad_ns = bracket.bad_ns
            silent = [
                (min(until, begun + bad_ns), begun, tells and until - begun < bad_ns)
                for until, begun, tells in silent
            ]
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
    assert took_s[1] < took_s[0] * 0.75


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
    result = bad(65, Reason.RESET)
    ladder.take(result)
    assert ladder.bracket() == Bracket(0, 65 * S, Reason.RESET, confirmed=False, failed=(result,))


def test_a_lower_limit_forgets_what_is_beyond_it():
    ladder = Ladder()
    ladder.take(good(100))
    ladder.take(bad(200))
    ladder.limit(50 * S)
    assert (ladder.good_ns, ladder.bracket()) == (50 * S, None)


@settings(max_examples=30)
@given(TIMEOUTS_S, PLACES, st.integers(0, 600))
def test_the_second_that_counts_comes_within_one_silence_of_the_first(timeout_s, places, from_s):
    ladder = Ladder(285 * S)
    found = search(
        ladder,
        lambda now: timeout_s if now >= from_s else FOREVER_S,
        places,
        until_s=from_s + 1_200,
    )
    first_s, first = found[0]
    second_s = next(at for at, bracket in found if len(bracket.failed) > 1)
    assert second_s - first_s <= first.bad_ns / S + 0.1
    for earlier, later in itertools.pairwise(found[-1][1].failed):
        assert later.started_ns >= earlier.ended_ns


@settings(max_examples=30)
@given(TIMEOUTS_S, PLACES)
def test_the_search_becomes_narrow_and_stays_so(timeout_s, places):
    found = search(Ladder(285 * S), lambda _: timeout_s, places, until_s=3_600)
    are_narrow = [bracket.is_narrow for _, bracket in found]
    first = are_narrow.index(True)
    assert first <= 20 + 4 * places
    assert all(are_narrow[first:])
    widths = [bracket.bad_ns - bracket.good_ns for _, bracket in found]
    assert widths == sorted(widths, reverse=True)


@settings(max_examples=30)
@given(st.lists(st.floats(1, 3_000), min_size=1, max_size=3), PLACES)
def test_what_cuts_all_at_once_is_no_time_out(cuts_s, places):
    cuts_s = tuple(cut for cut in cuts_s if all(abs(cut - c) > 600 for c in cuts_s if c != cut))
    ladder = Ladder(285 * S)
    found = search(ladder, lambda _: FOREVER_S, places, until_s=4_000, cuts_s=cuts_s)
    assert all(len(bracket.failed) == 1 for _, bracket in found)
    assert ladder.bracket() is None


def test_what_was_good_before_a_time_out_came_does_not_make_it_two():
    """Found by chance: the first bad one was forgotten when a shorter one was bad as well."""
    ladder = Ladder(285 * S)
    ladder.take(good(250))
    first = ended(285 * S, Reason.RESET, started_ns=100 * S)
    ladder.take(first)
    second = ended(100 * S, Reason.RESET, started_ns=385 * S)
    ladder.take(second)
    bracket = ladder.bracket()
    assert bracket is not None
    assert (bracket.good_ns, bracket.bad_ns, bracket.failed) == (0, 100 * S, (first, second))


def test_where_one_lived_in_between_the_first_has_nothing_to_do_with_the_second():
    ladder = Ladder(285 * S)
    ladder.take(ended(285 * S, Reason.RESET))
    ladder.take(ended(250 * S, started_ns=100 * S))
    second = ended(100 * S, Reason.RESET, started_ns=400 * S)
    ladder.take(second)
    bracket = ladder.bracket()
    assert bracket is not None
    assert bracket.failed == (second,)


def test_the_first_bad_age_is_tried_again_before_it_is_divided():
    ladder = Ladder(285 * S)
    ladder.take(good(17))
    ladder.take(bad(65))
    assert ladder.next_age([]) == 65 * S
    assert ladder.next_age([65 * S]) == 41 * S


def control(controls: Controls, at_ns: int, is_good: bool | None, way: Way = WAY) -> None:
    controls.begin(at_ns)(is_good, way)


def test_a_control_is_a_probe_that_went_the_same_way_when_the_connection_had_to_answer():
    controls = Controls()
    control(controls, 90, True)
    assert controls.since(100, WAY, 10) is None
    end = controls.begin(100)
    assert controls.since(100, WAY, 10) is None
    end(None, WAY)
    assert controls.since(100, WAY, 10) is None
    control(controls, 110, True)
    control(controls, 120, False)
    assert controls.since(100, WAY, 10) is True
    assert controls.since(111, WAY, 10) is False


@pytest.mark.parametrize(
    "other",
    [
        WAY._replace(instance=b"another"),  # a server that has restarted
        WAY._replace(local="192.0.2.9"),  # our address has changed
        WAY._replace(seen_as="198.51.100.1"),  # a proxy came or went
    ],
)
def test_a_probe_that_went_another_way_is_no_control(other):
    controls = Controls()
    control(controls, 100, True, other)
    assert controls.since(100, WAY, 10) is None
    control(controls, 110, True)
    assert controls.since(100, WAY, 10) is True


def test_a_path_that_failed_lately_is_no_control():
    controls = Controls()
    control(controls, 90, False)
    control(controls, 100, True)
    assert controls.since(100, WAY, 95) is False
    for _ in range(128):
        control(controls, 110, True)
    assert controls.since(100, WAY, 95) is True


def test_where_a_connection_that_talks_was_cut_too_it_was_not_the_silence():
    controls = Controls()
    controls.lost(50)
    control(controls, 100, True)
    assert controls.since(100, WAY, 50) is False
    assert controls.since(100, WAY, 51) is True


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
