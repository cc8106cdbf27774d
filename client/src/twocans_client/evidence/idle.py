"""For how long a connection may be silent and still work: the search for an idle time-out. No I/O.

A connection that says nothing for an *age* and then exchanges once either answers, and the age is
good, or does not while fresh probes do, and the age is bad. Ages go up a ladder of rungs that grow
fourfold. Once one is bad, the time-out lies between the largest good age and the smallest bad one,
and that bracket is divided until it is narrow. Then its two ends are tried again and again, so that
a time-out that goes, or becomes shorter, is noticed.

A time-out is there to stay; a proxy that ends, a NAT that starts anew or a route that changes cuts
once, and all that is silent then at the same time. So the first bad age is tried again at once, and
what counts is a connection that was made after the last one had failed, and failed too.

Several connections may be under way at once: each next one halves the widest gap between the ages
that are known and those that are being tried.
"""

import itertools
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import NamedTuple

from .results import Reason

__all__ = ["Bracket", "Controls", "IdleResult", "Ladder", "Way"]

_S = 1_000_000_000
# Some seconds beyond the time-outs that are usual (15, 60 and 240 s, 10, 30 and 60 minutes, 2 h): a
# rung at one of them would be good once and bad the next time.
_RUNGS_S = (17, 65, 250, 620, 1_850, 3_700, 7_300)
# Middleboxes have time-outs in whole seconds, and look at their tables about once in one.
_NARROW_NS = _S
_NARROW_SHARE = 0.02
# Nobody forgets a connection sooner than this, and a shorter silence is no silence.
_SHORTEST_NS = _S
_STEP_NS = _S // 10
# Where a share p of all connections fails, two that were silent do and twice so many probes do not
# with p^2 (1 - p)^256: less than once in 10^5 pairs, whatever p is.
_CONTROLS = 128
# So many that failed in turn are no chance any more; and so many are kept.
_IN_TURN = 2
_KEPT = 8
_MOST_LIVED = 64


class Way(NamedTuple):
    """How a connection went, as far as its ends can tell.

    Where a proxy or a NAT comes or goes, or our address changes, new connections go another way
    than those that were there, and show nothing of theirs.

    Attributes:
        instance: The server process that answered.
        local: Our address.
        seen_as: Our address as the server saw it.
    """

    instance: bytes
    local: str
    seen_as: str

    @classmethod
    def of(
        cls, instance: bytes, local: tuple[str, int] | None, seen_as: tuple[str, int] | None
    ) -> "Way":
        """Return it of our address and port, and as whom the server saw us."""
        return cls(instance, local[0] if local else "", seen_as[0] if seen_as else "")


class IdleResult(NamedTuple):
    """What became of one idle connection.

    Attributes:
        age_ns: From the last byte of its first exchange to the first of its second, or to its
            end; CLOCK_BOOTTIME, which also counts while our host is suspended.
        reason: ``ok``, or how it failed, as judged: ``reply_timeout`` (silence), ``reset``,
            ``closed_early``.
        detail: More about it, for people.
        connection: Of its HELLO, for the witness.
        local: Our address and port.
        started_ns: When it was dialled, CLOCK_MONOTONIC.
        ended_ns: When it ended, likewise.
        control: What ``Controls.since`` said of the moment when it was to answer, or failed; None
            also where it is good. Without a good one, a failure says nothing of the silence.
        retrans: Segments sent again in its second exchange; None: not known.
    """

    age_ns: int
    reason: Reason
    detail: str
    connection: int
    local: tuple[str, int]
    started_ns: int
    ended_ns: int
    control: bool | None = None
    retrans: int | None = None

    @property
    def is_good(self) -> bool:
        """Whether the silence did no harm."""
        return self.reason is Reason.OK

    @property
    def is_bad(self) -> bool:
        """Whether the silence was the reason that it failed."""
        return self.reason in _BROKEN and self.control is True


class Controls:
    """What was not silent and did well: the control of an experiment whose subject failed.

    The newest few fresh probes are kept, in the order in which they began.
    """

    def __init__(self) -> None:
        self._probes: deque[_Control] = deque(maxlen=_CONTROLS)
        self._lost_ns = -1

    def begin(self, at_ns: int) -> "Callable[[bool | None, Way], None]":
        """A probe begins.

        Returns:
            To be called when it ends: whether it was good, None if it does not tell, and how its
            connection went.
        """
        control = _Control(at_ns)
        self._probes.append(control)
        return control.end

    def lost(self, at_ns: int) -> None:
        """A connection that was never silent for long was cut."""
        self._lost_ns = at_ns

    def since(self, at_ns: int, way: Way, silent_ns: int) -> bool | None:
        """Return whether all but a silent connection did well, when it had to answer and before.

        Args:
            at_ns: When it had to.
            way: How it went.
            silent_ns: When its silence began.

        Returns:
            False if one that talks was cut since it was silent, or if a probe failed that is
            remembered and began before a good one that began since ``at_ns`` and went the same
            way; None while there was no such good one.
        """
        if self._lost_ns >= silent_ns:
            return False
        for probe in self._probes:
            if probe.has_ended and probe.is_good is None:
                continue
            if probe.has_ended and not probe.is_good:
                return False
            if probe.began_ns < at_ns:
                continue
            if not probe.has_ended:
                return None
            if probe.way == way:
                return True
        return None


@dataclass(slots=True)
class _Control:
    began_ns: int
    has_ended: bool = False
    is_good: bool | None = None
    way: Way | None = None

    def end(self, is_good: bool | None, way: Way) -> None:
        self.has_ended, self.is_good, self.way = True, is_good, way


_BROKEN = frozenset({Reason.REPLY_TIMEOUT, Reason.RESET, Reason.CLOSED_EARLY})


class Bracket(NamedTuple):
    """Where an idle time-out lies: a silence of ``good_ns`` did no harm, one of ``bad_ns`` did.

    Attributes:
        good_ns: The largest such age; 0: none is known.
        bad_ns: The smallest.
        reason: How the connection failed, which tells a silent drop from a reset.
        confirmed: Both ends were tried since the bracket is narrow, and hold.
        failed: Those that failed in turn, oldest first: each was made after the one before it had
            failed, and none that was silent as long has lived since the first.
    """

    good_ns: int
    bad_ns: int
    reason: Reason
    confirmed: bool
    failed: tuple[IdleResult, ...] = ()

    @property
    def is_narrow(self) -> bool:
        """Whether it need not be divided any more: 1 s or 2 %, whichever is more."""
        width_ns = self.bad_ns - self.good_ns
        return width_ns <= max(_NARROW_NS, int(self.bad_ns * _NARROW_SHARE))


class Ladder:
    """The ages that are known of one path, and which to try next.

    Ages are multiples of 100 ms here: what is tried a second time is never quite as long as what
    was tried before.

    Args:
        limit_ns: No age is longer; ``limit`` changes it.
    """

    def __init__(self, limit_ns: int = _RUNGS_S[-1] * _S) -> None:
        self._limit_ns = limit_ns
        self._good_ns = 0
        self._bad_ns: int | None = None
        self._reason = Reason.OK
        self._failed: deque[IdleResult] = deque(maxlen=_KEPT)  # in turn
        self._lived: deque[IdleResult] = deque(maxlen=_MOST_LIVED)
        self._tried: set[bool] = set()  # whether the good end of a narrow bracket, and the bad one
        self._turn = 0

    def limit(self, limit_ns: int) -> None:
        """Take note of how long the server lets a connection be silent, less a margin."""
        self._limit_ns = max(0, _rounded(limit_ns))
        self._good_ns = min(self._good_ns, self._limit_ns)
        if self._bad_ns is not None and self._bad_ns > self._limit_ns:
            self._forget_bad()

    def bracket(self) -> Bracket | None:
        """Return where the time-out lies; None while no age is bad."""
        if self._bad_ns is None:
            return None
        confirmed, failed = len(self._tried) == 2, tuple(self._failed)
        return Bracket(self._good_ns, self._bad_ns, self._reason, confirmed, failed)

    @property
    def good_ns(self) -> int:
        """The largest age that did no harm; 0: none yet."""
        return self._good_ns

    def take(self, result: IdleResult) -> None:
        """Take in what became of a connection. The newest is right where two contradict."""
        if result.is_good:
            self._lived.append(result)
            self._note_good(_rounded(result.age_ns))
        elif result.is_bad and min(result.age_ns, self._limit_ns) >= _SHORTEST_NS:
            self._note_bad(min(_rounded(result.age_ns), self._limit_ns), result)

    def next_age(self, under_way: Collection[int] = ()) -> int | None:
        """Return the age that the next connection is to have, ns; None: none makes sense.

        Args:
            under_way: Ages of the connections that are silent now, as this gave them; without
                those that are as long as what is known to be bad since.
        """
        if self._limit_ns < _SHORTEST_NS:
            return None
        bracket = self.bracket()
        if bracket is None:
            return self._climb(under_way)
        if len(bracket.failed) < _IN_TURN and bracket.bad_ns not in under_way:
            return bracket.bad_ns
        if bracket.is_narrow:
            self._turn += 1
            return bracket.good_ns if self._turn % 2 and bracket.good_ns else bracket.bad_ns
        return _middle_of_widest(bracket, under_way)

    def _climb(self, under_way: Collection[int]) -> int:
        rungs = [rung * _S for rung in _RUNGS_S if rung * _S < self._limit_ns]
        rungs.append(self._limit_ns)
        for rung in rungs:
            if rung > self._good_ns and rung not in under_way:
                return rung
        # All are good: each in turn is tried again, for what was good may change.
        for _ in rungs:
            self._turn += 1
            if rungs[self._turn % len(rungs)] not in under_way:
                break
        return rungs[self._turn % len(rungs)]

    def _note_good(self, age_ns: int) -> None:
        if self._bad_ns is not None and age_ns >= self._bad_ns:
            self._forget_bad()  # it was chance, or the time-out is gone, or longer
        elif self._is_narrow():
            self._tried.add(True)
        self._good_ns = max(self._good_ns, age_ns)

    def _note_bad(self, age_ns: int, result: IdleResult) -> None:
        self._reason = result.reason
        if age_ns <= self._good_ns:
            # It was good before the time-out came, or became shorter: so nothing is known to be.
            self._tried.clear()
            self._bad_ns, self._good_ns = None, 0
            self._forget_failed(age_ns)
        elif self._is_narrow():
            self._tried.add(False)
        self._bad_ns = age_ns if self._bad_ns is None else min(self._bad_ns, age_ns)
        if not self._failed or result.started_ns >= self._failed[-1].ended_ns:
            self._failed.append(result)

    def _is_narrow(self) -> bool:
        bracket = self.bracket()
        return bracket is not None and bracket.is_narrow

    def _forget_failed(self, age_ns: int) -> None:
        """Forget those that failed before one lived that had been silent for as long as this."""
        lived_ns = max((r.ended_ns for r in self._lived if r.age_ns >= age_ns), default=-1)
        while self._failed and self._failed[0].ended_ns <= lived_ns:
            self._failed.popleft()

    def _forget_bad(self) -> None:
        self._bad_ns = None
        self._failed.clear()
        self._tried.clear()


def _middle_of_widest(bracket: Bracket, ages: Collection[int]) -> int:
    """Return the middle of the widest gap that ages leave in a bracket."""
    ends = sorted({bracket.good_ns, bracket.bad_ns}.union(ages))
    inside = [end for end in ends if bracket.good_ns <= end <= bracket.bad_ns]
    width_ns, begin_ns = max((b - a, a) for a, b in itertools.pairwise(inside))
    return max(_rounded(begin_ns + width_ns // 2), _SHORTEST_NS)


def _rounded(age_ns: int) -> int:
    return age_ns // _STEP_NS * _STEP_NS
