"""What was lost, and in which direction: both ends' segment counters compared. No I/O.

A segment that one end sent and the other did not get was lost in that direction; one that arrived
more often than it was sent was duplicated. That needs no privilege and no guess, only that
nothing is under way when the two ends are compared. Counters are compared at *cuts*: a request
and its answer with nothing else in flight, the server's counters inside the answer.

Four things limit it. Loss and duplication between the same two cuts cancel each other. What a
firewall of the receiving host drops before its TCP sees it is lost as well. Connections that did
not come to a proper end are in no account, and loss ends some: what is counted is then the least
that was lost. And it holds only where the two ends are of one TCP connection: ``proxy`` looks for
signs that they are not.

Segments as the kernel counts them (``tcp_info``, linux/tcp.h): after segmentation offload on the
way out, and before it on the way in, so offload on either host changes nothing.
"""

from typing import NamedTuple

from twocans_core.kernel.tcpinfo import Counters

__all__ = ["Cut", "Fates", "Hosts", "Ledger", "Segments", "Sizes", "of_fresh"]

_SACK = 2  # TCPI_OPT_SACK
# Kernels wait a second before they send a SYN or SYN-ACK again (TCP_TIMEOUT_INIT).
# The second of RFC 6298, 2.1. Half of it tells an answer to the first from an answer to the second.
_SYN_WAIT_US = 500_000
# The messages of a held connection fit into this (held.py).
# 1,024 bytes of payload and 108 of header and head, which is 1,132.
_ONE_SEGMENT = 1_200


class Cut(NamedTuple):
    """Both ends' counters around one request and its answer.

    Attributes:
        sent: Ours, right before the request (or GOODBYE) is handed to the kernel. Afterwards the
            answer may be in it, and on a busy host it often is.
        server: Theirs, in the answer: read after the request was, before the answer was sent.
        read: Ours, after the answer was read; after GOODBYE, at the end of the stream.
    """

    sent: Counters
    server: Counters
    read: Counters


class Fates(NamedTuple):
    """What became of the segments of one direction. Data only, but where it says otherwise.

    Attributes:
        sent: Segments sent, those that were sent again included.
        lost: Of them, those that never arrived.
        duplicated: Segments that arrived more often than they were sent.
        resent: Segments that their sender sent again.
        spurious: Of them, those that were not needed, for the receiver reported that it has them
            twice. Without SACK nobody reports that: then those of which none is missing.
        damaged: Of them, those that arrived with a wrong checksum before: a kernel counts a
            segment in and verifies it afterwards. At most what the receiver's host counted of
            such segments meanwhile; None where it did not say.
        unsent: Segments that the sender's own host dropped before they left, by its firewall or a
            full queue. Its TCP counts them as sent, and tries again without calling it that. Not
            in ``sent``.
        reordered: Where nothing was missing, segments without data included that came out of
            order (``tcpi_rcv_ooopack`` of the receiver); else, and before Linux 5.4, times that
            the sender noticed that some overtook others (``tcpi_reord_seen``). None before 4.19.
        acks_lost: Segments without data that never arrived; no handshake in it.
        syns: SYNs (forward) or SYN-ACKs (reverse) sent, for connections that came to be.
        syns_lost: Of them, those lost. SYNs, as long as the server sent no SYN-ACK twice: then
            it is unknown why ours was sent again, and it is 0.
        overflowed: Forward segments, the first of their connections, that would count as lost, but
            meanwhile the server's accept queue was full as often: that may be why.
        unanswered: SYNs of connections that never came to be. Whether they were lost, or
            their SYN-ACKs, or the server is dead, is unknown.
        dsacks: Segments that the receiver reported as received twice (``tcpi_dsack_dups``).
            None before Linux 4.19, and where the ends did not agree on SACK.
        acks: Segments without data sent, no SYN among them: ``acks_lost`` is of these.
    """

    sent: int = 0
    lost: int = 0
    duplicated: int = 0
    resent: int = 0
    spurious: int = 0
    damaged: int | None = None
    unsent: int = 0
    reordered: int | None = 0
    acks_lost: int = 0
    syns: int = 0
    syns_lost: int = 0
    overflowed: int = 0
    unanswered: int = 0
    dsacks: int | None = 0
    acks: int = 0

    def __add__(self, other: object) -> "Fates":
        """Add field by field; what was not measured in both is not measured in the sum.

        But ``damaged``, which is told of some connections only.
        """
        if not isinstance(other, Fates):
            return NotImplemented
        # A held connection tells nothing of damage, and must not take away what the probes told.
        damaged = other.damaged if self.damaged is None else self.damaged + (other.damaged or 0)
        return Fates(
            self.sent + other.sent,
            self.lost + other.lost,
            self.duplicated + other.duplicated,
            self.resent + other.resent,
            self.spurious + other.spurious,
            damaged,
            self.unsent + other.unsent,
            _plus(self.reordered, other.reordered),
            self.acks_lost + other.acks_lost,
            self.syns + other.syns,
            self.syns_lost + other.syns_lost,
            self.overflowed + other.overflowed,
            self.unanswered + other.unanswered,
            _plus(self.dsacks, other.dsacks),
            self.acks + other.acks,
        )

    def since(self, before: "Fates") -> "Fates":
        """Return what was added since an earlier sum."""
        pairs = zip(self, before, strict=True)
        return Fates(*(None if now is None else now - (then or 0) for now, then in pairs))  # type: ignore[arg-type]


class Segments(NamedTuple):
    """Both directions.

    Attributes:
        forward: From client to server.
        reverse: From server to client.
    """

    forward: Fates = Fates()
    reverse: Fates = Fates()

    def __add__(self, other: object) -> "Segments":
        """Add each direction to its own."""
        if not isinstance(other, Segments):
            return NotImplemented
        return Segments(self.forward + other.forward, self.reverse + other.reverse)


class _Count(NamedTuple):
    """One end's counters, those that conservation needs."""

    retrans: int
    data_out: int
    data_in: int
    acks_out: int
    acks_in: int
    dsacks: int | None
    reordered: int | None
    out_of_order: int | None

    @classmethod
    def of(cls, counters: Counters, sack: int) -> "_Count | None":
        """Take them out of all counters; None when one that cannot be missed is not there."""
        retrans, out, into, data_out, data_in, _, _, late, reordered, dsacks, _, _ = counters
        if retrans is None or out is None or into is None or data_out is None or data_in is None:
            return None
        if not sack:
            dsacks = None  # nobody reports anything twice
        # segs_out and segs_in have everything (RFC 4898): the rest is SYN, FIN and pure ACKs.
        acks_out, acks_in = out - data_out, into - data_in
        return cls(retrans, data_out, data_in, acks_out, acks_in, dsacks, reordered, late)

    def since(self, old: "_Count") -> "_Count":
        """Return what was counted since then."""
        minus_old = (None if was is None else -was for was in old)
        return _Count(*map(_plus, self, minus_old))  # type: ignore[arg-type]


class _Counts(NamedTuple):
    """A cut, all of it measured."""

    sent: _Count
    server: _Count
    read: _Count

    @classmethod
    def of(cls, cut: Cut) -> "_Counts | None":
        # A firewall can take it out of the SYN-ACK: then only the server believes in it.
        sack = (cut.sent.options or 0) & (cut.server.options or 0) & _SACK
        sent, server = _Count.of(cut.sent, sack), _Count.of(cut.server, sack)
        read = _Count.of(cut.read, sack)
        return None if sent is None or server is None or read is None else cls(sent, server, read)

    @property
    def acks_missing(self) -> tuple[int, int]:
        """How many segments without data have not arrived, forward and reverse, since ever."""
        forward = self.sent.acks_out - self.server.acks_in
        return forward, self.server.acks_out - self.read.acks_in

    def is_quiet_since(self, before: "_Counts") -> bool:
        """Whether nobody sent anything again since then."""
        # A copy that was sent just before the older cut may arrive after it. One quiet exchange
        # later it has, or is lost.
        ours, theirs = before.read.retrans, before.server.retrans
        return self.read.retrans == ours and self.server.retrans == theirs


class Sizes(NamedTuple):
    """The largest message of each direction, in bytes. One that fits into a segment is one segment.

    Attributes:
        forward: Of ours.
        reverse: Of the server's.
    """

    forward: int = 0
    reverse: int = 0


class Hosts(NamedTuple):
    """What befell the two hosts while a connection lasted, whichever connection it befell.

    Attributes:
        overflows: Times that the server's accept queue was full (``ListenOverflows``); of each
            our SYN, ACK or HELLO may have been one.
        errors_forward: Segments with a wrong checksum that came to the server's host
            (``InCsumErrors``); None: it did not say.
        errors_reverse: To ours.
    """

    overflows: int = 0
    errors_forward: int | None = None
    errors_reverse: int | None = None


_SMALL, _UNEVENTFUL = Sizes(), Hosts()


def of_fresh(
    connected: Counters,
    greeted: Counters,
    bye: Cut,
    sizes: Sizes = _SMALL,
    hosts: Hosts = _UNEVENTFUL,
) -> Segments | None:
    """Account for one whole connection at its end: GOODBYE, answered by FOLLOW_UP.

    Data counters start at 0 at both ends, so everything since the handshake is in it but the
    FOLLOW_UP itself, whose fate nobody tells any more.

    Args:
        connected: Ours, right after connect: SYNs sent again are in ``total_retrans``.
        greeted: Theirs in the WELCOME: SYN-ACKs sent again likewise.
        bye: At the end.
        sizes: Of the messages.
        hosts: What befell the hosts.

    Returns:
        What became of the segments; None when a kernel did not count, or when our GOODBYE was
        sent again and no count of DSACKs says whether that was needed.
    """
    counts = _Counts.of(bye)
    syns, synacks = connected.total_retrans, greeted.total_retrans
    if counts is None or syns is None or synacks is None:
        return None
    sent, server, read = counts
    resent = read.retrans - syns
    lost = read.data_out - server.data_in
    # Since our counters were read for the GOODBYE: GOODBYEs, as nothing else was under way.
    unsettled = read.retrans - sent.retrans
    if unsettled:
        # A GOODBYE that was sent again may have reached the server after it counted: then it
        # is missing without being lost, and was reported as received twice.
        if read.dsacks is None:
            return None
        # Between two bounds. At most: TCP sends again what is lost, and each DSACK (RFC 2883) shows
        # one copy that was not needed. At least: no more copies of the GOODBYE are merely late than
        # were sent, and reported as duplicates.
        fewest = lost - min(unsettled, read.dsacks)
        lost = max(fewest, min(lost, resent - read.dsacks))
    # Without data come SYN-ACKs, pure ACKs and at the end a FIN.
    # The server's socket is made when the handshake is over, and has never sent a SYN-ACK: its
    # request did (tcp_create_openreq_child, net/ipv4/tcp_minisocks.c). So all of them are added.
    acks_out = server.acks_out + synacks + 1
    # More of them than the server sent: a box on the way answers the handshake in its stead, as
    # SYNPROXY does. It keeps our ACK, and says the server's itself.
    foreign = max(0, sent.acks_in - acks_out)
    # Of the handshake the server counts the SYN that it accepted (tcp_create_openreq_child).
    acks_lost = max(0, sent.acks_out - syns - server.acks_in - foreign)
    forward = _fates(
        read,
        lost,
        resent,
        max(0, sent.acks_out - syns - 1),
        acks_lost,
        is_whole=sizes.forward <= (bye.sent.snd_mss or 0),
        errors=hosts.errors_forward,
        syns=syns + 1,
        syns_lost=0 if synacks else syns,
        overflows=hosts.overflows,
        out_of_order=server.out_of_order,
    )

    resent = server.retrans - synacks
    if resent < 0:
        return None  # no kernel counts so
    # Until the FOLLOW_UP came, of which one copy was sent: a reply that was sent again, or a
    # GOODBYE of the server's own, may have arrived since ours. What else came since then is a
    # copy of the FOLLOW_UP: what the server knows of as received twice was before it.
    lost = server.data_out - (read.data_in - 1)
    lost = max(lost, min(server.data_out - sent.data_in, -(server.dsacks or 0)))
    # The server's timer and our second SYN can both make it repeat a SYN-ACK of which one was
    # lost; then one was to spare. It may have acknowledged the GOODBYE before it answered, and a
    # FIN that is sent again may come with the FOLLOW_UP: each spoils one of the two differences.
    missing = max(0, min(acks_out - sent.acks_in, acks_out + 1 - read.acks_in))
    # Had it been our SYN-ACK, we should have waited for the next: somebody else did.
    was_quick = not syns and connected.rtt_us is not None and connected.rtt_us < _SYN_WAIT_US
    synacks_missing = min(synacks, missing)
    reverse = _fates(
        server,
        lost,
        resent,
        server.acks_out,
        missing - synacks_missing,
        is_whole=sizes.reverse <= (bye.server.snd_mss or 0),
        errors=hosts.errors_reverse,
        syns=synacks + 1,
        syns_lost=0 if was_quick else synacks_missing,
        # By our GOODBYE: behind a FOLLOW_UP that was lost the FIN is out of order, and the server
        # had not counted yet that it sends that again.
        out_of_order=sent.out_of_order,
    )
    return Segments(forward, reverse)


class Ledger:
    """The account of one held connection, kept from cut to cut.

    It is closed only at quiet cuts: neither end has sent anything again since the cut before,
    so that nothing is under way that would be taken for lost or duplicated. A cut that is not
    quiet is waited out, and what happened is in the next account. Accounts are differences of
    sums since the first quiet cut, so nothing is counted twice or left out. One exchange at a
    time.
    """

    def __init__(self) -> None:
        self._before: _Counts | None = None
        self._settled: _Counts | None = None
        # The most that were missing so far, forward and reverse. A segment without data that
        # crosses a cut is missing at one end, then at the other; a maximum forgives that.
        self._acks_lost = (0, 0)

    def feed(self, cut: Cut) -> Segments | None:
        """Take in the next exchange; returns what became of all since the last account.

        None when the cut is not quiet, when it is the first that is, or when a kernel did not
        count.
        """
        before, self._before = self._before, _Counts.of(cut)
        now = self._before
        if before is None or now is None or not now.is_quiet_since(before):
            return None
        settled, self._settled = self._settled, now
        known, missing = self._acks_lost, now.acks_missing
        if settled is None:
            self._acks_lost = missing
            return None
        most = self._acks_lost = max(known[0], missing[0]), max(known[1], missing[1])
        sent, server, read = (new.since(old) for new, old in zip(now, settled, strict=True))
        if min(server[:3]) < 0:
            return None  # nothing that a kernel counts: another server, or one that lies
        # Ours with the request, as the server read its counters after it had the request. Theirs
        # without the reply, as it read them before it sent that: so they match what we had before
        # the request.
        lost_forward, lost_reverse = read.data_out - server.data_in, server.data_out - sent.data_in
        ours, theirs = cut.sent.snd_mss or 0, cut.server.snd_mss or 0
        return Segments(
            _fates(
                *(read, lost_forward, read.retrans, sent.acks_out, most[0] - known[0]),
                is_whole=ours >= _ONE_SEGMENT,
            ),
            _fates(
                *(server, lost_reverse, server.retrans, server.acks_out, most[1] - known[1]),
                is_whole=theirs >= _ONE_SEGMENT,
            ),
        )


def _fates(
    sender: _Count,
    lost: int,
    resent: int,
    acks: int,
    acks_lost: int,
    *,
    is_whole: bool,
    errors: int | None = None,
    syns: int = 0,
    syns_lost: int = 0,
    overflows: int = 0,
    out_of_order: int | None = None,
) -> Fates:
    """Make the account of one direction.

    Args:
        sender: Its end.
        lost: Negative when more arrived than was sent.
        resent: By the sender.
        acks: As in ``Fates``; so is the next.
        acks_lost: Those of them that never arrived.
        is_whole: Whether each message was one segment: then no proxy can have joined some.
        errors: As in ``Hosts``; likewise ``overflows``.
        syns: As in ``Fates``.
        syns_lost: Those of which nothing else is known.
        overflows: Of the receiver.
        out_of_order: Segments that came so to the receiver; None: it does not count them.
    """
    dsacks, reordered = sender.dsacks, sender.reordered
    duplicated = unsent = spurious = overflowed = 0
    damaged = None if errors is None else 0
    if lost < 0:
        lost, duplicated = 0, -lost
    if lost > resent and is_whole:
        # TCP sends again whatever it knows as lost. What it does not is what never left.
        lost, unsent = resent, lost - resent
    # More was sent again than is missing. A copy that was not needed is reported (DSACK). A damaged
    # segment is dropped, so its copy is the first to arrive, and nobody reports it: what no DSACK
    # explains may be damage. The rest has no reason that we know of.
    elif resent > lost:
        unneeded = resent - lost
        if errors is not None:
            damaged = min(errors, max(0, unneeded - (dsacks or 0)))
            unneeded -= damaged
        spurious = unneeded if dsacks is None else min(unneeded, dsacks)
    if out_of_order is not None and not lost and not unsent and resent == dsacks:
        reordered = out_of_order  # no gap was there that a lost or damaged segment left
    if overflows:
        # In the order in which a full accept queue meets a connection: the SYN is dropped
        # (tcp_conn_request, net/ipv4/tcp_input.c), then the ACK that ends the handshake
        # (tcp_v4_syn_recv_sock, net/ipv4/tcp_ipv4.c), then the HELLO, for the same reason.
        left = overflows
        syns_lost, left = max(0, syns_lost - left), max(0, left - syns_lost)
        acks_lost, left = max(0, acks_lost - left), max(0, left - acks_lost)
        lost, left = max(0, lost - left), max(0, left - lost)
        overflowed = overflows - left
    return Fates(
        sender.data_out - unsent,
        lost,
        duplicated,
        resent,
        spurious,
        damaged,
        unsent,
        reordered,
        acks_lost,
        syns,
        syns_lost,
        overflowed,
        0,
        dsacks,
        acks,
    )


def _plus(a: int | None, b: int | None) -> int | None:
    return None if a is None or b is None else a + b
