"""What connections have in common: how they end, what they need of the world. No I/O."""

import enum
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

from twocans_core.clock import Clock
from twocans_core.host.procfs import HostWatch
from twocans_core.kernel.tcpinfo import Counters
from twocans_core.net.channel import Received
from twocans_core.protocol.messages import Identity
from twocans_server.limits import Limits
from twocans_server.metrics import ServerTally

if TYPE_CHECKING:
    from .connection import Connection

__all__ = ["Context", "Ending", "Kind", "Report", "Wire"]


class Kind(enum.StrEnum):
    """What a connection turned out to be. Values are metric labels: never rename them."""

    NEW = "new"
    PLAIN = "plain"
    FRAMED = "framed"


class Ending(enum.StrEnum):
    """How a connection ended. Values are metric labels: never rename them."""

    DONE = "done"
    """Framed: both sides said GOODBYE. Plain: the client ended, and had every byte back."""
    LEFT = "left"
    """The client went without a GOODBYE, or without reading what was due."""
    RESET = "reset"
    """The connection broke: a reset, or a time-out of the kernel."""
    BUSY = "busy"
    """No place: over a cap."""
    REFUSED = "refused"
    """The client broke the protocol."""
    DAMAGED = "damaged"
    """A frame came damaged, or the client says so of ours: the path's doing, not the client's."""
    SLOW = "slow"
    """A greeting or a frame took too long."""
    IDLE = "idle"
    """Nothing happened for too long."""
    STOPPED = "stopped"
    """The server stopped and could not wait any longer."""
    BUG = "bug"
    """An exception of ours."""


class Report(NamedTuple):
    """What happened on one connection.

    Attributes:
        kind: What it was.
        ending: How it ended.
        reason: A token that says more: the protocol error's, the errno's name, the cap's. ``""``
            where there is nothing to add.
        exchanges: Requests answered.
        client: Who it was; None when no HELLO came.
    """

    kind: Kind
    ending: Ending
    reason: str
    exchanges: int
    client: Identity | None


class Wire(Protocol):
    """What a connection needs of ``sockets.Channel``, whose docstrings hold."""

    @property
    def peer(self) -> tuple[str, int]: ...

    @property
    def sent_bytes(self) -> int: ...

    def stamp_transmits(self) -> bool: ...

    def receive(self) -> Received | None: ...

    def send(self, data: bytes | bytearray | memoryview) -> int: ...

    def send_stamped(self, data: bytes | bytearray | memoryview) -> int: ...

    def take_tx_ns(self, end: int) -> int | None: ...

    def counters(self) -> Counters: ...

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
        is_draining: Whether it is about to stop.
        again: Call the connection's ``on_turn`` when those before it in the queue had theirs.
        ended: The connection is over: forget it and close its channel.
    """

    limits: Limits
    identity: Identity
    begun_ns: int
    tally: ServerTally
    clock: Clock
    host: HostWatch
    is_draining: Callable[[], bool]
    again: Callable[["Connection"], None]
    ended: Callable[["Connection", Report], None]
