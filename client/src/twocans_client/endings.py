"""How a held connection ended, and when the next one is due. No I/O."""

import errno
from typing import NamedTuple

from twocans_core.errors import RemoteProtocolError
from twocans_core.streams import DeadlineExceeded

from .blame import reason_of
from .results import OUTCOMES, Outcome, Reason
from .talk import Ended, judge

__all__ = ["TROUBLE", "Ending", "Pauses", "joined", "reason_of_trouble"]

TROUBLE = (Ended, DeadlineExceeded, RemoteProtocolError, OSError)
"""What a peer, a network or this machine does to a connection."""

# Less was no good life: whoever ends us sooner, again and again, is a failure to come back to.
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
    """

    reason: Reason
    detail: str
    lasted_ns: int | None
    exchanges: int

    @property
    def own(self) -> bool:
        """Whether it is neither the path's nor the far end's doing: ours, or announced."""
        return OUTCOMES[self.reason] is not Outcome.FAIL


class Pauses:
    """How long to wait before the next connection: from and to, in seconds; chance decides.

    Clients whose server restarted do not come back at once, one whose server said that it stops
    gives it some seconds, and one that is not let in comes less and less.
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
        # Beyond 2 ** 9 the latest is reached long since.
        return _SOONEST, min(_LATEST, _SOON * 2 ** min(self._failures, 9))


def reason_of_trouble(error: Exception, waiting_for: Reason) -> tuple[Reason, str]:
    """Return what an error out of ``TROUBLE`` means, and more about it, for people.

    Args:
        error: It.
        waiting_for: What a time-out means, our own or the kernel's.
    """
    match error:
        case Ended():
            return error.reason, error.detail
        case RemoteProtocolError():
            return judge(error), str(error)
        case OSError():
            name = errno.errorcode.get(error.errno or 0, "") or str(error)
            return reason_of(error, waiting_for), name
    return waiting_for, ""


def joined(*details: str) -> str:
    """Return those that are not empty, as one."""
    return ", ".join(filter(None, details))
