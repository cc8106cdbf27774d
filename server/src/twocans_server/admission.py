"""Who is served, and who is told that there is no place: caps, sources, the lobby. No I/O."""

import ipaddress
from collections import Counter
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from .limits import LOBBY_PLACES

__all__ = ["Admission"]


class Progressing(Protocol):
    """What can wait in the lobby; as of ``Connection``."""

    @property
    def progress(self) -> int: ...


T = TypeVar("T", bound=Progressing)


class Admission(Generic[T]):
    """Count who is served, and keep those over a cap for the moment that it takes to say so.

    Args:
        most: Connections that are served at once.
        most_per_source: Of one IPv4 address or IPv6 /64; 0: any number.
        hit: Told the name of a limit that was reached.

    Attributes:
        served: Connections being served now.
    """

    def __init__(self, most: int, most_per_source: int, hit: Callable[[str], None]) -> None:
        self.most = most
        self.served = 0
        self._most_per_source = most_per_source
        self._hit = hit
        self._sources: Counter[bytes] = Counter()
        # In the order in which they came.
        self._lobby: dict[T, None] = {}

    def refusal(self, host: str, *, is_memory_full: bool = False) -> str:
        """Return why one more from there is not served, as BUSY says it; ``""`` if it is."""
        if self.served >= self.most:
            self._hit("max_connections")
            return "connections"
        if is_memory_full:
            self._hit("memory")
            return "connections"
        if self._most_per_source and self._sources[_source(host)] >= self._most_per_source:
            self._hit("max_connections_per_source")
            return "connections_per_source"
        return ""

    def in_the_way(self) -> T | None:
        """Return who has to leave the lobby before another comes; None while there is a place."""
        if len(self._lobby) < LOBBY_PLACES:
            return None
        # Who said nothing first, who was told already last; of these the oldest.
        return min(self._lobby, key=lambda one: one.progress)

    def enter(self, one: T, host: str, refusal: str) -> None:
        """Let it in: to be served, or with a refusal into the lobby."""
        if refusal:
            self._lobby[one] = None
        else:
            self._sources[_source(host)] += 1
            self.served += 1

    def leave(self, one: T, host: str) -> None:
        """It is over; its place is free."""
        if one in self._lobby:
            del self._lobby[one]
            return
        source = _source(host)
        self.served -= 1
        self._sources[source] -= 1
        if not self._sources[source]:
            del self._sources[source]


def _source(host: str) -> bytes:
    """Return what one client can hold many of: an IPv4 address, or an IPv6 /64."""
    # One host has a whole /64 to choose its addresses from (RFC 4291, 2.5.1; RFC 8981).
    packed = ipaddress.ip_address(host.partition("%")[0]).packed
    return packed if len(packed) == 4 else packed[:8]
