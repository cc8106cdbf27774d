"""One direction of a path: what became of its segments, and what has become frequent. No I/O.

Each account of segments (``loss``) is fed once, and costs next to nothing while nothing was lost.
What is rare is watched from the first time that it happens, so a rate is that of the fault, and not
diluted by the hours before it.
"""

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from .loss import Fates
from .sequential import Rise, poisson_tail

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


class Rare:
    """Something that is rare on a good path: since when, and how often.

    Attributes:
        began_ns: When it first happened since it was last as rare as it should be.
        hits: The newest accounts that have it.
        events: Accounts that have it, since then.
        trials: Segments of all accounts, since then; so are the next two.
        large_events: As ``events``, of accounts with large messages.
        large_trials: Likewise.
        total: Sum of all accounts.
        errors: Segments with a wrong checksum that came to the receiver's host since then, of any
            connection.
    """

    __slots__ = (
        "_bins",
        "_rises",
        "_since",
        "began_ns",
        "errors",
        "events",
        "hits",
        "large_events",
        "large_trials",
        "total",
        "trials",
    )

    def __init__(self) -> None:
        self._rises = Rise(), Rise(bad=_MANY, alarm=_MANY_ALARM)
        self.hits: deque[Hit] = deque(maxlen=_HITS)
        self._bins: dict[int, tuple[int, int]] = {}
        self._forget()

    def _forget(self) -> None:
        self.began_ns = self.events = self.trials = self.errors = 0
        self.large_events = self.large_trials = 0
        self.total = Fates()
        self._since = 0  # trials since the newest event
        self.hits.clear()
        self._bins.clear()

    @property
    def is_alarmed(self) -> bool:
        """Whether it is more frequent than on a good path."""
        return any(rise.is_alarmed for rise in self._rises)

    @property
    def is_of_large_alone(self) -> bool:
        """Whether small exchanges would lose something as well, if they lost as often."""
        if self.large_events < self.events or not self.trials:
            return False
        return bool((self.large_trials / self.trials) ** self.events < _DECIDED)

    def feed(self, hit: Hit, events: int, trials: int) -> None:
        """Take in an account.

        Args:
            hit: It.
            events: How much of what is rare is in it.
            trials: How many segments could have been that.
        """
        if not events and not self.events:
            return
        fates, one = hit.fates, min(1, events)
        # Of one connection: one loss makes others likelier, so they are one event.
        for rise in self._rises:
            rise.feed(one, trials)
        if one:
            self.began_ns = self.began_ns or hit.began_ns
            self.hits.append(hit)
        self.total += fates
        self.events += one
        self.trials += trials
        if hit.is_large:
            self.large_events += one
            self.large_trials += trials
        self._since = 0 if one else self._since + trials
        self._bin(hit.began_ns // _BIN_NS, events, trials)
        is_over = self._since * self.events > _OVER * self.trials
        if not any(rise.events for rise in self._rises) or (self.is_alarmed and is_over):
            for rise in self._rises:
                rise.reset()
            self._forget()

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
            if rare.events:
                rare.errors += count
