"""Wire frames, and the decoder that finds them in a byte stream.

No I/O: bytes in, frames out. docs/protocol.md is the specification; where this module and
that page differ, this module is wrong.

    offset size field
    0      2    magic     FC 2C
    2      1    version   1
    3      1    kind      Kind
    4      4    length    of the body
    8      4    sequence  of the exchange, 0 outside of one
    12     4    reserved  0
    16     n    body
"""

import enum
import struct
from collections.abc import Mapping
from typing import NamedTuple

from .errors import RemoteProtocolError

__all__ = ["HEADER_SIZE", "MAGIC", "VERSION", "Decoder", "Frame", "Kind", "encode"]

MAGIC = b"\xfc\x2c"
VERSION = 1

_HEADER = struct.Struct("!2sBBIII")
HEADER_SIZE = _HEADER.size
_BEGINNING = MAGIC + bytes((VERSION,))


class Kind(enum.IntEnum):
    """What a frame means. Values are on the wire: never renumber them."""

    HELLO = 1
    WELCOME = 2
    REQUEST = 3
    REPLY = 4
    FOLLOW_UP = 5
    GOODBYE = 6
    BUSY = 7
    ERROR = 8


# Quicker than to call Kind.
_KINDS: dict[int, Kind] = {int(kind): kind for kind in Kind}


class Frame(NamedTuple):
    """One message on the wire.

    Attributes:
        kind: What the frame means.
        sequence: Number of the exchange it belongs to, from 1; 0 outside of one.
        body: By kind; see ``messages``.
    """

    kind: Kind
    sequence: int
    body: bytes


def encode(frame: Frame) -> bytes:
    """Serialize a frame."""
    kind, sequence, body = frame
    return _HEADER.pack(MAGIC, VERSION, kind, len(body), sequence, 0) + body


class Decoder:
    """Find frames in the bytes that a peer sends.

    Feed it what each read returned, then call ``next_frame`` until it returns None. Frames
    that precede bad bytes are delivered before the error is. After an error the decoder is
    dead and repeats it: a stream that lost framing cannot be resynchronised.

    Args:
        limits: Largest body accepted in bytes, for each kind that may arrive at all. Read at
            every frame, so its owner may change it. A kind that is not in it is refused as
            ``bad_kind``. At most ``HEADER_SIZE`` plus the largest of them plus one read is held.
    """

    def __init__(self, limits: Mapping[Kind, int]) -> None:
        self._limits = limits
        self._buffer = bytearray()
        self._eof = False
        self._error: RemoteProtocolError | None = None

    @property
    def buffered_bytes(self) -> int:
        """Bytes held that no frame was made of yet; 0 between two frames."""
        return len(self._buffer)

    @property
    def missing_bytes(self) -> int:
        """Bytes that the frame begun still needs, as far as known; 0 between two frames."""
        if not self._buffer:
            return 0
        if len(self._buffer) < HEADER_SIZE:
            return HEADER_SIZE - len(self._buffer)
        length: int = struct.unpack_from("!I", self._buffer, 4)[0]
        return HEADER_SIZE + length - len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Add what one read returned. ``b""`` means that the peer sends no more."""
        self._buffer += data
        self._eof = self._eof or not data

    def next_frame(self) -> Frame | None:
        """Return the oldest whole frame, or None when more bytes are needed.

        Raises:
            RemoteProtocolError: The bytes are not this protocol, or the stream ended inside
                a frame.
        """
        if self._error is None:
            try:
                return self._parse()
            except RemoteProtocolError as error:
                self._error = error
                self._buffer.clear()
        raise self._error

    def _parse(self) -> Frame | None:
        # The header is judged as soon as each part of it is there: a bad peer is found
        # after its first bytes, not after the 4 GiB that it declared.
        buffer = self._buffer
        size = len(buffer)
        if not size:
            return None
        if not buffer.startswith(_BEGINNING):
            self._judge_beginning()
        if size < HEADER_SIZE:
            self._refuse_torn_frame()
            return None
        _, version, number, length, sequence, reserved = _HEADER.unpack_from(buffer)
        limit = self._limits.get(number)
        if limit is None:
            raise RemoteProtocolError("bad_kind", str(number))
        if reserved and version == VERSION:
            raise RemoteProtocolError("reserved_not_zero", f"{reserved:08x} in the header")
        if length > limit:
            raise RemoteProtocolError("too_big", f"{length} > {limit} bytes")
        end = HEADER_SIZE + length
        if size < end:
            self._refuse_torn_frame()
            return None
        body = bytes(buffer[HEADER_SIZE:end])
        if end == size:
            buffer.clear()
        else:
            del buffer[:end]
        return Frame(_KINDS[number], sequence, body)

    def _judge_beginning(self) -> None:
        """Refuse a frame that begins as none of ours; fewer bytes may yet become one."""
        buffer = self._buffer
        if buffer[:2] != MAGIC[: len(buffer)]:
            raise RemoteProtocolError("bad_magic", bytes(buffer[:2]).hex())
        if len(buffer) > 2 and buffer[2] != VERSION and not self._is_error_frame():
            raise RemoteProtocolError("bad_version", f"{buffer[2]}, want {VERSION}")

    def _is_error_frame(self) -> bool:
        # An ERROR is the one kind whose layout never changes, so that a peer of any version
        # can say which versions it speaks.
        return len(self._buffer) == 3 or self._buffer[3] == Kind.ERROR

    def _refuse_torn_frame(self) -> None:
        if self._eof:
            raise RemoteProtocolError(
                "truncated", f"the stream ended {len(self._buffer)} bytes into a frame"
            )
