"""Which local port a probe uses. No I/O: the kernel's range is an argument.

Many a way has several lanes: equal-cost routes, the links of a bundle, the workers of a balancer.
Which one a connection takes follows from its addresses and ports, often from the lowest bits of
the port alone. So what befalls one lane only befalls some local ports only, and probes have to use
all of them.

connect() does not: it takes a port of the parity of the range's lowest as long as there is one
(``__inet_hash_connect``, net/ipv4/inet_hashtables.c). Of 2,000 connections on Linux 6.18 all 2,000
had even ports. So every other probe gets a port by us, and of 32 probes in a row these are of all
16 classes modulo 16. The others stay the kernel's choice, which is what programs use.
"""

from collections import deque
from collections.abc import Collection

__all__ = ["CLASSES", "Ports"]

CLASSES = 16
"""Classes of ports, by their remainder, of which none is to be left out."""
# Coprime to the classes, and to the size of any range that is a multiple of them, as it is a prime
# above 65,536 / 16: every port has its turn before one comes again, so nobody takes a connection
# for the one before it.
_STEP = 4_099
# If a port is in use, the next of its class. More tries would only help a host that has none left.
_TRIES = 3
# Ports that somebody wants to see again; if there are more, the oldest are forgotten.
_WANTED = 16


class Ports:
    """One path's walk through the local ports.

    Args:
        low: Lowest port of ``ip_local_port_range``.
        high: Highest.
        reserved: ``ip_local_reserved_ports``: connect() leaves them out, and so do we.
        start: Where to begin, so that paths do not walk in step.
    """

    def __init__(self, low: int, high: int, reserved: Collection[int] = (), start: int = 0) -> None:
        self._low = low
        self._span = (high - low + 1) // CLASSES * CLASSES
        self._reserved = reserved
        self._at = start
        self._wanted: deque[int] = deque(maxlen=_WANTED)
        self._is_ours = False

    def want(self, port: int) -> None:
        """Have a probe use this port again: what fails with it once and always is its lane."""
        if port not in self._wanted:
            self._wanted.append(port)

    def take(self) -> tuple[int, ...]:
        """Return the ports of the next probe, best first; empty: the kernel shall choose."""
        self._is_ours = not self._is_ours
        if not self._is_ours:
            return ()
        if self._wanted:
            return (self._wanted.popleft(),)
        if not self._span:
            return ()
        self._at += _STEP
        steps = (self._at + CLASSES * _STEP * turn for turn in range(_TRIES))
        ports = (self._low + step % self._span for step in steps)
        return tuple(dict.fromkeys(port for port in ports if port not in self._reserved))
