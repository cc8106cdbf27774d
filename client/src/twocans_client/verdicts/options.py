"""What stands between the two ends and changes their handshakes, or ends them. No I/O."""

from collections.abc import Iterator

from .case import Case
from .verdict import Confidence, Culprit, Finding, Kind

__all__ = ["KINDS", "judge"]

OPTION_STRIPPED = Kind(
    "option_stripped",
    "TCP options are taken out of handshakes on the way",
    (Culprit.MIDDLEBOX,),
    needs="what both kernels agreed on, now and before, with the same server process, and what "
    "both hosts say that they offer; or that the two do not agree on the same",
    apart="window_limited and slow transfers are what it leads to; tcp_terminated: the two ends "
    "are not of one connection",
    threshold="three connections in a row; both hosts offer the same in each handshake, so no "
    "chance takes an option away",
    look="firewalls and proxies on the way that rewrite SYNs",
)
TCP_TERMINATED = Kind(
    "tcp_terminated",
    "a proxy on the way ends TCP: the two ends are of two connections",
    (Culprit.MIDDLEBOX,),
    needs="both ends' options, segment counts and round trips, which no one connection can have",
    apart="NAT and balancers that pass on leave the connection whole: its counts agree",
    threshold="options that only one end agreed on, two contradictions of the counts in a hundred "
    "connections, or ten round trips that do not fit each other",
    look="whether there is to be a proxy (a sidecar, a balancer). Loss is not counted through one",
    is_info=True,
)
KINDS = (OPTION_STRIPPED, TCP_TERMINATED)

_SIGNS = {
    "options": "our kernel agreed on options that the server's did not agree on",
    "segments": "the two ends' segment counts are not of one connection",
    "nearer": "handshakes and exchanges differ in their round trips",
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
            f"a proxy ends TCP on the way: {_SIGNS.get(window.proxy_sign, window.proxy_sign)}",
            confidence=Confidence.PROVEN,
        )
    elif missing:
        yield Finding(
            OPTION_STRIPPED,
            Culprit.MIDDLEBOX,
            f"{agreements.count} connections in a row have no {_listed(missing)}, "
            + (
                "and those before had, with the same server process"
                if agreements.offered is None
                else "and both hosts offer it"
            ),
            confidence=Confidence.PROVEN,
            figures={"connections": agreements.count},
            began_ns=agreements.since_ns,
        )
    elif "options_rewritten" in window.boxes:
        yield Finding(
            OPTION_STRIPPED,
            Culprit.MIDDLEBOX,
            "the server's kernel agreed on TCP options that its SYN-ACK had no more when it came",
            confidence=Confidence.PROVEN,
        )


def _listed(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
