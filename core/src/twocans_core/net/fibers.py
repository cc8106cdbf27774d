"""Coroutines that wait for streams and for nothing else, without a task.

To wake a task costs a future, a handle and a turn through the loop's queue. A probe wakes at each
answer, thousands of times a minute, and has no use for any of it: a fiber goes on right where
its socket's event is found.
"""

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, ClassVar

__all__ = ["Fiber", "park"]


class Fiber:
    """A coroutine, run step by step on the loop's thread.

    ``start`` begins it. An exception that leaves it is given to the loop's exception handler: it
    is a bug.

    Args:
        work: The coroutine. It may await streams; anything else of asyncio is a bug.
        done: Called with the fiber when it is over, however that came.

    Attributes:
        current: The one that runs now, if one does.
    """

    __slots__ = ("_done", "_work")

    current: ClassVar["Fiber | None"] = None

    def __init__(self, work: Coroutine[Any, bool, None], done: Callable[["Fiber"], None]) -> None:
        self._work = work
        self._done = done

    def start(self) -> None:
        """Run to the first wait."""
        self._step(self._work.send, None)

    def resume(self, value: bool) -> None:
        """Go on from ``park``, which returns ``value``."""
        self._step(self._work.send, value)

    def cancel(self) -> None:
        """Raise CancelledError where it waits."""
        self._step(self._work.throw, asyncio.CancelledError())

    def _step(self, step: Callable[[Any], object], value: object) -> None:
        before, Fiber.current = Fiber.current, self
        try:
            awaited = step(value)
        except (StopIteration, asyncio.CancelledError):
            self._done(self)
        except Exception as error:
            context = {"message": "a fiber failed", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)
            self._done(self)
        else:
            if awaited is not None:
                self._step(self._work.throw, TypeError(f"a fiber cannot wait for {awaited!r}"))
        finally:
            Fiber.current = before


@types.coroutine
def park() -> Generator[None, bool, bool]:
    """Wait until somebody resumes the fiber; returns what it is resumed with."""
    return (yield)
