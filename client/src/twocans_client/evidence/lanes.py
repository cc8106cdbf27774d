"""One direction of a path: what became of its segments, and what has become frequent. No I/O.

Each account of segments (``loss``) is fed once, and costs next to nothing while nothing was lost.
What is rare is watched from the first time that it happens, so a rate is that of the fault, and not
diluted by the hours before it.
"""

import math
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from .loss import Fates
from .sequential import GOOD, Rise, poisson_tail, tail

__all__ = ["ENOUGH_LARGE", "Clumping", "Hit", "Lane", "Rare"]

ENOUGH_LARGE = 60
"""Segments of large exchanges, four or five of them, in which some overtake others if any do."""
_HITS = 64
_BIN_NS = 100_000_000
_BINS = 256
_TIMES_LIKELIER = 3
# Which of two explanations of losses that are there anyhow: the wrong one in a hundred.
_DECIDED = 1e-2
# A rate of p shows within 5 / p trials, but for once in 150 times (e ** -5).
_OVER = 5
_FAR_MORE = 4
# Beside ``Rise()``, which knows a loss of one in 500: one that knows one in 50 is quicker where
# that much is lost. Three losses in 220 segments alarm; on a path that loses one in 10,000 they
# come by chance once in 40 million segments, or, with the four in 1,500 of the other, once in 12
# million: on a path that is always as bad as that, and is probed ten times a second, every four
# days.
_MANY = 2e-2
_MANY_ALARM = 11.5


class Hit(NamedTuple):
    """An account that has in it what is rare.

    Attributes:
        began_ns: When its connection began, or of a held one when it was settled; CLOCK_MONOTONIC.
        number: Of the probe; 0 of a held connection.
        fates: It.
        is_large: Its messages took several segments each.
    """

    began_ns: int
    number: int
    fates: Fates
    is_large: bool


class _Sum(NamedTuple):
    """What was counted until a moment: see ``Rare``."""

    events: int = 0
    trials: int = 0
    large_events: int = 0
    large_trials: int = 0
    errors: int = 0
    total: Fates = Fates()

    def since(self, before: "_Sum") -> "_Sum":
        return _Sum(
            self.events - before.events,
            self.trials - before.trials,
            self.large_events - before.large_events,
            self.large_trials - before.large_trials,
            self.errors - before.errors,
            self.total.since(before.total),
        )


class Rare:
    """Something that is rare on a good path: since when, and how often.

    Attributes:
        hits: The newest accounts that have it.
    """

    __slots__ = ("_before", "_bins", "_rises", "_since", "_sum", "hits")

    def __init__(self) -> None:
        self._rises = Rise(), Rise(bad=_MANY, alarm=_MANY_ALARM)
        self.hits: deque[Hit] = deque(maxlen=_HITS)
        self._before: deque[_Sum] = deque(maxlen=_HITS)  # each hit: it is not in it
        self._bins: dict[int, tuple[int, int]] = {}
        self._forget()

    def _forget(self) -> None:
        self._sum = _Sum()
        self._since = 0  # trials since the newest event
        self.hits.clear()
        self._before.clear()
        self._bins.clear()

    @property
    def began_ns(self) -> int:
        """When it began to be as frequent, or first happened; 0: it has not; CLOCK_MONOTONIC."""
        return self.hits[0].began_ns if self.hits else 0

    @property
    def events(self) -> int:
        """Accounts that have it, since then."""
        return self._sum.events

    @property
    def errors(self) -> int:
        """Segments with a wrong checksum since then, of any connection to the receiver's host."""
        return self._sum.errors

    @property
    def large_trials(self) -> int:
        """Segments of accounts with large messages, since then."""
        return self._sum.large_trials

    @property
    def total(self) -> Fates:
        """Sum of all accounts, since then."""
        return self._sum.total

    @property
    def is_alarmed(self) -> bool:
        """Whether it is more frequent than on a good path."""
        return any(rise.is_alarmed for rise in self._rises)

    @property
    def is_of_large_alone(self) -> bool:
        """Whether small exchanges would lose something as well, if they lost as often."""
        events, trials, large_events, large_trials, *_ = self._sum
        if large_events < events or not trials:
            return False
        return bool((large_trials / trials) ** events < _DECIDED)

    @property
    def is_of_acks_alone(self) -> bool:
        """Whether data would be lost as well, if it were lost as often."""
        total = self.total
        lost, sent = total.lost + total.acks_lost, total.sent + total.acks
        if _FAR_MORE * total.lost * total.acks >= total.acks_lost * total.sent:
            return False
        return bool(sent) and 1 - tail(total.lost + 1, lost, total.sent / sent) < _DECIDED

    def feed(self, hit: Hit, events: int, trials: int) -> None:
        """Take in an account.

        Args:
            hit: It.
            events: How much of what is rare is in it.
            trials: How many segments could have been that.
        """
        if not events and not self.events:
            return
        one = min(1, events)
        was_alarmed = self.is_alarmed
        # Of one connection: one loss makes others likelier, so they are one event.
        for rise in self._rises:
            rise.feed(one, trials)
        if one:
            self.hits.append(hit)
            self._before.append(self._sum)
        before, large = self._sum, hit.is_large
        self._sum = _Sum(
            before.events + one,
            before.trials + trials,
            before.large_events + one * large,
            before.large_trials + trials * large,
            before.errors,
            before.total + hit.fates,
        )
        self._since = 0 if one else self._since + trials
        self._bin(hit.began_ns // _BIN_NS, events, trials)
        if self.is_alarmed and not was_alarmed:
            self._leave_out_chance()
        is_over = self._since * self.events > _OVER * self._sum.trials
        if not any(rise.events for rise in self._rises) or (self.is_alarmed and is_over):
            for rise in self._rises:
                rise.reset()
            self._forget()

    def _leave_out_chance(self) -> None:
        """Begin where it became frequent: an event long before that was chance.

        That is where what came since then is likeliest, beside what a good path has.
        """

        def likelihood(before: _Sum) -> float:
            since = self._sum.since(before)
            expected = GOOD * max(1, since.trials)
            return since.events * math.log(since.events / expected) - since.events + expected

        onset = max(self._before, key=likelihood)
        while self._before[0] is not onset:
            self._before.popleft()
            self.hits.popleft()
        self._sum = self._sum.since(onset)
        self._before = deque((each.since(onset) for each in self._before), maxlen=_HITS)
        first = self.began_ns // _BIN_NS
        self._bins = {at: count for at, count in self._bins.items() if at >= first}

    def saw_errors(self, count: int) -> None:
        """So many segments with a wrong checksum came to the receiver's host."""
        if self.events:
            self._sum = self._sum._replace(errors=self._sum.errors + count)

    def _bin(self, index: int, events: int, trials: int) -> None:
        seen, of = self._bins.get(index, (0, 0))
        self._bins[index] = seen + events, of + trials
        if len(self._bins) > _BINS:
            del self._bins[min(self._bins)]

    def clumping(self) -> "Clumping":
        """Return how far they come in clumps."""
        return _clumping(self._bins.values())


class Clumping(NamedTuple):
    """Whether events come together more than chance brings them together.

    Attributes:
        chance: Of them being as close together, or closer, if each came by itself.
        mean: Events in a tenth of a second that has any.
        is_bursty: Whether one makes another three times likelier, at least (RFC 3357).
    """

    chance: float
    mean: float
    is_bursty: bool


def _clumping(bins: Iterable[tuple[int, int]]) -> Clumping:
    """Judge (events, trials) of tenths of a second.

    If each event came by itself it would fall on any trial alike. So it is known how many tenths
    would have some, and how many events would be beside another one. Those are Poisson distributed
    at most (the tenths compete for the events, so their sum varies less).
    """
    bins = list(bins)
    events, trials = sum(count for count, _ in bins), sum(of for _, of in bins)
    hits = sum(1 for count, _ in bins if count)
    if not hits or trials < events:
        return Clumping(1.0, 0.0, is_bursty=False)
    others = events - hits
    expected = events - sum(1 - (1 - of / trials) ** events for _, of in bins)
    is_bursty = others >= _TIMES_LIKELIER * expected
    return Clumping(poisson_tail(others, expected), events / hits, is_bursty)


class Lane:
    """One direction.

    Attributes:
        missing: Segments that never arrived: with data, or without.
        reordered: Segments that others overtook, as their sender noticed; of accounts with large
            messages, for of one segment at a time none can overtake another.
        duplicated: Segments that arrived more often than they were sent.
        damaged: Segments that arrived with a wrong checksum.
        unsent: Segments that the sender's own host dropped.
    """

    def __init__(self) -> None:
        self.missing, self.reordered, self.duplicated = Rare(), Rare(), Rare()
        self.damaged, self.unsent = Rare(), Rare()

    @property
    def is_quiet(self) -> bool:
        """Whether nothing rare has happened lately: as almost always."""
        return not (
            self.missing.events
            or self.reordered.events
            or self.duplicated.events
            or self.damaged.events
            or self.unsent.events
        )

    def feed(self, hit: Hit) -> None:
        """Take in an account."""
        fates, sent = hit.fates, hit.fates.sent
        self.missing.feed(hit, fates.lost + fates.acks_lost, sent + fates.acks)
        if hit.is_large:
            self.reordered.feed(hit, fates.reordered or 0, sent)
        self.duplicated.feed(hit, fates.duplicated, sent)
        self.damaged.feed(hit, fates.damaged or 0, sent)
        self.unsent.feed(hit, fates.unsent, sent + fates.unsent)

    @property
    def may_be_overtaken(self) -> bool:
        """Whether what is missing may only have been overtaken.

        Who is overtaken by a GOODBYE is counted after it, and that is most often the last
        acknowledgement before it. Where segments overtake each other large exchanges show it.
        """
        total = self.missing.total
        if total.lost >= max(1, total.acks_lost):
            return False
        return bool(self.reordered.events) or self.missing.large_trials < ENOUGH_LARGE

    def saw_errors(self, count: int) -> None:
        """So many segments with a wrong checksum came to the receiver's host, of any connection."""
        for rare in (self.missing, self.damaged):
            rare.saw_errors(count)
