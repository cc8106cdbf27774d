"""The direction of a delay: paths of which all is known, seen through two clocks that disagree."""

import itertools
import random
from collections import Counter
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twocans_client.evidence.direction import Direction, Growth, OneWay

US_NS = 1_000
MS_NS = 1_000_000
SECOND_NS = 1_000_000_000
YEARS_NS = 10**18
TOO_FEW = Growth(None, None, None, Direction.UNKNOWN)


class Trip(NamedTuple):
    """One exchange as it truly was: the delays of both directions, and the clocks' offset."""

    at_ns: int
    forward_ns: int
    reverse_ns: int
    offset_ns: int = 0


def see(one_way: OneWay, trip: Trip) -> Growth:
    return one_way.observe(
        trip.at_ns, trip.forward_ns + trip.offset_ns, trip.reverse_ns - trip.offset_ns
    )


def numbers(growth: Growth) -> tuple[int, int, int]:
    total_ns, forward_ns, reverse_ns, _ = growth
    assert total_ns is not None
    assert forward_ns is not None
    assert reverse_ns is not None
    return total_ns, forward_ns, reverse_ns


def offset_error_ns(one_way: OneWay, true_ns: int) -> int:
    """How far the offset is off, less its bound: 0 or less is right."""
    assert one_way.offset is not None
    return abs(one_way.offset.ns - true_ns) - one_way.offset.bound_ns


def steady(seconds: int, *, ppm: float = 0, from_s: int = 0, **trip) -> list[Trip]:
    """An exchange a second, 1 ms forward and 2 ms in reverse unless told otherwise."""
    trip = {"forward_ns": MS_NS, "reverse_ns": 2 * MS_NS, "offset_ns": YEARS_NS} | trip
    trips = (Trip(second * SECOND_NS, **trip) for second in range(from_s, from_s + seconds))
    return [
        each._replace(offset_ns=each.offset_ns + round(each.at_ns * ppm / 1e6)) for each in trips
    ]


def watched(trips: list[Trip]) -> OneWay:
    one_way = OneWay()
    for trip in trips:
        see(one_way, trip)
    return one_way


@st.composite
def journeys(draw) -> list[Trip]:
    """Any delays, at any times, between clocks that differ by any offset and drift at any rate."""
    offset_ns = draw(st.integers(-YEARS_NS, YEARS_NS))
    # A little less than the most that is allowed, for roundings.
    rate = draw(st.floats(-999e-6, 999e-6))
    at_ns = start_ns = draw(st.integers(0, 10**16))
    gaps_ns = st.integers(0, draw(st.sampled_from([1, 5, 20, 10_000])) * SECOND_NS)
    delays_ns = st.integers(0, 300 * MS_NS)
    trips = []
    for gap_ns, forward_ns, reverse_ns in draw(
        st.lists(st.tuples(gaps_ns, delays_ns, delays_ns), min_size=1, max_size=60)
    ):
        at_ns += gap_ns
        drift_ns = int(rate * (at_ns - start_ns))
        trips.append(Trip(at_ns, forward_ns, reverse_ns, offset_ns + drift_ns))
    return trips


@given(
    st.lists(
        st.tuples(
            st.integers(0, 15 * SECOND_NS), st.integers(-(10**9), 10**9), st.integers(0, 10**9)
        ),
        max_size=60,
    )
)
def test_whatever_the_values_both_ways_grew_by_the_whole_or_more(steps):
    one_way = OneWay()
    now_ns = 0
    for gap_ns, forward_ns, network_ns in steps:
        now_ns += gap_ns
        growth = one_way.observe(now_ns, forward_ns, network_ns - forward_ns)
        if growth.forward_ns is not None:
            total_ns, grew_forward_ns, grew_reverse_ns = numbers(growth)
            assert min(total_ns, grew_forward_ns, grew_reverse_ns) >= 0
            assert grew_forward_ns + grew_reverse_ns >= total_ns


@given(journeys())
def test_the_whole_is_measured_against_the_least_of_the_last_day(trips):
    one_way = OneWay()
    networks_ns = [trip.forward_ns + trip.reverse_ns for trip in trips]
    for count, trip in enumerate(trips, 1):
        growth = see(one_way, trip)
        if count < 5:
            assert growth == TOO_FEW
            continue
        day_ns = trip.at_ns - 24 * 3_600 * SECOND_NS
        lately_ns = (ns for ns, seen in zip(networks_ns, trips, strict=True) if seen.at_ns > day_ns)
        network_ns = networks_ns[count - 1]
        assert growth.total_ns is not None
        assert growth.total_ns >= network_ns - min(itertools.islice(lately_ns, count))
        assert growth.total_ns <= network_ns - min(networks_ns[:count])


@given(journeys())
def test_the_offset_is_within_its_bound_and_drift_is_never_a_step(trips):
    one_way = OneWay()
    assert one_way.offset is None
    for trip in trips:
        see(one_way, trip)
        assert one_way.offset is not None
        assert offset_error_ns(one_way, trip.offset_ns) <= 0
        # No worse than by this exchange alone: half its delay, and the stamps.
        assert one_way.offset.bound_ns <= (trip.forward_ns + trip.reverse_ns) // 2 + 30 * US_NS
    assert one_way.steps == 0


@given(journeys(), st.integers(-YEARS_NS, YEARS_NS), st.integers(0, 100 * MS_NS))
def test_neither_the_offset_nor_the_asymmetry_of_a_path_matters(trips, offset_ns, longer_ns):
    here, elsewhere = OneWay(), OneWay()
    for trip in trips:
        moved = trip._replace(
            forward_ns=trip.forward_ns + longer_ns, offset_ns=trip.offset_ns + offset_ns
        )
        moved = moved._replace(reverse_ns=moved.reverse_ns + 100 * MS_NS - longer_ns)
        trip = trip._replace(reverse_ns=trip.reverse_ns + 100 * MS_NS)
        assert see(here, trip) == see(elsewhere, moved)


@pytest.mark.parametrize("ppm", [-180, 0, 30])
@pytest.mark.parametrize(
    ("forward_ns", "reverse_ns", "direction"),
    [
        (0, 0, Direction.NONE),
        (300 * US_NS, 0, Direction.NONE),  # a tenth of 3 ms
        (310 * US_NS, 0, Direction.FORWARD),
        (0, 310 * US_NS, Direction.REVERSE),
        (20 * MS_NS, 0, Direction.FORWARD),
        (0, 20 * MS_NS, Direction.REVERSE),
        (20 * MS_NS, 20 * MS_NS, Direction.BOTH),
        (20 * MS_NS, 6 * MS_NS, Direction.FORWARD),
        (6 * MS_NS, 20 * MS_NS, Direction.REVERSE),
        (20 * MS_NS, 8 * MS_NS, Direction.BOTH),
        (8 * MS_NS, 20 * MS_NS, Direction.BOTH),
    ],
)
def test_a_delay_is_found_where_it_grew(forward_ns, reverse_ns, direction, ppm):
    trips = steady(122, ppm=ppm)
    last = trips.pop()
    one_way = watched(trips)
    growth = see(
        one_way, last._replace(forward_ns=MS_NS + forward_ns, reverse_ns=2 * MS_NS + reverse_ns)
    )
    assert growth.direction is direction
    assert growth.total_ns == forward_ns + reverse_ns
    # What the rate may be off since a second ago: without a fit 60 s at 180 ppm are 11 ms.
    _, most_forward_ns, most_reverse_ns = numbers(growth)
    assert forward_ns <= most_forward_ns <= forward_ns + 15 * US_NS
    assert reverse_ns <= most_reverse_ns <= reverse_ns + 15 * US_NS


def test_on_a_quick_path_a_growth_counts_from_a_quarter_of_a_millisecond():
    quick = {"forward_ns": 20 * US_NS, "reverse_ns": 20 * US_NS}
    one_way = watched(steady(100, **quick))
    at_ns = 100 * SECOND_NS
    assert see(one_way, Trip(at_ns, 270_000, 20_000, YEARS_NS)).direction is Direction.NONE
    assert see(one_way, Trip(at_ns, 270_001, 20_000, YEARS_NS)).direction is Direction.FORWARD


def test_the_quickest_of_either_way_need_not_be_the_quickest_exchange():
    ways_ms = [(4, 4), (1, 8), (8, 1), (3, 3), (5, 5)]
    trips = [
        Trip(second * SECOND_NS, forward_ms * MS_NS, reverse_ms * MS_NS)
        for second, (forward_ms, reverse_ms) in enumerate(ways_ms)
    ]
    growth = Growth(6 * MS_NS, None, None, Direction.UNKNOWN)
    for at_s in (5, 15):  # in the same ten seconds, and after them
        last = Trip(at_s * SECOND_NS, 9 * MS_NS, 3 * MS_NS)
        assert see(watched(trips), last) == growth


def test_four_exchanges_are_too_few_and_a_pause_makes_none_forgotten():
    one_way = OneWay()
    growths = [see(one_way, trip) for trip in steady(5)]
    assert growths == [TOO_FEW] * 4 + [Growth(0, 0, 0, Direction.NONE)]
    growths = [see(one_way, trip) for trip in steady(5, from_s=80)]
    assert growths == [Growth(0, 0, 0, Direction.NONE)] * 5


@pytest.mark.parametrize("ppm", [-200, 90])
def test_a_queue_on_one_way_that_stands_for_minutes_does_not_spoil_the_rate(ppm):
    chance = random.Random(1)
    trips = [
        trip._replace(forward_ns=MS_NS + chance.randrange(1, 20) * MS_NS)
        for trip in steady(300, ppm=ppm)
    ]
    one_way = watched(trips)
    growth = see(one_way, steady(1, ppm=ppm, from_s=300, forward_ns=40 * MS_NS)[0])
    assert growth.direction is Direction.FORWARD
    _, _, reverse_ns = numbers(growth)
    assert reverse_ns <= 2 * MS_NS  # 5 ms and 12 ms in the window without a fit


def test_what_drift_could_have_done_is_not_called_a_direction():
    # No rate is known in the first ten seconds, so it may be 1,000 ppm: 8 ms in 8 s.
    one_way = watched(steady(1))
    queued = [see(one_way, trip).direction for trip in steady(8, from_s=1, forward_ns=5 * MS_NS)]
    assert queued == [Direction.UNKNOWN] * 8
    # With a known rate the same growth is plain for minutes.
    one_way = watched(steady(60))
    queued = [see(one_way, trip).direction for trip in steady(50, from_s=60, forward_ns=5 * MS_NS)]
    assert queued == [Direction.FORWARD] * 50


def test_a_small_queue_that_stands_is_unknown_once_drift_could_have_made_it():
    one_way = watched(steady(60))
    queued = [
        see(one_way, trip).direction
        for trip in steady(40, from_s=60, forward_ns=MS_NS + 500 * US_NS)
    ]
    # A quarter of 0.5 ms takes some 11 s at 10 ppm, and what the rate may have changed since.
    assert queued[:10] == [Direction.FORWARD] * 10
    assert set(queued[10:]) <= {Direction.FORWARD, Direction.UNKNOWN}


@pytest.mark.parametrize(("forward_us", "reverse_us"), [(300, 1_200), (9_000, 1_000)])
def test_queues_that_grow_on_both_ways_at_once_hide_the_rate(forward_us, reverse_us):
    one_way = watched(steady(10))
    where = Direction.FORWARD if forward_us > reverse_us else Direction.REVERSE
    for second, trip in enumerate(steady(50, from_s=10), 1):
        growth = see(
            one_way,
            trip._replace(
                forward_ns=MS_NS + second * forward_us * US_NS,
                reverse_ns=2 * MS_NS + second * reverse_us * US_NS,
            ),
        )
        assert growth.direction in (where, Direction.UNKNOWN)
    assert growth.direction is (where if forward_us > 1_200 else Direction.UNKNOWN)


def test_a_growth_is_judged_against_what_the_path_was_at_its_best():
    one_way = watched(steady(60))
    for trip in steady(90, from_s=60, forward_ns=101 * MS_NS):
        see(one_way, trip)
    growth = see(one_way, Trip(150 * SECOND_NS, 121 * MS_NS, 82 * MS_NS, YEARS_NS))
    total_ns, forward_ns, reverse_ns = numbers(growth)
    assert total_ns == 200 * MS_NS
    assert 120 * MS_NS <= forward_ns <= 121 * MS_NS
    assert 80 * MS_NS <= reverse_ns <= 81 * MS_NS
    assert growth.direction is Direction.BOTH


def test_a_clock_that_changes_its_rate_gives_doubt_and_no_wrong_direction():
    one_way = watched(steady(60))
    slewed = [
        trip._replace(offset_ns=YEARS_NS + 400 * US_NS * second)
        for second, trip in enumerate(steady(20, from_s=60))
    ]
    for trip in slewed:
        assert see(one_way, trip).direction is Direction.NONE
        growth = see(one_way, trip._replace(reverse_ns=4 * MS_NS))
        assert growth.direction in (Direction.REVERSE, Direction.UNKNOWN)
    assert one_way.steps == 0


@pytest.mark.parametrize(
    ("ppm", "steps"), [(-990, 0), (-200, 0), (990, 0), (-1_100, 9), (1_100, 9)]
)
def test_a_drift_that_no_oscillator_has_is_a_step(ppm, steps):
    assert watched(steady(10, ppm=ppm, forward_ns=0, reverse_ns=0)).steps == steps


# 3 ms of delay twice, a second at 1,000 ppm on both clocks and four stamps: all of it halved.
@pytest.mark.parametrize("step_ns", [-YEARS_NS, -4_070_000, 4_070_000, YEARS_NS])
def test_a_step_that_no_delay_can_explain_is_counted_once_and_is_no_growth(step_ns):
    one_way = watched(steady(60))
    stepped = steady(10, from_s=60, offset_ns=YEARS_NS + step_ns)
    growths = [see(one_way, trip) for trip in stepped]
    assert one_way.steps == 1
    assert growths == [Growth(0, 0, 0, Direction.NONE)] * 10
    assert offset_error_ns(one_way, YEARS_NS + step_ns) <= 0


@pytest.mark.parametrize("step_ns", [-4 * MS_NS, -2 * MS_NS, 2 * MS_NS, 4 * MS_NS])
def test_a_step_within_the_round_trip_is_no_wrong_direction_and_no_doubt_after_a_minute(step_ns):
    one_way = watched(steady(60))
    after = {"offset_ns": YEARS_NS + step_ns, "reverse_ns": 4 * MS_NS}
    see(one_way, steady(1, from_s=60, offset_ns=YEARS_NS + step_ns)[0])
    for trip in steady(20, from_s=61, **after):
        assert see(one_way, trip).direction in (Direction.REVERSE, Direction.UNKNOWN)
    for trip in steady(100, from_s=81, offset_ns=YEARS_NS + step_ns):
        see(one_way, trip)
    (last,) = steady(1, from_s=181, **after)
    assert see(one_way, last).direction is Direction.REVERSE
    assert one_way.steps == 0


def test_a_reset_forgets_the_window_and_keeps_the_count_of_steps():
    one_way = watched(steady(60) + steady(60, from_s=60, offset_ns=0))
    assert one_way.steps == 1
    one_way.reset()
    assert one_way.offset is None
    assert see(one_way, steady(1, from_s=120, offset_ns=YEARS_NS)[0]) == TOO_FEW
    assert one_way.steps == 1


def test_an_exchange_that_is_told_of_late_counts_as_of_now():
    one_way = watched(steady(100))
    late = Trip(95 * SECOND_NS, 9 * MS_NS, 2 * MS_NS, YEARS_NS)
    assert see(one_way, late) == Growth(8 * MS_NS, 8 * MS_NS, 0, Direction.FORWARD)
    assert one_way.offset is not None
    assert one_way.offset.bound_ns < 3 * MS_NS


def test_it_keeps_the_same_however_many_exchanges_there_are():
    few, many = OneWay(), OneWay()
    for trip in steady(100):
        see(few, trip)
        for thousandth in range(50):
            see(many, trip._replace(at_ns=trip.at_ns + thousandth * MS_NS))
    assert size(many) == size(few)


def size(value) -> int:
    """Count what an object holds, all the way down."""
    if isinstance(value, list | tuple):
        return sum(map(size, value))
    names = getattr(value, "__slots__", ())
    return 1 + sum(size(getattr(value, name)) for name in names)


def weather(seed: int, noise_ns: float) -> list[Trip]:
    """Three minutes of a random path: any asymmetry, queues both ways, two crystals' skew."""
    chance = random.Random(seed)
    gap_s = chance.choice([0.2, 1.0, 2.0])
    base_ns = [10 ** chance.uniform(4.3, 8) for _ in range(2)]
    noises_ns = [noise_ns * chance.uniform(0.1, 1) for _ in range(2)]
    offset_ns = chance.randrange(-YEARS_NS, YEARS_NS)
    rate = chance.uniform(-200e-6, 200e-6)
    start_ns = at_ns = chance.randrange(10**16)
    clear_s = queue_s = 0.0
    queues_ns = [0.0, 0.0]
    trips = []
    while at_ns < start_ns + 180 * SECOND_NS:
        at_ns += int(gap_s * chance.uniform(0.8, 1.2) * SECOND_NS)
        elapsed_s = (at_ns - start_ns) / SECOND_NS
        if elapsed_s > queue_s:
            clear_s = elapsed_s + 10 ** chance.uniform(0, 1.8)
            queue_s = clear_s + 10 ** chance.uniform(-0.5, 2)
            direction = chance.choice([(1, 0), (0, 1), (1, 1)])
            queues_ns = [on * 10 ** chance.uniform(5.4, 8) for on in direction]
        forward_ns, reverse_ns = (
            int(base + chance.expovariate(1 / noise) + (elapsed_s > clear_s) * queue * level)
            for base, noise, queue, level in zip(
                base_ns, noises_ns, queues_ns, (chance.random(), chance.random()), strict=True
            )
        )
        drift_ns = int(rate * (at_ns - start_ns))
        trips.append(Trip(at_ns, forward_ns, reverse_ns, offset_ns + drift_ns))
    return trips


def truth(trips: list[Trip]) -> Direction:
    """Where the last one's delay grew since the quickest exchange."""
    last = trips[-1]
    quickest = min(trips, key=lambda trip: trip.forward_ns + trip.reverse_ns)
    forward_ns = last.forward_ns - quickest.forward_ns
    reverse_ns = last.reverse_ns - quickest.reverse_ns
    if 3 * reverse_ns <= forward_ns:
        return Direction.FORWARD
    if 3 * forward_ns <= reverse_ns:
        return Direction.REVERSE
    return Direction.BOTH


@pytest.mark.slow
@pytest.mark.parametrize(
    ("noise_ns", "most_unknown"), [(20 * US_NS, 0.2), (300 * US_NS, 0.4), (3 * MS_NS, 0.55)]
)
def test_of_the_directions_that_are_named_999_in_1000_are_true(noise_ns, most_unknown):
    named: Counter[bool] = Counter()
    unknown = 0
    for seed in range(60):
        trips = weather(seed, noise_ns)
        one_way = OneWay()
        for count, trip in enumerate(trips, 1):
            growth = see(one_way, trip)
            if growth.direction is Direction.NONE or growth == TOO_FEW:
                continue
            if growth.direction is Direction.UNKNOWN:
                unknown += 1
            else:
                named[growth.direction is truth(trips[:count])] += 1
        assert one_way.steps == 0
    print(f"{named[True]} true, {named[False]} false, {unknown} unknown")
    assert named[True] >= 2_000
    assert named[True] / named.total() >= 0.999
    assert unknown / (unknown + named.total()) <= most_unknown
