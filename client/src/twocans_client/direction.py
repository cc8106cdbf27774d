"""On which way a delay grew, though the two hosts' clocks do not agree. No I/O.

The network's share of an exchange is exactly the sum of two one-way values. Each holds the offset
of the server's clock from ours, with opposite signs:

    there = t2k - t1k = delay there + offset
    back  = t4k - t3k = delay back  - offset

Against its own least of the last minute, a value has neither the offset in it nor the path's
asymmetry. But two clocks drift apart, by up to some 100 ppm, which is 6 ms in a minute. So a rate
is fitted and taken out. For every exchange then

    grew there + grew back = grew in all + doubt,   doubt >= 0

because the quickest way there and the quickest way back need not be of one exchange, and the rate
is not known exactly. What grew there is between ``all - back`` and ``there``, wider by what the
clocks may have drifted. A direction is named only when all of that range agrees.

What is left of the skew: the rate's error, which is 10 ppm and what the fit leaves open, times the
time since an exchange as good as the quickest. Mostly that is a second, so 10 us; under a queue
that has not emptied for a minute it is 0.6 ms.

What it cannot see: a clock whose rate is changed by more than that while a queue stands, as long as
the change hides in the queue. It moves growth from one way to the other. A step smaller than the
round trip is not found as a step: it makes the doubt as large as itself for a minute.

Sources: RFC 5905 section 10, for the clock filter and half the delay as its bound; S. Moon,
P. Skelly and D. Towsley, "Estimation and Removal of Clock Skew from Network Delay Measurements"
(1999), for fitting along the lowest delays.
"""

import enum
import itertools
from typing import NamedTuple

__all__ = ["Direction", "Growth", "Offset", "OneWay"]

_BUCKET_NS = 10_000_000_000
_CLOSED_KEPT = 6  # buckets, besides the one that is being filled: 60 to 70 s

# The least of fewer values says little of the path; a choice. So a path that is probed less than
# five times a minute has no direction.
_ENOUGH = 5

# A growth counts above both. A pair of stamps is good to some 30 us; a quarter of this, the least
# share that is named, is twice that. Up to a tenth of the least, an exchange is as good as the
# quickest: one in which nothing grew.
_GREW_NS = 250_000
_GREW_SHARE = 10

# Two clocks' rates differ by no more: the kernel lets NTP correct each by 500 ppm (MAXFREQ,
# linux/timex.h). What goes faster, as chrony's slew of a large error, is a step to us.
_MOST_RATE = 1_000e-6
# What a daemon that disciplines a clock may change of its rate within the window; a choice.
_RATE_ERROR = 10e-6
_STAMP_NS = 30_000
_FAR_NS = 1 << 80  # later than any clock


class Direction(enum.StrEnum):
    """Where a delay grew. Values are metric labels: never rename them.

    THERE and BACK have at least three quarters of the growth, BOTH means at least one quarter each.
    """

    NONE = ""
    THERE = "there"
    BACK = "back"
    BOTH = "both"
    UNKNOWN = "unknown"


class Growth(NamedTuple):
    """How much slower an exchange was than the path's quickest in the last minute.

    Attributes:
        total_ns: Both ways together; clocks have no part in it. None, as the next two, while too
            few exchanges were seen.
        there_ns: Against the quickest way there, skew taken out: the most that grew there.
        back_ns: Likewise the way back. What both exceed ``total_ns`` by is doubt.
        direction: NONE when ``total_ns`` is too small to count.
    """

    total_ns: int | None
    there_ns: int | None
    back_ns: int | None
    direction: Direction


class Offset(NamedTuple):
    """The server's clock less ours, when the last exchange ended.

    Attributes:
        ns: Half the difference of the two ways' values.
        bound_ns: The true offset is no further away. The error is half the difference of the two
            ways' delays, which nobody knows without synchronised clocks.
    """

    ns: int
    bound_ns: int


class _Sample(NamedTuple):
    at_ns: int
    there_ns: int
    back_ns: int


class _Bucket:
    """Of ten seconds the quickest way there, the quickest way back, and the quickest exchange."""

    __slots__ = (
        "back",
        "back_low_ns",
        "best",
        "index",
        "least_ns",
        "seen",
        "there",
        "there_low_ns",
    )

    def __init__(self, index: int, first: _Sample) -> None:
        self.index = index
        self.seen = 0
        self.there = self.back = self.best = first
        # Of these three; without skew, as the rate was known then.
        self.there_low_ns = self.back_low_ns = self.least_ns = _FAR_NS


class OneWay:
    """The one-way delays of one path, each against its least.

    It keeps three exchanges of every ten seconds, however many there are: some 4 kB.

    Attributes:
        steps: How often a clock of either host was found stepped: the offset is further from that
            of an earlier exchange than the bounds of both allow. The window then begins anew.
    """

    __slots__ = (
        "_back_low_ns",
        "_buckets",
        "_good",
        "_least_ns",
        "_near",
        "_now_ns",
        "_rate",
        "_rate_error",
        "_seen",
        "_there_low_ns",
        "steps",
    )

    def __init__(self) -> None:
        self.steps = 0
        self.reset()

    def reset(self) -> None:
        """Forget all but ``steps``: our own clock was stepped, or the path is another one."""
        self._now_ns = 0
        self._rate = 0.0  # how much the offset grows, ns in a ns
        self._rate_error = _MOST_RATE
        # Little delay and lately: the least is wanted of a delay and what may have drifted since.
        self._near: _Sample | None = None  # at the most that two clocks drift: bounds the offset
        self._good: _Sample | None = None  # at the rate's error: what a growth is judged against
        self._buckets: list[_Bucket] = []  # the last is open
        # Of all buckets:
        self._seen = 0
        self._there_low_ns = self._back_low_ns = self._least_ns = _FAR_NS

    @property
    def offset(self) -> Offset | None:
        """The clocks' offset when the last exchange ended; None before the first."""
        near = self._near
        if near is None:
            return None
        bound_ns = _aged_ns(near, self._now_ns, 2 * _MOST_RATE) // 2 + _STAMP_NS
        return Offset((near.there_ns - near.back_ns) // 2, bound_ns)

    def observe(self, now_ns: int, there_ns: int, back_ns: int) -> Growth:
        """Add an exchange, and say how much slower it was than the quickest.

        Args:
            now_ns: When it ended, CLOCK_MONOTONIC. If the last one ended later, that is taken.
            there_ns: t2k - t1k, each the CLOCK_REALTIME of its host.
            back_ns: t4k - t3k, likewise. The sum of both is the network's share.
        """
        now_ns = max(now_ns, self._now_ns)
        sample = _Sample(now_ns, there_ns, back_ns)
        network_ns = there_ns + back_ns
        near = self._near or sample
        # Of the offset, twice: how far it has moved, and the bound that ``near`` still gives.
        moved_ns = there_ns - back_ns - near.there_ns + near.back_ns
        bound_ns = _aged_ns(near, now_ns, 2 * _MOST_RATE)
        if abs(moved_ns) > bound_ns + network_ns + 4 * _STAMP_NS:
            self.steps += 1
            self.reset()
        if self._near is None or network_ns <= bound_ns:
            self._near = sample
        self._now_ns = now_ns

        index = now_ns // _BUCKET_NS
        if not self._buckets or self._buckets[-1].index != index:
            self._turn(index, sample)
        bucket = self._buckets[-1]
        skew_ns = int(self._rate * now_ns)
        there_low_ns = there_ns - skew_ns
        back_low_ns = back_ns + skew_ns
        bucket.seen += 1
        self._seen += 1
        if there_low_ns < bucket.there_low_ns:
            bucket.there, bucket.there_low_ns = sample, there_low_ns
            self._there_low_ns = min(self._there_low_ns, there_low_ns)
        if back_low_ns < bucket.back_low_ns:
            bucket.back, bucket.back_low_ns = sample, back_low_ns
            self._back_low_ns = min(self._back_low_ns, back_low_ns)
        if network_ns < bucket.least_ns:
            bucket.best, bucket.least_ns = sample, network_ns
            self._least_ns = min(self._least_ns, network_ns)

        total_ns = network_ns - self._least_ns
        grew_there_ns = there_low_ns - self._there_low_ns
        grew_back_ns = back_low_ns - self._back_low_ns
        good = self._good or sample
        if self._seen < _ENOUGH:
            growth = _TOO_FEW
        elif total_ns <= max(_GREW_NS, self._least_ns // _GREW_SHARE):
            growth = Growth(total_ns, grew_there_ns, grew_back_ns, Direction.NONE)
        else:
            direction = self._judge(good, total_ns, grew_there_ns, grew_back_ns)
            growth = Growth(total_ns, grew_there_ns, grew_back_ns, direction)
        if network_ns <= _aged_ns(good, now_ns, self._rate_error):
            self._good = sample
        return growth

    def _judge(self, good: _Sample, total_ns: int, there_ns: int, back_ns: int) -> Direction:
        """Say where a delay grew, if what the clocks may have done in the meantime allows.

        They may have drifted since the quickest exchange, for which ``good`` stands: one that was
        little slower, but later. And there is the doubt, large when the clocks keep to no rate.
        """
        may_ns = _aged_ns(good, self._now_ns, self._rate_error)
        may_ns -= self._there_low_ns + self._back_low_ns
        if 4 * (back_ns + may_ns) <= total_ns:
            return Direction.THERE
        if 4 * (there_ns + may_ns) <= total_ns:
            return Direction.BACK
        if 4 * (max(there_ns, back_ns) + may_ns) <= 3 * total_ns:
            return Direction.BOTH
        return Direction.UNKNOWN

    def _turn(self, index: int, first: _Sample) -> None:
        """Open the next bucket, after the rate was fitted to those before it."""
        self._buckets = [kept for kept in self._buckets if kept.index >= index - _CLOSED_KEPT]
        self._fit()
        self._seen = sum(bucket.seen for bucket in self._buckets)
        self._there_low_ns = self._back_low_ns = self._least_ns = _FAR_NS
        for bucket in self._buckets:
            # Each of the three counts for both ways, so that the doubt is never below 0.
            for at_ns, there_ns, back_ns in (bucket.there, bucket.back, bucket.best):
                skew_ns = int(self._rate * at_ns)
                self._there_low_ns = min(self._there_low_ns, there_ns - skew_ns)
                self._back_low_ns = min(self._back_low_ns, back_ns + skew_ns)
                self._least_ns = min(self._least_ns, there_ns + back_ns)
        samples = [bucket.best for bucket in self._buckets]
        if self._good is not None and self._good.at_ns >= (index - _CLOSED_KEPT) * _BUCKET_NS:
            samples.append(self._good)
        self._good = min(
            samples,
            key=lambda sample: _aged_ns(sample, first.at_ns, self._rate_error),
            default=None,
        )
        self._buckets.append(_Bucket(index, first))

    def _fit(self) -> None:
        """Fit the rate at which the offset grows, and how wrong that may be.

        The way there of one exchange and the way back of another make a round trip. With the drift
        between them taken out it is no quicker than the quickest exchange, but for the doubt. So
        each pair bounds the rate, from above or from below, and the middle of what all pairs allow
        is taken. A queue that never empties does no harm as long as it is on one way only: the
        other way's values still bound the rate from both sides.
        """
        if len(self._buckets) < 2:
            self._rate_error = _MOST_RATE
            return
        least_ns, next_ns = sorted(bucket.least_ns for bucket in self._buckets)[:2]
        pairs = [
            (out.there.at_ns - home.back.at_ns, out.there.there_ns + home.back.back_ns - least_ns)
            for out, home in itertools.permutations(self._buckets, 2)
        ]
        # No doubt, then what that rate needs: each middle needs less. At last twice as much as that
        # is allowed, and no less than the quickest exchanges of two buckets differ by.
        doubt_ns = 0.0
        for _ in range(2):
            low, high = _allowed(pairs, doubt_ns)
            doubt_ns = _doubt_ns(pairs, (low + high) / 2)
        low, high = _allowed(pairs, max(2 * doubt_ns, next_ns - least_ns))
        self._rate = (low + high) / 2
        self._rate_error = abs(high - low) / 2 + _RATE_ERROR


# Of a way there and a way back: how much later the first was, and how much slower than the
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
    return sample.there_ns + sample.back_ns + int(rate * (now_ns - sample.at_ns))


_TOO_FEW = Growth(None, None, None, Direction.UNKNOWN)
