"""What a probe found. No I/O.

outcome   ok, fail (the path's or the far end's doing) or void (our own doing)
reason    why, from a closed list; every reason belongs to one outcome
"""

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from twocans_core.messages import Identity
from twocans_core.tcpinfo import Counters

__all__ = ["OUTCOMES", "Exchange", "Outcome", "ProbeResult", "Reason", "Split", "Stamps"]

# A split is of one exchange if both clocks of this host agree on how long it took.
_CLOCKS_AGREE_NS = 1_000_000


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
    """connect() was answered by a reset or an ICMP message: nobody listens, or a firewall."""
    UNREACHABLE = "unreachable"
    """No route, or a router or the neighbour's silence said so."""
    CONNECT_TIMEOUT = "connect_timeout"
    """No answer to our SYN."""
    GREETING_TIMEOUT = "greeting_timeout"
    """Connected, but no WELCOME: the kernel answers, the program does not."""
    REPLY_TIMEOUT = "reply_timeout"
    """No reply, or not all of it."""
    CLOSE_TIMEOUT = "close_timeout"
    """All was answered, but not our GOODBYE."""
    RESET = "reset"
    """The connection was reset."""
    CLOSED_EARLY = "closed_early"
    """The far end closed before its time."""
    WRONG_BYTES = "wrong_bytes"
    """The reply is not what was sent."""
    PROTOCOL_ERROR = "protocol_error"
    """The far end broke the protocol, says that we did, or takes no payload of this size."""
    BUSY = "busy"
    """The server has no place for us."""

    SELF_STALL = "self_stall"
    """Our own loop stood still for a quarter of the time-out or longer."""
    NO_PORTS = "no_ports"
    """No local port or address is left (EADDRNOTAVAIL)."""
    NO_DESCRIPTORS = "no_descriptors"
    """No descriptor is left (EMFILE, ENFILE)."""
    NO_MEMORY = "no_memory"
    """The kernel has no memory for a socket (ENOBUFS, ENOMEM) or a thread."""
    DENIED = "denied"
    """A local rule forbids it (EPERM, EACCES)."""
    CLOCK_STEP = "clock_step"
    """Our clock was stepped, or our host suspended, during the probe."""
    DRAINING = "draining"
    """The server said that it stops, and did."""
    SHUTDOWN = "shutdown"
    """We stopped."""
    INTERNAL_ERROR = "internal_error"
    """A bug of ours."""


_FAILURES = frozenset(list(Reason)[1:14])

OUTCOMES: dict[Reason, Outcome] = {
    reason: Outcome.OK
    if reason is Reason.OK
    else Outcome.FAIL
    if reason in _FAILURES
    else Outcome.VOID
    for reason in Reason
}


class Stamps(NamedTuple):
    """The eight moments of one exchange, ns of CLOCK_REALTIME of the host that stamped.

    Attributes:
        t1u: Client, before send().
        t1k: Client's kernel, request handed to the network device.
        t2k: Server's kernel, last segment of the request received.
        t2u: Server, request read.
        t3u: Server, before send() of the reply.
        t3k: Server's kernel, reply handed to the network device.
        t4k: Client's kernel, last segment of the reply received.
        t4u: Client, reply read.
    """

    t1u: int
    t1k: int | None
    t2k: int | None
    t2u: int | None
    t3u: int | None
    t3k: int | None
    t4k: int | None
    t4u: int


class Split(NamedTuple):
    """Where the time of one exchange went, by kernel stamps; the three add up to it exactly.

    Attributes:
        network_ns: (t4k - t1k) - (t3k - t2k): both ways, both hosts' time and the offset of
            their clocks taken out. In a container the stamps are taken at its own interface,
            so the node's bridge, NAT and queues are in it.
        server_ns: t3k - t2k: the server's host and program.
        client_ns: (t1k - t1u) + (t4u - t4k): our own host and program.
    """

    network_ns: int
    server_ns: int
    client_ns: int


class Exchange(NamedTuple):
    """One request and its reply.

    Attributes:
        sequence: From 1.
        duration_ns: From before send() to the reply read, CLOCK_MONOTONIC.
        stamps: All that is known of when what happened.
    """

    sequence: int
    duration_ns: int
    stamps: Stamps

    @property
    def split(self) -> Split | None:
        """Where the time went; None without all six stamps, or if they contradict each other.

        They do when a clock was stepped in between.
        """
        t1u, t1k, t2k, _, _, t3k, t4k, t4u = self.stamps
        if t1k is None or t2k is None or t3k is None or t4k is None:
            return None
        network_ns = (t4k - t1k) - (t3k - t2k)
        if not t1u <= t1k <= t4k <= t4u or t3k < t2k or network_ns < 0:
            return None
        if abs((t4u - t1u) - self.duration_ns) > _CLOCKS_AGREE_NS:
            return None
        return Split(network_ns, t3k - t2k, (t1k - t1u) + (t4u - t4k))


@dataclass(slots=True, kw_only=True)
class ProbeResult:
    """One connection, from resolve to close.

    Durations are ns of CLOCK_MONOTONIC unless said otherwise, and None when their phase did not
    finish or was not part of this probe. They are never 0 for "not measured".

    Attributes:
        reason: Why it ended.
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
        close_ns: GOODBYE about to be sent to the end of the stream read.
        exchanges: Those whose reply came, in order.
        connected: Our counters right after connect.
        ended: Our counters before the close: nothing was under way.
        retrans: Segments that we sent again, from the first SYN to the end of the connection.
        server_greeted: The server's counters before its WELCOME.
        server_ended: The server's counters after its last reply.
        server: Who answered.
        seen_as: Our address and port as the server saw them.
        local: Our address and port as we see them.
        bytes_sent: Protocol included, as the next.
        bytes_received: Handed to us by the kernel.
        reply: Payload of the newest reply, kept only where the payload was given.
        draining: The server said that it is about to stop.
        late: Something was found only by the last look after a deadline: we were late.
        worst_lag_ns: Of our own loop, while the probe ran.
    """

    intended_ns: int
    started_ns: int
    started_real_ns: int
    ended_ns: int = 0
    dialled: bool = False
    reason: Reason = Reason.OK
    detail: str = ""
    resolve_ns: int | None = None
    connect_ns: int | None = None
    handshake_ns: int | None = None
    greet_ns: int | None = None
    close_ns: int | None = None
    exchanges: list[Exchange] = field(default_factory=list)
    connected: Counters | None = None
    ended: Counters | None = None
    retrans: int | None = None
    server_greeted: Counters | None = None
    server_ended: Counters | None = None
    server: Identity | None = None
    seen_as: tuple[str, int] | None = None
    local: tuple[str, int] | None = None
    reply: bytes = b""
    bytes_sent: int = 0
    bytes_received: int = 0
    draining: bool = False
    late: bool = False
    worst_lag_ns: int = 0

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

    def phases(self) -> Iterator[tuple[str, str, int]]:
        """Yield (phase, clock, ns) for everything that was measured.

        ``exchange`` and its parts ``network``, ``server`` and ``client`` once for each exchange.
        """
        for phase, clock, ns in (
            ("resolve", "user", self.resolve_ns),
            ("connect", "user", self.connect_ns),
            ("handshake", "kernel", self.handshake_ns),
            ("greet", "user", self.greet_ns),
        ):
            if ns is not None:
                yield phase, clock, ns
        for exchange in self.exchanges:
            yield "exchange", "user", exchange.duration_ns
            split = exchange.split
            if split is not None:
                yield "network", "kernel", split.network_ns
                yield "server", "kernel", split.server_ns
                yield "client", "kernel", split.client_ns
        if self.close_ns is not None:
            yield "close", "user", self.close_ns
