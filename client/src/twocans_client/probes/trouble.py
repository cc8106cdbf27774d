"""What ends a connection before its time, and how that looks.

Whose doing it was, ``blame.judge`` decides.
"""

import errno
import os

from twocans_client.evidence.blame import reason_of
from twocans_client.evidence.results import Reason
from twocans_core.errors import RemoteProtocolError
from twocans_core.net.streams import DeadlineExceeded
from twocans_core.protocol.messages import Busy, Error, Goodbye, Message

__all__ = ["TROUBLE", "Ended", "direction_of_damage", "raise_unwanted", "reason_of_trouble"]


class Ended(Exception):
    """The connection is over, for this reason.

    ``damaged_in`` as in ``ProbeResult``.
    """

    def __init__(self, reason: Reason, detail: str = "", damaged_in: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
        self.damaged_in = damaged_in


TROUBLE = (Ended, DeadlineExceeded, RemoteProtocolError, OSError)
"""What a peer, a network or this machine does to a connection."""


def reason_of_trouble(error: Exception, waiting_for: Reason | None) -> tuple[Reason, str]:
    """Return what an error out of ``TROUBLE`` means, and more about it, for people.

    Args:
        error: It.
        waiting_for: What a time-out means, our own or the kernel's. None where nothing was due.
    """
    # Nothing was due, but a kernel also gives up a connection that is silent, if it watches it.
    waiting_for = waiting_for or Reason.REPLY_TIMEOUT
    match error:
        case Ended():
            return error.reason, error.detail
        case RemoteProtocolError():
            return _of_broken_protocol(error)
        case OSError():
            return reason_of(error, waiting_for), _in_words(error)
    return waiting_for, ""


def direction_of_damage(error: Exception) -> str:
    """Return ``ProbeResult.damaged_in`` of an error out of ``TROUBLE``."""
    if isinstance(error, Ended):
        return error.damaged_in
    if isinstance(error, RemoteProtocolError) and error.reason == "damaged":
        # Our own HELLO may come back to us, damaged on its way there.
        return "" if error.hint == "magic" else "reverse"
    return ""


def _in_words(error: OSError) -> str:
    """Return its name, and what was found out about it beyond that."""
    number = error.errno or 0
    name = errno.errorcode.get(number, "") or str(error)
    more = error.strerror or ""
    return name if more in ("", os.strerror(number)) else f"{name}: {more}"


def _of_broken_protocol(error: RemoteProtocolError) -> tuple[Reason, str]:
    match error.reason, error.hint:
        case "truncated", _:
            return Reason.CLOSED_EARLY, str(error)
        case "damaged", "magic":
            # In either direction: it may be our own HELLO, echoed because it was damaged there.
            return Reason.DAMAGED, f"damaged: {error.detail}"
        case "damaged", _:
            return Reason.DAMAGED, f"damaged in the reverse direction: {error.detail}"
        case _, "echoed_hello":
            text = "the far end only echoes; is it a twocans server? try --plain"
            return Reason.PROTOCOL_ERROR, text
    return Reason.PROTOCOL_ERROR, str(error)


def raise_unwanted(message: Message) -> None:
    """Raise ``Ended`` if a message that was not waited for ends the connection."""
    match message:
        case Busy(reason):
            raise Ended(Reason.BUSY, reason)
        case Error("damaged"):
            detail = "damaged in the forward direction: the server says so"
            raise Ended(Reason.DAMAGED, detail, "forward")
        case Error(reason, lowest, highest):
            versions = f", speaks {lowest} to {highest}" if reason == "bad_version" else ""
            raise Ended(Reason.PROTOCOL_ERROR, f"the server says {reason}{versions}")
        case Goodbye("idle"):
            raise Ended(Reason.CLOSED_EARLY, "the server says idle")
