"""Edge-triggered readiness for measured sockets, inside asyncio's loop.

Why not ``loop.add_reader`` for each socket: a socket with transmit stamps signals EPOLLERR for
every stamp. A level-triggered loop spins on that until somebody reads the error queue, and
uvloop goes deaf. Edge-triggered, a stamp wakes us once and may be read whenever it is needed.

On the loop of ``run_loop`` the edges are in the loop's own epoll, and whoever waits for one
runs in the same turn. On any other loop they are in an epoll of their own that the loop watches:
the same, for a system call and a turn more.
"""

import asyncio
import contextlib
import select
import selectors
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

__all__ = ["Poller", "run_loop"]

T = TypeVar("T")

_INPUT = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
_EVENTS = _INPUT | select.EPOLLOUT

# Events handled before the loop gets its turn again. The rest stay ready.
_BATCH = 64

_Callback = Callable[[int], None]


class _Selector(selectors.BaseSelector):
    """asyncio's selector, with room for edge-triggered descriptors beside its own."""

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self.edges: dict[int, _Callback] = {}
        self.failed: Callable[[Exception], None] = lambda _: None
        self._keys: dict[int, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        self.epoll.register(fd, _mask(events))
        key = self._keys[fd] = selectors.SelectorKey(fileobj, fd, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        key = self.get_key(fileobj)
        del self._keys[key.fd]
        with contextlib.suppress(OSError):  # closed already, which has taken it out
            self.epoll.unregister(key.fd)
        return key

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = self.get_key(fileobj)
        if events != key.events:
            self.epoll.modify(key.fd, _mask(events))
        key = self._keys[key.fd] = key._replace(events=events, data=data)
        return key

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys[fileobj if isinstance(fileobj, int) else fileobj.fileno()]

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait, call back whose edges came, and return the rest for asyncio."""
        try:
            found = self.epoll.poll(-1 if timeout is None else max(timeout, 0), _BATCH)
        except InterruptedError:
            return []
        ready = []
        for fd, events in found:
            callback = self.edges.get(fd)
            if callback is not None:
                _call(callback, events, self.failed)
            elif (key := self._keys.get(fd)) is not None:
                readable = selectors.EVENT_READ if events & ~select.EPOLLOUT else 0
                writable = selectors.EVENT_WRITE if events & ~select.EPOLLIN else 0
                ready.append((key, (readable | writable) & key.events))
        return ready

    def close(self) -> None:
        self.epoll.close()
        self._keys.clear()


def _mask(events: int) -> int:
    readable = select.EPOLLIN if events & selectors.EVENT_READ else 0
    return readable | (select.EPOLLOUT if events & selectors.EVENT_WRITE else 0)


def _call(callback: _Callback, events: int, failed: Callable[[Exception], None]) -> None:
    try:
        callback(events)
    except Exception as error:  # a bug, but not of the rest: their edges come only once
        failed(error)


class _Loop(asyncio.SelectorEventLoop):
    """asyncio's loop over a selector that we know."""

    def __init__(self) -> None:
        self.edge_selector = _Selector()
        super().__init__(self.edge_selector)


def run_loop(main: Coroutine[Any, Any, T]) -> T:
    """As ``asyncio.run``, on a loop on which a ``Poller`` costs least."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(main)


class Poller:
    """Call back when a descriptor's state changes.

    Args:
        loop: The loop whose thread runs the callbacks.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._callbacks: dict[int, _Callback] = {}
        self._fds: set[int] = set()
        self._is_nested = not isinstance(loop, _Loop)
        if isinstance(loop, _Loop):
            self._epoll = loop.edge_selector.epoll
            self._callbacks = loop.edge_selector.edges
            loop.edge_selector.failed = self._failed
        else:
            self._epoll = select.epoll()
            loop.add_reader(self._epoll.fileno(), self._pump)

    def register(self, fd: int, callback: Callable[[int], None]) -> None:
        """Call ``callback(events)`` at every change: it must use up what is ready.

        Raises:
            OSError: The kernel has no memory for it.
        """
        self._epoll.register(fd, _EVENTS)
        self._callbacks[fd] = callback
        self._fds.add(fd)

    def watch_output(self, fd: int, wanted: bool) -> None:
        """Say whether room for output is worth a call; at first it is.

        A transmit stamp that is read at once costs no call where it is not: the kernel looks
        again before it reports, and then nothing has happened.
        """
        self._epoll.modify(fd, _EVENTS if wanted else _INPUT)

    def unregister(self, fd: int) -> None:
        """Forget a descriptor; call it before closing it, not after: its number is reused."""
        if fd in self._fds:
            self._fds.remove(fd)
            del self._callbacks[fd]
            self._epoll.unregister(fd)

    def close(self) -> None:
        """Forget everything. Closes no descriptor but its own."""
        if self._is_nested:
            self._loop.remove_reader(self._epoll.fileno())
            self._callbacks.clear()
            self._epoll.close()
        else:
            for fd in list(self._fds):
                self.unregister(fd)

    def _pump(self) -> None:
        for fd, events in self._epoll.poll(0, _BATCH):
            # A callback may have closed a descriptor whose event is still in this batch. Its
            # number may even belong to a new socket by now: that one gets a call for nothing,
            # which edge-triggered callbacks must bear anyway.
            callback = self._callbacks.get(fd)
            if callback is not None:
                _call(callback, events, self._failed)

    def _failed(self, error: Exception) -> None:
        context = {"message": "a poller's callback failed", "exception": error}
        self._loop.call_exception_handler(context)
