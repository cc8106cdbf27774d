"""What accept() may say and what is done, with a listener that plays it and no loop but ours."""

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable

import pytest

from fakes import needs_filters
from integration.harness import dial, running
from twocans_core.kernel.tcpinfo import AcceptQueue
from twocans_core.net.channel import Channel
from twocans_server import acceptor
from twocans_server.acceptor import Acceptor
from twocans_server.tally import ServerTally


class World:
    """A listener, and all that its acceptor did.

    Attributes:
        waiting: So many wait in the queue.
        error: What accept() fails with; 0 for nothing.
        did: What was done, in order.
        later: What the loop was asked to call, and after how many seconds.
    """

    def __init__(self, per_turn: int = 64) -> None:
        self.waiting = 0
        self.error = 0
        self.did: list[str] = []
        self.later: list[tuple[float, Callable[[], None]]] = []
        self.tally = ServerTally()
        used_up = lambda: self.did.append("used_up")  # noqa: E731
        self.acceptor = Acceptor(self, per_turn, self.tally, self.admit, used_up, self._call_later)

    def accept(self) -> Channel | None:
        self.did.append("accept")
        if self.error:
            raise OSError(self.error, "no")
        if not self.waiting:
            return None
        self.waiting -= 1
        return object.__new__(Channel)

    def accept_queue(self) -> AcceptQueue:
        if "close" in self.did:
            raise OSError(errno.EBADF, "closed")
        return AcceptQueue(self.waiting, 4_096)

    def refuse_syns(self) -> None:
        self.did.append("refuse_syns")

    def close(self) -> None:
        self.did.append("close")

    def admit(self, _: Channel) -> None:
        self.did.append("admit")

    def cancel(self) -> None:
        self.later.clear()

    def pass_pause(self) -> None:
        (_, callback) = self.later.pop()
        callback()

    def count(self, what: str) -> int:
        return self.did.count(what)

    def _call_later(self, wait_s: float, callback: Callable[[], None]) -> "World":
        self.later.append((wait_s, callback))
        return self


@pytest.mark.parametrize(
    "code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EPERM]
)
def test_what_accept_lacks_is_asked_for_ten_times_a_second_and_not_more(code):
    world = World()
    world.error, world.waiting = code, 50
    for number in range(1, 6):
        for _ in range(50):
            world.acceptor.on_event()
        assert [wait_s for wait_s, _ in world.later] == [0.1]
        assert world.count("accept") == world.tally.accept_errors == number
        world.pass_pause()
    world.error = 0
    world.pass_pause()
    assert world.count("admit") == 50
    assert not world.later


@pytest.mark.parametrize("code", sorted(acceptor._PEERS_ERRNOS))
def test_an_accept_that_fails_for_every_client_is_the_machines_and_makes_no_busy_loop(code):
    world = World()
    world.error, world.waiting = code, 1
    world.acceptor.on_event()
    assert (world.count("accept"), world.tally.accept_errors) == (17, 1)
    world.pass_pause()
    assert (world.count("accept"), world.tally.accept_errors) == (18, 2)
    world.error = 0
    world.pass_pause()
    assert world.count("admit") == 1
    world.error = code
    world.acceptor.on_event()
    assert world.tally.accept_errors == 3, "who comes in forgives what was before"
    assert world.count("accept") == 18 + 2 + 17


@pytest.mark.parametrize("code", [errno.ECONNABORTED, errno.EINTR])
def test_a_client_that_went_before_it_was_accepted_stops_nobody(code):
    world = World(per_turn=64)
    world.error, world.waiting = code, 1
    world.acceptor.on_event()
    assert world.count("accept") == 64
    assert world.did[-1] == "used_up"
    assert world.later[0][0] == 0, "the others' turn, and then on"
    world.error = 0
    world.pass_pause()
    assert world.count("admit") == 1
    assert world.tally.accept_errors == 0


def test_when_it_is_closed_who_waits_is_accepted_and_nobody_else_comes():
    world = World(per_turn=2)
    world.waiting = 3
    asyncio.run(world.acceptor.close(lambda: world.did.append("forget")))
    accepted = "accept admit accept admit used_up accept admit accept"
    assert " ".join(world.did) == f"refuse_syns forget {accepted} close"
    assert world.acceptor.queue() == AcceptQueue(None, None)


def test_a_pause_of_accept_ends_with_the_server():
    world = World()
    world.error = errno.EMFILE
    world.acceptor.on_event()
    assert world.later
    asyncio.run(world.acceptor.close(lambda: None))
    assert not world.later


# --- with a kernel ------------------------------------------------------------------------


def test_a_kernel_that_lets_no_syn_be_dropped_is_told_once(caplog):
    async def story():
        async with running() as server:
            with socket.socket(fileno=os.dup(server._listener.fd)) as same:
                same.setsockopt(socket.SOL_SOCKET, 44, 1)  # SO_LOCK_FILTER: no other after this

    asyncio.run(story())
    (told,) = [record for record in caplog.records if record.message == "syns_not_dropped"]
    assert vars(told)["error.message"] == os.strerror(errno.EPERM)


def test_all_that_wait_to_be_accepted_when_the_server_stops_are(monkeypatch):
    monkeypatch.setattr(acceptor, "_SETTLE_S", 0.0)

    async def story():
        with contextlib.ExitStack() as clients:
            async with running(start=False, accepts_per_turn=1) as server:
                for _ in range(200):
                    clients.enter_context(dial(server.address.port))
                server.start()
            return server.tally.accepted

    assert asyncio.run(story()) == 200


@needs_filters
def test_nobody_can_connect_while_the_queue_is_emptied_and_nobody_is_refused(monkeypatch):
    # A refused or reset client fails; one whose SYN is dropped sends it again in a second.
    monkeypatch.setattr(acceptor, "_SETTLE_S", 1.0)

    async def story():
        async with running() as server:
            stop = asyncio.create_task(server.stop())
            await asyncio.sleep(0.2)
            with pytest.raises(TimeoutError):
                await asyncio.to_thread(dial, server.address.port, connect_s=0.3)
            monkeypatch.setattr(server, "stop", lambda: stop)

    asyncio.run(story())
