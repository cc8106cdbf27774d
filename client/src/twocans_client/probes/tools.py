"""What probes work with."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from random import Random
from typing import NamedTuple, Protocol

from twocans_core.clock import SYSTEM_CLOCK, Clock
from twocans_core.host.stalls import NEVER, Stalled
from twocans_core.kernel.tcpinfo import NO_HOST_COUNTS, HostCounts
from twocans_core.net.sockets import Address
from twocans_core.net.streams import ByteStream
from twocans_core.protocol.messages import Identity

__all__ = ["Dial", "Tools"]


class Dial(Protocol):
    """Open a connection; ``streams.connect`` with its poller, or a test's fake."""

    def __call__(
        self,
        address: Address,
        *,
        deadline_ns: int,
        held: bool = False,
        opened: Callable[[tuple[str, int]], None] = ...,
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
        host: What our host's TCP counted: a ``HostWatch``.
    """

    dial: Dial
    identity: Identity
    rng: Random
    stalled_since: Callable[[int], Stalled] = lambda _: NEVER
    clock: Clock = SYSTEM_CLOCK
    attention: AbstractContextManager[None] = nullcontext()
    host: Callable[..., HostCounts] = lambda **_: NO_HOST_COUNTS
