"""Whether a path takes longer than it did, and in which direction. No I/O.

Fed with the network's time of small exchanges, by the kernels' timestamps alone. What the path was
before is learnt from exchanges on which nothing was late, a few hundred of the last hour; while it
is slower nothing is learnt, so a lasting change is not taken for what it always was until it has
lasted for a day.
"""

import statistics
from collections import Counter, deque
from collections.abc import Iterable
from typing import NamedTuple

from .direction import Direction, Growth
from .sequential import Rise
from .split import Split

__all__ = ["Delays", "Late"]

_MS = 1_000_000
# So many tell what is usual: at ten probes a second two seconds of them.
_ENOUGH = 20
_SAMPLES = 200
_KEPT_OF = 5
# Late is above all of these: 1 ms and a tenth above the usual, and three times as far above it as
# one in twenty is. Of a delay that varies by a tenth evenly none is so late.
_LEAST_NS = 1 * _MS
_SHARE = 10
_TIMES = 3
_RARE = 19 / 20
# Fewer than one in twenty is late while all is well, more than half where the path is slower. Seven
# in a row alarm: by chance once in a billion. They must be 2 s apart, for a queue of an instant is
# no slower path.
_GOOD, _BAD, _ALARM = 0.05, 0.6, 16.0
_LASTING_NS = 2_000_000_000
_NEWEST = 64
_DAY_NS = 24 * 3_600 * 1_000_000_000
# Of the growth, or of the exchanges whose direction is known: else it is not named.
_AGREED = 0.75
_FEW = 3
# One-way values before and since are compared over so short a time that two clocks hardly drift
# apart: by 100 ppm, which is a bad one.
_BEFORE_NS = 15_000_000_000
_DRIFT = 1e-4
_STAMP_NS = 50_000


class _OneWay(NamedTuple):
    at_ns: int
    network_ns: int
    forward_ns: int
    reverse_ns: int
    direction: Direction


class Late(NamedTuple):
    """A path that takes longer.

    Attributes:
        began_ns: Since when, CLOCK_MONOTONIC.
        usual_ns: What it took before: the median, as the next.
        now_ns: What it takes since then.
        spread_ns: From the tenth to the ninetieth of a hundred since then.
        usual_spread_ns: Likewise, before.
        direction: Where it grew; UNKNOWN where the clocks do not tell.
        exchanges: How many that is of, the newest 64 at most.
    """

    began_ns: int
    usual_ns: int
    now_ns: int
    spread_ns: int
    usual_spread_ns: int
    direction: Direction
    exchanges: int

    @property
    def grew_ns(self) -> int:
        """By how much."""
        return self.now_ns - self.usual_ns


class Delays:
    """The network's time of one path's small exchanges.

    Attributes:
        late: How the path is slower; None while it is not.
    """

    def __init__(self) -> None:
        self._usual: list[int] = []
        self._limit_ns = 0
        self._learnt = 0
        self._rise = Rise(_GOOD, _BAD, _ALARM)
        self._since_ns = self._slow_until_ns = 0
        self._before: deque[_OneWay] = deque(maxlen=_NEWEST)
        self._newest: deque[_OneWay] = deque(maxlen=_NEWEST)
        self._began: list[_OneWay] = []  # the first that were late, while the clocks are near

    def feed(self, at_ns: int, split: Split, growth: Growth | None) -> None:
        """Take in an exchange in which nothing was sent again.

        Args:
            at_ns: When it ended, CLOCK_MONOTONIC.
            split: Where its time went.
            growth: What its one-way values tell.
        """
        network_ns = split.network_ns
        seen = _OneWay(
            at_ns,
            network_ns,
            split.forward_ns,
            split.reverse_ns,
            growth.direction if growth else Direction.UNKNOWN,
        )
        if len(self._usual) < _ENOUGH:
            self._learn(seen)
            return
        is_late = network_ns > self._limit_ns
        was_quiet = not self._rise.events
        self._rise.feed(is_late, 1)
        if not self._rise.events:
            self._newest.clear()
            self._learn(seen)
            return
        if was_quiet:
            self._since_ns = at_ns
            self._began.clear()
        self._newest.append(seen)
        if is_late and len(self._began) < _NEWEST and at_ns - self._since_ns < _BEFORE_NS:
            self._began.append(seen)
        if not self._rise.is_alarmed:
            if not is_late:
                self._learn(seen)
        else:
            if at_ns - self._since_ns >= _LASTING_NS:
                self._slow_until_ns = at_ns
            if at_ns - self._since_ns > _DAY_NS:
                self.forget()

    def forget(self) -> None:
        """What was usual is not known any more: the path is another, or has long been slower."""
        self._usual.clear()
        self._newest.clear()
        self._before.clear()
        self._rise.reset()
        self._learnt = 0

    def _learn(self, seen: _OneWay) -> None:
        """Keep it, or every fifth: at one a second a sample lives for a quarter of an hour."""
        usual, network_ns = self._usual, seen.network_ns
        self._before.append(seen)
        if len(usual) < _SAMPLES:
            usual.append(network_ns)
        elif self._learnt % _KEPT_OF == 0:
            usual[self._learnt // _KEPT_OF % _SAMPLES] = network_ns
        self._learnt += 1
        if len(usual) == _ENOUGH or self._learnt % _ENOUGH == 0:
            self._take_limit()

    def _take_limit(self) -> None:
        ordered = sorted(self._usual)
        middle_ns, rare_ns = ordered[len(ordered) // 2], ordered[int(len(ordered) * _RARE)]
        margin_ns = max(_LEAST_NS, middle_ns // _SHARE, _TIMES * (rare_ns - middle_ns))
        self._limit_ns = middle_ns + margin_ns

    @property
    def is_uneasy(self) -> bool:
        """Whether an exchange was late just now, which may be the first, or one of a few."""
        return bool(self._rise.events) and not self._rise.is_alarmed

    @property
    def is_late(self) -> bool:
        """Whether the path is slower than it was, for 2 s and longer."""
        return self._rise.is_alarmed

    def was_late_since(self, at_ns: int) -> bool:
        """Whether the path was slower, for 2 s and longer, at that moment or later."""
        return bool(self._slow_until_ns) and self._slow_until_ns >= at_ns

    def late(self, now_ns: int) -> Late | None:
        """Return how much slower the path is, and since when; None if it is not."""
        if not self.is_late or now_ns - self._since_ns < _LASTING_NS:
            return None
        values = sorted(each.network_ns for each in self._newest)
        if values[len(values) // 2] <= self._limit_ns:
            return None  # some are late, and most are not
        usual = sorted(self._usual)
        return Late(
            self._since_ns,
            int(statistics.median(usual)),
            int(statistics.median(values)),
            _spread(values),
            _spread(usual),
            self._direction(),
            len(values),
        )

    def _direction(self) -> Direction:
        direction = self._by_one_way()
        if direction is not Direction.UNKNOWN:
            return direction
        counts = Counter(each.direction for each in self._newest)
        known = {
            each: counts[each] for each in (Direction.FORWARD, Direction.REVERSE, Direction.BOTH)
        }
        total = sum(known.values())
        best = max(known, key=known.__getitem__)
        return best if total >= _FEW and known[best] >= _AGREED * total else Direction.UNKNOWN

    def _by_one_way(self) -> Direction:
        """Compare the middle of both directions' values: what jitter hides in one, many show."""
        late = self._began
        before = [each for each in self._before if self._since_ns - each.at_ns < _BEFORE_NS]
        if len(late) < _FEW or len(before) < _FEW:
            return Direction.UNKNOWN
        forward_ns = _median(late, "forward_ns") - _median(before, "forward_ns")
        reverse_ns = _median(late, "reverse_ns") - _median(before, "reverse_ns")
        grew_ns = forward_ns + reverse_ns
        apart_ns = late[len(late) // 2].at_ns - before[len(before) // 2].at_ns
        doubt_ns = _DRIFT * max(0, apart_ns) + _STAMP_NS
        # Neither became quicker: else a clock was stepped meanwhile.
        if grew_ns <= 0 or min(forward_ns, reverse_ns) < -(1 - _AGREED) * grew_ns - doubt_ns:
            return Direction.UNKNOWN
        if forward_ns - doubt_ns >= _AGREED * grew_ns:
            return Direction.FORWARD
        if reverse_ns - doubt_ns >= _AGREED * grew_ns:
            return Direction.REVERSE
        is_both = min(forward_ns, reverse_ns) - doubt_ns >= (1 - _AGREED) * grew_ns
        return Direction.BOTH if is_both else Direction.UNKNOWN


def _median(values: Iterable[_OneWay], name: str) -> float:
    return float(statistics.median(getattr(each, name) for each in values))


def _spread(ordered: list[int]) -> int:
    return ordered[len(ordered) * 9 // 10] - ordered[len(ordered) // 10]
