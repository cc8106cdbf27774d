"""Everybody who is connected: each is let act, and parted with when its time or memory is up."""

import asyncio
import logging
from collections.abc import Callable, Iterable

from twocans_core.net.channel import Channel
from twocans_server.connections.connection import Connection

from .deadlines import DeadlineWheel
from .memory import Memory, shed
from .tally import ServerTally
from .turns import Turns

__all__ = ["Roster"]

log = logging.getLogger(__name__)

# Connections that one turn of the loop looks at where many are due for something together.
_DUE_AT_ONCE = 16


class Roster:
    """All connections of one server.

    Args:
        loop: The loop whose thread they live on.
        tally: What they count.
        hit: Told the name of a limit that was reached.

    Attributes:
        channels: The channel of each connection, in the order in which they came.
        memory: What is left of the memory limit.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, tally: ServerTally, hit: Callable[[str], None]
    ) -> None:
        self.channels: dict[Connection, Channel] = {}
        self.memory = Memory()
        self._tally = tally
        self._hit = hit
        self._wheel: DeadlineWheel[Connection] = DeadlineWheel()
        self._turns: Turns[Connection] = Turns(
            loop.call_soon, lambda one: self.guard(one, one.on_turn)
        )

    def add(self, connection: Connection, channel: Channel) -> None:
        """Keep it until ``remove``; its deadline counts from now on."""
        self.channels[connection] = channel
        self._wheel.put(connection)

    def remove(self, connection: Connection) -> Channel:
        """Forget it; returns its channel, which is still open."""
        self._wheel.remove(connection)
        return self.channels.pop(connection)

    def again(self, connection: Connection) -> None:
        """Give it another turn, behind all who wait for theirs."""
        self._turns.put(connection)

    def serve(self, connection: Connection, events: int) -> None:
        """Let it use what its socket is ready for."""
        self.guard(connection, connection.on_events, events)
        if self.memory.is_due(self._tally.bytes_received):
            self.look_at_memory()

    def guard(self, connection: Connection, action: Callable[..., None], *args: int) -> None:
        """Let it act. A bug in it ends this connection and nothing else."""
        before_ns = connection.deadline_ns
        try:
            action(*args)
        except Exception:
            log.exception("bug", extra={"limited": True})
            connection.fail()
        # What moved later the wheel finds by itself, and what moved earlier never.
        if connection.deadline_ns < before_ns and connection in self.channels:
            self._wheel.put(connection)

    async def each(
        self, connections: Iterable[Connection], action: Callable[[Connection], None]
    ) -> None:
        """Let each of many act, and the others have their turn between."""
        for number, connection in enumerate(connections, 1):
            # It may have ended since the list was made: by an action on another, or between two
            # turns.
            if connection in self.channels:
                self.guard(connection, lambda one=connection: action(one))
            if number % _DUE_AT_ONCE == 0:
                await asyncio.sleep(0)

    async def act_on_deadlines(self, now_ns: int) -> None:
        """Let everybody act whose deadline has passed, as of CLOCK_MONOTONIC."""
        for batch in self._wheel.due(now_ns, _DUE_AT_ONCE):
            for connection in batch:
                self.guard(connection, connection.on_deadline)
            await asyncio.sleep(0)  # the others' turn

    def look_at_memory(self) -> None:
        """Shed connections while the kernel is about to kill us for what they hold."""
        excess = self.memory.look(self._tally.bytes_received)
        for connection in shed(self.channels, excess):
            self._hit("memory")
            self.guard(connection, connection.shed)
