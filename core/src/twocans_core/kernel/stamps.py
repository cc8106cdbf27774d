"""Kernel timestamps: control messages to values. No I/O: the bytes come from ``sockets``.

Constants from linux/net_tstamp.h, linux/errqueue.h and asm-generic/socket.h; Python has no
names for them. All timestamps are CLOCK_REALTIME, made by the kernel in software.
"""

import struct
from typing import NamedTuple

from .errqueue import EXTENDED_ERROR, RECVERR, Ancillary

__all__ = [
    "ANCILLARY_SIZE",
    "RECORD_TX",
    "RX_FLAGS",
    "SO_TIMESTAMPING_NEW",
    "TX_FLAGS",
    "TX_FLAGS_BEFORE_6_2",
    "Transmit",
    "TxStamp",
    "parse_rx",
    "parse_tx",
]

# 64-bit timestamps on every architecture, Linux 5.1. The option's number is also the number of
# the control message (SCM_TIMESTAMPING_NEW).
SO_TIMESTAMPING_NEW = 65

_TX_SOFTWARE = 1 << 1
_RX_SOFTWARE = 1 << 3
_SOFTWARE = 1 << 4
_OPT_ID = 1 << 7
_TX_SCHED = 1 << 8
_OPT_TSONLY = 1 << 11
_OPT_ID_TCP = 1 << 16

RX_FLAGS = _RX_SOFTWARE | _SOFTWARE
# Report transmit timestamps of the writes that ask for them, by their place in the stream.
TX_FLAGS_BEFORE_6_2 = RX_FLAGS | _OPT_ID | _OPT_TSONLY
# OPT_ID_TCP (Linux 6.2): ids count from the setsockopt, even with unsent bytes in the queue.
TX_FLAGS = TX_FLAGS_BEFORE_6_2 | _OPT_ID_TCP

# A write asks for its timestamps with this control message (Linux 4.6), which the kernel knows
# under the option's first number, SO_TIMESTAMPING_OLD.
_SO_TIMESTAMPING_OLD = 37
RECORD_TX = {
    sched: [(1, _SO_TIMESTAMPING_OLD, struct.pack("=I", _TX_SOFTWARE | (sched and _TX_SCHED)))]
    for sched in (False, True)
}
"""Ancillary data of a write that wants to be timestamped; True: also when it is queued."""

# Room for both control messages of one error-queue entry.
ANCILLARY_SIZE = 256

_SOL_SOCKET = 1
_RECVERR = frozenset(RECVERR.values())
_ORIGIN_TIMESTAMPING = 4
_INFO_SND = 0  # SCM_TSTAMP_SND: handed to the network device
_INFO_SCHED = 1  # SCM_TSTAMP_SCHED: handed to the queueing discipline

_TIMESPEC = struct.Struct("=qq")


class TxStamp(NamedTuple):
    """The kernel handed a write on.

    Attributes:
        offset: Of the write's last byte in the stream, from 0 where timestamping was switched on.
        ns: When, CLOCK_REALTIME.
        queued: To the queueing discipline (SCM_TSTAMP_SCHED), and not yet to the network
            device (SCM_TSTAMP_SND).
    """

    offset: int
    ns: int
    queued: bool = False


class Transmit(NamedTuple):
    """When one write left, ns of CLOCK_REALTIME; None where the kernel gave no timestamp.

    Attributes:
        queued_ns: Handed to the queueing discipline of the network device.
        left_ns: Handed to the network device.
    """

    queued_ns: int | None
    left_ns: int | None


def parse_rx(ancillary: Ancillary) -> int | None:
    """Return when the kernel received the last segment of what was read, or None.

    In ns of CLOCK_REALTIME. The kernel leaves the timestamp out, or zero, on the first packets
    after timestamping was switched on for the whole machine: see ``sockets.open_keeper``.
    """
    for level, kind, data in ancillary:
        if level == _SOL_SOCKET and kind == SO_TIMESTAMPING_NEW:
            return _timespec_ns(data)
    return None


def parse_tx(ancillary: Ancillary) -> TxStamp | None:
    """Return the transmit timestamp in one entry of the error queue, or None if it is no such."""
    ns: int | None = None
    offset: int | None = None
    queued = False
    for level, kind, data in ancillary:
        if level == _SOL_SOCKET and kind == SO_TIMESTAMPING_NEW:
            ns = _timespec_ns(data)
        elif (level, kind) in _RECVERR:
            _, origin, _, _, _, info, identifier = EXTENDED_ERROR.unpack_from(data)
            if origin == _ORIGIN_TIMESTAMPING and info in (_INFO_SND, _INFO_SCHED):
                offset = identifier
                queued = info == _INFO_SCHED
    if ns is None or offset is None:
        return None
    return TxStamp(offset, ns, queued)


def _timespec_ns(data: bytes) -> int | None:
    # struct scm_timestamping64 holds three; the first is the software timestamp.
    seconds, nanoseconds = _TIMESPEC.unpack_from(data)
    ns: int = seconds * 1_000_000_000 + nanoseconds
    return ns or None
