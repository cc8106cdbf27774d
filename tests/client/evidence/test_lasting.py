"""A delay that stays: its direction is known as long as both processes live, or doubted."""

import random
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from twocans_client.evidence.direction import Direction, Growth, OneWay

US_NS = 1_000
MS_NS = 1_000_000
SECOND_NS = 1_000_000_000
HOUR_S = 3_600
DIRECTIONS = [Direction.FORWARD, Direction.REVERSE]


class Trip(NamedTuple):
    """One exchange as it truly was."""

    at_ns: int
    forward_ns: int
    reverse_ns: int
    offset_ns: int

    @property
    def network_ns(self) -> int:
        return self.forward_ns + self.reverse_ns


class Road:
    """A path and two clocks: all of it is known here, and none of it to ``OneWay``.

    Args:
        seed: Draws asymmetry, rate and jitter.
        jitter_ns: Mean of what each way takes longer by chance, at the most.
        gap_s: Between exchanges.
    """

    def __init__(self, seed: int, *, jitter_ns: float = 20 * US_NS, gap_s: float = 1.0) -> None:
        self.chance = random.Random(seed)
        self.base_ns = [10 ** self.chance.uniform(4.5, 7.5) for _ in range(2)]
        self.jitter_ns = jitter_ns * self.chance.uniform(0.1, 1)
        self.gap_s = gap_s
        self.rate = self.chance.uniform(-50e-6, 50e-6)
        self.offset_ns = float(self.chance.randrange(-(10**18), 10**18))
        self.at_ns = self.chance.randrange(10**15)

    def go(self, seconds: float, forward_ns: int = 0, reverse_ns: int = 0) -> Iterator[Trip]:
        """Go on for so long, so much slower than at first."""
        until_ns = self.at_ns + int(seconds * SECOND_NS)
        while self.at_ns < until_ns:
            gap_ns = int(self.gap_s * self.chance.uniform(0.9, 1.1) * SECOND_NS)
            self.at_ns += gap_ns
            self.offset_ns += self.rate * gap_ns
            forward, reverse = (
                int(base + more + self.chance.expovariate(1 / self.jitter_ns))
                for base, more in zip(self.base_ns, (forward_ns, reverse_ns), strict=True)
            )
            yield Trip(self.at_ns, forward, reverse, int(self.offset_ns))


class Judge:
    """Shows trips to a ``OneWay``, and sees that nothing it says excludes the truth.

    The truth is how much slower each way was than in the quickest exchange of all.

    Args:
        luck_ns: What it may be wrong by: no figure is finer than the path's jitter.
    """

    def __init__(self, luck_ns: float = 20 * US_NS) -> None:
        self.one_way = OneWay()
        self.quickest: Trip | None = None
        self.luck_ns = luck_ns

    def see(self, trip: Trip) -> Growth:
        if self.quickest is None or trip.network_ns < self.quickest.network_ns:
            self.quickest = trip
        growth = self.one_way.observe(
            trip.at_ns, trip.forward_ns + trip.offset_ns, trip.reverse_ns - trip.offset_ns
        )
        if growth.total_ns is not None:
            assert growth.total_ns == trip.network_ns - self.quickest.network_ns
        if growth.total_ns is not None and growth.forward_ns is not None:
            assert growth.reverse_ns is not None
            forward_ns = trip.forward_ns - self.quickest.forward_ns
            least_ns = growth.total_ns - growth.reverse_ns
            assert least_ns - self.luck_ns <= forward_ns <= growth.forward_ns + self.luck_ns, growth
        return growth

    def directions(self, trips: Iterator[Trip]) -> list[Direction]:
        return [self.see(trip).direction for trip in trips]


def grown(direction: Direction, ns: int) -> dict[str, int]:
    return {"forward_ns": ns} if direction is Direction.FORWARD else {"reverse_ns": ns}


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("after_s", [7, 20, 33, 60, 95, 240])
def test_what_is_said_of_a_delay_that_stays_never_excludes_the_truth(after_s, direction):
    for seed in range(10):
        road, judge = Road(seed), Judge()
        judge.directions(road.go(after_s))
        found = judge.directions(road.go(150, **grown(direction, 5 * MS_NS)))
        assert set(found) <= {direction, Direction.UNKNOWN}
        if after_s >= 33:  # sooner the rate is hardly known
            assert Direction.UNKNOWN not in found


@pytest.mark.slow
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_delay_that_stays_is_still_known_hours_later_and_is_none_when_it_has_gone(direction):
    for seed in range(2):
        road, judge = Road(seed, gap_s=2), Judge()
        judge.directions(road.go(60))
        found = judge.directions(road.go(3 * HOUR_S, **grown(direction, 5 * MS_NS)))
        assert set(found) == {direction}
        assert set(judge.directions(road.go(60))) == {Direction.NONE}


@pytest.mark.slow
def test_what_was_quick_a_day_ago_is_no_measure_any_more():
    road, one_way = Road(1, gap_s=20), OneWay()
    growths = []
    for trip in (*road.go(600), *road.go(26 * HOUR_S, forward_ns=5 * MS_NS)):
        seen = trip.forward_ns + trip.offset_ns, trip.reverse_ns - trip.offset_ns
        growths.append(one_way.observe(trip.at_ns, *seen))
    assert growths[-2 * HOUR_S // 20 - 200].direction is Direction.FORWARD
    assert growths[-1].direction is Direction.NONE
    assert growths[-1].forward_ns is not None
    assert growths[-1].forward_ns < MS_NS
    assert one_way.observe(*slower(road, 9 * MS_NS)).direction is Direction.FORWARD


def slower(road: Road, ns: int) -> tuple[int, int, int]:
    """Return one exchange more as it is seen, so much slower there than at first."""
    trip = next(road.go(1_000, forward_ns=ns))
    return trip.at_ns, trip.forward_ns + trip.offset_ns, trip.reverse_ns - trip.offset_ns


WEATHER: dict[str, list[tuple[float, dict[str, int]]]] = {
    "up and down": [
        (60, {}),
        (100, {"forward_ns": 5 * MS_NS}),
        (100, {"forward_ns": 5 * MS_NS, "reverse_ns": 8 * MS_NS}),
        (100, {}),
        (100, {"forward_ns": 3 * MS_NS, "reverse_ns": 3 * MS_NS}),
        (100, {"forward_ns": 20 * MS_NS}),
    ],
    "one way, then the other": [
        (60, {}),
        (100, {"forward_ns": 5 * MS_NS}),
        (100, {"reverse_ns": 8 * MS_NS}),
        (100, {}),
    ],
    "too short to be a level": [
        (60, {}),
        *[(15, {"forward_ns": 5 * MS_NS}), (15, {"reverse_ns": 5 * MS_NS})] * 6,
    ],
    "another route": [(60, {"reverse_ns": 2 * MS_NS}), (300, {"forward_ns": 9 * MS_NS})],
    "little": [(60, {}), (300, {"reverse_ns": MS_NS // 2})],
}


@pytest.mark.parametrize(("jitter_ns", "luck_ns"), [(20e3, 50e3), (300e3, 200e3)])
@pytest.mark.parametrize("weather", WEATHER.values(), ids=WEATHER)
def test_whatever_grows_and_goes_no_figure_excludes_the_truth(weather, jitter_ns, luck_ns):
    for seed in range(6):
        road, judge = Road(seed, jitter_ns=jitter_ns), Judge(luck_ns)
        for seconds, delays in weather:
            judge.directions(road.go(seconds, **delays))


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_step_of_a_clock_does_not_make_a_delay_forgotten_that_stays(direction):
    for seed in range(10):
        road, judge = Road(seed), Judge()
        judge.directions(road.go(60))
        assert set(judge.directions(road.go(100, **grown(direction, 5 * MS_NS)))) == {direction}
        judge.one_way.forget_clocks()
        road.offset_ns += 10**12
        found = judge.directions(road.go(100, **grown(direction, 5 * MS_NS)))
        assert set(found) <= {direction, Direction.UNKNOWN}
        assert set(found[25:]) == {direction}


def test_a_delay_that_comes_with_a_step_of_a_clock_is_on_an_unknown_way():
    for seed in range(10):
        road, judge = Road(seed), Judge()
        judge.directions(road.go(60))
        road.offset_ns -= 10**9
        found = judge.directions(road.go(200, forward_ns=5 * MS_NS))
        assert set(found) == {Direction.UNKNOWN}
        assert judge.one_way.steps == 1


def test_it_keeps_no_more_in_a_day_than_in_an_hour():
    road, one_way = Road(1, gap_s=60), OneWay()
    for trip in road.go(26 * HOUR_S):
        one_way.observe(
            trip.at_ns, trip.forward_ns + trip.offset_ns, trip.reverse_ns - trip.offset_ns
        )
    kept = len(one_way._hours)
    for trip in road.go(50 * HOUR_S):
        one_way.observe(
            trip.at_ns, trip.forward_ns + trip.offset_ns, trip.reverse_ns - trip.offset_ns
        )
    assert len(one_way._hours) == kept == 25
