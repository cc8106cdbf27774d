"""What kernels may have told of a connection, made to order."""

from typing import Any

from client.far_end import SERVER, ended
from fakes import COUNTERS
from twocans_client.evidence.loss import Cut, Segments
from twocans_client.evidence.results import Exchange, ProbeResult, Reason
from twocans_client.evidence.split import Stamps
from twocans_core.kernel.tcpinfo import HostCounts

_CLOCK_NS = 1_700_000_000_000_000_000


def exchange(
    *,
    send_ns: int = 10_000,
    forward_ns: int = 30_000,
    wakeup_ns: int = 20_000,
    stall_ns: int | None = 0,
    app_ns: int = 5_000,
    reply_ns: int = 3_000,
    reverse_ns: int = 30_000,
    client_wakeup_ns: int = 7_000,
    offset_ns: int = 0,
    resent: bool = False,
    stamped: bool = True,
) -> Exchange:
    """Return an exchange that took so long in each part.

    Args:
        send_ns: Of our send path; a tenth of it was queued. As the next, what a part took.
        forward_ns: One way.
        wakeup_ns: Of the server.
        stall_ns: None: not measured.
        app_ns: Of the server's program.
        reply_ns: Of its send path.
        reverse_ns: One way.
        client_wakeup_ns: Ours.
        offset_ns: The server's clock less ours.
        resent: A segment was sent again.
        stamped: By our kernel.
    """
    t1k = _CLOCK_NS + send_ns
    t2k = t1k + forward_ns + offset_ns
    t2u = t2k + wakeup_ns
    t3u = t2u + (stall_ns or 0) + app_ns
    t3k = t3u + reply_ns
    t4k = t3k + reverse_ns - offset_ns
    t4u = t4k + client_wakeup_ns
    stamps = Stamps(
        _CLOCK_NS, t1k - send_ns // 10, t1k, t2k, t2u, t3u, t3k, t4k, t4u, stalled_ns=stall_ns
    )
    if not stamped:
        stamps = stamps._replace(t1s=None, t1k=None, t4k=None)
    return Exchange.of(1, t4u - _CLOCK_NS, stamps, resent=resent)


def connection(
    *,
    lost_forward: int = 0,
    lost_reverse: int = 0,
    acks_lost: int = 0,
    in_vain: int = 0,
    damaged: int = 0,
    unsent: int = 0,
    syns_lost: int = 0,
    proxied: bool = False,
) -> dict[str, Any]:
    """Return both ends' counters of one connection with one exchange, as ``ProbeResult`` has them.

    Args:
        lost_forward: Segments with data that were sent again because they were lost.
        lost_reverse: Likewise.
        acks_lost: Segments without data, forward.
        in_vain: Segments sent again, forward, that had arrived.
        damaged: Segments sent again, forward, that had arrived with a wrong checksum.
        unsent: Segments that our own host dropped.
        syns_lost: SYNs.
        proxied: The two ends agreed on different options.
    """
    resent = lost_forward + in_vain + damaged
    # There: HELLO, REQUEST, GOODBYE; SYN and ACK. Back: WELCOME, REPLY and FOLLOW_UP; FIN.
    ours = COUNTERS._replace(
        total_retrans=syns_lost + resent,
        data_segs_out=3 + resent + unsent,
        segs_out=3 + resent + unsent + 2 + syns_lost,
        data_segs_in=2,
        segs_in=2 + 1,
        dsack_dups=in_vain,
    )
    theirs = COUNTERS._replace(
        total_retrans=lost_reverse,
        data_segs_in=3 + in_vain + damaged,
        segs_in=3 + in_vain + damaged + 2 - acks_lost,
        data_segs_out=2 + lost_reverse,
        segs_out=2 + lost_reverse,
        options=3 if proxied else COUNTERS.options,
    )
    read = ours._replace(data_segs_in=3, segs_in=3 + 2)
    return {
        "connected": COUNTERS._replace(total_retrans=syns_lost, segs_in=1),
        "server_greeted": theirs._replace(total_retrans=0),
        "server_ended": theirs,
        "bye": Cut(ours, theirs, read),
        "retrans": read.total_retrans,
        "host_greeted": HostCounts(0, 0),
        "host_ended": HostCounts(0, damaged),
    }


def good(*exchanges: Exchange, at_ns: int = 0, **fields: Any) -> ProbeResult:
    """Return a good probe of ``SERVER`` with these exchanges."""
    fields = {"server": SERVER, "handshake_ns": 40_000, "connect_ns": 100_000, **fields}
    return ended(Reason.OK, at_ns, exchanges=list(exchanges), **fields)


def missing(segments: Segments) -> dict[str, int]:
    """Return what did not arrive, and what arrived twice, by kind and direction, without zeros."""
    forward, reverse = segments
    counted = {
        "syn forward": forward.syns_lost,
        "syn_ack reverse": reverse.syns_lost,
        "data forward": forward.lost,
        "data reverse": reverse.lost,
        "ack forward": forward.acks_lost,
        "ack reverse": reverse.acks_lost,
        "twice": forward.duplicated + reverse.duplicated,
    }
    return {name: count for name, count in counted.items() if count}
