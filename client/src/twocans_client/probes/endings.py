"""How a held connection ended, and when the next one is due. No I/O."""

from typing import NamedTuple

from twocans_client.evidence.results import OUTCOMES, Outcome, Reason

__all__ = ["Backoff", "Ending", "joined"]

# A shorter life was not a good one: a server that ends us sooner, again and again, is failing.
_GOOD_LIFE_NS = 10_000_000_000
# Seconds.
_SOONEST = 0.1
_SOON = 2.0
_LATEST = 30.0
_DRAINED = (5.0, 10.0)


class Ending(NamedTuple):
    """A held connection ended, or could not be had.

    Attributes:
        reason: Why. ``ok``: we had no more use for it.
        detail: More about it, for people.
        lasted_ns: From the WELCOME to the end, CLOCK_MONOTONIC; None when there was no WELCOME.
        exchanges: Those answered.
        damaged_in: As in ``ProbeResult``.
    """

    reason: Reason
    detail: str
    lasted_ns: int | None
    exchanges: int
    damaged_in: str = ""

    @property
    def own(self) -> bool:
        """Whether it is neither the path's nor the far end's doing: ours, or announced."""
        return OUTCOMES[self.reason] is not Outcome.FAIL


class Backoff:
    """How long to wait before the next connection, in seconds from and to: jittered, exponential.

    The jitter spares the server: its clients do not come back all at once when it restarted. A
    server that said that it stops gets some seconds, one that turns us away sees us less and less.
    """

    first_s = (_SOONEST, _SOON)
    """Before the very first."""

    def __init__(self) -> None:
        self._failures = 0

    def after_s(self, ending: Ending) -> tuple[float, float]:
        """Return it after an ending: soon after a good life, longer with each failure in a row."""
        if ending.reason is Reason.DRAINING:
            return _DRAINED
        is_good = ending.lasted_ns is not None and ending.lasted_ns >= _GOOD_LIFE_NS
        self._failures = 0 if is_good or ending.reason is Reason.OK else self._failures + 1
        # Beyond 2 ** 9 the latest was reached long ago; an outage of a year must not overflow.
        return _SOONEST, min(_LATEST, _SOON * 2 ** min(self._failures, 9))


def joined(*details: str) -> str:
    """Return those that are not empty, as one."""
    return ", ".join(filter(None, details))
