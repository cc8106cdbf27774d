"""Greet new addresses, a few a second, so that each is known before it is probed."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from random import Random
from typing import NamedTuple

from twocans_client.evidence.results import Outcome
from twocans_core.clock import Clock
from twocans_core.net.sockets import Address
from twocans_core.process.jsonlog import report_bug

from .neighbours import Neighbourhood
from .specs import Who

__all__ = ["Explorer", "Greeting", "Introduce"]

_LOOK_AGAIN_S = 1.0
# Each holds a descriptor until its time-out.
_MOST_AT_ONCE = 64


class Greeting(NamedTuple):
    """What came of greeting one address.

    Attributes:
        outcome: Whose doing it was, where nothing came of it.
        who: Who answered; None when nobody did.
        draining: Whether it said that it stops.
    """

    outcome: Outcome
    who: Who | None = None
    draining: bool = False


Introduce = Callable[[Address], Awaitable[Greeting]]


class Explorer:
    """Ask the strangers of all neighbourhoods who they are, never many at once.

    However many clients start together, each opens no more than these connections to servers
    that it does not know.

    Args:
        neighbourhoods: Gives them; they may come and go.
        introduce: Greets an address.
        per_s: New addresses a second, more or less a fifth. The first one is greeted at once.
        learned: Called when something may have changed in a neighbourhood.
        rng: For the jitter.
        clock: For the neighbourhoods.
    """

    def __init__(
        self,
        neighbourhoods: Callable[[], Iterable[Neighbourhood]],
        introduce: Introduce,
        *,
        per_s: float,
        learned: Callable[[], None],
        rng: Random,
        clock: Clock,
    ) -> None:
        self._neighbourhoods = neighbourhoods
        self._introduce = introduce
        self._wait_s = 1 / per_s
        self._learned = learned
        self._rng = rng
        self._clock = clock
        self._greetings: set[asyncio.Task[None]] = set()
        self._new = asyncio.Event()
        self._turn = 0

    def look(self) -> None:
        """There may be somebody new."""
        self._new.set()

    async def run(self) -> None:
        """Greet until cancelled."""
        try:
            while True:
                if self._greet_next():
                    await asyncio.sleep(self._wait_s * self._rng.uniform(0.8, 1.2))
                    continue
                # Nobody is new. Who left, or is missing, is judged anew by time alone.
                self._learned()
                self._new.clear()
                # Not wait_for(): in Python 3.11 it may lose a cancellation.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_AGAIN_S):
                        await self._new.wait()
        finally:
            greetings = list(self._greetings)
            for task in greetings:
                task.cancel()
            await asyncio.gather(*greetings, return_exceptions=True)

    def _greet_next(self) -> bool:
        if len(self._greetings) >= _MOST_AT_ONCE:
            return False
        now_ns = self._clock.mono_ns()
        for neighbourhood in self._in_turn():
            address = neighbourhood.stranger(now_ns)
            if address is not None:
                # Not awaited: one that does not answer would hold up the others for its whole
                # time-out.
                task = asyncio.create_task(self._greet(neighbourhood, address))
                self._greetings.add(task)
                task.add_done_callback(self._greetings.discard)
                task.add_done_callback(report_bug)
                return True
        return False

    def _in_turn(self) -> list[Neighbourhood]:
        """Return the neighbourhoods, another one first each time."""
        every = list(self._neighbourhoods())
        self._turn += 1
        first = self._turn % len(every) if every else 0
        return every[first:] + every[:first]

    async def _greet(self, neighbourhood: Neighbourhood, address: Address) -> None:
        greeting = await self._introduce(address)
        now_ns = self._clock.mono_ns()
        if greeting.draining:
            neighbourhood.leaves(address, now_ns)
        elif greeting.who is not None:
            neighbourhood.met(address, greeting.who, now_ns)
        elif greeting.outcome is Outcome.VOID:
            neighbourhood.unasked(address, now_ns)
        else:
            neighbourhood.silent(address, now_ns)
        self._learned()
