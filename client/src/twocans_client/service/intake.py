"""What probes have measured, taken in many at a time."""

import asyncio
import logging
from collections.abc import Callable

from twocans_client.evidence.results import ProbeResult

__all__ = ["Intake"]

log = logging.getLogger(__name__)

_AT_ONCE = 50
_AFTER_S = 1.0


class Intake:
    """What probes have measured, taken in by the fifty, and after a second at the latest.

    Many at once cost half of what each costs alone, out of cold caches. Outcomes and states are
    not kept waiting: they are noted when a probe ends.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[tuple[Callable[[ProbeResult], None], ProbeResult]] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, measure: Callable[[ProbeResult], None], result: ProbeResult) -> None:
        """Have ``measure`` called with a result, soon."""
        self._waiting.append((measure, result))
        if len(self._waiting) >= _AT_ONCE:
            self.flush()
        elif self._timer is None:
            self._timer = self._loop.call_later(_AFTER_S, self.flush)

    def flush(self) -> None:
        """Take in everything now. A bug in one result costs no other."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # Taken away first: what is added meanwhile is for the next time.
        waiting, self._waiting = self._waiting, []
        for measure, result in waiting:
            try:
                measure(result)
            except Exception:
                log.exception("bug", extra={"limited": True})
