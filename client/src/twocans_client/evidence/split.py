"""Where the time of one exchange went, by the timestamps of both ends. No I/O.

    client program   client kernel       network       server kernel   server program

    t1u ─ send() ─▶ t1s ─ queue ─▶ t1k ─────────────▶ t2k ───────────▶ t2u
                                                                        │ stalled, echo
    t4u ◀───────────────────────── t4k ◀───────────── t3k ◀── send() ─ t3u

docs/measuring.md says what each number is good for.
"""

import enum
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["PARTS", "Refusal", "Split", "Stamps", "split"]

# A sample stands if both clocks of this host agree on how long it took. They are read one after
# the other, so being descheduled in between looks like a step of the clock, and is no sample.
_CLOCKS_AGREE_NS = 1_000_000

PARTS = (
    "client_send",
    "client_qdisc",
    "network",
    "server_wakeup",
    "server_stall",
    "server_app",
    "server_send",
    "client_wakeup",
)
"""Parts of an exchange in the order in which they happen; ``client_qdisc`` is a share of
``client_send``. Metric labels: never rename them."""


class Stamps(NamedTuple):
    """The moments of one exchange, ns of CLOCK_REALTIME of the host that took it.

    Attributes:
        t1u: Client, before send().
        t1s: Client's kernel, request handed to the queueing discipline (SCM_TSTAMP_SCHED).
        t1k: Client's kernel, request handed to the network device (SCM_TSTAMP_SND).
        t2k: Server's kernel, last segment of the request received (RX_SOFTWARE).
        t2u: Server, request read.
        t3u: Server, before send() of the reply.
        t3k: Server's kernel, reply handed to the network device.
        t4k: Client's kernel, last segment of the reply received.
        t4u: Client, reply read.
        stalled_ns: How long, between t2u and t3u, the server's thread did not run: elapsed less
            CLOCK_THREAD_CPUTIME_ID, by the server.
    """

    t1u: int
    t1s: int | None
    t1k: int | None
    t2k: int | None
    t2u: int | None
    t3u: int | None
    t3k: int | None
    t4k: int | None
    t4u: int
    stalled_ns: int | None = None


class Split(NamedTuple):
    """Where the time of one exchange went, in ns.

    ``client_ns + network_ns + server_ns`` is t4u - t1u, exactly.

    Attributes:
        client_send_ns: t1k - t1u: from our program to the network device.
        client_qdisc_ns: t1k - t1s: of that, in the queueing discipline; None without t1s.
        network_ns: (t4k - t1k) - (t3k - t2k): both directions. The offset between the hosts' clocks
            cancels. In a container the timestamps are taken at its own interface, so the node's
            bridge, NAT and queues are in it.
        server_wakeup_ns: t2u - t2k: from the server's kernel to its program.
        server_stall_ns: Between t2u and t3u, but the server's thread did not run; None when the
            server did not measure it.
        server_app_ns: t3u - t2u less the stall: the server's program at work.
        server_send_ns: t3k - t3u: from the server's program to the network device.
        client_wakeup_ns: t4u - t4k: from our kernel to our program.
        forward_ns: t2k - t1k: the forward delay, but with the offset between the clocks in it.
        reverse_ns: t4k - t3k: the reverse delay, with the same offset subtracted.
    """

    client_send_ns: int
    client_qdisc_ns: int | None
    network_ns: int
    server_wakeup_ns: int
    server_stall_ns: int | None
    server_app_ns: int
    server_send_ns: int
    client_wakeup_ns: int
    forward_ns: int
    reverse_ns: int

    @property
    def client_ns(self) -> int:
        """Our own host and program."""
        return self.client_send_ns + self.client_wakeup_ns

    @property
    def server_ns(self) -> int:
        """t3k - t2k: the server's host and program."""
        running_ns = self.server_wakeup_ns + self.server_app_ns + self.server_send_ns
        return running_ns + (self.server_stall_ns or 0)

    def parts(self) -> Iterator[tuple[str, int]]:
        """Yield (part, ns) for each of ``PARTS`` that was measured."""
        for part, ns in zip(PARTS, self[:8], strict=True):
            if ns is not None:
                yield part, ns


class Refusal(enum.StrEnum):
    """Why there is no split. Values are metric labels: never rename them."""

    UNSTAMPED = "unstamped"
    """A timestamp is missing."""
    CONTRADICTION = "contradiction"
    """Timestamps of one host are not in their order, or the network's share is negative."""
    CLOCK = "clock"
    """Our two clocks disagree on how long it took, or the parts do not add up to it."""


def split(stamps: Stamps, duration_ns: int) -> Split | Refusal:
    """Split one exchange, or say why not.

    Args:
        stamps: Its timestamps.
        duration_ns: What the application felt, CLOCK_MONOTONIC. The parts must add up to it, to
            within a millisecond; they add up to t4u - t1u exactly.
    """
    t1u, t1s, t1k, t2k, t2u, t3u, t3k, t4k, t4u, stalled_ns = stamps
    if t1k is None or t2k is None or t2u is None or t3u is None or t3k is None or t4k is None:
        return Refusal.UNSTAMPED
    network_ns = (t4k - t1k) - (t3k - t2k)
    # Only within each host: between the two lies the offset of their clocks.
    in_order = t1u <= t1k <= t4k <= t4u and t2k <= t2u <= t3u <= t3k
    if t1s is not None:
        in_order = in_order and t1u <= t1s <= t1k
    if not in_order or network_ns < 0:
        return Refusal.CONTRADICTION
    # A server that claims to have stalled for longer than it took is not believed.
    echo_ns = t3u - t2u
    if stalled_ns is not None:
        stalled_ns = min(stalled_ns, echo_ns)
    parts = Split(
        client_send_ns=t1k - t1u,
        client_qdisc_ns=None if t1s is None else t1k - t1s,
        network_ns=network_ns,
        server_wakeup_ns=t2u - t2k,
        server_stall_ns=stalled_ns,
        server_app_ns=echo_ns - (stalled_ns or 0),
        server_send_ns=t3k - t3u,
        client_wakeup_ns=t4u - t4k,
        forward_ns=t2k - t1k,
        reverse_ns=t4k - t3k,
    )
    # CLOCK_REALTIME may be stepped in between, and all of these still be in order. The duration is
    # of CLOCK_MONOTONIC, which nobody steps.
    felt_ns = parts.client_ns + parts.network_ns + parts.server_ns
    if felt_ns != t4u - t1u or abs(felt_ns - duration_ns) > _CLOCKS_AGREE_NS:
        return Refusal.CLOCK
    return parts
