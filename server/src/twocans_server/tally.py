"""What the server counts, as plain numbers. ``metrics`` renders them. No I/O."""

from collections import Counter
from dataclasses import fields

from twocans_core.histogram import Histogram

from .limits import Limits

__all__ = ["Durations", "ServerTally"]


class Durations:
    """Where the time went at this end. Written on the loop only.

    Timestamps are ns of CLOCK_REALTIME, named as in docs/protocol.md. Where one is missing, what is
    made from it is not observed; nor is what is negative, for then the clock was stepped.

    Attributes:
        accept_delay: From the kernel's receive timestamp of a HELLO to accept()'s return; 0 where
            accept() returned first.
        wakeup: From the kernel's receive timestamp of a request to our read of it (t2u - t2k).
        application: From there to right before we send its reply (t3u - t2u), stall included.
        application_stall: The share of that in which our thread did not run.
        send: From there to the reply's transmit timestamp (t3k - t3u), known one exchange later.
        residence: From the first of these timestamps to the last (t3k - t2k), likewise.
    """

    __slots__ = (
        "accept_delay", "application", "application_stall", "residence", "send", "wakeup",
    )  # fmt: skip

    def __init__(self) -> None:
        self.accept_delay = Histogram()
        self.wakeup = Histogram()
        self.application = Histogram()
        self.application_stall = Histogram()
        self.send = Histogram()
        self.residence = Histogram()

    def greeted(self, t2k: int | None, accepted_ns: int) -> None:
        """Observe a HELLO that is about to be answered."""
        if t2k is not None:
            self.accept_delay.observe(max(0, accepted_ns - t2k))

    def replying(self, t2k: int | None, t2u: int, t3u: int, stalled_ns: int | None) -> None:
        """Observe a reply that is about to be sent."""
        if t2k is not None and t2u >= t2k:
            self.wakeup.observe(t2u - t2k)
        if t3u >= t2u:
            self.application.observe(t3u - t2u)
            if stalled_ns is not None:
                self.application_stall.observe(stalled_ns)

    def left(self, t2k: int | None, t3u: int, t3k: int) -> None:
        """Observe a reply of which it is known now when it reached the network device."""
        if t3k >= t3u:
            self.send.observe(t3k - t3u)
        if t2k is not None and t3k >= t2k:
            self.residence.observe(t3k - t2k)


class ServerTally:
    """What the server counts, in plain numbers. Written on the loop only.

    Args:
        durations: Whether to keep them: what /metrics is for, and the dearest part of it.

    Attributes:
        open: Connections open now, by kind.
        accepted: Connections accepted.
        ended: Connections ended, by kind and ending.
        exchanges: Requests answered.
        testimonies: Questions of the witness answered.
        damaged_requests: Requests whose payload did not fit its CRC-32.
        damaged_frames: Frames that did not fit theirs, payloads apart.
        bytes_received: On measured connections, protocol included.
        bytes_sent: Likewise; handed to the kernel or waiting to be.
        protocol_errors: By reason.
        limit_hits: By limit.
        accept_errors: accept() said that the machine lacks something.
        resent_at_close: Segments sent again after a session's last count was told.
        durations: Where the time went; None where nobody will ask.
    """

    def __init__(self, *, durations: bool = True) -> None:
        # A series that starts at 0 has a rate; a gap has none.
        self.open: Counter[str] = Counter(dict.fromkeys(("new", "plain", "framed"), 0))
        self.accepted = 0
        self.ended: Counter[tuple[str, str]] = Counter(
            {("framed", "done"): 0, ("plain", "done"): 0}
        )
        self.exchanges = 0
        self.testimonies = 0
        self.damaged_requests = 0
        self.damaged_frames = 0
        self.bytes_received = 0
        self.bytes_sent = 0
        self.protocol_errors: Counter[str] = Counter()
        self.limit_hits: Counter[str] = Counter(
            dict.fromkeys(("allowance", "memory", *(field.name for field in fields(Limits))), 0)
        )
        self.accept_errors = 0
        self.resent_at_close = 0
        self.durations = Durations() if durations else None
