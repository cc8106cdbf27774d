"""Exchanges of one size on one connection, paced, until a time is over: a load, or its victim."""

import asyncio
import functools
from typing import NamedTuple

from twocans_client.evidence.results import ProbeResult
from twocans_core.net.sockets import Address

from .conversation import Conversation
from .probe import Attempt, MakeAttempt, Plan
from .tools import Tools

__all__ = ["Pace", "paced"]


class Pace(NamedTuple):
    """How to exchange.

    Attributes:
        payload_bytes: Of each request; less if the server takes less.
        every_ns: From the start of one to that of the next; it is later if the reply is.
        lasts_ns: None begins later than this after the first.
    """

    payload_bytes: int
    every_ns: int
    lasts_ns: int


def paced(pace: Pace) -> MakeAttempt:
    """Return how to talk so."""
    return functools.partial(_PacedAttempt, pace=pace)


class _PacedAttempt(Attempt):
    """As ``Attempt``. A plan that is ``sized`` lets the payload be what the server takes."""

    def __init__(
        self, address: Address, plan: Plan, tools: Tools, result: ProbeResult, *, pace: Pace
    ) -> None:
        super().__init__(address, plan, tools, result)
        self._pace = pace
        self._rng = tools.rng

    async def converse(self, talk: Conversation) -> None:
        result, pace = self.result, self._pace
        welcome = await self.greet(talk)
        result.payload_bytes = min(pace.payload_bytes, welcome.max_payload)
        payload = self._rng.randbytes(result.payload_bytes)
        due_ns = self.clock.mono_ns()
        until_ns = due_ns + pace.lasts_ns
        while due_ns < until_ns:
            self.begin("exchange")
            await talk.exchange(payload)
            due_ns = max(due_ns + pace.every_ns, self.clock.mono_ns())
            await asyncio.sleep(max(0, due_ns - self.clock.mono_ns()) / 1e9)
        await self.part(talk)
