"""Deadlines of many connections, for one sweep a second instead of a timer each. No I/O."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

__all__ = ["DeadlineWheel"]

_SLOT_NS = 1_000_000_000


class HasDeadline(Protocol):
    """What can be put into a wheel."""

    @property
    def deadline_ns(self) -> int:
        """Ns of CLOCK_MONOTONIC. May move later at any time without telling the wheel."""


T = TypeVar("T", bound=HasDeadline)


class DeadlineWheel(Generic[T]):
    """Remember which things are due when, to the second.

    A thing lies in the slot of the deadline that it had when it was put there. When that slot
    comes up and the deadline has moved, the thing moves on: touching a deadline costs nothing.
    """

    def __init__(self) -> None:
        self._slots: defaultdict[int, set[T]] = defaultdict(set)
        self._where: dict[T, int] = {}

    def put(self, thing: T) -> None:
        """Watch a thing. Put it again when its deadline moved earlier."""
        self.remove(thing)
        slot = thing.deadline_ns // _SLOT_NS
        self._slots[slot].add(thing)
        self._where[thing] = slot

    def remove(self, thing: T) -> None:
        """Watch it no more. Safe to call twice."""
        slot = self._where.pop(thing, None)
        if slot is not None:
            self._slots[slot].discard(thing)
            if not self._slots[slot]:
                del self._slots[slot]

    def due(self, now_ns: int, at_once: int) -> Iterator[list[T]]:
        """Find what is due now, and look at no more than so many things for each list.

        Between two lists anything may be done, for thousands can be due together. What is due
        stays in the wheel until it is removed or put again.
        """
        # A list, as what is done between two batches changes the slots.
        for slot in [slot for slot in self._slots if slot <= now_ns // _SLOT_NS]:
            # Not by index: the defaultdict would make a slot anew that has gone meanwhile.
            things = list(self._slots.get(slot, ()))
            for start in range(0, len(things), at_once):
                found = []
                for thing in things[start : start + at_once]:
                    if self._where.get(thing) != slot:
                        continue  # went meanwhile, or was put elsewhere
                    if thing.deadline_ns <= now_ns:
                        found.append(thing)
                    elif thing.deadline_ns // _SLOT_NS != slot:
                        self.put(thing)
                yield found
