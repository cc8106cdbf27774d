"""What a connection turned out to be, how far it is, and how it ended. No I/O."""

import enum
from typing import NamedTuple

from twocans_core.protocol.messages import Identity

__all__ = ["LINGERING", "OPEN", "OVER", "Account", "Answer", "Ending", "Kind", "Phase", "Report"]


class Kind(enum.StrEnum):
    """What a connection turned out to be. Values are metric labels: never rename them."""

    NEW = "new"
    PLAIN = "plain"
    FRAMED = "framed"


class Phase(enum.Enum):
    """How far a connection is. It never goes back."""

    OPEN = enum.auto()
    LINGERING = enum.auto()
    """The last is said; the client has not read all of it yet, as far as we know."""
    OVER = enum.auto()


# Names of their own: Python 3.11 takes 0.15 us to find Phase.OPEN, and a turn asks ten times.
OPEN, LINGERING, OVER = Phase


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


class Answer(NamedTuple):
    """What one message is answered with.

    Attributes:
        data: Bytes to send; empty where the client gave up, for it reads no more.
        ending: How the connection ends with it; None when it goes on.
        reason: Of the ending.
        stamped: Whether the kernel is to timestamp it: the next frame tells when it left.
    """

    data: bytes
    ending: Ending | None = None
    reason: str = ""
    stamped: bool = True


class Account(NamedTuple):
    """What is known of one connection, now or at its end, for the witness.

    Some thousand are kept, so the counters are as they travel: a third of the memory.

    Attributes:
        peer: The client's address and port.
        accepted_ns: When accept() returned it, CLOCK_BOOTTIME.
        heard_ns: When the last byte was read, CLOCK_BOOTTIME; 0: none came.
        received: Bytes read.
        sent: Bytes sent, or waiting for the client to read.
        exchanges: Requests answered.
        counters: The kernel's (``fields.encode_counters``).
        in_vain: How often in a row nothing answered our kernel (``Channel.counted``).
        kind: What it is.
        greeted: Whether its HELLO came.
    """

    peer: tuple[str, int]
    accepted_ns: int
    heard_ns: int
    received: int
    sent: int
    exchanges: int
    counters: bytes
    in_vain: int | None
    kind: Kind
    greeted: bool


class Report(NamedTuple):
    """What happened on one connection.

    Attributes:
        kind: What it was.
        ending: How it ended.
        reason: A token that says more: the protocol error's, the errno's name, the cap's. ``""``
            where there is nothing to add.
        client: Who it was; None when no HELLO came.
        connection: Its number in the HELLO; 0 when none came.
        account: All else that is known of it.
    """

    kind: Kind
    ending: Ending
    reason: str
    client: Identity | None
    connection: int
    account: Account
