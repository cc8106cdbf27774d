"""Name resolution: what look-ups of the path's name show. No I/O.

Probes go on to the addresses of the last good answer, so these verdicts stand beside a path that
may be well.
"""

from collections.abc import Iterator

from twocans_client.evidence.results import Reason
from twocans_client.evidence.rows import Resolved
from twocans_client.evidence.window import KEPT_NS

from .case import Case
from .verdict import Confidence, Culprit, Finding, Kind

__all__ = ["KINDS", "judge"]

_FEW = 2
# An answer from a cache takes less than 1 ms; a name server across the world may take 0.3 s, but
# then it always has. A second is slow for all.
_SLOW_NS, _ALWAYS_SLOW_NS = 100_000_000, 1_000_000_000

FAILING = Kind(
    "dns_failing",
    "the name does not resolve",
    (Culprit.DNS,),
    needs="getaddrinfo() failed before our host would have asked again (resolv.conf, timeout). "
    "Probes go on to the addresses of the last good answer",
    apart="dns_loss: no answer came, or only after our host had asked again",
    threshold="the two newest look-ups failed: the resolver's own word",
    look="`getent ahosts NAME` on this host; the name servers in /etc/resolv.conf",
)
LOSS = Kind(
    "dns_loss",
    "questions to the name server or its answers are lost",
    (Culprit.DNS,),
    needs="look-ups that got no answer, or none before our host asked again (resolv.conf, timeout)",
    apart="dns_slow: answers come late, but before our host asks again",
    # Four packets each: 28 pairs of (4 * 1e-4) ** 2.
    threshold="two of the last eight look-ups, one of them among the newest two: where one packet "
    "in 10,000 is lost, one false alarm in 200,000 sets of eight",
    look="the path to the name servers in /etc/resolv.conf; UDP port 53 and conntrack on it",
)
SLOW = Kind(
    "dns_slow",
    "names resolve slowly",
    (Culprit.DNS,),
    needs="look-ups that take 0.1 s longer than the quickest of the last eight, or 1 s in all",
    apart="dns_loss: they take until our host asks again (resolv.conf, timeout)",
    threshold="the two newest look-ups: one may miss the cache, two in a row hardly ever do",
    look="the load of the name servers; whether their cache works",
)
KINDS = (FAILING, LOSS, SLOW)


def judge(case: Case) -> Iterator[Finding]:
    """Yield what is the matter with the look-ups of the path's name."""
    since_ns = case.window.now_ns - KEPT_NS
    look_ups = [each for each in case.window.look_ups if each.at_ns >= since_ns]
    newest = look_ups[-_FEW:]
    durations = (each.duration_ns for each in case.window.look_ups if each.reason is Reason.OK)
    quickest_ns = min((each for each in durations if each is not None), default=0)
    lost = [each for each in look_ups if each.was_lost]
    denied = [each for each in newest if _is_denied(each)]
    # Without an address a probe does not even begin: it says what the newest look-up said.
    if len(denied) == _FEW:
        yield _finding(
            case,
            FAILING,
            Confidence.PROVEN,
            f"the last {len(denied)} look-ups failed: {denied[-1].detail or denied[-1].reason}",
            denied,
        )
    elif len(lost) >= _FEW and any(each.was_lost for each in newest):
        unanswered = sum(each.duration_ns is None for each in lost)
        worst_ns = max(each.duration_ns or 0 for each in lost)
        how = [f"the slowest took {worst_ns / 1e9:.3f} s"] if worst_ns else []
        if unanswered:
            how.append(f"{unanswered} got no answer")
        yield _finding(
            case,
            LOSS,
            Confidence.STATISTICAL,
            f"{len(lost)} of {len(look_ups)} look-ups lost a question or an answer: "
            f"{' and '.join(how)}; our host asks again after {lost[-1].retry_ns / 1e9:g} s",
            lost,
        )
    elif len(newest) == _FEW and all(_is_slow(each, quickest_ns) for each in newest):
        slow = [each for each in look_ups if _is_slow(each, quickest_ns)]
        least_ns = min(each.duration_ns or 0 for each in newest)
        yield _finding(
            case,
            SLOW,
            Confidence.STATISTICAL,
            f"the last {_FEW} look-ups took {least_ns / 1e9:.3f} s or longer",
            slow,
        )


def _finding(
    case: Case, kind: Kind, confidence: Confidence, proof: str, of: list[Resolved]
) -> Finding:
    failed = case.ended(Reason.DNS_FAILURE, Reason.DNS_TIMEOUT)
    durations = [each.duration_ns for each in of if each.duration_ns is not None]
    figures: dict[str, float] = {"look_ups": len(of)}
    if durations:
        figures["duration_s"] = max(durations) / 1e9
    return Finding(
        kind,
        Culprit.DNS,
        proof,
        confidence=confidence,
        figures=figures,
        explains={probe.number for probe in failed},
        began_ns=of[0].at_ns - (of[0].duration_ns or 0),
    )


def _is_denied(look_up: Resolved) -> bool:
    return look_up.reason is Reason.DNS_FAILURE and not look_up.was_lost


def _is_slow(look_up: Resolved, quickest_ns: int) -> bool:
    slow_ns = min(_SLOW_NS + quickest_ns, _ALWAYS_SLOW_NS)
    return (look_up.duration_ns or 0) >= slow_ns and not look_up.was_lost
