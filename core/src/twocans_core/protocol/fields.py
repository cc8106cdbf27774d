"""Pieces of bodies: texts, tokens, addresses, timestamps and counters, to bytes and back.

No I/O. docs/protocol.md, section "Pieces of bodies", is the specification. What a peer sent wrong
raises ``RemoteProtocolError``, what we are about to send wrong ``LocalProtocolError``.
"""

import functools
import ipaddress
import re
import struct

from twocans_core.errors import LocalProtocolError, RemoteProtocolError
from twocans_core.kernel.tcpinfo import COUNTERS, Counters, HostCounts

__all__ = [
    "COUNTERS_SIZE",
    "HOST_SIZE",
    "MAX_TEXT",
    "encode_count",
    "encode_counters",
    "encode_host",
    "encode_stamp",
    "encode_text",
    "encode_token",
    "encode_us",
    "exactly",
    "need",
    "pack_address",
    "parse_address",
    "parse_count",
    "parse_counters",
    "parse_host",
    "parse_stamp",
    "parse_texts",
    "parse_token",
    "parse_us",
    "split_text",
]

MAX_TEXT = 128
_MAX_TOKEN = 32

# "Not measured" and "unknown" are all ones.
_NO_U32 = 0xFFFF_FFFF
_NO_U64 = 0xFFFF_FFFF_FFFF_FFFF
_TOKEN = re.compile(rb"[a-z0-9_]+")
_PRINTABLE = re.compile(rb"[\x20-\x7e]*")

_COUNTERS = struct.Struct(f"!{len(COUNTERS)}I")
_HOST = struct.Struct("!2I")
COUNTERS_SIZE = _COUNTERS.size
HOST_SIZE = _HOST.size


def need(body: bytes, size: int) -> None:
    """Refuse a body of less than ``size`` bytes."""
    if len(body) < size:
        raise RemoteProtocolError("bad_length", f"{len(body)} bytes, want {size} or more")


def exactly(body: bytes, size: int) -> None:
    """Refuse a body of any other size."""
    if len(body) != size:
        raise RemoteProtocolError("bad_length", f"{len(body)} bytes, want {size}")


def encode_stamp(value: int | None) -> int:
    """Return a timestamp or a duration, ns, as its 64 bits."""
    return _NO_U64 if value is None else value


def parse_stamp(value: int) -> int | None:
    """Return what 64 bits say, in ns."""
    return None if value == _NO_U64 else value


def encode_us(ns: int | None) -> int:
    """Return a duration as 32 bits of whole microseconds; the largest stands for all above it."""
    return _NO_U32 if ns is None else min(max(0, ns // 1000), _NO_U32 - 1)


def parse_us(value: int) -> int | None:
    """Return what 32 bits of microseconds say, in ns."""
    return None if value == _NO_U32 else value * 1000


def encode_count(value: int | None) -> int:
    """Return a count as its 32 bits; the largest stands for all above it."""
    return _NO_U32 if value is None else min(value, _NO_U32 - 1)


def parse_count(value: int) -> int | None:
    """Return what 32 bits of a count say."""
    return None if value == _NO_U32 else value


def encode_counters(counters: Counters) -> bytes:
    """Serialize a connection's counters, of which the kernel may not know some."""
    # The kernel's counters are 32 bits wide, so each fits.
    if None in counters:
        return _COUNTERS.pack(*(_NO_U32 if value is None else value for value in counters))
    return _COUNTERS.pack(*counters)


def parse_counters(body: bytes, offset: int) -> Counters:
    """Parse the counters at an offset of a body that is known to hold them."""
    values = _COUNTERS.unpack_from(body, offset)
    if _NO_U32 in values:
        return Counters(*(None if value == _NO_U32 else value for value in values))
    return Counters(*values)


def encode_host(host: HostCounts) -> bytes:
    """Serialize what a host counted."""
    return _HOST.pack(*(_NO_U32 if value is None else value for value in host))


def parse_host(body: bytes, offset: int) -> HostCounts:
    """As ``parse_counters``, of what a host counted."""
    values = _HOST.unpack_from(body, offset)
    return HostCounts(*(None if value == _NO_U32 else value for value in values))


def encode_text(text: str) -> bytes:
    """Serialize a text; what is not ASCII becomes question marks."""
    data = text.encode("ascii", "replace")
    if len(data) > MAX_TEXT or not _PRINTABLE.fullmatch(data):
        raise LocalProtocolError("bad_text", ascii(text))
    return bytes((len(data),)) + data


# Peers say the same names and addresses again and again.
@functools.lru_cache(maxsize=1024)
def parse_texts(data: bytes, count: int) -> tuple[str, ...]:
    """Parse so many texts, and nothing after them."""
    texts, offset = [], 0
    for _ in range(count):
        text, offset = split_text(data, offset)
        texts.append(text)
    exactly(data, offset)
    return tuple(texts)


@functools.lru_cache(maxsize=256)
def parse_address(packed: bytes) -> str:
    """Return 4 or 16 bytes as an IP address is written."""
    address = ipaddress.ip_address(packed)
    if address.version == 6 and address.ipv4_mapped is not None:
        raise RemoteProtocolError("bad_value", "an IPv4 address as IPv6")
    return str(address)


@functools.lru_cache(maxsize=256)
def pack_address(host: str) -> tuple[int, bytes]:
    """Return an IP address's version and bytes; an IPv4-mapped one is IPv4, a scope is dropped."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if address.version == 6 and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.version, address.packed


def split_text(body: bytes, offset: int) -> tuple[str, int]:
    """Parse the text at an offset; returns it, and where it ends."""
    need(body, offset + 1)
    start = offset + 1
    end = start + body[offset]
    if body[offset] > MAX_TEXT:
        raise RemoteProtocolError("bad_text", f"{body[offset]} > {MAX_TEXT} bytes")
    need(body, end)
    if not _PRINTABLE.fullmatch(body, start, end):
        raise RemoteProtocolError("bad_text", "not printable ASCII")
    return body[start:end].decode("ascii"), end


@functools.lru_cache(maxsize=64)
def encode_token(token: str) -> bytes:
    """Serialize a token."""
    data = token.encode()
    if len(data) > _MAX_TOKEN or not _TOKEN.fullmatch(data):
        raise LocalProtocolError("bad_text", ascii(token))
    return bytes((len(data),)) + data


@functools.lru_cache(maxsize=64)
def parse_token(body: bytes) -> str:
    """Parse a body, or the rest of one, that is one token."""
    text, end = split_text(body, 0)
    exactly(body, end)
    if len(text) > _MAX_TOKEN or not _TOKEN.fullmatch(text.encode()):
        raise RemoteProtocolError("bad_text", "not a token")
    return text
