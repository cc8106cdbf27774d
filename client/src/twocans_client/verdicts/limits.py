"""What holds up large exchanges at the ends: windows and buffers. No I/O."""

from collections.abc import Iterator

from .case import Case
from .verdict import Confidence, Culprit, Finding, Kind

__all__ = ["KINDS", "judge"]

_THRESHOLD = (
    "three large exchanges in a row, in which nothing was sent again; {}. Kernels count that, and "
    "no chance is in it"
)

RECEIVER_LIMITED = Kind(
    "receiver_limited",
    "the server's receive window holds up what we send",
    (Culprit.SERVER_HOST,),
    needs="exchanges of several segments, and for how long our kernel waited for the window "
    "(tcpi_rwnd_limited)",
    apart="window_limited: the window is 64 KiB because it is not scaled; sender_limited: it is "
    "our own buffer; loss: something was sent again",
    threshold=_THRESHOLD.format("a fifth of the time in which there was something to send"),
    look="the server's receive buffer: SO_RCVBUF, `net.ipv4.tcp_rmem`; whether its program reads",
)
SENDER_LIMITED = Kind(
    "sender_limited",
    "our own send buffer holds up what we send",
    (Culprit.CLIENT_HOST,),
    needs="exchanges larger than our send buffer (SO_SNDBUF), and how long they took",
    apart="receiver_limited: our kernel waits for the window; delay_increase: small ones as well",
    threshold=_THRESHOLD.format("in a round trip no more left than the buffer holds, nor a third"),
    look="our send buffer: `net.ipv4.tcp_wmem`, SO_SNDBUF",
)
WINDOW_LIMITED = Kind(
    "window_limited",
    "no more than 64 KiB may be under way, for the window is not scaled",
    (Culprit.CONFIGURATION,),
    needs="as for receiver_limited, and that the two did not agree on window scaling",
    apart="receiver_limited: the window is scaled, and small all the same",
    threshold=_THRESHOLD.format("a fifth of the time in which there was something to send"),
    look="`net.ipv4.tcp_window_scaling` on both hosts; who takes the option out of SYNs",
)
KINDS = (RECEIVER_LIMITED, SENDER_LIMITED, WINDOW_LIMITED)
_OF = {
    "receiver": (RECEIVER_LIMITED, Culprit.SERVER_HOST, "the server's receive window"),
    "sender": (SENDER_LIMITED, Culprit.CLIENT_HOST, "our own send buffer"),
    "window": (WINDOW_LIMITED, Culprit.CONFIGURATION, "the window, which is not scaled,"),
}


def judge(case: Case) -> Iterator[Finding]:
    """Yield what holds up large exchanges."""
    held = case.window.limits.held()
    if held is None:
        return
    kind, culprit, what = _OF[held.by]
    waited = f"for {held.share:.0%} of the time " if held.by != "sender" else ""
    yield Finding(
        kind,
        culprit,
        f"{what} of {held.limit_bytes} bytes held up {len(held.numbers)} connections "
        f"of {held.request_bytes} bytes {waited}over a round trip of {held.rtt_us / 1000:.1f} ms",
        confidence=Confidence.PROVEN,
        figures={
            "limit_bytes": held.limit_bytes,
            "share": held.share,
            "request_bytes": held.request_bytes,
        },
        explains=set(held.numbers),
        began_ns=held.began_ns,
    )
