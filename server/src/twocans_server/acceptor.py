"""The listener's end: who waits is accepted, and what accept() says is understood.

What accept(2) may say on Linux, and what is done:

* ECONNABORTED: a connection went while it waited. EINTR: a signal came. The next is taken.
* ENETDOWN, EPROTO, ENOPROTOOPT, EHOSTDOWN, ENONET, EHOSTUNREACH, EOPNOTSUPP, ENETUNREACH: an
  error that lay on the new connection is handed on. It is that client's, and the next is taken.
  After 16 of them in a row it is no client's doing: our own kernel, or a sandbox, says no.
* EMFILE, ENFILE, ENOBUFS, ENOMEM, EPERM and all others: this machine cannot, now. What waits
  stays in the queue, and is asked for again in a tenth of a second: it gives no new event, and
  to ask at once would take a whole CPU.
"""

import asyncio
import errno
import logging
import os
from collections.abc import Callable
from typing import Protocol

from twocans_core.kernel.tcpinfo import AcceptQueue
from twocans_core.net.channel import Channel

from .tally import ServerTally

__all__ = ["Acceptor", "Waiting"]

log = logging.getLogger(__name__)

_GONE_ERRNOS = frozenset({errno.ECONNABORTED, errno.EINTR})
_PEERS_ERRNOS = frozenset({
    errno.ENETDOWN, errno.EPROTO, errno.ENOPROTOOPT, errno.EHOSTDOWN, errno.ENONET,
    errno.EHOSTUNREACH, errno.EOPNOTSUPP, errno.ENETUNREACH,
})  # fmt: skip
_MOST_IN_VAIN = 16
_PAUSE_S = 0.1
# Time for handshakes that had begun when SYNs were refused to end: a few round trips.
_SETTLE_S = 0.1


class Waiting(Protocol):
    """What an acceptor needs of ``listener.Listener``, whose docstrings hold."""

    def accept(self) -> Channel | None: ...

    def accept_queue(self) -> AcceptQueue: ...

    def refuse_syns(self) -> None: ...

    def close(self) -> None: ...


class Cancellable(Protocol):
    """What ``call_later`` returns."""

    def cancel(self) -> None: ...


class Acceptor:
    """Accept a few at a time, and let the loop turn in between.

    Args:
        listener: Where they wait. Closed by ``close``.
        per_turn: How many are accepted in a turn of the loop.
        tally: Where ``accept_errors`` are counted.
        admit: Told of each.
        used_up: Called when a turn's share is used up and more may wait.
        call_later: The loop's.
    """

    def __init__(
        self,
        listener: Waiting,
        per_turn: int,
        tally: ServerTally,
        admit: Callable[[Channel], None],
        used_up: Callable[[], None],
        call_later: Callable[[float, Callable[[], None]], Cancellable],
    ) -> None:
        self._listener = listener
        self._per_turn = per_turn
        self._tally = tally
        self._admit = admit
        self._used_up = used_up
        self._call_later = call_later
        # Set while the rest of the queue is to be come back for.
        self._later: Cancellable | None = None
        self._in_vain = 0  # accept() failed so often in a row

    def on_event(self, _: int = 0) -> None:
        """Somebody may wait. In a pause that can wait too."""
        if self._later is None:
            self._accept()

    def queue(self) -> AcceptQueue:
        """Return how many wait, and how many may."""
        try:
            return self._listener.accept_queue()
        except OSError:  # closed: we are stopping, and a scrape is still answered
            return AcceptQueue(None, None)

    async def close(self, forget: Callable[[], None]) -> None:
        """Accept all who wait, and let nobody else come. ``forget`` ends the events.

        In this order, since closing a listener resets what is in its queue.
        """
        try:
            self._listener.refuse_syns()
        except OSError as error:  # the stop is a little less gentle
            fields = {"error.message": os.strerror(error.errno or 0)}
            log.warning("syns_not_dropped", extra=fields)
        # Events go on meanwhile, so the queue does not fill while the last handshakes end.
        await asyncio.sleep(_SETTLE_S)
        forget()
        if self._later is not None:
            self._later.cancel()
        while self._accept_some() == 0:  # noqa: ASYNC110 - nothing is polled for
            await asyncio.sleep(0)  # the others' turn
        self._listener.close()

    def _accept(self) -> None:
        self._later = None
        wait_s = self._accept_some()
        if wait_s is not None:
            # What waits in the queue gives no new event.
            self._later = self._call_later(wait_s, self._accept)

    def _accept_some(self) -> float | None:
        """Accept; returns after how many seconds to go on, None when nobody waits."""
        for _ in range(self._per_turn):
            try:
                channel = self._listener.accept()
            except OSError as error:
                if error.errno in _GONE_ERRNOS:
                    continue
                self._in_vain += 1
                if error.errno in _PEERS_ERRNOS and self._in_vain <= _MOST_IN_VAIN:
                    continue
                self._tally.accept_errors += 1
                fields = {"error.message": os.strerror(error.errno or 0), "limited": True}
                log.error("accept_failed", extra=fields)
                return _PAUSE_S
            # The queue is empty (EAGAIN). Only from here on the next that comes is an event for
            # sure (epoll(7)).
            if channel is None:
                return None
            self._in_vain = 0
            self._admit(channel)
        self._used_up()
        return 0.0
