"""WITNESS and TESTIMONY: what a client asks about connections, and what the server says.

No I/O. docs/protocol.md, section "Witness", is the specification. A question is padded to the
length of its answer, so that the server does not amplify.
"""

import enum
import struct
from typing import NamedTuple, Self

from twocans_core.errors import LocalProtocolError, RemoteProtocolError
from twocans_core.kernel.tcpinfo import NO_TCP_COUNTS, Counters, TcpCounts

from .fields import (
    COUNTERS_SIZE,
    encode_count,
    encode_counters,
    encode_stamp,
    encode_text,
    need,
    pack_address,
    parse_address,
    parse_count,
    parse_counters,
    parse_stamp,
    split_text,
)

__all__ = [
    "MAX_WITNESS",
    "MOST_ASKED",
    "UNKNOWN",
    "Asked",
    "Fate",
    "HostSeen",
    "Seen",
    "Testimony",
    "Witness",
]

MOST_ASKED = 16
"""Connections that one WITNESS may name."""
_HEAD_SIZE = 384
_ENTRY_SIZE = 192
MAX_WITNESS = _HEAD_SIZE + MOST_ASKED * _ENTRY_SIZE

_SINCE = struct.Struct("!Q")
_ASKED = struct.Struct("!QH")
_HEAD = struct.Struct("!7Q14I")
_SEEN = struct.Struct("!BBHBB2x16sQQQQQI")
_COUNT = struct.Struct("!I")
_NO_U8 = 0xFF
_MOST_U32 = 0xFFFF_FFFF


class Asked(NamedTuple):
    """A connection that is asked about.

    Attributes:
        connection: Of its HELLO; 0 if none was sent.
        port: The client's, as the client sees it.
    """

    connection: int
    port: int


class Witness(NamedTuple):
    """A client asks what the server saw.

    Attributes:
        since_ns: How long before this question the past begins that is asked about.
        asked: The connections, at most ``MOST_ASKED``.
    """

    since_ns: int
    asked: tuple[Asked, ...] = ()

    def encode(self) -> bytes:
        if len(self.asked) > MOST_ASKED:
            raise LocalProtocolError("too_big", f"{len(self.asked)} connections")
        head = _SINCE.pack(self.since_ns).ljust(_HEAD_SIZE, b"\0")
        return head + b"".join(_ASKED.pack(*each).ljust(_ENTRY_SIZE, b"\0") for each in self.asked)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        need(body, _HEAD_SIZE)
        (since_ns,) = _SINCE.unpack(_padded(body[:_HEAD_SIZE], _SINCE.size))
        asked = (_ASKED.unpack(_padded(entry, _ASKED.size)) for entry in _entries(body))
        return cls(since_ns, tuple(Asked(*each) for each in asked))


class Fate(enum.IntEnum):
    """What the server knows of a connection. Values are on the wire: never renumber them."""

    UNKNOWN = 0
    OPEN = 1
    ENDED = 2


class Seen(NamedTuple):
    """What the server saw of one connection. Ages are ns of its CLOCK_BOOTTIME, before its answer.

    Attributes:
        fate: UNKNOWN says nothing else.
        greeted: Its HELLO came.
        peer: The client's address and port as the server's kernel sees them.
        in_vain: How often in a row the server's kernel had sent the same again, or a probe, and
            nothing had answered.
        accepted_ns: Age: accept() returned it.
        heard_ns: Age: the last byte was read; None: none came.
        ended_ns: Age; None while it is open.
        received: Bytes read.
        sent: Bytes that the server's program sent.
        exchanges: Requests answered.
        counters: The server's for it, at its end or now.
        kind: ``new`` before its first byte, ``framed`` or ``plain``.
        ending: How it ended (the server's ``Ending``); ``""`` while it is open.
        reason: A token that says more, or ``""``.
    """

    fate: Fate
    greeted: bool
    peer: tuple[str, int]
    in_vain: int | None
    accepted_ns: int
    heard_ns: int | None
    ended_ns: int | None
    received: int
    sent: int
    exchanges: int
    counters: Counters
    kind: str
    ending: str
    reason: str

    def encode(self) -> bytes:
        if self.fate is Fate.UNKNOWN:
            return bytes(_ENTRY_SIZE)
        family, packed = pack_address(self.peer[0])
        head = _SEEN.pack(
            self.fate,
            self.greeted,
            self.peer[1],
            family,
            _NO_U8 if self.in_vain is None else min(self.in_vain, _NO_U8 - 1),
            packed,
            self.accepted_ns,
            encode_stamp(self.heard_ns),
            encode_stamp(self.ended_ns),
            self.received,
            self.sent,
            min(self.exchanges, _MOST_U32),
        )
        words = b"".join(encode_text(word) for word in (self.kind, self.ending, self.reason))
        return (head + encode_counters(self.counters) + words).ljust(_ENTRY_SIZE, b"\0")

    @classmethod
    def parse(cls, entry: bytes) -> Self:
        fate, greeted, port, family, in_vain, packed, *rest = _SEEN.unpack_from(entry)
        if fate == Fate.UNKNOWN:
            _padded(entry, 0)
            return cls(*UNKNOWN)
        if fate not in _FATES or greeted > 1 or family not in (4, 6):
            raise RemoteProtocolError("bad_value", f"fate {fate}, {greeted}, family {family}")
        if family == 4 and any(packed[4:]):
            raise RemoteProtocolError("bad_value", "an IPv4 address that goes on")
        accepted_ns, heard_ns, ended_ns, received, sent, exchanges = rest
        words, offset = [], _SEEN.size + COUNTERS_SIZE
        for _ in range(3):
            word, offset = split_text(entry, offset)
            words.append(word)
        _padded(entry, offset)
        return cls(
            Fate(fate),
            bool(greeted),
            (parse_address(packed[:4] if family == 4 else packed), port),
            None if in_vain == _NO_U8 else in_vain,
            accepted_ns,
            parse_stamp(heard_ns),
            parse_stamp(ended_ns),
            received,
            sent,
            exchanges,
            parse_counters(entry, _SEEN.size),
            *words,
        )


UNKNOWN = Seen(
    Fate.UNKNOWN, False, ("", 0), None, 0, None, None, 0, 0, 0, Counters(*[0] * 12), "", "", ""
)
_FATES = frozenset(Fate)


class HostSeen(NamedTuple):
    """What the server's host went through in a period that ends now.

    Attributes:
        since_ns: How long before the answer it begins; None: nothing is known of the past.
        stalled_ns: How long the server's process did not run.
        worst_ns: The longest of it at a stretch.
        cause: Of that (``stalls.Cause``), or ``""``.
        throttled_ns: How long a CPU limit stopped it; known a second late.
        run_delay_ns: How long its thread waited for a CPU.
        tcp: By how much the counts of its network namespace grew.
        accept_errors: Times that accept() failed for want of descriptors or memory.
        connections: Open now.
        max_connections: How many may be.
        accept_queue: Connections in it now.
        accept_queue_limit: How many may be.
        half_open: Connections of the asker's address whose handshake is not finished, now.
        limits: Those that were reached, and how often, the most frequent first.
    """

    since_ns: int | None = None
    stalled_ns: int | None = None
    worst_ns: int | None = None
    cause: str = ""
    throttled_ns: int | None = None
    run_delay_ns: int | None = None
    tcp: TcpCounts = NO_TCP_COUNTS
    accept_errors: int | None = None
    connections: int | None = None
    max_connections: int | None = None
    accept_queue: int | None = None
    accept_queue_limit: int | None = None
    half_open: int | None = None
    limits: tuple[tuple[str, int], ...] = ()


class Testimony(NamedTuple):
    """What the server says. All times are ages, as in ``Seen``.

    Attributes:
        memory_ns: How far back it remembers each connection that ended otherwise than ``done``.
        memory_of_done_ns: How far back those that ended ``done``.
        host: What its host went through.
        seen: One for each that was asked, in that order.
    """

    memory_ns: int
    memory_of_done_ns: int
    host: HostSeen
    seen: tuple[Seen, ...] = ()

    def encode(self) -> bytes:
        host = self.host
        times = (host.since_ns, host.stalled_ns, host.worst_ns, host.throttled_ns)
        counts = (
            *host.tcp,
            host.accept_errors,
            host.connections,
            host.max_connections,
            host.accept_queue,
            host.accept_queue_limit,
            host.half_open,
        )
        head = _HEAD.pack(
            self.memory_ns,
            self.memory_of_done_ns,
            *map(encode_stamp, times),
            encode_stamp(host.run_delay_ns),
            *map(encode_count, counts),
        )
        head += encode_text(host.cause)
        limits = [encode_text(name) + _COUNT.pack(min(hit, _MOST_U32)) for name, hit in host.limits]
        while len(head) + 1 + sum(map(len, limits)) > _HEAD_SIZE:
            limits.pop()
        head = b"".join((head, bytes((len(limits),)), *limits)).ljust(_HEAD_SIZE, b"\0")
        return head + b"".join(each.encode() for each in self.seen)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        need(body, _HEAD_SIZE)
        head = body[:_HEAD_SIZE]
        memory_ns, memory_of_done_ns, *rest = _HEAD.unpack_from(head)
        since_ns, stalled_ns, worst_ns, throttled_ns, run_delay_ns = map(parse_stamp, rest[:5])
        *tcp, errors, now, most, queue, queue_most, half_open = map(parse_count, rest[5:])
        cause, offset = split_text(head, _HEAD.size)
        need(head, offset + 1)
        count, offset = head[offset], offset + 1
        limits = []
        for _ in range(count):
            name, offset = split_text(head, offset)
            need(head, offset + _COUNT.size)
            limits.append((name, _COUNT.unpack_from(head, offset)[0]))
            offset += _COUNT.size
        _padded(head, offset)
        host = HostSeen(
            since_ns,
            stalled_ns,
            worst_ns,
            cause,
            throttled_ns,
            run_delay_ns,
            TcpCounts(*tcp),
            errors,
            now,
            most,
            queue,
            queue_most,
            half_open,
            tuple(limits),
        )
        return cls(memory_ns, memory_of_done_ns, host, tuple(map(Seen.parse, _entries(body))))


def _entries(body: bytes) -> list[bytes]:
    """Return what follows the head, cut into entries."""
    rest = body[_HEAD_SIZE:]
    if len(rest) % _ENTRY_SIZE:
        raise RemoteProtocolError("bad_length", f"{len(body)} bytes are no whole entries")
    return [rest[at : at + _ENTRY_SIZE] for at in range(0, len(rest), _ENTRY_SIZE)]


def _padded(piece: bytes, size: int) -> bytes:
    """Return the first bytes of a head or an entry; refuse it if more than zeros follows."""
    if any(piece[size:]):
        raise RemoteProtocolError("reserved_not_zero", "in the padding")
    return piece[:size]
