"""What one client is still to be sent, and the bound on what it may be sent. Waits for nothing."""

from twocans_core.protocol.session import ALLOWANCE_BYTES

from .context import Wire

__all__ = ["Outbox"]


class Outbox:
    """The output of one connection: all of it goes through here.

    It keeps the server from being an amplifier: never does it send more than it received and
    ``ALLOWANCE_BYTES`` (docs/protocol.md, "Bound").

    Args:
        wire: Where it writes. Its OSError passes through.

    Attributes:
        received: Bytes that came from the client. Each lets another one be sent.
        sent: Bytes taken so far, be they written or waiting.
        unsent: What waits for the client to read; None where nothing does, as on nearly all of
            many thousand connections.
    """

    __slots__ = ("_wire", "received", "sent", "unsent")

    def __init__(self, wire: Wire) -> None:
        self.received = 0
        self.sent = 0
        self._wire = wire
        self.unsent: bytearray | None = None

    def take(self, data: bytes, *, stamped: bool = False) -> int | None:
        """Write what the kernel takes and keep the rest.

        Args:
            data: What to send.
            stamped: Whether the kernel is to timestamp when its last byte leaves.

        Returns:
            Where in the stream it ends, or will; None where the bound forbids it, and then
            nothing of it is sent.
        """
        # Of what is taken, not of what has left: else a client that does not read could have any
        # amount queued for it.
        if self.sent + len(data) > self.received + ALLOWANCE_BYTES:
            return None
        self.sent += len(data)
        # Behind what waits: bytes of a stream must not overtake each other.
        if self.unsent is not None:
            self.unsent += data
        else:
            count = self._wire.send_stamped(data) if stamped else self._wire.send(data)
            if count < len(data):
                self.unsent = bytearray(memoryview(data)[count:])
        return self.sent

    def flush(self, *, stamped: bool = False) -> int:
        """Write more of what waits; returns how many bytes the kernel took."""
        if self.unsent is None:
            return 0
        write = self._wire.send_stamped if stamped else self._wire.send
        count = write(self.unsent)
        del self.unsent[:count]
        if not self.unsent:
            self.unsent = None
        return count
