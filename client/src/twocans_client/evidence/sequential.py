"""Whether something rare has become frequent, decided as early as chance allows. No I/O.

A bare number ("three losses in a minute") is too many on a busy path and too few on a quiet one.
A sequential test weighs each event by how much likelier it is on a faulty path than on a good one,
and each non-event by the reverse; it is as quick as a test of its error rates can be (A. Wald,
"Sequential Tests of Statistical Hypotheses", 1945). Run for ever, with its sum never below zero, it
is Page's cumulative sum test ("Continuous Inspection Schemes", Biometrika 41, 1954).
"""

import math

__all__ = ["Rise"]


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

    def __init__(self, good: float = 1e-4, bad: float = 2e-3, alarm: float = 9.16) -> None:
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
