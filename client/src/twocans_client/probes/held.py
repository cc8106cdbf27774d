"""The held connection of a path, and the next one, and the next.

Fresh connections show what a path is like at the moment. A held one shows what was lost over
time, and what only befalls connections that live: state that a firewall or a balancer forgets,
a server that closes, a route that goes. So its ending is evidence, and has a reason.

After an ending it comes back with jitter: clients whose server restarted do not come at once.
"""

import asyncio
from collections.abc import Callable

from twocans_core.net.sockets import Address

from .accounts import Observer
from .endings import Backoff, Ending, Life
from .held_connection import Asked, HeldConnection, HeldPlan
from .tools import Tools

__all__ = ["Held"]

_NO_ADDRESS_S = 1.0
_POOR_S = 30.0


class Held:
    """One path's held connection, again and again.

    Args:
        name: As for ``HeldConnection``; so is the plan.
        address: Gives where to connect to; None while that is not known.
        plan: What to do.
        tools: Gives what with, at every connection anew.
        observer: Who hears of all of them.
        affords: Whether the path may spend what another connection costs.
    """

    def __init__(
        self,
        name: str,
        address: Callable[[], Address | None],
        plan: HeldPlan,
        tools: Callable[[], Tools],
        observer: Observer,
        affords: Callable[[], bool] = lambda: True,
    ) -> None:
        self._name = name
        self._address = address
        self._plan = plan
        self._tools = tools
        self._observer = observer
        self._affords = affords
        self._backoff = Backoff()
        self._excused_until_ns = 0
        self._connection: HeldConnection | None = None
        self._task: asyncio.Task[object] | None = None
        self._stopping = False

    @property
    def is_connected(self) -> bool:
        """Whether a connection stands: greeted, and not ended."""
        return self._connection is not None and self._connection.is_open

    def look(self) -> Life | None:
        """Return how the connection stands; None while there is none."""
        return self._connection.look() if self.is_connected and self._connection else None

    def ask(self, asked: Asked) -> bool:
        """As ``HeldConnection.ask``; False while there is none."""
        return self._connection is not None and self._connection.ask(asked)

    def stop(self) -> None:
        """Ask it to end: ``run`` says GOODBYE, and returns within a second."""
        if not self._stopping:
            self._stopping = True
            # Before the cancellation, which is how the connection learns of it.
            if self._connection is not None:
                self._connection.is_stopping = True
            if self._task is not None:
                self._task.cancel()

    async def run(self) -> None:
        """Hold a connection until stopped, in a task of its own.

        Cancelled, it closes at once. Nothing that a peer or a network does leaves it as an
        exception.
        """
        self._task = asyncio.current_task()
        try:
            await self._pause(*self._backoff.first_s)
            while True:
                address = self._address()
                if address is None:
                    await self._pause(_NO_ADDRESS_S, _NO_ADDRESS_S)
                elif not self._affords():
                    await self._pause(_POOR_S, _POOR_S)
                else:
                    await self._pause(*self._backoff.after_s(await self._hold(address)))
        except asyncio.CancelledError:
            if not self._stopping:
                raise
            if self._task is not None:
                self._task.uncancel()  # asked to end, and it did: that is no cancellation

    async def _pause(self, least_s: float, most_s: float) -> None:
        # Stopped before its task had begun: there was nothing to cancel.
        if self._stopping:
            raise asyncio.CancelledError
        await asyncio.sleep(self._tools().rng.uniform(least_s, most_s))

    async def _hold(self, address: Address) -> Ending:
        connection = self._connection = HeldConnection(
            self._name,
            address,
            self._address,
            self._plan,
            self._tools(),
            self._observer,
            excused_until_ns=self._excused_until_ns,
        )
        try:
            return await connection.hold()
        finally:
            self._excused_until_ns = connection.excused_until_ns
