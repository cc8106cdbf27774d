"""An event loop on which hours pass at once: time jumps to the next timer."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from twocans_core.clock import Clock

T = TypeVar("T")


class _Selector(selectors.DefaultSelector):
    now_s = 1_000.0

    def select(self, timeout: float | None = None) -> Any:
        events = super().select(0)
        if not events and timeout:
            self.now_s += timeout
        return events


class TimelessLoop(asyncio.SelectorEventLoop):
    """Its time is its own; sockets and threads must not take part.

    Attributes:
        clock: Three clocks that show this loop's time.
    """

    def __init__(self) -> None:
        self._own_selector = _Selector()
        super().__init__(self._own_selector)
        now = self.now_ns
        self.clock = Clock(now, now, now)

    def time(self) -> float:
        return self._own_selector.now_s

    def now_ns(self) -> int:
        return int(self._own_selector.now_s * 1e9)


def run_timeless(main: Callable[[TimelessLoop], Coroutine[Any, Any, T]]) -> T:
    """Run ``main(loop)`` to its end; what it left behind is cancelled."""
    loop = TimelessLoop()
    try:
        return loop.run_until_complete(main(loop))
    finally:
        rest = asyncio.all_tasks(loop)
        for task in rest:
            task.cancel()
        if rest:
            loop.run_until_complete(asyncio.wait(rest))
        loop.close()
