"""Windows and buffers: what holds up large exchanges at the two ends. No I/O."""

from collections.abc import Iterator

from .case import Case
from .verdict import Confidence, Culprit, Finding, Kind

__all__ = ["KINDS", "judge"]

_THRESHOLD = (
    "three large exchanges in a row, in which nothing was sent again; in each, {}. Kernels count "
    "that, so chance plays no part"
)
_WAITED = "our kernel waited for the window for a fifth of the sending time, and at least 8 ms"

RECEIVER_LIMITED = Kind(
    "receiver_limited",
    "the server's receive window holds up what we send",
    (Culprit.SERVER_HOST,),
    needs="exchanges of several segments, and how long our kernel waited for the window "
    "(tcpi_rwnd_limited)",
    apart="window_limited: the window is not scaled, so it cannot exceed 64 KiB; sender_limited: "
    "our own buffer holds it up; loss: segments are sent again",
    threshold=_THRESHOLD.format(_WAITED),
    look="the server's receive buffer: SO_RCVBUF, `net.ipv4.tcp_rmem`; whether its program reads",
)
SENDER_LIMITED = Kind(
    "sender_limited",
    "our own send buffer holds up what we send",
    (Culprit.CLIENT_HOST,),
    needs="exchanges larger than our send buffer (SO_SNDBUF), and how long they took",
    apart="receiver_limited: our kernel waits for the window; delay_increase: small exchanges are "
    "slow too",
    threshold=_THRESHOLD.format(
        "a round trip carried at least a third of the buffer, and at most all of it"
    ),
    look="our send buffer: `net.ipv4.tcp_wmem`, SO_SNDBUF",
)
WINDOW_LIMITED = Kind(
    "window_limited",
    "at most 64 KiB can be in flight, because the window is not scaled",
    (Culprit.CONFIGURATION,),
    needs="as for receiver_limited, and the two ends did not agree on window scaling",
    apart="receiver_limited: the window is scaled, but small",
    threshold=_THRESHOLD.format(_WAITED),
    look="`net.ipv4.tcp_window_scaling` on both hosts; what strips the option from SYNs",
)
KINDS = (RECEIVER_LIMITED, SENDER_LIMITED, WINDOW_LIMITED)
_OF = {
    "receiver": (RECEIVER_LIMITED, Culprit.SERVER_HOST, "the server's receive window"),
    "sender": (SENDER_LIMITED, Culprit.CLIENT_HOST, "our own send buffer"),
    "window": (WINDOW_LIMITED, Culprit.CONFIGURATION, "the unscaled window"),
}


def judge(case: Case) -> Iterator[Finding]:
    """Yield what holds up large exchanges."""
    held = case.window.limits.held()
    if held is None:
        return
    kind, culprit, what = _OF[held.by]
    waited = f" for {held.share:.0%} of the sending time" if held.by != "sender" else ""
    yield Finding(
        kind,
        culprit,
        f"{what} of {held.limit_bytes} bytes held up {len(held.numbers)} connections of up to "
        f"{held.request_bytes} bytes{waited}; the round trip is {held.rtt_us / 1000:.1f} ms",
        confidence=Confidence.PROVEN,
        figures={
            "limit_bytes": held.limit_bytes,
            "share": held.share,
            "request_bytes": held.request_bytes,
        },
        explains=set(held.numbers),
        began_ns=held.began_ns,
    )
