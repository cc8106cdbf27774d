"""Idle connections: how long a silence they survive. No I/O."""

from collections.abc import Iterator, Sequence

from twocans_client.evidence.idle import Bracket, IdleResult
from twocans_client.evidence.results import Reason

from .case import Case
from .verdict import Confidence, Culprit, Finding, Kind

__all__ = ["KINDS", "judge"]

# One may be chance, or the end of a proxy or of a NAT's memory, which cuts all that are silent
# then.
_ENOUGH = 2

IDLE_TIMEOUT = Kind(
    "idle_timeout",
    "something on the path forgets idle connections",
    (Culprit.MIDDLEBOX,),
    needs="connections that failed after a silence, while all that was not silent did well: the "
    "held connection lived, and the newest 128 probes were good. One probe of the same moment went "
    "the same way: from our address, as the server saw it, to the same process. Silences end 5 % "
    "before the server's limit (--idle-s, 300 s by default): a time-out of 350 s shows with "
    "--idle-s 400",
    apart="blackout: fresh probes fail too; peer_lost: another process answers; closed_by_server: "
    "our servers send GOODBYE first; a change of proxy, NAT or route: it cuts once, and the next "
    "silence does no harm",
    threshold="two such connections, the second made after the first had failed, and none since "
    "that survived so long a silence. With 128 good probes before each, chance gives at most one "
    "such pair in 10^5. Two silences take half a minute to two and a half minutes for a time-out "
    "of up to a minute, and four to nine minutes for a longer one",
    look="the time-outs of firewalls, NAT and balancers on the path; a shorter keepalive",
)
KINDS = (IDLE_TIMEOUT,)

_HOW = {
    Reason.RESET: "were reset",
    Reason.CLOSED_EARLY: "were closed",
    Reason.REPLY_TIMEOUT: "got no answer",
}


def judge(case: Case) -> Iterator[Finding]:
    """Yield that silence kills connections, and of which length."""
    bracket = case.window.idle_bracket
    if bracket is None:
        return
    bad = bracket.failed
    if len(bad) < _ENOUGH:
        return
    yield Finding(
        IDLE_TIMEOUT,
        Culprit.MIDDLEBOX,
        f"{len(bad)} connections, one after the other, {_how(bad)} after a silence of "
        f"{bracket.bad_ns / 1e9:.1f} s or longer, and fresh ones were good; {_good(bracket)}",
        confidence=Confidence.PROVEN if bracket.confirmed else Confidence.STATISTICAL,
        figures={
            "idle_good_s": bracket.good_ns / 1e9,
            "idle_bad_s": bracket.bad_ns / 1e9,
            "connections": len(bad),
        },
        began_ns=bad[0].started_ns,
    )


def _how(bad: Sequence[IdleResult]) -> str:
    reasons = {result.reason for result in bad}
    return " or ".join(text for reason, text in _HOW.items() if reason in reasons)


def _good(bracket: Bracket) -> str:
    if not bracket.good_ns:
        return "no silence is known yet that does no harm"
    return f"{bracket.good_ns / 1e9:.1f} s of silence does no harm"
