"""Where to probe: settings, a file and DNS, kept current beside the probes.

Looking up a name never holds up a probe: see ``resolver``.
"""

import asyncio
import logging
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random

from twocans_core.clock import SYSTEM_CLOCK, Clock
from twocans_core.jsonlog import report_bug

from .resolver import Resolution, Resolver
from .specs import Spec, Target, parse_file_sd

__all__ = ["Targets"]

log = logging.getLogger(__name__)

_BACKOFF_FIRST_S, _BACKOFF_LAST_S = 1.0, 15.0
# An address that was right is more likely right than the resolver is down for good.
_STALE_NS = 600 * 1_000_000_000
_FILE_POLL_S = 1.0
_MAX_FILE_BYTES = 4 * 1024 * 1024
_MAX_PATHS = 10_000


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
            if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_FILE_BYTES:
                raise ValueError(f"want a regular file of at most {_MAX_FILE_BYTES} bytes")
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
        # By their text: who is given other labels is still the same path.
        known = {spec.text: targets for spec, targets in self._known.items()}
        self._known = {
            spec: [target._replace(spec=spec) for target in known.get(spec.text, ())]
            for spec in specs
        }
        for spec in specs:
            if spec.literal is not None:
                self._known[spec] = [Target(spec, spec.literal)]
            elif spec not in self._watched:
                self._watched[spec] = task = asyncio.create_task(self._watch(spec))
                task.add_done_callback(report_bug)
        self._announce()

    def _announce(self) -> None:
        targets = [target for targets in self._known.values() for target in targets]
        if len(targets) > _MAX_PATHS:
            log.error("too_many_paths", extra={"paths": len(targets), "limited": True})
        self._changed(targets[:_MAX_PATHS])

    async def _watch(self, spec: Spec) -> None:
        """Look one name up for ever."""
        good_ns = 0
        failures = 0
        slow = False
        while True:
            found = await self._resolver.resolve(spec.host, spec.port, slow=slow)
            slow = found.slow
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
