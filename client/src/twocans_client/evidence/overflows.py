"""How often the accept queues of a path's servers were full, as each WELCOME tells. No I/O.

A server's kernel drops the SYN that finds its accept queue full, and our ACK and HELLO when it
fills in between. That is not loss on the way. It counts them (``ListenOverflows``), though not by
connection, so what it counted while a connection began is the most that befell that one.
"""

from collections import deque

from .results import ProbeResult, grown

__all__ = ["Overflows"]

# Connections that may overlap: a time-out's worth of them.
_KEPT = 100


class Overflows:
    """What servers told."""

    def __init__(self) -> None:
        self._told: deque[tuple[bytes, int, int]] = deque(maxlen=_KEPT)

    def since(self, result: ProbeResult) -> int:
        """Take in a probe; returns how many overflows may be its own.

        They are counted from the newest WELCOME of the same process that was there before the
        probe began. Without any they are all that the server's host ever had.
        """
        host, server = result.host_greeted, result.server
        count = host.listen_overflows if host is not None else None
        if count is None or server is None:
            return 0
        before = 0
        # The newest that ended before this one began. Its count is from its WELCOME, which was
        # earlier: so there are rather too many overflows between the two than too few, and no loss
        # is claimed wrongly.
        for instance, told_ns, known in reversed(self._told):
            if instance == server.instance and told_ns <= result.started_ns:
                before = known
                break
        self._told.append((server.instance, result.ended_ns, count))
        return grown(before, count) or 0
