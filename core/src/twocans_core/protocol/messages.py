"""The bodies of frames: one type for each kind, with its layout, and so all in one module.

No I/O. docs/protocol.md, sections "Greeting" to "Refusals", is the specification.
``encode()`` of a message gives its frame's body, ``parse(body)`` is the reverse and raises
``RemoteProtocolError`` with ``bad_length``, ``bad_text``, ``bad_value`` or ``reserved_not_zero``.
"""

import enum
import functools
import struct
import zlib
from typing import NamedTuple, Self

from twocans_core.errors import RemoteProtocolError
from twocans_core.kernel.tcpinfo import NO_HOST_COUNTS, Counters, HostCounts

from .fields import (
    COUNTERS_SIZE,
    HOST_SIZE,
    MAX_TEXT,
    encode_counters,
    encode_host,
    encode_stamp,
    encode_text,
    encode_token,
    encode_us,
    exactly,
    need,
    pack_address,
    parse_address,
    parse_counters,
    parse_host,
    parse_stamp,
    parse_texts,
    parse_token,
    parse_us,
)
from .frames import EXCHANGE_HEAD_SIZE, VERSION, Kind
from .witness import MAX_WITNESS, Testimony, Witness

__all__ = [
    "MAX_GREETING",
    "MAX_TEXT",
    "Busy",
    "Error",
    "Features",
    "FollowUp",
    "Goodbye",
    "Hello",
    "Identity",
    "Message",
    "Reply",
    "Request",
    "Welcome",
    "body_limits",
]

MAX_GREETING = 1024
_MAX_CONTROL = 64
_AGE = struct.Struct("!Q")
_HELLO = struct.Struct("!16sQI")
_WELCOME = struct.Struct("!16sQIIIBBH16sQQQQ")
_REPLY = struct.Struct("!IIQQQQ")
_FOLLOW_UP = struct.Struct("!Q")

# CRC, the stall, four timestamps and the counters: in a reply, and as zeros in its request.
_REQUEST_ZEROS = bytes(EXCHANGE_HEAD_SIZE - 4)


class Features(enum.IntEnum):
    """Bits of what one end supports, or wishes. They are on the wire: never renumber them.

    Not an IntFlag, whose operators take a microsecond each.
    """

    WITNESS = 1
    """The server answers WITNESS."""
    KEEPALIVE = 2
    """Probes after a few seconds of silence: a client wishes them, a server does it."""
    QUIET = 4
    """No probes at all, however long the silence: likewise."""
    OPTIONS = 8
    """The server says which TCP options its host offers: the next three."""
    TIMESTAMPS = 16
    SACK = 32
    WSCALE = 64

    @staticmethod
    def of_options(offered: int | None) -> int:
        """Return the bits that say what a host offers, as ``procfs.tcp_options``."""
        return 0 if offered is None else Features.OPTIONS | offered * Features.TIMESTAMPS

    @staticmethod
    def options_in(features: int) -> int | None:
        """Return what such bits say, as bits of TCPI_OPT_*; None if they say nothing."""
        if not features & Features.OPTIONS:
            return None
        return features // Features.TIMESTAMPS & 7


class Identity(NamedTuple):
    """Who a process says that it is.

    Attributes:
        instance: 16 random bytes, new at each start of the process.
        name: Its name, at most ``MAX_TEXT`` printable ASCII characters, as all below.
        node: The machine it runs on; may be empty, as zone and version.
        zone: Its failure domain.
        version: Of twocans.
    """

    instance: bytes
    name: str = ""
    node: str = ""
    zone: str = ""
    version: str = ""


class Hello(NamedTuple):
    """The client introduces itself.

    Attributes:
        identity: Its own.
        connection: Random; by it the client asks about this connection later (``Witness``).
        features: Those that it wishes (``Features``), and unknown bits.
    """

    identity: Identity
    connection: int
    features: int = 0

    def encode(self) -> bytes:
        head = _HELLO.pack(self.identity.instance, self.connection, self.features)
        return head + _encode_names(self.identity)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        need(body, _HELLO.size)
        instance, connection, features = _HELLO.unpack_from(body)
        return cls(_parse_names(instance, body, _HELLO.size), connection, features)


class Welcome(NamedTuple):
    """The server introduces itself and says how it sees the client.

    Attributes:
        identity: The server's.
        connection: Of the HELLO that this answers.
        max_payload: Largest payload of a request, in bytes.
        idle_ms: Milliseconds without a frame after which the server says GOODBYE.
        draining: Whether it is about to stop.
        peer: The client's address and port as the server's kernel sees them.
        t2k: When the server's kernel received the HELLO, ns of CLOCK_REALTIME, or None.
        t2u: When the server read it, ns of CLOCK_REALTIME.
        t3u: When the server was about to send this, ns of CLOCK_REALTIME.
        counters: The server's, before this was sent.
        features: Those that it does (``Features``), and unknown bits.
        accepted: When accept() returned the connection to the server's program, ns of
            CLOCK_REALTIME, or None.
        host: What the server's host counted.
        age_ns: For how long the server's process has run, by CLOCK_BOOTTIME, or None.
    """

    identity: Identity
    connection: int
    max_payload: int
    idle_ms: int
    draining: bool
    peer: tuple[str, int]
    t2k: int | None
    t2u: int | None
    t3u: int | None
    counters: Counters
    features: int = 0
    accepted: int | None = None
    host: HostCounts = NO_HOST_COUNTS
    age_ns: int | None = None

    def encode(self) -> bytes:
        family, packed = pack_address(self.peer[0])
        head = _WELCOME.pack(
            self.identity.instance,
            self.connection,
            self.features,
            self.max_payload,
            self.idle_ms,
            self.draining,
            family,
            self.peer[1],
            packed,
            encode_stamp(self.t2k),
            encode_stamp(self.t2u),
            encode_stamp(self.t3u),
            encode_stamp(self.accepted),
        )
        counts = encode_counters(self.counters) + encode_host(self.host)
        age = _AGE.pack(encode_stamp(self.age_ns))
        return head + counts + age + _encode_names(self.identity)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        host_at = _WELCOME.size + COUNTERS_SIZE
        age_at = host_at + HOST_SIZE
        names_at = age_at + _AGE.size
        need(body, names_at)
        instance, connection, features, max_payload, idle_ms, state, *rest = _WELCOME.unpack_from(
            body
        )
        family, port, packed, *stamps = rest
        if state > 1:
            raise RemoteProtocolError("reserved_not_zero", f"state {state:02x}")
        if family not in (4, 6) or (family == 4 and any(packed[4:])):
            raise RemoteProtocolError("bad_value", f"address of family {family}")
        return cls(
            identity=_parse_names(instance, body, names_at),
            connection=connection,
            max_payload=max_payload,
            idle_ms=idle_ms,
            draining=bool(state),
            peer=(parse_address(packed[:4] if family == 4 else packed), port),
            t2k=parse_stamp(stamps[0]),
            t2u=parse_stamp(stamps[1]),
            t3u=parse_stamp(stamps[2]),
            counters=parse_counters(body, _WELCOME.size),
            features=features,
            accepted=parse_stamp(stamps[3]),
            host=parse_host(body, host_at),
            age_ns=parse_stamp(_AGE.unpack_from(body, age_at)[0]),
        )


class Request(NamedTuple):
    """One payload to echo, and the CRC-32 that its sender computed over it."""

    payload: bytes
    crc: int

    @classmethod
    def of(cls, payload: bytes) -> Self:
        """Make the request for a payload."""
        return cls(payload, zlib.crc32(payload))

    def encode(self) -> bytes:
        return self.crc.to_bytes(4) + _REQUEST_ZEROS + self.payload

    @classmethod
    def parse(cls, body: bytes) -> Self:
        need(body, EXCHANGE_HEAD_SIZE)
        if body[4:EXCHANGE_HEAD_SIZE] != _REQUEST_ZEROS:
            raise RemoteProtocolError("reserved_not_zero", "in a request's head")
        return cls(body[EXCHANGE_HEAD_SIZE:], int.from_bytes(body[:4]))


class Reply(NamedTuple):
    """The echo of one request, with the server's timestamps and counters.

    Attributes:
        payload: As the server received it.
        crc: CRC-32 of the payload as the server received it.
        t2k: When the server's kernel received the request's last segment, or None. This and
            the timestamps below are ns of the server's CLOCK_REALTIME.
        t2u: When the server read it.
        t3u: When the server was about to send this reply.
        previous_t3k: When its kernel handed the previous reply (for sequence 1 the WELCOME)
            to the network device, or None.
        counters: The server's for this connection, read with t3u.
        stalled_ns: Time between t2u and t3u in which the server's thread did not run, or None:
            t3u - t2u less its CPU time (CLOCK_THREAD_CPUTIME_ID). Travels as whole
            microseconds, at most 4,294,967,294 of them.
    """

    payload: bytes
    crc: int
    t2k: int | None
    t2u: int | None
    t3u: int | None
    previous_t3k: int | None
    counters: Counters
    stalled_ns: int | None = None

    def encode(self) -> bytes:
        stamps = map(encode_stamp, (self.t2k, self.t2u, self.t3u, self.previous_t3k))
        head = _REPLY.pack(self.crc, encode_us(self.stalled_ns), *stamps)
        return head + encode_counters(self.counters) + self.payload

    @classmethod
    def parse(cls, body: bytes) -> Self:
        need(body, EXCHANGE_HEAD_SIZE)
        crc, stalled_us, *stamps = _REPLY.unpack_from(body)
        t2k, t2u, t3u, previous_t3k = map(parse_stamp, stamps)
        counters = parse_counters(body, _REPLY.size)
        payload = body[EXCHANGE_HEAD_SIZE:]
        return cls(payload, crc, t2k, t2u, t3u, previous_t3k, counters, parse_us(stalled_us))


class FollowUp(NamedTuple):
    """The last reply's transmit timestamp, which no later reply carries, and the last counters."""

    t3k: int | None
    counters: Counters
    host: HostCounts = NO_HOST_COUNTS

    def encode(self) -> bytes:
        counts = encode_counters(self.counters) + encode_host(self.host)
        return _FOLLOW_UP.pack(encode_stamp(self.t3k)) + counts

    @classmethod
    def parse(cls, body: bytes) -> Self:
        host_at = _FOLLOW_UP.size + COUNTERS_SIZE
        exactly(body, host_at + HOST_SIZE)
        t3k = parse_stamp(_FOLLOW_UP.unpack_from(body)[0])
        return cls(t3k, parse_counters(body, _FOLLOW_UP.size), parse_host(body, host_at))


class _Token(NamedTuple):
    reason: str

    def encode(self) -> bytes:
        return encode_token(self.reason)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        return cls(parse_token(body))


class Goodbye(_Token):
    """The sender is about to end the session: ``done``, ``draining`` or ``idle``."""

    __slots__ = ()


class Busy(_Token):
    """The server has no place: ``connections`` or ``connections_per_source``."""

    __slots__ = ()


class Error(NamedTuple):
    """The sender gives up on this connection, and says why."""

    reason: str
    lowest_version: int = VERSION
    highest_version: int = VERSION

    def encode(self) -> bytes:
        return bytes((self.lowest_version, self.highest_version)) + encode_token(self.reason)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        need(body, 3)
        return cls(parse_token(body[2:]), body[0], body[1])


Message = (
    Hello | Welcome | Request | Reply | FollowUp | Goodbye | Busy | Error | Witness | Testimony
)

TYPES: dict[Kind, type[Message]] = {
    Kind.HELLO: Hello,
    Kind.WELCOME: Welcome,
    Kind.REQUEST: Request,
    Kind.REPLY: Reply,
    Kind.FOLLOW_UP: FollowUp,
    Kind.GOODBYE: Goodbye,
    Kind.BUSY: Busy,
    Kind.ERROR: Error,
    Kind.WITNESS: Witness,
    Kind.TESTIMONY: Testimony,
}
KINDS = {message: kind for kind, message in TYPES.items()}


def body_limits(max_payload: int) -> dict[Kind, int]:
    """Return the largest body of each kind in bytes, payloads of at most ``max_payload``."""
    return {
        Kind.HELLO: MAX_GREETING,
        Kind.WELCOME: MAX_GREETING,
        Kind.REQUEST: EXCHANGE_HEAD_SIZE + max_payload,
        Kind.REPLY: EXCHANGE_HEAD_SIZE + max_payload,
        Kind.FOLLOW_UP: _FOLLOW_UP.size + COUNTERS_SIZE + HOST_SIZE,
        Kind.GOODBYE: _MAX_CONTROL,
        Kind.BUSY: _MAX_CONTROL,
        Kind.ERROR: _MAX_CONTROL,
        Kind.WITNESS: MAX_WITNESS,
        Kind.TESTIMONY: MAX_WITNESS,
    }


# A process says the same names again and again.
@functools.lru_cache(maxsize=256)
def _encode_names(identity: Identity) -> bytes:
    return b"".join(encode_text(text) for text in identity[1:])


def _parse_names(instance: bytes, body: bytes, offset: int) -> Identity:
    return Identity(instance, *parse_texts(body[offset:], len(Identity._fields) - 1))
