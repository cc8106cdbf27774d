import asyncio
from collections.abc import Awaitable, Callable

import pytest

from twocans_core.net.fibers import Fiber, park
from twocans_core.net.poller import run_loop


class Watched:
    """A fiber whose steps are noted.

    Attributes:
        said: What its work said so far, in order.
        over: How often it was said to be over.
        bugs: What the loop's exception handler was given.
    """

    def __init__(self, work: Callable[[list[object]], Awaitable[None]]) -> None:
        self.said: list[object] = []
        self.over = 0
        self.bugs: list[object] = []

        async def run() -> None:
            await work(self.said)

        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: self.bugs.append(context["exception"])
        )
        self.fiber = Fiber(run(), self._done)

    def _done(self, fiber: Fiber) -> None:
        assert fiber is self.fiber
        self.over += 1


async def two_waits(said: list[object]) -> None:
    said.append("begun")
    said.append(await park())
    said.append(await park())


def test_it_goes_on_where_it_is_resumed_and_says_when_it_is_over():
    async def main():
        watched = Watched(two_waits)
        assert watched.said == []
        watched.fiber.start()
        assert (watched.said, watched.over) == (["begun"], 0)
        watched.fiber.resume(True)
        watched.fiber.resume(False)
        assert (watched.said, watched.over) == (["begun", True, False], 1)
        assert watched.bugs == []

    run_loop(main())


def test_what_runs_knows_that_it_is_a_fiber_also_inside_another():
    async def main():
        inner = Watched(two_waits)

        async def outer(said: list[object]) -> None:
            said.append(Fiber.current)
            inner.fiber.start()
            said.append(Fiber.current)
            await park()

        watched = Watched(outer)
        watched.fiber.start()
        assert watched.said == [watched.fiber, watched.fiber]
        assert Fiber.current is None
        for each in (watched, inner):
            each.fiber.cancel()

    run_loop(main())


def test_cancelled_it_cleans_up_and_is_over():
    async def careful(said: list[object]) -> None:
        try:
            await park()
        finally:
            said.append("cleaned up")

    async def main():
        watched = Watched(careful)
        watched.fiber.start()
        watched.fiber.cancel()
        assert (watched.said, watched.over, watched.bugs) == (["cleaned up"], 1, [])

    run_loop(main())


async def fails(_: list[object]) -> None:
    raise ZeroDivisionError


async def sleeps(_: list[object]) -> None:
    await asyncio.sleep(1)


@pytest.mark.parametrize(("work", "error"), [(fails, ZeroDivisionError), (sleeps, TypeError)])
def test_a_bug_is_reported_and_the_fiber_is_over(work, error):
    async def main():
        watched = Watched(work)
        watched.fiber.start()
        assert [type(bug) for bug in watched.bugs] == [error]
        assert watched.over == 1
        assert Fiber.current is None

    run_loop(main())
