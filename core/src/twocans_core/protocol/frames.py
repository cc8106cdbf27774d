"""Wire frames, and the decoder that finds them in a byte stream.

No I/O: bytes in, frames out. docs/protocol.md is the specification; where this module and
that page differ, this module is wrong.

    offset size field
    0      2    magic     FC 2C
    2      1    version   1
    3      1    kind      Kind
    4      4    length    of the body
    8      4    sequence  of the exchange, 0 outside of one
    12     4    body's CRC-32, of an exchange that of its head
    16     4    header's CRC-32, of the 16 bytes before it
    20     n    body

Nothing of a header is believed before its CRC-32 was found right, nor of a body. What is not
right was damaged on the way: TCP's own checksum is 16 bits, and offload or a middlebox may have
made it anew over bytes that were damaged before.
"""

import enum
import struct
import zlib
from collections.abc import Mapping
from typing import NamedTuple

from twocans_core.errors import RemoteProtocolError

__all__ = [
    "EXCHANGE_HEAD_SIZE",
    "HEADER_SIZE",
    "MAGIC",
    "VERSION",
    "Decoder",
    "Frame",
    "Kind",
    "encode",
]

MAGIC = b"\xfc\x2c"
VERSION = 1

_HEADER = struct.Struct("!2sBBIII")
_CRC = struct.Struct("!I")
HEADER_SIZE = _HEADER.size + _CRC.size
# Of a REQUEST or REPLY: what goes before its payload. The payload has a CRC of its own, in here,
# which shows in which direction it was damaged.
EXCHANGE_HEAD_SIZE = 88


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
    WITNESS = 16
    TESTIMONY = 17


# Quicker than to call Kind.
_KINDS: dict[int, Kind] = {int(kind): kind for kind in Kind}
# How much of a body its CRC is of, where that is not all of it.
_CHECKED: dict[int, int] = {
    Kind.REQUEST: EXCHANGE_HEAD_SIZE,
    Kind.REPLY: EXCHANGE_HEAD_SIZE,
}


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
    crc = zlib.crc32(body[: _CHECKED.get(kind)])
    header = _HEADER.pack(MAGIC, VERSION, kind, len(body), sequence, crc)
    return b"".join((header, _CRC.pack(zlib.crc32(header)), body))


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
        self._is_ours = False  # a frame was found whole: the peer speaks this protocol

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
        """Add what one read returned; ``b""`` means that the peer sends no more.

        After calling this: call ``next_frame`` until it returns None, before the next read.
        """
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
        # The header is judged as soon as it is there: a bad peer is found after its first bytes,
        # not after the 4 GiB that it declared.
        buffer = self._buffer
        size = len(buffer)
        if not size:
            return None
        if not buffer.startswith(MAGIC) and self._is_magic_undecided():
            return None
        if size < HEADER_SIZE:
            self._refuse_torn_frame()
            return None
        header = bytes(buffer[:HEADER_SIZE])
        if not _is_right(header):
            raise RemoteProtocolError("damaged", "a header")
        _, version, number, length, sequence, crc = _HEADER.unpack_from(header)
        # An ERROR is the one kind whose layout never changes, so that a peer of any version can
        # say which versions it speaks.
        if version != VERSION and number != Kind.ERROR:
            raise RemoteProtocolError("bad_version", f"{version}, want {VERSION}")
        limit = self._limits.get(number)
        if limit is None:
            raise RemoteProtocolError("bad_kind", str(number))
        if length > limit:
            raise RemoteProtocolError("too_big", f"{length} > {limit} bytes")
        end = HEADER_SIZE + length
        if size < end:
            self._refuse_torn_frame()
            return None
        body = bytes(buffer[HEADER_SIZE:end])
        if zlib.crc32(body[: _CHECKED.get(number)]) != crc:
            raise RemoteProtocolError("damaged", f"the body of a {_KINDS[number].name}")
        if end == size:
            buffer.clear()
        else:
            del buffer[:end]
        self._is_ours = True
        return Frame(_KINDS[number], sequence, body)

    def _is_magic_undecided(self) -> bool:
        """Refuse what begins as no frame of ours; True where that takes more bytes to tell.

        Damage to the magic differs from another protocol by the rest of the header, where at least
        half of the magic is right, and by the frames before it.
        """
        buffer = self._buffer
        begins = bytes(buffer[: len(MAGIC)])
        if begins == MAGIC[: len(begins)]:
            return False
        if self._is_ours:
            raise RemoteProtocolError("damaged", f"a magic, {begins.hex()}", "magic")
        is_near = len(begins) < len(MAGIC) or begins[0] == MAGIC[0] or begins[1] == MAGIC[1]
        if is_near and len(buffer) < HEADER_SIZE and not self._eof:
            return True
        header = MAGIC + bytes(buffer[len(MAGIC) : HEADER_SIZE])
        if len(header) == HEADER_SIZE and _is_right(header):
            raise RemoteProtocolError("damaged", f"the magic of kind {header[3]}", "magic")
        raise RemoteProtocolError("bad_magic", begins.hex())

    def _refuse_torn_frame(self) -> None:
        if self._eof:
            raise RemoteProtocolError(
                "truncated", f"the stream ended {len(self._buffer)} bytes into a frame"
            )


def _is_right(header: bytes) -> bool:
    """Whether a whole header fits its CRC-32."""
    crc: int = _CRC.unpack_from(header, _HEADER.size)[0]
    return zlib.crc32(header[: _HEADER.size]) == crc
