"""Look names up beside the probes: in threads, and measured inside of them."""

import asyncio
import contextlib
import encodings.idna  # noqa: F401 - getaddrinfo() would import it, in its first look-up's time
import functools
import os
import re
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NamedTuple

from twocans_client.evidence.blame import Circumstances, judge, own_fault
from twocans_client.evidence.results import Reason
from twocans_core.clock import SYSTEM_CLOCK, Clock
from twocans_core.host.stalls import NEVER, Stalled
from twocans_core.net.sockets import Address, has_route, resolve

__all__ = [
    "LOOKUP_S",
    "TRIED",
    "Resolution",
    "Resolver",
    "first_usable",
    "lookup_of",
    "of_family",
    "retry_ns",
]

LOOKUP_S = 5.0
TRIED = 8
"""Addresses of a family that are looked at to see whether there is a route to any."""
_PLACES = 4
_SLOW_PLACES = 2
# Nothing ends a getaddrinfo() that waits: by default it asks each name server twice, 5 s each
# (resolv.conf(5)). So threads may pile up behind a dead one, but not without end.
_MOST_THREADS = 64
# A name that answers at all does so within milliseconds.
_PATIENCE_S = 0.5


# What resolv.conf(5) allows for "timeout", and what holds without it. Seconds.
_LONGEST_RETRY, _RETRY = 30, 5


class Resolution(NamedTuple):
    """What one look-up gave.

    Attributes:
        addresses: Every address; empty when it failed.
        duration_ns: getaddrinfo() called to returned, CLOCK_MONOTONIC, inside its thread. None
            when it did not return in time.
        problem: Why it failed; None when it did not.
        detail: The resolver's words.
    """

    addresses: tuple[Address, ...]
    duration_ns: int | None
    problem: Reason | None = None
    detail: str = ""

    @property
    def slow(self) -> bool:
        """Whether it held its thread for long."""
        return self.duration_ns is None or self.duration_ns > _PATIENCE_S * 1e9


def of_family(
    addresses: Sequence[Address],
    family: str,
    has_route: Callable[[Address], bool] = has_route,
) -> list[Address]:
    """Return those that the setting ``family`` wants.

    Args:
        addresses: All that a name has.
        family: ``any``, ``ipv4``, ``ipv6``, ``prefer-ipv4`` or ``prefer-ipv6``.
        has_route: Tells whether our own kernel knows a way to one.
    """
    if family == "any":
        return list(addresses)
    wanted = [address for address in addresses if address.family == family[-1]]
    if family.startswith("prefer-") and not any(map(has_route, wanted[:TRIED])):
        return list(addresses)
    return wanted


def first_usable(
    addresses: Sequence[Address], has_route: Callable[[Address], bool] = has_route
) -> Address:
    """Return the first that our own kernel knows a way to; else the first."""
    return next(filter(has_route, addresses[:TRIED]), addresses[0])


def lookup_of(family: str) -> Callable[[str, int], list[Address]]:
    """Return what looks a name up for the setting ``family``; no other family is asked for."""
    if family in ("ipv4", "ipv6"):
        return functools.partial(resolve, family=family[-1])
    return lambda host, port: of_family(resolve(host, port), family)


def retry_ns(config: Path = Path("/etc/resolv.conf")) -> int:
    """Return after how long without an answer the C library asks a name server again, in ns.

    By the newest ``options timeout:n`` of resolv.conf(5), which RES_OPTIONS overrides.
    """
    text = ""
    with contextlib.suppress(OSError):
        text = config.read_text(errors="replace")
    text += f"\noptions {os.environ.get('RES_OPTIONS', '')}"
    found = re.findall(r"(?m)^\s*options\b.*?\btimeout:(\d{1,9})", text)
    seconds = int(found[-1]) if found else _RETRY
    return min(max(1, seconds), _LONGEST_RETRY) * 1_000_000_000


class _Place:
    """A place that is given back once, by the first that wants to."""

    def __init__(self, places: asyncio.Semaphore) -> None:
        self._places = places
        self._held = True

    def give_back(self) -> None:
        if self._held:
            self._held = False
            self._places.release()


class Resolver:
    """Look names up in threads, a few at a time.

    A black-holed name holds its thread for as long as the C library tries, whatever we wait.
    So a name that has not answered after half a second gives its place to the next one, and
    those that were slow last time share two places, and never take those of the others.

    Args:
        lookup: Blocks; returns addresses or raises OSError.
        clock: Its ``mono_ns`` measures.
        stalled_since: How we stood still since a moment of it.
        attention: Entered while an answer is waited for: ``StallWatch.attention``.
    """

    def __init__(
        self,
        lookup: Callable[[str, int], list[Address]] = resolve,
        clock: Clock = SYSTEM_CLOCK,
        stalled_since: Callable[[int], Stalled] = lambda _: NEVER,
        attention: AbstractContextManager[None] = nullcontext(),  # noqa: B008 - holds nothing
    ) -> None:
        self._lookup = lookup
        self._clock = clock
        self._stalled_since = stalled_since
        self._attention = attention
        self._places = asyncio.Semaphore(_PLACES)
        self._slow_places = asyncio.Semaphore(_SLOW_PLACES)
        self._threads = 0

    async def resolve(
        self, host: str, port: int, *, slow: bool = False, timeout_s: float = LOOKUP_S
    ) -> Resolution:
        """Look a name up once. What goes wrong is in the result.

        Args:
            host: The name.
            port: For the addresses.
            slow: Whether it was slow last time.
            timeout_s: How long to wait for the answer.
        """
        places = self._slow_places if slow else self._places
        # Outside of the time-out: our own queue is no fault of the name's.
        await places.acquire()
        place = _Place(places)
        # A slow name keeps its place until it has answered: that is what bounds how many wait at
        # once.
        if not slow:
            asyncio.get_running_loop().call_later(_PATIENCE_S, self._lose_patience, place)
        begun_ns = self._clock.mono_ns()
        answer = self._in_thread(host, port, place)
        try:
            with self._attention:
                async with asyncio.timeout(timeout_s):
                    # Shielded: the thread goes on whatever we do, and whether it has answered is
                    # asked below.
                    found = await asyncio.shield(answer)
        except TimeoutError:
            silence = f"no answer within {timeout_s:g} s"
            found = Resolution((), None, Reason.DNS_TIMEOUT, silence)
            if answer.done():  # it came while we stood still
                found = answer.result()
        if found.problem is not None:
            known = Circumstances(self._stalled_since(begun_ns), int(timeout_s * 1e9))
            problem, detail = judge(found.problem, found.detail, known)
            found = found._replace(problem=problem, detail=detail)
        return found

    def _lose_patience(self, place: _Place) -> None:
        if self._threads < _MOST_THREADS:
            place.give_back()

    def _in_thread(self, host: str, port: int, place: _Place) -> "asyncio.Future[Resolution]":
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Resolution] = loop.create_future()

        def settle(resolution: Resolution) -> None:
            self._threads -= 1
            place.give_back()
            if not answer.done():
                answer.set_result(resolution)

        def work() -> None:
            resolution = self._look_up(host, port)
            with contextlib.suppress(RuntimeError):  # the loop is closed: we have stopped
                loop.call_soon_threadsafe(settle, resolution)

        self._threads += 1
        try:
            # Daemons: a process that stops does not wait for a resolver that does not answer.
            threading.Thread(target=work, name="resolve", daemon=True).start()
        except RuntimeError as error:
            settle(Resolution((), None, Reason.NO_MEMORY, str(error)))
        return answer

    def _look_up(self, host: str, port: int) -> Resolution:
        begun_ns = self._clock.mono_ns()
        try:
            addresses = tuple(self._lookup(host, port))
        # What IDNA refuses (a label of 64 letters) is a UnicodeError, and that is a ValueError.
        except (OSError, ValueError) as error:
            duration_ns = self._clock.mono_ns() - begun_ns
            detail = getattr(error, "strerror", None) or str(error)
            return Resolution((), duration_ns, own_fault(error) or Reason.DNS_FAILURE, detail)
        return Resolution(addresses, self._clock.mono_ns() - begun_ns)
