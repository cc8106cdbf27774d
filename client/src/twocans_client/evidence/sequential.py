"""Whether something rare has become frequent, decided as early as chance allows. No I/O.

A bare number ("three losses in a minute") is too many on a busy path and too few on a quiet one.
A sequential test weighs each event by how much likelier it is on a faulty path than on a good one,
and each non-event by the reverse; it is as quick as a test of its error rates can be (A. Wald,
"Sequential Tests of Statistical Hypotheses", 1945). Run for ever, with its sum never below zero, it
is Page's cumulative sum test ("Continuous Inspection Schemes", Biometrika 41, 1954).
"""

import math

__all__ = ["GOOD", "Rise", "poisson_tail", "tail"]

GOOD = 1e-4
"""Losses in a segment on a path that is called good, at most."""


class Rise:
    """Page's test on events that are rare while all is well.

    With the defaults, four losses in some 1,500 segments alarm. On a path that loses one in 10,000,
    the most that is called good, a false alarm needs three more losses in the 1,500 segments after
    one: once in 20 million segments.

    Args:
        good: Most events per trial on a path that is good.
        bad: Fewest on one that is not.
        alarm: The sum at which it alarms: ln((1 - 0.05) / 1e-4) of Wald.

    Attributes:
        events: Since the sum was last zero; so are the trials.
        trials: Likewise.
    """

    def __init__(self, good: float = GOOD, bad: float = 2e-3, alarm: float = 9.16) -> None:
        self._event = math.log(bad / good)
        self._none = math.log((1 - bad) / (1 - good))
        self._alarm = alarm
        self._sum = 0.0
        self.events = self.trials = 0

    @property
    def is_alarmed(self) -> bool:
        """Whether events are more frequent than on a path that is good."""
        return self._sum >= self._alarm

    def feed(self, events: int, trials: int) -> None:
        """Take in so many trials, and how many of them were events."""
        self.events += events
        self.trials += trials
        weight = events * self._event + (trials - events) * self._none
        # Not above twice the alarm: else it would go on for as long after the fault as in it.
        self._sum = min(max(0.0, self._sum + weight), 2 * self._alarm)
        if not self._sum:
            self.events = self.trials = 0

    def reset(self) -> None:
        """Begin anew."""
        self._sum, self.events, self.trials = 0.0, 0, 0


def tail(least: int, trials: int, chance: float) -> float:
    """Return how likely so many events are, or more, in so many trials of one chance (binomial)."""
    if least <= 0 or chance >= 1:
        return 1.0
    if least > trials or chance <= 0:
        return 0.0
    log_chance, log_none = math.log(chance), math.log1p(-chance)
    total = 0.0
    for events in range(least, trials + 1):
        ways = math.lgamma(trials + 1) - math.lgamma(events + 1) - math.lgamma(trials - events + 1)
        term = math.exp(ways + events * log_chance + (trials - events) * log_none)
        total += term
        # Beyond the most likely number each term is smaller than the one before.
        if events > trials * chance and term < total * 1e-9:
            break
    return min(1.0, total)


def poisson_tail(least: int, mean: float) -> float:
    """Return how likely so many events are, or more, where ``mean`` are expected (Poisson)."""
    if least <= 0 or mean <= 0:
        return 1.0 if least <= 0 else 0.0
    total, events = 0.0, least
    while True:
        term = math.exp(events * math.log(mean) - mean - math.lgamma(events + 1))
        total += term
        if events > mean and term <= total * 1e-9:
            return min(1.0, total)
        events += 1
