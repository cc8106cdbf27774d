"""How near the cgroup's memory limit is, and who goes when it is too near."""

import heapq
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

from twocans_core.host.cgroup import MemoryLimit

from .limits import CONNECTION_BYTES

__all__ = ["Memory", "shed"]

# Beyond this part of the limit connections are shed. The kernel kills at the whole.
_FULL = 7 / 8
# So much may come in before the memory is looked at again: a sender fills 8 MiB in some 10 ms.
_LOOK_BYTES = 1024 * 1024
_SHED_AT_ONCE = 256


class Held(Protocol):
    """What costs memory; as of ``Connection``."""

    @property
    def is_open_session(self) -> bool: ...

    @property
    def held_bytes(self) -> int: ...

    @property
    def idle_since_ns(self) -> int: ...


T = TypeVar("T", bound=Held)


class Memory:
    """What is left of the memory limit over this process.

    Attributes:
        limit_bytes: The limit when we began; None where there is none.
        is_full: Whether nobody else may be let in, as of the last look.
    """

    def __init__(self) -> None:
        self._limit = MemoryLimit()
        memory = self._limit.read()
        self.limit_bytes = memory.limit if memory is not None else None
        self.is_full = False
        self._looked_at_bytes = 0

    def is_due(self, received_bytes: int) -> bool:
        """Whether so much came in that another look is due before the next sweep."""
        return received_bytes - self._looked_at_bytes >= _LOOK_BYTES

    def look(self, received_bytes: int) -> int:
        """Return how many bytes must be freed, mostly 0; reads two or three files."""
        self._looked_at_bytes = received_bytes
        memory = self._limit.read()
        excess = memory.used - int(memory.limit * _FULL) if memory is not None else 0
        self.is_full = excess > 0
        return max(0, excess)


def shed(connections: Iterable[T], excess: int) -> Iterator[T]:
    """Yield connections, least loss first, until so many bytes are free."""
    if excess <= 0:
        return
    # Strangers first: who was not greeted, then who holds most, then who is longest silent.
    for connection in heapq.nsmallest(
        _SHED_AT_ONCE,
        connections,
        key=lambda one: (one.is_open_session, -one.held_bytes, one.idle_since_ns),
    ):
        if excess <= 0:
            return
        # An estimate, as the cgroup is read once for all of them.
        excess -= CONNECTION_BYTES + connection.held_bytes
        yield connection
