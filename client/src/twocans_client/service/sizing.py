"""When one path is searched for the largest packet that it lets pass.

Only while a sized exchange hangs, or did, and its direction is known: then two rounds of
connections find the MTU to the byte. They are paid for as sized exchanges are.
"""

import asyncio
from collections.abc import Callable

from twocans_client.evidence.sizes import headers_of
from twocans_client.evidence.window import Window
from twocans_client.paths.purse import Cost, Purse, probe_bytes
from twocans_client.probes.sizes import try_sizes
from twocans_client.probes.tools import Tools
from twocans_core.net.sockets import Address
from twocans_core.process.jsonlog import report_bug

__all__ = ["Sizing"]

# Longer than a segment needs that is lost twice by chance: 0.2 s and 0.4 s.
_PATIENCE_NS = 1_000_000_000
_ROUND_TRIPS = 6
# Rounds in a row, of which the second has the answer where all is steady.
_ROUNDS = 6
_REST_NS = 300_000_000_000


class Sizing:
    """The search of one path.

    Args:
        window: Its evidence, which what is found becomes part of.
        tools: Gives what to try with.
        purse: What pays for it.
        address: Gives where to.
    """

    def __init__(
        self,
        window: Window,
        tools: Callable[[], Tools],
        purse: Purse,
        *,
        address: Callable[[], Address | None],
    ) -> None:
        self._window = window
        self._tools = tools
        self._purse = purse
        self._address = address
        self._task: asyncio.Task[None] | None = None
        self._left, self._rested_ns = _ROUNDS, 0
        self._is_stopped = False

    def look(self, now_ns: int) -> None:
        """Begin to search, if there is anything to find out.

        Args:
            now_ns: CLOCK_MONOTONIC.
        """
        if not self._window.sizes.is_stuck or self._is_stopped:
            return
        if self._task is not None and not self._task.done():
            return
        if now_ns - self._rested_ns >= _REST_NS:
            self._left, self._rested_ns = _ROUNDS, now_ns
        if self._left > 0 and self._window.sizes.candidates():
            self._task = asyncio.get_running_loop().create_task(self._search())
            self._task.add_done_callback(report_bug)

    def stop(self) -> None:
        """Try nothing any more."""
        self._is_stopped = True
        if self._task is not None:
            self._task.cancel()

    async def _search(self) -> None:
        """Go on, round after round, until the answer is known."""
        tools, found = self._tools(), self._window.sizes
        while self._left > 0 and (sizes := found.candidates()):
            address = self._address()
            if address is None:
                return
            cost = sum(probe_bytes(1, size, address.family) for size in sizes)
            if not self._purse.takes(Cost.SIZED, cost, tools.clock.mono_ns()):
                return
            self._left -= 1
            headers = headers_of(address.family, found.options)
            timeout_ns = _PATIENCE_NS + _ROUND_TRIPS * (self._window.quickest_ns or 0)
            for tried in await try_sizes(address, sizes, headers, tools, timeout_ns=timeout_ns):
                found.tried(tried)
                self._window.loads.own(tried.segments)
