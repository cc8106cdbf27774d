"""What a probe found. No I/O.

outcome   ok, fail (the path's or the far end's doing) or void (our own doing)
reason    why, from a closed list; every reason belongs to one outcome
"""

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from twocans_core.host.stalls import NEVER, Stalled
from twocans_core.kernel.errqueue import Icmp
from twocans_core.kernel.stamps import Transmit
from twocans_core.kernel.standing import Standing
from twocans_core.kernel.tcpinfo import Counters, HostCounts, Limited
from twocans_core.net.sockets import Address
from twocans_core.protocol.messages import Identity

from .loss import Cut, Fates, Hosts, Segments, Sizes, of_fresh
from .split import Refusal, Split, Stamps, split

__all__ = [
    "OUTCOMES",
    "Exchange",
    "Outcome",
    "ProbeResult",
    "Reason",
    "Silence",
    "Unfinished",
    "grown",
]

# Of a host's counts in a frame, which have 32 bits (``HostCounts``).
_MODULUS = 1 << 32


class Outcome(enum.StrEnum):
    """Whose doing it was. Values are metric labels: never rename them."""

    OK = "ok"
    FAIL = "fail"
    VOID = "void"


class Reason(enum.StrEnum):
    """Why a probe ended. Values are metric labels: never rename them.

    A time-out is named after the phase that it happened in, so that an alert can tell a server
    that is down (``refused``) from a path that is (``connect_timeout``) and from a program that
    hangs behind a kernel that answers (``greeting_timeout``).
    """

    OK = "ok"

    DNS_FAILURE = "dns_failure"
    """The name does not resolve."""
    DNS_TIMEOUT = "dns_timeout"
    """The resolver did not answer in time."""
    REFUSED = "refused"
    """connect() was answered by a reset or an ICMP message: no listener, or a firewall."""
    UNREACHABLE = "unreachable"
    """No route, by our own table, a router or an unanswered neighbour request."""
    CONNECT_TIMEOUT = "connect_timeout"
    """No answer to our SYN."""
    GREETING_TIMEOUT = "greeting_timeout"
    """Connected, but no WELCOME: the kernel answers, the process does not."""
    REPLY_TIMEOUT = "reply_timeout"
    """No reply, or not all of it."""
    CLOSE_TIMEOUT = "close_timeout"
    """Everything was answered except our GOODBYE."""
    RESET = "reset"
    """The connection was reset."""
    CLOSED_EARLY = "closed_early"
    """The far end closed the connection too early."""
    WRONG_BYTES = "wrong_bytes"
    """The reply is not what was sent."""
    DAMAGED = "damaged"
    """A frame arrived damaged, at either end: its CRC-32 does not match."""
    PROTOCOL_ERROR = "protocol_error"
    """The far end broke the protocol, reported that we did, or accepts no payload of this size."""
    BUSY = "busy"
    """The server has reached a limit on connections."""

    SELF_STALL = "self_stall"
    """We stalled, in total, for a quarter of the time-out or longer."""
    NO_PORTS = "no_ports"
    """No local port is left (EADDRNOTAVAIL)."""
    NO_ADDRESS = "no_address"
    """Our host has no address of that family to send from: usually IPv6 is switched off."""
    NO_DESCRIPTORS = "no_descriptors"
    """No descriptor is left (EMFILE, ENFILE)."""
    NO_MEMORY = "no_memory"
    """The kernel has no memory for a socket (ENOBUFS, ENOMEM) or a thread."""
    DENIED = "denied"
    """A local rule forbids it (EPERM, EACCES)."""
    CLOCK_STEP = "clock_step"
    """Our clock was stepped, or our host was suspended, during the probe."""
    DRAINING = "draining"
    """The server announced that it would stop, and did."""
    SHUTDOWN = "shutdown"
    """We stopped."""
    INTERNAL_ERROR = "internal_error"
    """A bug in twocans."""


# DNS_FAILURE to BUSY, as they stand above. What follows them is our own doing.
_FAILURES = frozenset(list(Reason)[1:15])

OUTCOMES: dict[Reason, Outcome] = {
    reason: Outcome.OK
    if reason is Reason.OK
    else Outcome.FAIL
    if reason in _FAILURES
    else Outcome.VOID
    for reason in Reason
}


def grown(before: int | None, now: int | None) -> int | None:
    """Return by how much a host's count grew (``HostCounts``); None where one is not known."""
    return None if before is None or now is None else (now - before) % _MODULUS


class Exchange(NamedTuple):
    """One request and its reply.

    Attributes:
        sequence: From 1.
        duration_ns: From before send() to the reply read, CLOCK_MONOTONIC.
        stamps: All that is known of when what happened.
        split: Where the time went; None if that is not known.
        refusal: Why it is not.
        resent: A segment was sent again while it lasted, by either end.
    """

    sequence: int
    duration_ns: int
    stamps: Stamps
    split: Split | None = None
    refusal: Refusal | None = Refusal.UNSTAMPED
    resent: bool = False

    @classmethod
    def of(
        cls, sequence: int, duration_ns: int, stamps: Stamps, *, resent: bool = False
    ) -> "Exchange":
        """Make one, and split it if all timestamps are there."""
        found = split(stamps, duration_ns)
        if isinstance(found, Split):
            return cls(sequence, duration_ns, stamps, found, None, resent)
        return cls(sequence, duration_ns, stamps, None, found, resent)

    def completed(self, t3k: int | None, *, resent: bool) -> "Exchange":
        """Return it with what the server knew only after its reply."""
        resent = resent or self.resent
        # Split anew: without t3k there could be none.
        return self.of(
            self.sequence, self.duration_ns, self.stamps._replace(t3k=t3k), resent=resent
        )

    @property
    def user_split(self) -> tuple[int, int] | None:
        """(network, server) in ns by the programs' clocks alone: wake-ups are the network's."""
        t2u, t3u = self.stamps.t2u, self.stamps.t3u
        if t2u is None or t3u is None or not 0 <= t3u - t2u <= self.duration_ns:
            return None
        return self.duration_ns - (t3u - t2u), t3u - t2u


class Unfinished(NamedTuple):
    """The phase that a probe ended in.

    Attributes:
        phase: Its name.
        ns: From its begin to the end of the probe, CLOCK_MONOTONIC.
    """

    phase: str
    ns: int


class Silence(NamedTuple):
    """An answer that was due when a connection ended.

    Attributes:
        waiting_for: What a time-out would have meant.
        ns: Since it was asked for, CLOCK_MONOTONIC.
    """

    waiting_for: Reason
    ns: int


@dataclass(slots=True, kw_only=True)
class ProbeResult:
    """One connection, from resolve to close.

    Durations are ns of CLOCK_MONOTONIC unless said otherwise, and None when their phase did not
    finish or was not part of this probe. They are never 0 for "not measured".

    Attributes:
        reason: Why it ended.
        damaged_in: In which direction what ended it was damaged, ``forward`` or ``reverse``; ``""``
            where nothing was, or nobody can tell.
        path: What it was a probe of: the target's own words, and of a name with many the address.
        address: Where it went; None while a name does not resolve.
        unfinished: The phase that it ended in, where that has no end; None of a good probe.
        dialled: Whether a connection was tried at all; not while a name does not resolve.
        detail: More about it, for people. No bytes of the peer.
        intended_ns: When the schedule wanted it to start, CLOCK_MONOTONIC.
        started_ns: When it started, CLOCK_MONOTONIC.
        started_real_ns: The same, CLOCK_REALTIME, for logs.
        ended_ns: When it ended, CLOCK_MONOTONIC.
        resolve_ns: getaddrinfo() called to returned, measured inside its thread.
        connect_ns: connect() called to our loop seeing the connection: one round trip plus
            our own scheduling.
        handshake_ns: SYN sent to SYN-ACK received, by our kernel (``tcpi_rtt`` right after
            connect). None when a SYN was sent again, for then it is not one round trip.
        greet_ns: HELLO about to be sent to WELCOME read.
        accept_ns: How long the HELLO lay with the server's kernel until its program had accepted
            the connection, by its timestamps; 0 where it had accepted before.
        close_ns: GOODBYE about to be sent to the end of the stream read.
        exchanges: Those whose reply came, in order, but for a sized one.
        is_sized: A sized exchange was begun: one of several full segments, after the others.
        sized: It, if its reply came.
        payload_bytes: Of the largest request that was sent; None where none was.
        connected: Our counters right after connect.
        ended: Our counters before our GOODBYE, nothing under way; or as it ended otherwise.
        bye: Both ends' counters at the end, if it came to that.
        retrans: Segments that we sent again, from the first SYN to the end of the connection.
        sent_in_vain: How often in a row, when it failed, our kernel had sent the same again and
            nothing had answered.
        server_greeted: The server's counters before its WELCOME.
        server_ended: The server's counters after its last reply.
        host_greeted: What the server's host counted, told with its WELCOME.
        host_ended: The same, told at the end (FOLLOW_UP).
        own_csum_errors: Segments with a wrong checksum that came to our host meanwhile, of which
            some may have been this connection's.
        csum_errors: Segments with a wrong checksum that had ever come to our host when it began.
        overflows: Times that the server's accept queue was full, of which this connection may
            have been one; known to those who see many.
        server: Who answered.
        server_offers: The TCP options that its host offers, as bits of TCPI_OPT_*; None: it does
            not say.
        offers: Those that ours does, likewise.
        server_began_ns: When that process began, or up to a round trip earlier: CLOCK_MONOTONIC,
            ours. None where it does not say.
        seen_as: Our address and port as the server saw them.
        local: Our address and port as we see them, from when the kernel has chosen them. None
            where it refused at once, by its own routes or rules: then nothing was sent.
        connection: The random number of our HELLO, by which the server remembers this connection;
            None if none was sent.
        bytes_sent: Protocol included, as the next.
        bytes_received: Handed to us by the kernel.
        reply: Payload of the newest reply, kept only where the payload was given.
        draining: The server said that it is about to stop.
        late: Something was found only by the last look after a deadline: we were late.
        timeout_ns: How long it would have waited; None where nothing was dialled.
        silence: What it waited for when it failed; None where nothing was due.
        stalled: How we stood still while it ran.
        errno: What the kernel called the end, if it did; of ``errno``'s numbers.
        icmp: Who said no while it connected, if it was said by ICMP. Together with ECONNREFUSED,
            None is a reset: by the far end's kernel, or in its name.
        soft_error: What an ICMP message said later than that, of a connection that failed: an
            errno. The kernel does not tell who sent it, and went on sending.
        standing: How our kernel saw the connection at its end: of one that failed, that sent
            something again, or that sent more than one full segment.
        own_unsent: Of a probe that was not connected, how many IPv4 packets our host made meanwhile
            that never left it. Others' are in it.
        own_undelivered: Of a probe that failed, how many IPv4 packets came to our host meanwhile,
            or up to 100 ms before, that it delivered to nobody, whoever they were for. Where the
            path drops what comes to us it is 0; where our own firewall does, it is not.
        limited: For how long it was busy, and what it waited for: of one that had more than a full
            segment to send.
        send_buffer: How many bytes our send buffer held in the end, likewise (SO_SNDBUF).
        request_left: When the last byte of the request that nobody answered left, by our kernel's
            timestamps. Neither of the two: it never reached the queue of our device. Queued only:
            it did not leave that. Not so on a path where good probes have none either.
    """

    intended_ns: int
    started_ns: int
    started_real_ns: int
    ended_ns: int = 0
    dialled: bool = False
    reason: Reason = Reason.OK
    detail: str = ""
    damaged_in: str = ""
    path: str = ""
    address: Address | None = None
    unfinished: Unfinished | None = None
    resolve_ns: int | None = None
    connect_ns: int | None = None
    handshake_ns: int | None = None
    greet_ns: int | None = None
    accept_ns: int | None = None
    close_ns: int | None = None
    exchanges: list[Exchange] = field(default_factory=list)
    is_sized: bool = False
    sized: Exchange | None = None
    payload_bytes: int | None = None
    connected: Counters | None = None
    ended: Counters | None = None
    bye: Cut | None = None
    retrans: int | None = None
    sent_in_vain: int = 0
    server_greeted: Counters | None = None
    server_ended: Counters | None = None
    host_greeted: HostCounts | None = None
    host_ended: HostCounts | None = None
    own_csum_errors: int | None = None
    csum_errors: int | None = None
    overflows: int = 0
    server: Identity | None = None
    server_offers: int | None = None
    offers: int | None = None
    server_began_ns: int | None = None
    seen_as: tuple[str, int] | None = None
    local: tuple[str, int] | None = None
    connection: int | None = None
    reply: bytes = b""
    bytes_sent: int = 0
    bytes_received: int = 0
    draining: bool = False
    late: bool = False
    timeout_ns: int | None = None
    silence: Silence | None = None
    stalled: Stalled = NEVER
    errno: int | None = None
    icmp: Icmp | None = None
    soft_error: int | None = None
    standing: Standing | None = None
    own_unsent: int | None = None
    own_undelivered: int | None = None
    limited: Limited | None = None
    send_buffer: int | None = None
    request_left: Transmit | None = None

    @property
    def outcome(self) -> Outcome:
        """Whose doing the ending was."""
        return OUTCOMES[self.reason]

    @property
    def total_ns(self) -> int:
        """From the real start to the end."""
        return self.ended_ns - self.started_ns

    @property
    def response_ns(self) -> int:
        """From the intended start to the end: what a user of this schedule would have felt."""
        return self.ended_ns - self.intended_ns

    @property
    def client_connect_ns(self) -> int | None:
        """What of ``connect_ns`` was not the handshake: our own host and program."""
        if self.connect_ns is None or self.handshake_ns is None:
            return None
        return max(0, self.connect_ns - self.handshake_ns)

    @property
    def syns_resent(self) -> int | None:
        """SYNs that we sent again (k_c); None where that is not known.

        Either ours was lost, or the SYN-ACK to it: see ``synacks_resent``.
        """
        if self.connected is not None:
            return self.connected.total_retrans
        return self.standing.total_retrans if self.standing is not None else None

    @property
    def synacks_resent(self) -> int | None:
        """SYN-ACKs that the server sent again (k_s); None where that is not known.

        A SYN that comes a second time is answered a second time. So with ``syns_resent`` but none
        of these the SYNs were lost, or a full accept queue dropped them; with both, the SYN-ACKs;
        with these alone, the third segment of the handshake.
        """
        return self.server_greeted.total_retrans if self.server_greeted is not None else None

    @property
    def is_own_word(self) -> bool:
        """Whether the ICMP message is our own kernel's: of a rule of this host, or a neighbour.

        A rule says so at once. Of a neighbour that did not answer it comes some 3 s later, or
        sooner if another connection had asked for it before.
        """
        if self.icmp is None or self.local is None:
            return False
        return self.icmp.sender == self.local[0].partition("%")[0]

    @property
    def segments(self) -> Segments | None:
        """What became of its segments, whether or not that can be claimed; None: nobody knows."""
        if self.reason is Reason.CONNECT_TIMEOUT:
            # The first SYN, and what the kernel counts: those that it sent again.
            return Segments(Fates(unanswered=1 + (self.retrans or 0)))
        if self.connected is None or self.server_greeted is None or self.bye is None:
            return None
        # Of the messages the requests are the largest, and each is as large, but for a sized one.
        count = 1 if self.is_sized else max(1, len(self.exchanges))
        sizes = Sizes(self.bytes_sent // count, self.bytes_received // count)
        return of_fresh(self.connected, self.server_greeted, self.bye, sizes, self.hosts)

    @property
    def segments_seen(self) -> int:
        """Segments that our host sent and received for it, as far as is known."""
        newest = self.bye.read if self.bye is not None else self.ended
        if newest is None:
            return 1 + (self.retrans or 0) if self.dialled else 0
        # And our FIN, and the acknowledgement of it.
        return (newest.segs_out or 0) + (newest.segs_in or 0) + 2

    @property
    def hosts(self) -> Hosts:
        """What befell the two hosts while the connection lasted."""
        first, last = self.host_greeted, self.host_ended
        errors = None
        if first is not None and last is not None:
            errors = grown(first.csum_errors, last.csum_errors)
        return Hosts(self.overflows, errors, self.own_csum_errors)

    @property
    def worst_lag_ns(self) -> int:
        """Of our own loop, while the probe ran."""
        return self.stalled.worst_ns

    @property
    def tainted(self) -> str:
        """What kept us from running, so that our own clock is not to be trusted; mostly ``""``.

        The kernel's timestamps are good all the same.
        """
        return self.stalled.cause or ""

    @property
    def is_clean(self) -> bool:
        """Whether our own clock may be trusted: nothing kept us from running, or moved it."""
        return not self.tainted and self.reason is not Reason.CLOCK_STEP

    def phases(self, *, tainted: bool = False) -> Iterator[tuple[str, str, int]]:
        """Yield (phase, clock, ns) for everything that was measured.

        ``exchange`` and its parts ``network``, ``server`` and ``client`` once for each exchange;
        ``recovery`` instead of ``network`` where a segment was sent again. ``sized`` is the
        sized exchange, which is in none of those.

        Args:
            tainted: Whether to yield also what our own stall has spoiled.
        """
        user = tainted or self.is_clean
        if user:
            for phase, ns in (("resolve", self.resolve_ns), ("connect", self.connect_ns)):
                if ns is not None:
                    yield phase, "user", ns
        if self.handshake_ns is not None:
            # Kernels answered kernels here: no stall of a process spoils it.
            yield "handshake", "kernel", self.handshake_ns
        if user and self.greet_ns is not None:
            yield "greet", "user", self.greet_ns
        for exchange in self.exchanges:
            network = "recovery" if exchange.resent else "network"
            if user:
                yield "exchange", "user", exchange.duration_ns
            if exchange.split is not None:
                yield network, "kernel", exchange.split.network_ns
                yield "server", "kernel", exchange.split.server_ns
                yield "client", "kernel", exchange.split.client_ns
            elif user and exchange.refusal is Refusal.UNSTAMPED and exchange.user_split:
                network_ns, server_ns = exchange.user_split
                yield network, "user", network_ns
                yield "server", "user", server_ns
        if user and self.sized is not None:
            yield "sized", "user", self.sized.duration_ns
        if user and self.close_ns is not None:
            yield "close", "user", self.close_ns
