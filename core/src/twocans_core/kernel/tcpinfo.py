"""``struct tcp_info`` (linux/tcp.h) to values. No I/O: the bytes come from ``net``.

The kernel returns as many bytes as it has, and the structure only ever grew, so a field is
there when the bytes reach its end. A field that is not there is None, and so is one that no
kernel which fills it in can show: gVisor returns the whole structure with most of it zero.
"""

import operator
import struct
import sys
from typing import NamedTuple

__all__ = [
    "COUNTERS",
    "LIMITED",
    "NO_COUNTERS",
    "NO_HOST_COUNTS",
    "NO_TCP_COUNTS",
    "TCP_INFO_SIZE",
    "AcceptQueue",
    "Counters",
    "HostCounts",
    "Limited",
    "TcpCounts",
    "unanswered",
]


class Counters(NamedTuple):
    """One connection as one end's kernel counts it. Travels in frames: never reorder.

    Attributes:
        total_retrans: Segments sent again since the socket exists, SYN or SYN-ACK included.
        segs_out: Segments sent, pure ACKs included.
        segs_in: Segments received, likewise.
        data_segs_out: Segments sent that carried data.
        data_segs_in: Segments received that carried data.
        rtt_us: Smoothed round trip in microseconds. Holds delayed ACKs of the peer, and after
            a lost SYN-ACK the whole handshake.
        min_rtt_us: Smallest round trip seen, in microseconds.
        rcv_ooopack: Segments that arrived out of order.
        reord_seen: Reordering events that the sender noticed.
        dsack_dups: Segments that the peer reported as received twice.
        snd_mss: Bytes of payload in a full segment.
        options: Bits agreed in the handshake (TCPI_OPT_*): 1 timestamps, 2 SACK, 4 window scale.
    """

    total_retrans: int | None
    segs_out: int | None
    segs_in: int | None
    data_segs_out: int | None
    data_segs_in: int | None
    rtt_us: int | None
    min_rtt_us: int | None
    rcv_ooopack: int | None
    reord_seen: int | None
    dsack_dups: int | None
    snd_mss: int | None
    options: int | None

    @classmethod
    def parse(cls, raw: bytes) -> "Counters":
        """Read the counters out of what getsockopt(TCP_INFO) returned.

        ``tcpi_min_rtt`` is all ones before the first sample, ``tcpi_rtt`` is zero: both None.
        Where no segment was counted, neither out nor in, nothing was: a client has sent its
        SYN by then, and a server has received one.
        """
        if len(raw) >= _SINCE_5_4.size:
            counters = cls(*_IN_ORDER(_SINCE_5_4.unpack_from(raw)))
        else:
            counters = cls(*(_field(raw, *COUNTERS[name]) for name in cls._fields))
        if counters.segs_out == 0 == counters.segs_in:
            rtt_us, mss = counters.rtt_us or None, counters.snd_mss or None
            return NO_COUNTERS._replace(rtt_us=rtt_us, snd_mss=mss)
        if counters.rtt_us == 0 or counters.min_rtt_us in _NO_RTT:
            rtt_us = counters.rtt_us or None
            min_rtt_us = None if counters.min_rtt_us in _NO_RTT else counters.min_rtt_us
            counters = counters._replace(rtt_us=rtt_us, min_rtt_us=min_rtt_us)
        return counters

    def can_follow(self, before: "Counters | None", most_bytes: int) -> bool:
        """Whether one connection can have counted so, and ``before`` earlier.

        Wide bounds: what is beyond them is no count, whatever the network does.

        Args:
            before: What was read of it before this, if anything.
            most_bytes: The most that may have been sent on it, in either direction. Each segment
                with data holds one byte at least, and is sent, or arrives, 16 times at most: the
                kernel gives up after 15 (tcp_retries2).
        """
        most = _MOST_TRIES * (most_bytes + 2)  # SYN and FIN count as a byte
        for at in _GROWING:
            old, new = (before or NO_COUNTERS)[at], self[at]
            if old is not None and new is not None and new < old:
                return False
        counts = (self.total_retrans, self.data_segs_out, self.data_segs_in, self.dsack_dups)
        return (
            max(count or 0 for count in counts) <= most
            and _is_part(self.data_segs_out, self.segs_out)
            and _is_part(self.data_segs_in, self.segs_in)
            and _is_part(self.rcv_ooopack, self.segs_in)
        )


# Field of Counters: its offset and size in struct tcp_info. Checked against the kernel's own
# header by tests/core/kernel/test_tcpinfo.py where that header is installed.
COUNTERS = {
    "total_retrans": (100, 4),
    "segs_out": (136, 4),
    "segs_in": (140, 4),
    "data_segs_out": (156, 4),
    "data_segs_in": (152, 4),
    "rtt_us": (68, 4),
    "min_rtt_us": (148, 4),
    "rcv_ooopack": (224, 4),
    "reord_seen": (220, 4),
    "dsack_dups": (216, 4),
    "snd_mss": (16, 4),
    "options": (5, 1),
}
# No kernel measures zero: it takes a jiffy instead (tcp_update_rtt_min).
_NO_RTT = (0, 0xFFFF_FFFF)
_MOST_TRIES = 16
# All but the round trips, the segment size and the options.
_GROWING = tuple(
    at
    for at, name in enumerate(Counters._fields)
    if name not in ("rtt_us", "min_rtt_us", "snd_mss", "options")
)
# The same offsets in one read, for every kernel since 5.4: this runs in every probe.
_SINCE_5_4 = struct.Struct("=5xB10xI48xI28xI32xII4xIII56xIII")
_BY_OFFSET = sorted(COUNTERS, key=COUNTERS.__getitem__)
_IN_ORDER = operator.itemgetter(*map(_BY_OFFSET.index, Counters._fields))

NO_COUNTERS = Counters(*[None] * len(COUNTERS))

# Bytes to ask the kernel for: all that is read here, and no growth of the structure breaks it.
TCP_INFO_SIZE = 256


class Limited(NamedTuple):
    """For how long one connection had something to send, and what it waited for meanwhile.

    Counted in jiffies by the sender's kernel since Linux 4.10; both shares are in ``busy_us``.

    Attributes:
        busy_us: Something was sent and not acknowledged, or waited to be sent.
        rwnd_limited_us: It waited for the receiver's window.
        sndbuf_limited_us: It waited for room in the send buffer.
    """

    busy_us: int | None
    rwnd_limited_us: int | None
    sndbuf_limited_us: int | None

    @classmethod
    def parse(cls, raw: bytes) -> "Limited":
        """Read them out of what getsockopt(TCP_INFO) returned."""
        if _field(raw, 136, 8) == 0:  # segs_out and segs_in: see Counters.parse
            return cls(None, None, None)
        if len(raw) >= _SINCE_4_10.size:
            return cls(*_SINCE_4_10.unpack_from(raw))
        return cls(*(_field(raw, offset, 8) for offset in LIMITED.values()))


# Field of Limited: its offset in struct tcp_info; eight bytes each.
LIMITED = {"busy_us": 168, "rwnd_limited_us": 176, "sndbuf_limited_us": 184}
_SINCE_4_10 = struct.Struct("=168xQQQ")


def unanswered(raw: bytes) -> int | None:
    """Return how often in a row the kernel has sent again, or probed, without an answer.

    As ``Standing.sent_in_vain``, where no more is asked.
    """
    return max(raw[2], raw[3]) if len(raw) >= 4 else None


class AcceptQueue(NamedTuple):
    """Connections that the kernel finished and the program has not accepted yet.

    Attributes:
        length: How many wait (``tcpi_unacked`` of a listening socket).
        limit: How many may wait before SYNs are dropped (``tcpi_sacked``).
    """

    length: int | None
    limit: int | None

    @classmethod
    def parse(cls, raw: bytes) -> "AcceptQueue":
        """Read the queue out of getsockopt(TCP_INFO) of a listening socket."""
        length, limit = _field(raw, 24, 4), _field(raw, 28, 4)
        return cls(length, limit) if limit else cls(None, None)  # no listener's limit is 0


class HostCounts(NamedTuple):
    """What one host's TCP counted of all its connections, in one network namespace.

    Both modulo 2^32, since that namespace began: only differences mean something. They come from
    ``/proc/net`` (see ``procfs.HostReader``), and travel in frames: never reorder.

    Attributes:
        listen_overflows: Connections that found an accept queue full (ListenOverflows).
        csum_errors: Segments dropped because their checksum was wrong (InCsumErrors).
    """

    listen_overflows: int | None
    csum_errors: int | None


NO_HOST_COUNTS = HostCounts(None, None)


class TcpCounts(NamedTuple):
    """All that the witness tells of one network namespace's TCP: counts, or their growth.

    From ``/proc/net`` (see ``procfs.TcpReader``), since that namespace began. Travels in frames:
    never reorder.

    Attributes:
        listen_overflows: Connections that found an accept queue full (ListenOverflows).
        listen_drops: SYNs and last ACKs that a listener dropped, overflows included (ListenDrops).
        syn_retrans: SYNs and SYN-ACKs sent again (TCPSynRetrans).
        in_segs: Segments received (InSegs).
        out_segs: Segments sent, without those sent again (OutSegs).
        retrans_segs: Segments sent again (RetransSegs).
        csum_errors: Segments dropped because their checksum was wrong (InCsumErrors).
        out_rsts: Resets sent (OutRsts).
    """

    listen_overflows: int | None
    listen_drops: int | None
    syn_retrans: int | None
    in_segs: int | None
    out_segs: int | None
    retrans_segs: int | None
    csum_errors: int | None
    out_rsts: int | None


NO_TCP_COUNTS = TcpCounts(*[None] * 8)


def _is_part(part: int | None, whole: int | None) -> bool:
    return part is None or whole is None or part <= whole


def _field(raw: bytes, offset: int, size: int) -> int | None:
    if len(raw) < offset + size:
        return None
    return int.from_bytes(raw[offset : offset + size], sys.byteorder)
