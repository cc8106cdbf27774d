"""Where to probe: settings, a file and DNS, kept current beside the probes.

Looking up a name never holds up a probe: it runs in threads of its own, and its time is
measured inside the thread.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random
from typing import NamedTuple

from twocans_core.clock import SYSTEM_CLOCK, Clock
from twocans_core.sockets import Address, resolve

from .results import Reason
from .specs import Spec, Target, parse_file_sd

__all__ = ["Resolution", "Resolver", "Targets"]

log = logging.getLogger(__name__)

_LOOKUP_S = 5.0
_THREADS = 4
_SICK_THREADS = 2
_BACKOFF_FIRST_S, _BACKOFF_LAST_S = 1.0, 60.0
# An address that was right is more likely right than the resolver is down for good.
_STALE_NS = 600 * 1_000_000_000
_FILE_POLL_S = 1.0


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


class Resolver:
    """Look names up in threads, a few at a time.

    A black-holed name holds its thread for as long as the C library tries, whatever we wait.
    So names that failed last time share two places, and never take those of the others.

    Args:
        lookup: Blocks; returns addresses or raises OSError.
        clock: Its ``mono_ns`` measures.
    """

    def __init__(
        self,
        lookup: Callable[[str, int], list[Address]] = resolve,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._lookup = lookup
        self._clock = clock
        self._places = asyncio.Semaphore(_THREADS - _SICK_THREADS)
        self._sick_places = asyncio.Semaphore(_SICK_THREADS)

    async def resolve(self, host: str, port: int, *, sick: bool = False) -> Resolution:
        """Look a name up once. What goes wrong is in the result.

        Args:
            host: The name.
            port: For the addresses.
            sick: Whether it failed last time.
        """
        places = self._sick_places if sick else self._places
        try:
            async with asyncio.timeout(_LOOKUP_S):
                await places.acquire()
                return await asyncio.shield(self._in_thread(host, port, places))
        except TimeoutError:
            return Resolution((), None, Reason.DNS_TIMEOUT, f"no answer within {_LOOKUP_S:g} s")

    def _in_thread(
        self, host: str, port: int, places: asyncio.Semaphore
    ) -> "asyncio.Future[Resolution]":
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Resolution] = loop.create_future()

        def settle(resolution: Resolution) -> None:
            places.release()  # only now: the thread is what is scarce
            if not answer.done():
                answer.set_result(resolution)

        def work() -> None:
            resolution = self._look_up(host, port)
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, resolution)

        # Daemons: a process that stops does not wait for a resolver that does not answer.
        threading.Thread(target=work, name="resolve", daemon=True).start()
        return answer

    def _look_up(self, host: str, port: int) -> Resolution:
        begun_ns = self._clock.mono_ns()
        try:
            addresses = tuple(self._lookup(host, port))
        except (OSError, UnicodeError) as error:
            duration_ns = self._clock.mono_ns() - begun_ns
            detail = getattr(error, "strerror", None) or str(error)
            return Resolution((), duration_ns, Reason.DNS_FAILURE, detail)
        return Resolution(addresses, self._clock.mono_ns() - begun_ns)


class Targets:
    """Keep the list of targets current until cancelled.

    Args:
        specs: From the settings.
        file: A file_sd file with more, or None.
        resolver: Looks names up.
        interval_s: Seconds between two look-ups of one name, plus or minus a fifth.
        rng: For the jitter.
        changed: Called with every target whenever the list has changed.
        resolved: Called after every look-up.
        clock: Its ``mono_ns`` says how old an address is.
    """

    def __init__(
        self,
        specs: Iterable[Spec],
        file: Path | None,
        *,
        resolver: Resolver,
        interval_s: float,
        rng: Random,
        changed: Callable[[list[Target]], None],
        resolved: Callable[[Spec, Resolution], None],
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._fixed = list(specs)
        self._from_file: list[Spec] = []
        self._file = file
        self._resolver = resolver
        self._interval_s = interval_s
        self._rng = rng
        self._changed = changed
        self._resolved = resolved
        self._clock = clock
        self._watched: dict[Spec, asyncio.Task[None]] = {}
        self._known: dict[Spec, list[Target]] = {}

    async def run(self) -> None:
        """Watch the file and the names."""
        seen: object = None
        try:
            self._update()
            while True:
                if self._file is not None:
                    seen = self._check_file(self._file, seen)
                await asyncio.sleep(_FILE_POLL_S)
        finally:
            for task in self._watched.values():
                task.cancel()

    def _check_file(self, file: Path, seen: object) -> object:
        try:
            status = file.stat()
            now = (status.st_mtime_ns, status.st_ino, status.st_size)
            if now == seen:
                return seen
            self._from_file = parse_file_sd(file.read_text())
        except (OSError, ValueError) as error:
            # The last good list stays: an editor's half-written file must not end all paths.
            detail = getattr(error, "strerror", None) or str(error)
            fields = {"file": str(file), "error": detail, "limited": True}
            log.error("targets_file_refused", extra=fields)
            return None
        log.info("targets_file_read", extra={"file": str(file), "targets": len(self._from_file)})
        self._update()
        return now

    def _update(self) -> None:
        specs = list(dict.fromkeys([*self._fixed, *self._from_file]))
        for gone in self._watched.keys() - set(specs):
            self._watched.pop(gone).cancel()
        self._known = {spec: self._known.get(spec, []) for spec in specs}
        for spec in specs:
            if spec.literal is not None:
                self._known[spec] = [Target(spec, spec.literal)]
            elif spec not in self._watched:
                self._watched[spec] = asyncio.create_task(self._watch(spec))
        self._announce()

    def _announce(self) -> None:
        self._changed([target for targets in self._known.values() for target in targets])

    async def _watch(self, spec: Spec) -> None:
        """Look one name up for ever."""
        good_ns = 0
        failures = 0
        while True:
            found = await self._resolver.resolve(spec.host, spec.port, sick=failures > 0)
            self._resolved(spec, found)
            if found.problem is None:
                good_ns, failures = self._clock.mono_ns(), 0
                wait_s = self._interval_s
            else:
                failures += 1
                wait_s = min(_BACKOFF_FIRST_S * 2 ** min(failures - 1, 10), _BACKOFF_LAST_S)
            fresh = good_ns and self._clock.mono_ns() - good_ns < _STALE_NS
            if found.problem is None or not fresh:
                self._learn(spec, found)
            await asyncio.sleep(wait_s * self._rng.uniform(0.8, 1.2))

    def _learn(self, spec: Spec, found: Resolution) -> None:
        if found.problem is not None:
            targets = [Target(spec, None, found.problem)]
        elif spec.every:
            targets = [Target(spec, address) for address in sorted(found.addresses)]
        else:
            # The resolver may rotate its answers. Whoever is probed stays while it is there.
            now = next((target.address for target in self._known.get(spec, [])), None)
            address = now if now in found.addresses else found.addresses[0]
            targets = [Target(spec, address)]
        if self._known.get(spec) != targets:
            self._known[spec] = targets
            self._announce()
