"""Edge-triggered readiness for measured sockets, beside asyncio's own.

Why not ``loop.add_reader`` for each socket: a socket with transmit timestamps signals EPOLLERR
for every one of them. A level-triggered loop spins on that until somebody reads the error queue.
Edge-triggered, a timestamp wakes us once and may be read whenever it is needed.

So they are in an epoll of their own, which is a descriptor that the loop watches. What the system
call and the turn of the loop that this takes cost is in docs/architecture.md.
"""

import asyncio
import select
from collections.abc import Callable

__all__ = ["Poller"]

# EPOLLERR and EPOLLHUP are reported without being asked for (epoll_ctl(2)).
_INPUT = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
_EVENTS = _INPUT | select.EPOLLOUT

# Events handled before the loop gets its turn again. The rest stay ready.
_BATCH = 64


class Poller:
    """Call back when a descriptor's state changes.

    Args:
        loop: The loop whose thread runs the callbacks.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self._epoll = select.epoll()
        loop.add_reader(self._epoll.fileno(), self._pump)

    def register(self, fd: int, callback: Callable[[int], None]) -> None:
        """Call ``callback(events)`` at every change: it must use up what is ready.

        Raises:
            OSError: The kernel has no memory for it.
        """
        self._epoll.register(fd, _EVENTS)
        self._callbacks[fd] = callback

    def watch_output(self, fd: int, wanted: bool) -> None:
        """Say whether room for output is worth a call; at first it is.

        A transmit timestamp that is read at once costs no call where it is not: the kernel looks
        again before it reports, and then nothing has happened.
        """
        # EPOLL_CTL_MOD looks at the socket anew and reports what is ready by then, edge-triggered
        # or not (ep_modify, fs/eventpoll.c). So room that came since the last send() is an event
        # all the same.
        self._epoll.modify(fd, _EVENTS if wanted else _INPUT)

    def unregister(self, fd: int) -> None:
        """Forget a descriptor; call it before closing it, not after: its number is reused."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def close(self) -> None:
        """Forget everything. Closes no descriptor but its own."""
        self._loop.remove_reader(self._epoll.fileno())
        self._callbacks.clear()
        self._epoll.close()

    def _pump(self) -> None:
        # The loop watches our epoll level-triggered: what is beyond the batch brings us here again.
        for fd, events in self._epoll.poll(0, _BATCH):
            # A callback may have closed a descriptor whose event is still in this batch. Its
            # number may even belong to a new socket by now: that one gets a call for nothing,
            # which edge-triggered callbacks must bear anyway.
            callback = self._callbacks.get(fd)
            if callback is None:
                continue
            try:
                callback(events)
            except Exception as error:  # a bug, but not of the rest: their edges come only once
                context = {"message": "a poller's callback failed", "exception": error}
                self._loop.call_exception_handler(context)
