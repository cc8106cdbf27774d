"""The bodies of frames: one type for each kind, with its layout.

No I/O. docs/protocol.md, sections "Pieces of bodies" to "Refusals", is the specification.
``encode()`` of a message gives its frame's body, ``parse(body)`` is the reverse and raises
``RemoteProtocolError`` with ``bad_length``, ``bad_text``, ``bad_value`` or ``reserved_not_zero``.
"""

import functools
import ipaddress
import re
import struct
import zlib
from typing import NamedTuple, Self

from twocans_core.errors import LocalProtocolError, RemoteProtocolError
from twocans_core.kernel.tcpinfo import COUNTERS, NO_HOST_COUNTS, Counters, HostCounts

from .frames import EXCHANGE_HEAD_SIZE, VERSION, Kind

__all__ = [
    "MAX_TEXT",
    "Busy",
    "Error",
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

_MAX_GREETING = 1024
_MAX_CONTROL = 64
MAX_TEXT = 128
_MAX_TOKEN = 32

_NO_U32 = 0xFFFF_FFFF
_NO_U64 = 0xFFFF_FFFF_FFFF_FFFF
_TOKEN = re.compile(rb"[a-z0-9_]+")
_PRINTABLE = re.compile(rb"[\x20-\x7e]*")

_COUNTERS = struct.Struct(f"!{len(COUNTERS)}I")
_HOST = struct.Struct("!2I")
_AGE = struct.Struct("!Q")
_HELLO = struct.Struct("!16sQI")
_WELCOME = struct.Struct("!16sQIIIBBH16sQQQQ")
_REPLY = struct.Struct("!IIQQQQ")
_FOLLOW_UP = struct.Struct("!Q")

# CRC, the stall, four stamps and the counters: in a reply, and as zeros in its request.
_REQUEST_ZEROS = bytes(EXCHANGE_HEAD_SIZE - 4)


class Identity(NamedTuple):
    """Who a can says that it is.

    Attributes:
        instance: 16 random bytes, new at each start of the process.
        name: The can's name, at most ``MAX_TEXT`` printable ASCII characters, as all below.
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
    """The client introduces itself. ``connection`` is random, for the witness."""

    identity: Identity
    connection: int
    features: int = 0

    def encode(self) -> bytes:
        head = _HELLO.pack(self.identity.instance, self.connection, self.features)
        return head + _encode_names(self.identity)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        _need(body, _HELLO.size)
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
        features: As in ``Hello``.
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
        family, packed = _pack_address(self.peer[0])
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
            _stamp(self.t2k),
            _stamp(self.t2u),
            _stamp(self.t3u),
            _stamp(self.accepted),
        )
        counts = _encode_counters(self.counters) + _encode_host(self.host)
        age = _AGE.pack(_stamp(self.age_ns))
        return head + counts + age + _encode_names(self.identity)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        host_at = _WELCOME.size + _COUNTERS.size
        age_at = host_at + _HOST.size
        names_at = age_at + _AGE.size
        _need(body, names_at)
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
            peer=(_parse_address(packed[:4] if family == 4 else packed), port),
            t2k=_unstamp(stamps[0]),
            t2u=_unstamp(stamps[1]),
            t3u=_unstamp(stamps[2]),
            counters=_parse_counters(body, _WELCOME.size),
            features=features,
            accepted=_unstamp(stamps[3]),
            host=_parse_host(body, host_at),
            age_ns=_unstamp(_AGE.unpack_from(body, age_at)[0]),
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
        _need(body, EXCHANGE_HEAD_SIZE)
        if body[4:EXCHANGE_HEAD_SIZE] != _REQUEST_ZEROS:
            raise RemoteProtocolError("reserved_not_zero", "in a request's head")
        return cls(body[EXCHANGE_HEAD_SIZE:], int.from_bytes(body[:4]))


class Reply(NamedTuple):
    """The echo of one request, with the server's stamps and counters.

    Attributes:
        payload: As the server received it.
        crc: CRC-32 of the payload as the server received it.
        t2k: When the server's kernel received the request's last segment, or None. This and
            the stamps below are ns of the server's CLOCK_REALTIME.
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
        stamps = map(_stamp, (self.t2k, self.t2u, self.t3u, self.previous_t3k))
        head = _REPLY.pack(self.crc, _whole_us(self.stalled_ns), *stamps)
        return head + _encode_counters(self.counters) + self.payload

    @classmethod
    def parse(cls, body: bytes) -> Self:
        _need(body, EXCHANGE_HEAD_SIZE)
        crc, stalled_us, *stamps = _REPLY.unpack_from(body)
        t2k, t2u, t3u, previous_t3k = map(_unstamp, stamps)
        counters = _parse_counters(body, _REPLY.size)
        stalled_ns = None if stalled_us == _NO_U32 else stalled_us * 1000
        payload = body[EXCHANGE_HEAD_SIZE:]
        return cls(payload, crc, t2k, t2u, t3u, previous_t3k, counters, stalled_ns)


class FollowUp(NamedTuple):
    """The last reply's transmit stamp, which no later reply carries, and the last counters."""

    t3k: int | None
    counters: Counters
    host: HostCounts = NO_HOST_COUNTS

    def encode(self) -> bytes:
        counts = _encode_counters(self.counters) + _encode_host(self.host)
        return _FOLLOW_UP.pack(_stamp(self.t3k)) + counts

    @classmethod
    def parse(cls, body: bytes) -> Self:
        host_at = _FOLLOW_UP.size + _COUNTERS.size
        _exactly(body, host_at + _HOST.size)
        t3k = _unstamp(_FOLLOW_UP.unpack_from(body)[0])
        return cls(t3k, _parse_counters(body, _FOLLOW_UP.size), _parse_host(body, host_at))


class Goodbye(NamedTuple):
    """The sender is about to end the session: ``done``, ``draining`` or ``idle``."""

    reason: str

    def encode(self) -> bytes:
        return _encode_token(self.reason)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        return cls(_parse_token(body))


class Busy(NamedTuple):
    """The server has no place: ``connections`` or ``connections_per_source``."""

    reason: str

    def encode(self) -> bytes:
        return _encode_token(self.reason)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        return cls(_parse_token(body))


class Error(NamedTuple):
    """The sender gives up on this connection, and says why."""

    reason: str
    lowest_version: int = VERSION
    highest_version: int = VERSION

    def encode(self) -> bytes:
        return bytes((self.lowest_version, self.highest_version)) + _encode_token(self.reason)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        _need(body, 3)
        return cls(_parse_token(body[2:]), body[0], body[1])


Message = Hello | Welcome | Request | Reply | FollowUp | Goodbye | Busy | Error

TYPES: dict[Kind, type[Message]] = {
    Kind.HELLO: Hello,
    Kind.WELCOME: Welcome,
    Kind.REQUEST: Request,
    Kind.REPLY: Reply,
    Kind.FOLLOW_UP: FollowUp,
    Kind.GOODBYE: Goodbye,
    Kind.BUSY: Busy,
    Kind.ERROR: Error,
}
KINDS = {message: kind for kind, message in TYPES.items()}


def body_limits(max_payload: int) -> dict[Kind, int]:
    """Return the largest body of each kind in bytes, payloads of at most ``max_payload``."""
    return {
        Kind.HELLO: _MAX_GREETING,
        Kind.WELCOME: _MAX_GREETING,
        Kind.REQUEST: EXCHANGE_HEAD_SIZE + max_payload,
        Kind.REPLY: EXCHANGE_HEAD_SIZE + max_payload,
        Kind.FOLLOW_UP: _FOLLOW_UP.size + _COUNTERS.size + _HOST.size,
        Kind.GOODBYE: _MAX_CONTROL,
        Kind.BUSY: _MAX_CONTROL,
        Kind.ERROR: _MAX_CONTROL,
    }


def _need(body: bytes, size: int) -> None:
    if len(body) < size:
        raise RemoteProtocolError("bad_length", f"{len(body)} bytes, want {size} or more")


def _exactly(body: bytes, size: int) -> None:
    if len(body) != size:
        raise RemoteProtocolError("bad_length", f"{len(body)} bytes, want {size}")


def _stamp(value: int | None) -> int:
    return _NO_U64 if value is None else value


def _unstamp(value: int) -> int | None:
    return None if value == _NO_U64 else value


def _whole_us(ns: int | None) -> int:
    return _NO_U32 if ns is None else min(max(0, ns // 1000), _NO_U32 - 1)


def _encode_counters(counters: Counters) -> bytes:
    # The kernel's counters are 32 bits wide, so each fits.
    if None in counters:
        return _COUNTERS.pack(*(_NO_U32 if value is None else value for value in counters))
    return _COUNTERS.pack(*counters)


def _parse_counters(body: bytes, offset: int) -> Counters:
    values = _COUNTERS.unpack_from(body, offset)
    if _NO_U32 in values:
        return Counters(*(None if value == _NO_U32 else value for value in values))
    return Counters(*values)


def _encode_host(host: HostCounts) -> bytes:
    return _HOST.pack(*(_NO_U32 if value is None else value for value in host))


def _parse_host(body: bytes, offset: int) -> HostCounts:
    values = _HOST.unpack_from(body, offset)
    return HostCounts(*(None if value == _NO_U32 else value for value in values))


# A can says the same names and addresses again and again.
@functools.lru_cache(maxsize=256)
def _encode_names(identity: Identity) -> bytes:
    return b"".join(_encode_text(text) for text in identity[1:])


def _encode_text(text: str) -> bytes:
    data = text.encode("ascii", "replace")
    if len(data) > MAX_TEXT or not _PRINTABLE.fullmatch(data):
        raise LocalProtocolError("bad_text", ascii(text))
    return bytes((len(data),)) + data


def _parse_names(instance: bytes, body: bytes, offset: int) -> Identity:
    return Identity(instance, *_texts(body[offset:]))


@functools.lru_cache(maxsize=1024)
def _texts(data: bytes) -> tuple[str, ...]:
    texts, offset = [], 0
    for _ in range(4):
        text, offset = _parse_text(data, offset)
        texts.append(text)
    _exactly(data, offset)
    return tuple(texts)


@functools.lru_cache(maxsize=256)
def _parse_address(packed: bytes) -> str:
    address = ipaddress.ip_address(packed)
    if address.version == 6 and address.ipv4_mapped is not None:
        raise RemoteProtocolError("bad_value", "an IPv4 address as IPv6")
    return str(address)


@functools.lru_cache(maxsize=256)
def _pack_address(host: str) -> tuple[int, bytes]:
    address = ipaddress.ip_address(host.partition("%")[0])
    if address.version == 6 and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.version, address.packed


def _parse_text(body: bytes, offset: int) -> tuple[str, int]:
    _need(body, offset + 1)
    start = offset + 1
    end = start + body[offset]
    if body[offset] > MAX_TEXT:
        raise RemoteProtocolError("bad_text", f"{body[offset]} > {MAX_TEXT} bytes")
    _need(body, end)
    if not _PRINTABLE.fullmatch(body, start, end):
        raise RemoteProtocolError("bad_text", "not printable ASCII")
    return body[start:end].decode("ascii"), end


@functools.lru_cache(maxsize=64)
def _encode_token(token: str) -> bytes:
    data = token.encode()
    if len(data) > _MAX_TOKEN or not _TOKEN.fullmatch(data):
        raise LocalProtocolError("bad_text", ascii(token))
    return bytes((len(data),)) + data


@functools.lru_cache(maxsize=64)
def _parse_token(body: bytes) -> str:
    text, end = _parse_text(body, 0)
    _exactly(body, end)
    if len(text) > _MAX_TOKEN or not _TOKEN.fullmatch(text.encode()):
        raise RemoteProtocolError("bad_text", "not a token")
    return text
