"""How a connection stood at one moment, from ``struct tcp_info`` (linux/tcp.h). No I/O.

For connections that failed, or lost something. It stays at the end that read it: what both ends
compare is ``tcpinfo.Counters``. Which bytes are there is as said in ``tcpinfo``.
"""

import struct
from typing import NamedTuple

__all__ = ["NO_STANDING", "STANDING", "Standing"]


class Standing(NamedTuple):
    """One connection as our own kernel saw it; None where that kernel does not say.

    Attributes:
        state: Of the connection (net/tcp_states.h): 1 established, 2 SYN sent, 7 closed.
        ca_state: Of its loss recovery: 0 open, 1 disorder, 2 congestion of our own host or a CWR,
            3 recovery, 4 loss (a retransmission timeout).
        retransmits: Timeouts in a row that nothing answered; SYNs count.
        probes: Likewise, while nothing is under way: window probes and keepalives.
        backoff: How often in a row the timeout was doubled.
        rto_us: The timeout now, in microseconds.
        snd_mss: Bytes of payload in a full segment of ours.
        rcv_mss: Likewise of theirs, as far as they have sent any: an estimate.
        unacked: Segments sent and not acknowledged.
        sacked: Of those, how many arrived out of order, as the peer says.
        lost: Of those, how many count as lost.
        retrans: Of those, how many were sent again and left this host. Stays 0 for a copy that our
            own host dropped, although ``total_retrans`` counts it.
        last_data_sent_ms: How long ago we sent data last; None if never.
        last_data_recv_ms: How long ago data came last; None if never.
        last_ack_recv_ms: How long ago an acknowledgement came last; before any, how long ago we
            began to connect.
        pmtu: Largest packet in bytes, IP header included, that the path is known to take: of our
            device and route, or less, once a router has said so or the kernel has probed.
        total_retrans: Segments sent again since the socket exists, SYN included.
        bytes_acked: Of the stream, SYN included: those that the peer has for certain.
        segs_out: Segments sent, pure ACKs included.
        segs_in: Segments received, likewise.
        notsent_bytes: Handed to the kernel and not sent yet, for whatever reason.
        min_rtt_us: Smallest round trip seen, in microseconds.
        data_segs_in: Segments received that carried data.
        data_segs_out: Segments sent that carried data.
        bytes_sent: Payload sent, what was sent again included.
        bytes_retrans: Payload sent again.
        snd_wnd: Bytes that the peer allowed to be under way, when it was heard last.
        total_rto: Retransmission timeouts since the socket exists.
        total_rto_time_ms: How long recovery from them took in all.
    """

    state: int | None
    ca_state: int | None
    retransmits: int | None
    probes: int | None
    backoff: int | None
    rto_us: int | None
    snd_mss: int | None
    rcv_mss: int | None
    unacked: int | None
    sacked: int | None
    lost: int | None
    retrans: int | None
    last_data_sent_ms: int | None
    last_data_recv_ms: int | None
    last_ack_recv_ms: int | None
    pmtu: int | None
    total_retrans: int | None
    bytes_acked: int | None
    segs_out: int | None
    segs_in: int | None
    notsent_bytes: int | None
    min_rtt_us: int | None
    data_segs_in: int | None
    data_segs_out: int | None
    bytes_sent: int | None
    bytes_retrans: int | None
    snd_wnd: int | None
    total_rto: int | None
    total_rto_time_ms: int | None

    @classmethod
    def parse(cls, raw: bytes) -> "Standing":
        """Read it out of what getsockopt(TCP_INFO) returned.

        Where no segment was counted nothing was: see ``Counters.parse``.
        """
        length = len(raw)
        values = _ALL.unpack_from(raw.ljust(_ALL.size, b"\0"))
        here = cls(
            *(value if end <= length else None for value, end in zip(values, _ENDS, strict=True))
        )
        if here.segs_out == 0 == here.segs_in:
            return NO_STANDING
        never = {name for name, count in _SINCE_BEGAN if getattr(here, count) == 0}
        if here.min_rtt_us in _NO_RTT:
            never.add("min_rtt_us")
        return here._replace(**dict.fromkeys(never)) if never else here

    @property
    def sent_in_vain(self) -> int | None:
        """How often in a row the kernel has sent again, or probed, without an answer.

        Any answer makes it 0 again; the end of the connection does not.
        """
        if self.retransmits is None or self.probes is None:
            return None
        return max(self.retransmits, self.probes)

    @property
    def is_dropped_here(self) -> bool:
        """Whether it is our own host that dropped what we sent last: a firewall, or a full queue.

        The kernel knows at once when its own output fails. Data that never left then counts as not
        sent, and nothing is under way; of what was sent again no copy is out (tcp_write_xmit,
        __tcp_retransmit_skb). Once the timer has run there is no other reason for either.
        """
        if not self.sent_in_vain:
            return False
        if self.unacked:
            return bool(self.total_retrans) and self.retrans == 0 == self.sacked
        return bool(self.notsent_bytes and self.snd_wnd)

    @property
    def is_waiting_here(self) -> bool:
        """Whether the SYN itself waited in this host until its timers ran out.

        For a neighbour that did not answer, or in the queue of the device: the kernel does not send
        again what has not left (tcp_retransmit_skb, skb_still_in_host_queue).
        """
        return bool(self.retransmits) and self.total_retrans == 0 == self.segs_in


# Field of Standing: its offset and size in struct tcp_info, in the order of both.
STANDING = {
    "state": (0, 1),
    "ca_state": (1, 1),
    "retransmits": (2, 1),
    "probes": (3, 1),
    "backoff": (4, 1),
    "rto_us": (8, 4),
    "snd_mss": (16, 4),
    "rcv_mss": (20, 4),
    "unacked": (24, 4),
    "sacked": (28, 4),
    "lost": (32, 4),
    "retrans": (36, 4),
    "last_data_sent_ms": (44, 4),
    "last_data_recv_ms": (52, 4),
    "last_ack_recv_ms": (56, 4),
    "pmtu": (60, 4),
    "total_retrans": (100, 4),
    "bytes_acked": (120, 8),
    "segs_out": (136, 4),
    "segs_in": (140, 4),
    "notsent_bytes": (144, 4),
    "min_rtt_us": (148, 4),
    "data_segs_in": (152, 4),
    "data_segs_out": (156, 4),
    "bytes_sent": (200, 8),
    "bytes_retrans": (208, 8),
    "snd_wnd": (228, 4),
    "total_rto": (240, 2),
    "total_rto_time_ms": (244, 4),
}
_SINCE_BEGAN = (("last_data_sent_ms", "data_segs_out"), ("last_data_recv_ms", "data_segs_in"))
_NO_RTT = (0, 0xFFFF_FFFF)
_ENDS = tuple(offset + size for offset, size in STANDING.values())


def _layout() -> str:
    """Return all fields as one format, so that a reading is one call."""
    at, layout = 0, "="
    for offset, size in STANDING.values():
        layout += f"{offset - at}x{ {1: 'B', 2: 'H', 4: 'I', 8: 'Q'}[size] }"
        at = offset + size
    return layout


_ALL = struct.Struct(_layout())
NO_STANDING = Standing(*[None] * len(STANDING))
