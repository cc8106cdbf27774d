"""Connections that die of silence: what the idle connections of a path show. No I/O."""

from collections.abc import Iterator

from twocans_client.evidence.idle import Bracket, IdleResult
from twocans_client.evidence.results import Reason

from .case import Case
from .verdict import Confidence, Culprit, Finding, Kind

__all__ = ["KINDS", "judge"]

# One may be chance: it was lost like any connection, while a fresh one was not.
_ENOUGH = 2

IDLE_TIMEOUT = Kind(
    "idle_timeout",
    "something on the way forgets connections that are silent",
    (Culprit.MIDDLEBOX,),
    needs="connections that said nothing for a while and then failed, although fresh probes of the "
    "same moment were good and the same server process answered them",
    apart="blackout: fresh probes fail too; peer_lost: another process answers; closed_by_server: "
    "our servers say GOODBYE first",
    threshold="two such connections, and none that was silent for longer and lived; where one "
    "connection in a thousand fails for another reason, chance gives it once in 10^6 pairs",
    look="the time-outs of firewalls, NAT and balancers on the way; a keepalive that is shorter",
)
KINDS = (IDLE_TIMEOUT,)


def judge(case: Case) -> Iterator[Finding]:
    """Yield that silence kills connections, and of which length."""
    window = case.window
    bracket = window.idle_bracket
    if bracket is None:
        return
    bad = [
        result
        for result in window.idle_results
        if result.is_bad and result.age_ns >= bracket.good_ns
    ]
    if len(bad) < _ENOUGH:
        return
    yield Finding(
        IDLE_TIMEOUT,
        Culprit.MIDDLEBOX,
        f"{len(bad)} connections that were silent for {bracket.bad_ns / 1e9:.1f} s or longer "
        f"{_how(bad)}, and fresh ones were good; {_good(bracket)}",
        confidence=Confidence.PROVEN if bracket.confirmed else Confidence.STATISTICAL,
        figures={
            "idle_good_s": bracket.good_ns / 1e9,
            "idle_bad_s": bracket.bad_ns / 1e9,
            "connections": len(bad),
        },
        began_ns=bad[0].started_ns,
    )


def _how(bad: list[IdleResult]) -> str:
    resets = sum(result.reason is Reason.RESET for result in bad)
    if resets == len(bad):
        return "were reset"
    return "had no answer any more" if not resets else "were reset or had no answer any more"


def _good(bracket: Bracket) -> str:
    if not bracket.good_ns:
        return "how short a silence does no harm is not known yet"
    return f"{bracket.good_ns / 1e9:.1f} s of silence do no harm"
