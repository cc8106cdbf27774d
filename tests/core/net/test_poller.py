import asyncio
import os
import select
from collections.abc import Awaitable, Callable

import pytest

from twocans_core.net.poller import Poller


class Pipe:
    """A pipe whose ends do not wait."""

    def __init__(self) -> None:
        self.read_fd, self.write_fd = os.pipe2(os.O_NONBLOCK)

    def close(self) -> None:
        os.close(self.read_fd)
        os.close(self.write_fd)


def run(scenario: Callable[[Poller, Pipe], Awaitable[None]]) -> None:
    """Run a scenario with a poller and a pipe."""

    bugs: list[object] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: bugs.append(context))
        poller, pipe = Poller(loop), Pipe()
        try:
            await scenario(poller, pipe)
        finally:
            poller.close()
            pipe.close()

    asyncio.run(main())
    assert bugs == []


async def turns(count: int = 5) -> None:
    """Let the loop look at its descriptors a few times."""
    for _ in range(count):
        await asyncio.sleep(0.001)


def test_a_change_calls_back_once_however_long_it_stays():
    async def scenario(poller: Poller, pipe: Pipe) -> None:
        seen: list[int] = []
        poller.register(pipe.read_fd, seen.append)
        os.write(pipe.write_fd, b"x")
        await turns(20)
        assert len(seen) == 1
        assert seen[0] & select.EPOLLIN
        os.write(pipe.write_fd, b"y")
        await turns(20)
        assert len(seen) == 2

    run(scenario)


def test_what_was_ready_before_it_was_registered_calls_back():
    async def scenario(poller: Poller, pipe: Pipe) -> None:
        seen: list[int] = []
        os.write(pipe.write_fd, b"x")
        poller.register(pipe.read_fd, seen.append)
        await turns()
        assert len(seen) == 1

    run(scenario)


def test_what_is_unregistered_is_silent_and_may_be_registered_again():
    async def scenario(poller: Poller, pipe: Pipe) -> None:
        seen: list[int] = []
        poller.register(pipe.read_fd, seen.append)
        poller.unregister(pipe.read_fd)
        poller.unregister(pipe.read_fd)
        os.write(pipe.write_fd, b"x")
        await turns()
        assert seen == []
        poller.register(pipe.read_fd, seen.append)
        await turns()
        assert len(seen) == 1

    run(scenario)


def test_a_callback_may_unregister_what_is_still_to_be_called():
    async def scenario(poller: Poller, pipe: Pipe) -> None:
        other = Pipe()
        called: list[int] = []

        def only_me(fd: int, doomed: int) -> Callable[[int], None]:
            def callback(_: int) -> None:
                called.append(fd)
                poller.unregister(doomed)

            return callback

        poller.register(pipe.read_fd, only_me(pipe.read_fd, other.read_fd))
        poller.register(other.read_fd, only_me(other.read_fd, pipe.read_fd))
        os.write(pipe.write_fd, b"x")
        os.write(other.write_fd, b"x")
        await turns()
        assert len(called) == 1
        poller.unregister(called[0])
        other.close()

    run(scenario)


def test_a_bad_descriptor_is_refused_and_forgotten():
    async def scenario(poller: Poller, pipe: Pipe) -> None:
        closed = os.dup(pipe.read_fd)
        os.close(closed)
        with pytest.raises(OSError, match="Bad file descriptor"):
            poller.register(closed, lambda _: None)
        poller.unregister(closed)  # does nothing

    run(scenario)


def test_more_changes_than_a_batch_are_all_seen():
    async def scenario(poller: Poller, pipe: Pipe) -> None:
        fds = [os.eventfd(1, os.EFD_NONBLOCK) for _ in range(300)]
        seen: set[int] = set()
        for fd in fds:
            poller.register(fd, lambda _, fd=fd: seen.add(fd))  # type: ignore[misc]
        await turns()
        assert seen == set(fds)
        for fd in fds:
            poller.unregister(fd)
            os.close(fd)

    run(scenario)


def test_a_closed_poller_calls_nobody():
    async def main() -> list[int]:
        poller, pipe = Poller(asyncio.get_running_loop()), Pipe()
        seen: list[int] = []
        poller.register(pipe.read_fd, seen.append)
        os.write(pipe.write_fd, b"x")
        poller.close()
        await turns()
        pipe.close()
        return seen

    assert asyncio.run(main()) == []


def test_a_callback_that_fails_is_reported_and_the_others_are_called():
    reported: list[str] = []

    async def scenario(poller: Poller, pipe: Pipe) -> None:
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: reported.append(str(context["exception"]))
        )
        other, seen = Pipe(), list[int]()
        poller.register(pipe.read_fd, lambda _: 1 // 0)  # type: ignore[arg-type]
        poller.register(other.read_fd, seen.append)
        os.write(pipe.write_fd, b"x")
        os.write(other.write_fd, b"x")
        await turns()
        assert len(seen) == 1
        poller.unregister(other.read_fd)
        other.close()

    run(scenario)
    assert reported == ["integer division or modulo by zero"]


def test_room_for_output_calls_back_only_while_it_is_wanted():
    async def scenario(poller: Poller, pipe: Pipe) -> None:
        seen: list[int] = []
        poller.register(pipe.write_fd, seen.append)
        await turns()
        assert [events & select.EPOLLOUT for events in seen] == [select.EPOLLOUT]
        poller.watch_output(pipe.write_fd, False)
        while os.get_blocking(pipe.write_fd) is False:
            try:
                os.write(pipe.write_fd, bytes(65_536))
            except BlockingIOError:
                break
        os.read(pipe.read_fd, 1 << 20)
        await turns()
        assert len(seen) == 1
        poller.watch_output(pipe.write_fd, True)
        await turns()
        assert len(seen) == 2

    run(scenario)


def test_a_closed_poller_leaves_the_others_on_its_loop_alone():
    async def main() -> int:
        loop = asyncio.get_running_loop()
        first, second, pipe = Poller(loop), Poller(loop), Pipe()
        seen: list[int] = []
        first.register(pipe.read_fd, seen.append)
        second.close()
        os.write(pipe.write_fd, b"x")
        await turns()
        first.close()
        pipe.close()
        return len(seen)

    assert asyncio.run(main()) == 1
