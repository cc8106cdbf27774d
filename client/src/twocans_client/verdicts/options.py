"""Middleboxes that change handshakes or end connections. No I/O."""

from collections.abc import Iterator

from .case import Case
from .verdict import Confidence, Culprit, Finding, Kind

__all__ = ["KINDS", "judge"]

OPTION_STRIPPED = Kind(
    "option_stripped",
    "something on the path strips TCP options from handshakes",
    (Culprit.MIDDLEBOX,),
    needs="the options that both kernels agreed on, now and earlier with the same server process; "
    "the options that both hosts offer, if they say so",
    apart="window_limited: it is a consequence, as slow transfers are; tcp_terminated: the two "
    "ends see two connections",
    threshold="three connections in a row, or one whose options the server's kernel agreed on and "
    "ours did not. Both hosts offer the same in each handshake, so chance strips nothing",
    look="firewalls and proxies on the path that rewrite SYNs",
)
TCP_TERMINATED = Kind(
    "tcp_terminated",
    "a proxy on the path terminates TCP: the two ends see two connections",
    (Culprit.MIDDLEBOX,),
    needs="options, segment counts or round trips of the two ends that no single connection can "
    "have",
    apart="a NAT, or a balancer that forwards packets: there is one connection, and both ends' "
    "counts agree",
    threshold="options that our kernel agreed on and the server's did not, two contradictions of "
    "the counts in a hundred connections, or handshakes and exchanges of ten connections with "
    "different round trips",
    look="whether a proxy is meant to be there (a sidecar, a balancer). Loss is not counted across "
    "one",
    is_info=True,
)
KINDS = (OPTION_STRIPPED, TCP_TERMINATED)

_SIGNS = {
    "options": "our kernel agreed on options that the server's did not",
    "segments": "the two ends' segment counts contradict each other",
    "nearer": "exchanges take a longer round trip than handshakes",
}


def judge(case: Case) -> Iterator[Finding]:
    """Yield what stands between the two ends."""
    window = case.window
    agreements = window.agreements
    missing = agreements.missing
    if window.proxy_sign:
        yield Finding(
            TCP_TERMINATED,
            Culprit.MIDDLEBOX,
            "a proxy on the path terminates TCP: "
            f"{_SIGNS.get(window.proxy_sign, window.proxy_sign)}",
            confidence=Confidence.PROVEN,
        )
    elif missing:
        yield Finding(
            OPTION_STRIPPED,
            Culprit.MIDDLEBOX,
            f"{agreements.count} connections in a row had no {_listed(missing)}, "
            + (
                "although earlier ones to the same server process had"
                # Hosts do not say which MSS they offer.
                if agreements.offered is None or "MSS" in missing
                else "although both hosts offer it"
            ),
            confidence=Confidence.PROVEN,
            figures={"connections": agreements.count},
            began_ns=agreements.since_ns,
        )
    elif "options_rewritten" in window.boxes:
        yield Finding(
            OPTION_STRIPPED,
            Culprit.MIDDLEBOX,
            "the server's kernel agreed on TCP options that were missing from its SYN-ACK when it "
            "reached us",
            confidence=Confidence.PROVEN,
        )


def _listed(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
