"""Whose turn is next, of those who have more to do than their share. No I/O."""

from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

__all__ = ["Turns"]

T = TypeVar("T")


class Turns(Generic[T]):
    """A queue of which each turn of the loop serves one.

    The loop looks for others' events in between. So what asks for little waits for one share,
    however many ask for much.

    Args:
        call_soon: The loop's.
        serve: Serve one. It may ask again meanwhile.
    """

    def __init__(
        self, call_soon: Callable[[Callable[[], None]], Any], serve: Callable[[T], None]
    ) -> None:
        self._call_soon = call_soon
        self._serve = serve
        self._waiting: deque[T] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, one: T) -> None:
        """Serve it when those before it in the queue had their turn."""
        self._waiting.append(one)
        if len(self._waiting) == 1:
            self._call_soon(self._next)

    def _next(self) -> None:
        # It leaves the queue after its turn. Meanwhile the queue is not empty, so one that asks
        # again, be it itself, stands behind all others and calls nobody.
        try:
            self._serve(self._waiting[0])
        finally:  # else nobody behind it would ever have another turn
            self._waiting.popleft()
            if self._waiting:
                self._call_soon(self._next)
