"""What connections share, and what each needs of its socket. No I/O."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from twocans_core.clock import Clock
from twocans_core.host.procfs import HostWatch
from twocans_core.kernel.tcpinfo import Counters, HostCounts
from twocans_core.net.channel import Received
from twocans_core.protocol.messages import Identity
from twocans_server.limits import Limits
from twocans_server.tally import ServerTally

from .witness import Records

__all__ = ["Context", "Wire"]


class Wire(Protocol):
    """What a connection needs of ``channel.Channel``, whose docstrings hold."""

    @property
    def peer(self) -> tuple[str, int]: ...

    def stamp_transmits(self) -> bool: ...

    def receive(self) -> Received | None: ...

    def send(self, data: bytes | bytearray | memoryview) -> int: ...

    def send_stamped(self, data: bytes | bytearray | memoryview) -> int: ...

    def take_tx_ns(self, end: int) -> int | None: ...

    def counters(self) -> Counters: ...

    def counted(self) -> tuple[Counters, int | None]: ...

    def let_be_silent(self) -> None: ...

    def probe_silence(self) -> None: ...

    def end_output(self) -> None: ...


class Context(NamedTuple):
    """What all connections of one server share.

    Attributes:
        limits: The limits in force.
        identity: Who the server is.
        begun_ns: When it began, CLOCK_BOOTTIME.
        tally: What it counts.
        clock: Its clocks.
        host: What its host's TCP counted.
        options: The TCP options that its host offers (``procfs.tcp_options``).
        is_draining: Whether it is about to stop.
        records: Those of connections, for who asks about its own.
    """

    limits: Limits
    identity: Identity
    begun_ns: int
    tally: ServerTally
    clock: Clock
    host: HostWatch[HostCounts]
    options: HostWatch[int | None]
    is_draining: Callable[[], bool]
    records: Records
