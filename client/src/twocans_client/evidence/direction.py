"""In which direction a delay grew, though the two hosts' clocks do not agree. No I/O.

The network's share of an exchange is exactly the sum of two one-way values. Each holds the offset
of the server's clock from ours, with opposite signs:

    forward = t2k - t1k = forward delay + offset
    reverse = t4k - t3k = reverse delay - offset

Against another exchange's, a value has neither the offset in it nor the path's asymmetry, but what
the clocks have drifted between the two: up to some 100 ppm, which is 6 ms in a minute. So a rate is
fitted and taken out, and an exchange is compared with one that is good and late: within a second
or so even a badly known rate is a few microseconds.

The *level* is how slow the path is at its best just now. An exchange on the level pins the offset
down anew, for as long as the level lasts: the same whole, so the same two directions. When the path
has been slower for half a minute, and evenly so, that is another level. By how much each direction
is slower on it is told by the first exchanges on it and the last before it: some seconds of drift,
once. So it is known for hours. All is measured from the lowest level of the last day.

Every figure is a range, and what is doubtful widens it:

    all - reverse <= grew forward <= forward

- the drift since a good exchange, at what the rate may be off: what the fit leaves open, 10 ppm,
  and as much again for each minute since the fit;
- that the quickest forward delay and the quickest reverse delay were not of one exchange;
- for a minute, what has moved without the path becoming slower or quicker.

A direction is named only when all of the range agrees. Where it may be all or nothing, nothing is
said.

What it cannot see: one direction that gains what the other loses at the same time. It looks like a
clock that was stepped by less than the round trip: a doubt for a minute, and then an offset like
any other. And a clock whose rate is changed by more than 10 ppm while a queue stands, as long as
the change hides in the queue.

Sources: RFC 5905 section 10, for the clock filter and half the delay as its bound; S. Moon,
P. Skelly and D. Towsley, "Estimation and Removal of Clock Skew from Network Delay Measurements"
(1999), for fitting along the lowest delays.
"""

import enum
import itertools
import statistics
from typing import NamedTuple

__all__ = ["Direction", "Growth", "Offset", "OneWay"]

_BUCKET_NS = 10_000_000_000
_CLOSED_KEPT = 6  # buckets, besides the one that is being filled: 60 to 70 s
_HOUR_NS = 3_600_000_000_000
_HOURS_KEPT = 24  # besides the one that is being filled

# The least of fewer values says little of the path; a choice.
_ENOUGH = 5
# A path that was slower for so many closed buckets, evenly, is on another level.
_LEVEL_BUCKETS = 3
# "Evenly": their best differ by no more than this, or an eighth of what they are slower by.
_EVEN_NS = 100_000
_EVEN_SHARE = 8

# A growth counts above both. A pair of timestamps is good to some 30 us; a quarter of this, the
# least share that is named, is twice that. Up to a tenth of the least, an exchange is as good as
# the quickest: one in which nothing grew.
_GREW_NS = 250_000
_GREW_SHARE = 10

# Two clocks' rates differ by no more: the kernel lets NTP correct each by 500 ppm (MAXFREQ,
# linux/timex.h). What goes faster, as chrony's slew of a large error, is a step to us.
_MOST_RATE = 1_000e-6
# What a daemon that disciplines a clock may change of its rate within the window; a choice.
_RATE_ERROR = 10e-6
_WINDOW_NS = _CLOSED_KEPT * _BUCKET_NS
_STAMP_NS = 30_000
_FAR_NS = 1 << 80  # later than any clock


class Direction(enum.StrEnum):
    """Where a delay grew. Values are metric labels: never rename them.

    FORWARD and REVERSE: at least three quarters of the growth. BOTH: at least one quarter each.
    """

    NONE = ""
    FORWARD = "forward"
    REVERSE = "reverse"
    BOTH = "both"
    UNKNOWN = "unknown"


class Growth(NamedTuple):
    """How much slower an exchange was than the path's quickest of the last day.

    Attributes:
        total_ns: Both directions together; clocks have no part in it. None while too few exchanges
            were seen.
        forward_ns: The most that the forward delay grew. None, as the next, while that may be all
            or nothing.
        reverse_ns: The most that the reverse delay grew. What both exceed ``total_ns`` by is doubt.
        direction: NONE when ``total_ns`` is too small to count.
    """

    total_ns: int | None
    forward_ns: int | None
    reverse_ns: int | None
    direction: Direction


class Offset(NamedTuple):
    """The server's clock less ours, when the last exchange ended.

    Attributes:
        ns: Half the difference of the two directions' values.
        bound_ns: The true offset is no further away. The error is half the difference of the two
            directions' delays, which nobody knows without synchronised clocks.
    """

    ns: int
    bound_ns: int


class _Sample(NamedTuple):
    at_ns: int
    forward_ns: int
    reverse_ns: int


class _Range(NamedTuple):
    """By how much a direction was slower than in the quickest exchange: at least and at most."""

    low_ns: int
    high_ns: int

    @property
    def width_ns(self) -> int:
        return self.high_ns - self.low_ns

    def plus(self, low_ns: int, high_ns: int) -> "_Range":
        return _Range(self.low_ns + low_ns, self.high_ns + high_ns)


_NOTHING = _Range(0, 0)


class _Level(NamedTuple):
    """The path at its best for a while.

    Attributes:
        floor_ns: Both directions together.
        forward: How much of what ``floor_ns`` is more than the day's least is forward delay.
    """

    floor_ns: int
    forward: _Range


class _Bucket:
    """Of ten seconds: the least forward delay, the least reverse delay, the quickest exchange."""

    __slots__ = (
        "best",
        "forward",
        "forward_low_ns",
        "index",
        "least_ns",
        "reverse",
        "reverse_low_ns",
    )

    def __init__(self, index: int, first: _Sample) -> None:
        self.index = index
        self.forward = self.reverse = self.best = first
        # Of these three; without skew, as the rate was known then.
        self.forward_low_ns = self.reverse_low_ns = self.least_ns = _FAR_NS

    @property
    def doubt_ns(self) -> int:
        """By how much the quickest of both directions beat the quickest exchange."""
        return self.least_ns - self.forward_low_ns - self.reverse_low_ns


class OneWay:
    """The one-way delays of one path, each against that of its quickest exchange.

    It keeps three exchanges of every ten seconds for a minute, and a level of every hour for a
    day, however many exchanges there are: some 10 kB.

    Attributes:
        steps: How often a clock of either host was found stepped: the offset is further from that
            of an earlier exchange than the bounds of both allow. See ``forget_clocks``.
    """

    # fmt: off
    __slots__ = (
        "_buckets", "_doubt_ns", "_fitted_ns", "_forward_low_ns", "_good", "_hours", "_least_ns",
        "_level", "_near", "_noise_ns", "_now_ns", "_rate", "_rate_error", "_reverse_low_ns",
        "_seen", "steps",
    )
    # fmt: on

    def __init__(self) -> None:
        self.steps = 0
        self.reset()

    def reset(self) -> None:
        """Forget all but ``steps``: the path is another one."""
        self._now_ns = self._seen = self._least_ns = 0
        # Any exchange is quicker, so the first one makes the level.
        self._level = _Level(_FAR_NS, _NOTHING)
        self._hours: dict[int, _Level] = {}  # the lowest of each
        self.forget_clocks()

    def forget_clocks(self) -> None:
        """A clock was stepped. The path is as slow as before; if not, directions are in doubt."""
        self._rate = 0.0  # how much the offset grows, ns in a ns
        self._rate_error = _MOST_RATE
        self._fitted_ns = 0
        # Little delay and lately: the least is wanted of a delay and what may have drifted since.
        self._near: _Sample | None = None  # at the most that two clocks drift: bounds the offset
        self._good: tuple[_Sample, _Range] | None = None  # what others are judged against
        self._doubt_ns = self._noise_ns = 0
        self._buckets: list[_Bucket] = []  # the last is open
        self._take_window([])

    @property
    def offset(self) -> Offset | None:
        """The clocks' offset when the last exchange ended; None before the first."""
        near = self._near
        if near is None:
            return None
        bound_ns = _aged_ns(near, self._now_ns, 2 * _MOST_RATE) // 2 + _STAMP_NS
        return Offset((near.forward_ns - near.reverse_ns) // 2, bound_ns)

    def observe(self, now_ns: int, forward_ns: int, reverse_ns: int) -> Growth:
        """Add an exchange, and say how much slower it was than the quickest.

        Args:
            now_ns: When it ended, CLOCK_MONOTONIC. If the last one ended later, that is taken.
            forward_ns: t2k - t1k, each the CLOCK_REALTIME of its host.
            reverse_ns: t4k - t3k, likewise. The sum of both is the network's share.
        """
        # Results are taken in many at a time, and beside those of the held connection: not all in
        # order.
        self._now_ns = now_ns = max(now_ns, self._now_ns)
        sample = _Sample(now_ns, forward_ns, reverse_ns)
        network_ns = forward_ns + reverse_ns
        # In this order. Across a step nothing can be compared, so it is looked for first. A bucket
        # is closed before the exchange that opens the next is in it. And the level comes before the
        # window, whose doubt is measured from the level's floor.
        self._find_step(sample)
        self._seen += 1
        index = now_ns // _BUCKET_NS
        if not self._buckets or self._buckets[-1].index != index:
            self._turn(index, sample)
        if network_ns < self._level.floor_ns:
            self._descend(sample)
        self._note(sample)
        self._remember()
        low_ns, high_ns = self._good_after(sample).plus(-self._doubt_ns, self._doubt_ns)
        if self._seen < _ENOUGH:
            return _TOO_FEW
        total_ns = network_ns - self._least_ns
        # The range has room for none of the growth in one direction, and for all of it.
        is_open = low_ns <= 0 and high_ns >= total_ns
        if total_ns <= max(_GREW_NS, self._least_ns // _GREW_SHARE):
            if is_open:  # it is no more than the whole
                low_ns = max(low_ns, -self._doubt_ns)
                high_ns = min(high_ns, total_ns + self._doubt_ns)
            direction = Direction.NONE
        elif is_open:
            return Growth(total_ns, None, None, Direction.UNKNOWN)
        else:
            direction = _judge(total_ns, low_ns, high_ns)
        return Growth(total_ns, max(0, high_ns), max(0, total_ns - low_ns), direction)

    def _find_step(self, sample: _Sample) -> None:
        near = self._near or sample
        network_ns = sample.forward_ns + sample.reverse_ns
        # Of the offset, twice: how far it has moved, and the bound that ``near`` still gives.
        # An offset lies within half of its exchange's delay (RFC 5905, section 10), so two of them,
        # doubled, differ by no more than the two delays. The drift is doubled for the same reason.
        moved_ns = sample.forward_ns - sample.reverse_ns - near.forward_ns + near.reverse_ns
        bound_ns = _aged_ns(near, sample.at_ns, 2 * _MOST_RATE)
        # What the timestamps of each offset may be off by, doubled as well.
        if abs(moved_ns) > bound_ns + network_ns + 4 * _STAMP_NS:
            self.steps += 1
            self.forget_clocks()
        if self._near is None or network_ns <= bound_ns:
            self._near = sample

    def _good_after(self, sample: _Sample) -> _Range:
        """Return ``_grew_forward``; later ones are judged against this one if it tells more."""
        forward = self._grew_forward(sample)
        if self._good is None or (
            self._doubt_ns <= max(_EVEN_NS, 2 * self._noise_ns)  # else something has moved
            and forward.width_ns < self._by_clocks(sample, self._good).width_ns
        ):
            self._good = sample, forward
        return forward

    def _grew_forward(self, sample: _Sample) -> _Range:
        """Return by how much the forward delay exceeds that of the day's quickest exchange."""
        doubt_ns = self._doubt_ns
        network_ns = sample.forward_ns + sample.reverse_ns
        slower_ns = network_ns - self._level.floor_ns
        # As wide as what moves without reason on this path: no narrower than its own noise.
        is_on_level = -_EVEN_NS <= slower_ns <= max(_EVEN_NS, 2 * doubt_ns, 2 * self._noise_ns)
        # Neither direction is quicker than on the level.
        on_level = self._level.forward.plus(-doubt_ns, max(0, slower_ns) + doubt_ns)
        whole_ns = network_ns - self._least_ns
        if self._good is None:
            return on_level if is_on_level else _Range(min(0, whole_ns), max(0, whole_ns))
        by_clocks = self._by_clocks(sample, self._good)
        if not is_on_level:
            if by_clocks.low_ns <= whole_ns + doubt_ns and by_clocks.high_ns >= -doubt_ns:
                return by_clocks
            # More than all: the one or the other is wrong.
            return _Range(min(0, by_clocks.low_ns), max(whole_ns, by_clocks.high_ns))
        both = _Range(
            max(on_level.low_ns, by_clocks.low_ns), min(on_level.high_ns, by_clocks.high_ns)
        )
        # If they disagree it is the clocks that moved: the path is as slow as before.
        return both if both.width_ns >= 0 else on_level

    def _by_clocks(self, sample: _Sample, good: "tuple[_Sample, _Range]") -> _Range:
        """Return the same, by what is known of a good exchange and the drift since."""
        since, forward = good
        skew_ns = int(self._rate * (sample.at_ns - since.at_ns))
        moved_ns = sample.forward_ns - since.forward_ns - skew_ns
        # The sample may be the older: ``_ascend`` asks again about exchanges of closed buckets.
        first_ns, last_ns = sorted((since.at_ns, sample.at_ns))
        error = self._error_after(last_ns - min(self._fitted_ns, first_ns))
        drift_ns = int(error * (last_ns - first_ns))
        return forward.plus(moved_ns - drift_ns, moved_ns + drift_ns)

    def _error_after(self, unfitted_ns: int) -> float:
        """Return by how much the rate may be off so long after it was fitted."""
        return min(_MOST_RATE, self._rate_error + _RATE_ERROR * (unfitted_ns / _WINDOW_NS))

    # --- levels ------------------------------------------------------------------------------

    def _descend(self, sample: _Sample) -> None:
        """An exchange was quicker than the level: that is lower, or the path on a lower one."""
        network_ns, level = sample.forward_ns + sample.reverse_ns, self._level
        lower_ns = level.floor_ns - network_ns
        if not self._hours:
            self._least_ns = network_ns
            self._level = _Level(network_ns, _NOTHING)
        # As quick as at the day's best: what had grown has gone, in both directions.
        elif self._least_ns <= network_ns <= self._least_ns + _EVEN_NS:
            self._level = _Level(self._least_ns, _NOTHING)
        else:
            forward = level.forward.plus(-lower_ns, 0)
            if lower_ns > _EVEN_NS:
                forward = self._grew_forward(sample)
            self._level = _Level(network_ns, forward)
            if network_ns < self._least_ns:
                self._measure_from(self._level)

    def _ascend(self, buckets: list[_Bucket]) -> None:
        """The path has been slower for a while, evenly: that is another level.

        How much of it is in which direction, the first exchanges on it and the last before tell.
        """
        floor_ns = min(bucket.least_ns for bucket in buckets)
        self._fit(buckets, floor_ns)
        # In this order: how much each grew is told by the old level, the window's doubt by the new
        # floor.
        grew = [self._grew_forward(bucket.best) for bucket in buckets]
        self._level = _Level(floor_ns, _NOTHING)
        self._take_window(buckets)
        doubt_ns = self._doubt_ns
        ranges = [
            forward.plus(floor_ns - bucket.least_ns - doubt_ns, doubt_ns)
            for forward, bucket in zip(grew, buckets, strict=True)
        ]
        self._level = _Level(floor_ns, min(ranges, key=lambda forward: forward.width_ns))

    def _remember(self) -> None:
        """Keep the lowest level of each hour; what is a day old is no measure any more."""
        hours, level, hour = self._hours, self._level, self._now_ns // _HOUR_NS
        if hour in hours:
            # By their floors, which come first.
            hours[hour] = min(hours[hour], level)
            return
        hours[hour] = level
        for old in [old for old in hours if old < hour - _HOURS_KEPT]:
            del hours[old]
        lowest = min(hours.values())
        if lowest.floor_ns > self._least_ns:
            self._measure_from(lowest)

    def _measure_from(self, least: _Level) -> None:
        """Measure all from another level from now on."""
        # The new reference is itself known as a range only. It is subtracted from all others, and
        # its width stays in them as doubt.
        low_ns, high_ns = least.forward

        def seen_from_there(level: _Level) -> _Level:
            forward = level.forward.plus(-high_ns, -low_ns)
            return level._replace(forward=_NOTHING if level == least else forward)

        self._least_ns = least.floor_ns
        if self._good is not None:
            sample, forward = self._good
            self._good = sample, forward.plus(-high_ns, -low_ns)
        self._level = seen_from_there(self._level)
        self._hours = {hour: seen_from_there(level) for hour, level in self._hours.items()}

    # --- the window --------------------------------------------------------------------------

    def _turn(self, index: int, first: _Sample) -> None:
        """Open the next bucket, after the level and the rate were told by those before it."""
        self._buckets = [kept for kept in self._buckets if kept.index >= index - _CLOSED_KEPT]
        newest = self._buckets[-_LEVEL_BUCKETS:]
        if len(newest) == _LEVEL_BUCKETS and self._is_another_level(newest):
            self._ascend(newest)
        else:
            # Then the window anew: its lows have the skew taken out at the rate of before.
            self._fit(self._buckets, self._level.floor_ns)
            self._take_window(self._buckets)
        self._buckets.append(_Bucket(index, first))

    def _take_window(self, buckets: list[_Bucket]) -> None:
        self._buckets = buckets
        self._forward_low_ns = self._reverse_low_ns = _FAR_NS
        for bucket in buckets:
            # Each of the three counts for both directions.
            for sample in (bucket.forward, bucket.reverse, bucket.best):
                self._lower(sample)

    def _note(self, sample: _Sample) -> None:
        """Add an exchange to the open bucket."""
        bucket = self._buckets[-1]
        forward_low_ns, reverse_low_ns = self._lower(sample)
        if forward_low_ns < bucket.forward_low_ns:
            bucket.forward, bucket.forward_low_ns = sample, forward_low_ns
        if reverse_low_ns < bucket.reverse_low_ns:
            bucket.reverse, bucket.reverse_low_ns = sample, reverse_low_ns
        if sample.forward_ns + sample.reverse_ns < bucket.least_ns:
            bucket.best, bucket.least_ns = sample, sample.forward_ns + sample.reverse_ns

    def _lower(self, sample: _Sample) -> tuple[int, int]:
        """See whether a direction was the quickest of the window; returns both without skew."""
        skew_ns = int(self._rate * sample.at_ns)
        forward_low_ns, reverse_low_ns = sample.forward_ns - skew_ns, sample.reverse_ns + skew_ns
        self._forward_low_ns = min(self._forward_low_ns, forward_low_ns)
        self._reverse_low_ns = min(self._reverse_low_ns, reverse_low_ns)
        both_ns = self._forward_low_ns + self._reverse_low_ns
        self._doubt_ns = max(0, self._level.floor_ns - both_ns)
        return forward_low_ns, reverse_low_ns

    def _is_another_level(self, buckets: list[_Bucket]) -> bool:
        floors_ns = [bucket.least_ns for bucket in buckets]
        slower_ns = min(floors_ns) - self._level.floor_ns
        apart_ns = max(floors_ns) - min(floors_ns)
        is_slower = slower_ns > max(_EVEN_NS, 2 * self._doubt_ns, 4 * self._noise_ns)
        return is_slower and apart_ns <= max(_EVEN_NS, slower_ns // _EVEN_SHARE)

    def _fit(self, buckets: list[_Bucket], least_ns: int) -> None:
        """Fit the rate at which the offset grows, and how wrong that may be.

        The forward delay of one exchange and the reverse delay of another make a round trip. With
        the drift between them taken out it is no quicker than the quickest exchange, except for
        the doubt. So each pair bounds the rate, from above or from below, and the middle of what
        all pairs allow is taken. A queue that never empties does no harm as long as it is in one
        direction only: the other direction's values still bound the rate from both sides.

        Where the path has just become slower, that leaves more open than what was known before:
        then the rate stays.
        """
        self._noise_ns = statistics.median_low([bucket.doubt_ns for bucket in buckets] or [0])
        if len(buckets) < 2:
            return
        quickest_ns, next_ns = sorted(bucket.least_ns for bucket in buckets)[:2]
        pairs = [
            (
                out.forward.at_ns - home.reverse.at_ns,
                out.forward.forward_ns + home.reverse.reverse_ns - least_ns,
            )
            for out, home in itertools.permutations(buckets, 2)
        ]
        # No doubt, then what that rate needs: each middle needs less. At last twice as much as that
        # is allowed, and no less than the quickest exchanges of two buckets differ by.
        doubt_ns = 0.0
        for _ in range(2):
            low, high = _allowed(pairs, doubt_ns)
            doubt_ns = _doubt_ns(pairs, (low + high) / 2)
        if doubt_ns > max(_EVEN_NS, 2 * self._noise_ns, next_ns - quickest_ns):
            return  # no rate explains them: a clock changed its own, or the path its routes
        low, high = _allowed(pairs, max(2 * doubt_ns, next_ns - quickest_ns))
        rate, error = (low + high) / 2, abs(high - low) / 2 + _RATE_ERROR
        before = self._error_after(self._now_ns - self._fitted_ns)
        apart = abs(rate - self._rate)
        # The new rate and the old one exclude each other: a clock has changed its own.
        if apart > error + before:
            error += apart  # either may be true
        elif error > before:
            return
        self._rate, self._rate_error, self._fitted_ns = rate, error, self._now_ns


def _judge(total_ns: int, low_ns: int, high_ns: int) -> Direction:
    """Say where a delay grew, if all that the forward delay may have grown by agrees."""
    if 4 * low_ns >= 3 * total_ns:
        return Direction.FORWARD
    if 4 * high_ns <= total_ns:
        return Direction.REVERSE
    if 4 * low_ns >= total_ns and 4 * high_ns <= 3 * total_ns:
        return Direction.BOTH
    return Direction.UNKNOWN


# Of a forward and a reverse delay: how much later the first was, and how much slower than the
# quickest exchange they were together.
_Pair = tuple[int, int]


def _doubt_ns(pairs: list[_Pair], rate: float) -> float:
    """Return by how much the quickest pair beats the quickest exchange, at a rate."""
    return max(rate * apart_ns - slower_ns for apart_ns, slower_ns in pairs)


def _allowed(pairs: list[_Pair], doubt_ns: float) -> tuple[float, float]:
    """Return the least and the greatest rate that need no more than a doubt.

    Where none does, the first is the greater.
    """
    low, high = -_MOST_RATE, _MOST_RATE
    for apart_ns, slower_ns in pairs:
        if apart_ns > 0:
            high = min(high, (doubt_ns + slower_ns) / apart_ns)
        elif apart_ns < 0:
            low = max(low, (doubt_ns + slower_ns) / apart_ns)
    return low, high


def _aged_ns(sample: _Sample, now_ns: int, rate: float) -> int:
    """Return an exchange's delay, and what clocks have drifted since at a rate."""
    return sample.forward_ns + sample.reverse_ns + int(rate * (now_ns - sample.at_ns))


_TOO_FEW = Growth(None, None, None, Direction.UNKNOWN)
