"""What probes work with, and what it stands on."""

import asyncio
import functools
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from random import Random
from typing import NamedTuple, Protocol

from twocans_core import __version__
from twocans_core.clock import SYSTEM_CLOCK, Clock
from twocans_core.host.arrivals import NO_OWN_COUNTS, OwnCounts, OwnReader
from twocans_core.host.procfs import OPTIONS_AGE_NS, HostWatch, tcp_options
from twocans_core.host.stalls import NEVER, NOTHING_KNOWN, OwnHost, Stalled, StallWatch
from twocans_core.net.poller import Poller
from twocans_core.net.sockets import EVERYTHING, Address, Kernel, open_keeper
from twocans_core.net.streams import ByteStream, Unconnected, connect
from twocans_core.protocol.messages import Identity

__all__ = ["Dial", "Toolbox", "Tools"]


class Dial(Protocol):
    """Open a connection; ``streams.connect`` with its poller, or a test's fake."""

    def __call__(
        self,
        address: Address,
        *,
        deadline_ns: int,
        held: bool = False,
        local_ports: Sequence[int] = (),
        opened: Callable[[tuple[str, int]], None] = ...,
        failed: Callable[[Unconnected], None] = ...,
    ) -> Awaitable[ByteStream]: ...


class Tools(NamedTuple):
    """What a probe works with.

    Attributes:
        dial: Opens connections.
        identity: Who we are.
        rng: Draws payloads and connection ids.
        stalled_since: How we stood still since a moment of CLOCK_MONOTONIC.
        clock: The clocks.
        attention: Entered while an answer is waited for: ``StallWatch.attention``.
        host: What our host counted: a ``HostWatch``.
        own_host_since: What our host did to us since a moment of CLOCK_MONOTONIC; may be asked
            once a second by each path.
        options: The TCP options that our host offers: ``procfs.tcp_options``.
    """

    dial: Dial
    identity: Identity
    rng: Random
    stalled_since: Callable[[int], Stalled] = lambda _: NEVER
    clock: Clock = SYSTEM_CLOCK
    attention: AbstractContextManager[None] = nullcontext()
    host: Callable[..., OwnCounts] = lambda **_: NO_OWN_COUNTS
    own_host_since: Callable[[int], OwnHost] = lambda _: NOTHING_KNOWN
    options: Callable[[], int | None] = lambda: None


class Toolbox:
    """The tools of one process: opened on its running loop, and closed once.

    Args:
        stalls: Watches the loop from ``start`` to ``close``.
        rng: As in ``Tools``; so are clock and identity, of which here are the parts.
        name: What we are called.
        node: Where we run; ``""``: not known.
        zone: Likewise.
        clock: The clocks.
        kernel: What to ask the kernel for.

    Attributes:
        tools: What is in it. Another tuple after ``move``.
    """

    def __init__(
        self,
        stalls: StallWatch,
        rng: Random,
        *,
        name: str,
        node: str = "",
        zone: str = "",
        clock: Clock = SYSTEM_CLOCK,
        kernel: Kernel = EVERYTHING,
    ) -> None:
        self._stalls = stalls
        self._poller = Poller(asyncio.get_running_loop())
        # The kernel timestamps what is received as long as anybody wants it, and is slow to begin.
        self._close_keeper = open_keeper() if kernel.stamps else None
        self.tools = Tools(
            functools.partial(connect, poller=self._poller, clock=clock, kernel=kernel),
            Identity(os.urandom(16), name, node, zone, __version__),
            rng,
            stalls.since,
            clock,
            stalls.attention,
            HostWatch(clock.mono_ns, OwnReader()),
            stalls.own_host_since,
            HostWatch(clock.mono_ns, tcp_options, OPTIONS_AGE_NS),
        )

    def start(self) -> None:
        """Watch for stalls from now on."""
        self._stalls.start()

    def move(self, zone: str) -> None:
        """Tell servers from now on that we are in this zone."""
        identity = self.tools.identity._replace(zone=zone)
        self.tools = self.tools._replace(identity=identity)

    def close(self) -> None:
        """Give back all that was opened. Nothing may be connected any more."""
        self._stalls.stop()
        self._poller.close()
        if self._close_keeper is not None:
            self._close_keeper()
