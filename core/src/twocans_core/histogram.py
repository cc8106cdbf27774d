"""A histogram in plain arrays: cheap to observe into, read at scrape. No I/O."""

import functools
from bisect import bisect_left
from collections.abc import Sequence

__all__ = ["PART_BOUNDS_S", "PHASE_BOUNDS_S", "Histogram"]

# About x2.5 a step from a loopback to a timeout, with bounds just under 0.2, 1, 3 and 7 s: a
# retransmission timeout and a first, second and third lost SYN each fall over one of them.
PHASE_BOUNDS_S = (
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
    0.19, 0.5, 0.95, 2.0, 2.9, 6.9,
)  # fmt: skip
# A part of an exchange is a few microseconds, until it is not.
PART_BOUNDS_S = (
    0.000005, 0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.001, 0.005, 0.025, 0.1, 1.0,
)  # fmt: skip


@functools.cache
def _in_ns(bounds_s: tuple[float, ...]) -> tuple[int, ...]:
    return tuple(round(bound * 1e9) for bound in bounds_s)


class Histogram:
    """Count durations by size.

    Attributes:
        bounds_s: Upper bounds in seconds, rising.
        counts: Observations up to each bound and over the one before; one more, for those
            over the last.
        sum_ns: Everything observed, added up.
    """

    __slots__ = ("_bounds_ns", "bounds_s", "counts", "sum_ns")

    def __init__(self, bounds_s: Sequence[float] = PHASE_BOUNDS_S) -> None:
        self.bounds_s = bounds_s
        self._bounds_ns = _in_ns(tuple(bounds_s))
        self.counts = [0] * (len(bounds_s) + 1)
        self.sum_ns = 0

    def observe(self, ns: int) -> None:
        """Count one duration in nanoseconds."""
        self.counts[bisect_left(self._bounds_ns, ns)] += 1
        self.sum_ns += ns
