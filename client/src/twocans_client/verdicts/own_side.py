"""Our own side: what this process or its host lacked, or did. No I/O.

It is asked first: a process that is short of time itself can accuse nobody.
"""

from collections.abc import Iterator

from twocans_client.evidence.results import Reason
from twocans_client.evidence.rows import Kept, Probed
from twocans_core.host.stalls import Cause

from .case import Case
from .either_host import CPU_STARVED, CPU_THROTTLED, DESCRIPTORS, PROCESS_PAUSED
from .verdict import Confidence, Culprit, Finding, Kind
from .words import counted

__all__ = ["KINDS", "judge"]

_RECENT_NS = 15_000_000_000
# Of the last 15 s. Less is what any busy machine does, and no probe fails of it.
_STALLED_NS = 150_000_000
_FEW = 2

LOCAL_PORTS = Kind(
    "local_ports_exhausted",
    "our host has no local port left to connect from",
    (Culprit.CLIENT_HOST,),
    needs="connect() failed with EADDRNOTAVAIL",
    apart="nat_port_exhaustion: connections time out, and others elsewhere still work",
    threshold="the first errno is enough: it leaves no doubt",
    look="`net.ipv4.ip_local_port_range`; what holds the ports: `ss -tan`",
)
SELF_INFLICTED = Kind(
    "self_inflicted",
    "we ourselves stalled, and can say nothing about the path",
    (Culprit.TOOL,),
    needs="probes that waited while our own code ran, by its thread's CPU time; or probes that "
    "failed after our loop stood still for a quarter of the time-out, with no other explanation",
    apart="cpu_starved: the thread waited for a CPU instead of using one; if both are named, both "
    "are true. cpu_throttled, process_paused: the thread did not run",
    threshold="our own code ran at least twice in 15 s, 20 ms or longer each time and 150 ms (1 %) "
    "in all; or two such failures",
    look="our CPU and its limit; `twocans_client_stalls_total`",
)
CLOCK_STEP = Kind(
    "clock_step",
    "a clock was stepped, or its host suspended",
    (Culprit.CLOCK,),
    needs="here: CLOCK_REALTIME and CLOCK_BOOTTIME against CLOCK_MONOTONIC. At the server: the "
    "offset of its clock from ours",
    apart="delay_increase: the round trip grows; a clock that is stepped does not change it",
    threshold="here: a jump of 100 ms. At the server: a jump that two round trips cannot explain",
    look="the time service of that host",
)
KINDS = (
    LOCAL_PORTS,
    DESCRIPTORS,
    CPU_THROTTLED,
    CPU_STARVED,
    PROCESS_PAUSED,
    SELF_INFLICTED,
    CLOCK_STEP,
)

_OF_CAUSE = {
    Cause.THROTTLED: (CPU_THROTTLED, Culprit.CLIENT_HOST, "a CPU limit stopped us"),
    Cause.STARVED: (CPU_STARVED, Culprit.CLIENT_HOST, "we waited for a CPU"),
    Cause.STOPPED: (PROCESS_PAUSED, Culprit.CLIENT_HOST, "our process was stopped"),
}
_OF_ERRNO = {
    Reason.NO_PORTS: (LOCAL_PORTS, "no local port"),
    Reason.NO_DESCRIPTORS: (DESCRIPTORS, "no file descriptor"),
}


def judge(case: Case) -> Iterator[Finding]:
    """Yield what is the matter with ourselves."""
    yield from _lacks(case)
    yield from _stalls(case)
    yield from _steps(case)


def _lacks(case: Case) -> Iterator[Finding]:
    for reason, (kind, what) in _OF_ERRNO.items():
        void = case.ended(reason, since_ns=_RECENT_NS)
        if void:
            yield Finding(
                kind,
                Culprit.CLIENT_HOST,
                f"{counted(len(void), 'probe')} got {what} in 15 s ({void[-1].detail})",
                confidence=Confidence.PROVEN,
                figures={"probes": len(void)},
                explains={probe.number for probe in void},
                began_ns=void[0].began_ns,
            )


def _stalls(case: Case) -> Iterator[Finding]:
    for cause, (kind, culprit, what) in _OF_CAUSE.items():
        own = [probe for probe in case.odd(_RECENT_NS) if probe.stalled.cause is cause]
        waits = [_wait(probe) for probe in own]
        if cause is Cause.STOPPED:  # one says it all, whatever of ours waited in it
            waits += [kept for kept in _late(case) if kept.stalled.cause is cause]
        apart = _one_by_one(waits)
        worst_ns = max((wait.stalled.worst_ns for wait in waits), default=0)
        total_ns = sum(wait.stalled.total_ns for wait in apart)
        is_one_stop = cause is Cause.STOPPED and worst_ns >= _STALLED_NS
        if is_one_stop or (len(apart) >= _FEW and total_ns >= _STALLED_NS):
            yield Finding(
                kind,
                culprit,
                f"{what} for up to {worst_ns / 1e9:.3f} s at a stretch, and meanwhile "
                f"{counted(len(waits), 'probe')} waited or could not begin",
                confidence=Confidence.PROVEN,
                figures={"worst_s": worst_ns / 1e9, "probes": len(waits)},
                explains={
                    probe.number for probe in own if _is_all(probe) and not probe.stalled.own_ns
                },
                began_ns=min(wait.since_ns for wait in waits),
            )
    yield from _own_code(case)


def _own_code(case: Case) -> Iterator[Finding]:
    """Our own code kept probes waiting; or a stall made some fail that nothing else explains."""
    busy = [probe for probe in case.odd(_RECENT_NS) if probe.stalled.own_ns]
    waits = [_wait(probe) for probe in busy]
    waits += [kept for kept in _late(case) if kept.stalled.own_ns]
    apart = _one_by_one(waits)
    void = case.ended(Reason.SELF_STALL, since_ns=_RECENT_NS)
    proofs = []
    if len(apart) >= _FEW and sum(wait.stalled.own_ns for wait in apart) >= _STALLED_NS:
        worst_ns = max(wait.stalled.own_ns for wait in waits)
        proofs.append(
            f"our own code ran for up to {worst_ns / 1e9:.3f} s at a stretch, and meanwhile "
            f"{counted(len(waits), 'probe')} waited or could not begin"
        )
    else:
        busy, waits = [], []
    if len(void) >= _FEW:
        proofs.append(f"{len(void)} probes are void, the newest: {void[-1].detail}")
        waits += [_wait(probe) for probe in void if probe not in busy]
        busy += void
    if proofs:
        yield Finding(
            SELF_INFLICTED,
            Culprit.TOOL,
            "; ".join(proofs),
            confidence=Confidence.PROVEN,
            figures={"probes": len(waits)},
            explains={probe.number for probe in busy if _is_all(probe)},
            began_ns=min(wait.since_ns for wait in waits),
        )


def _wait(probe: Probed) -> Kept:
    return Kept(probe.began_ns, probe.ended_ns, probe.stalled)


def _late(case: Case) -> Iterator[Kept]:
    since_ns = case.window.now_ns - _RECENT_NS
    return (kept for kept in case.window.kept if kept.until_ns >= since_ns)


def _one_by_one(waits: list[Kept]) -> list[Kept]:
    """Return those of them that no other one overlaps: one stall is in all that waited in it."""
    found: list[Kept] = []
    for wait in sorted(waits, key=lambda each: each.until_ns):
        if not found or wait.since_ns >= found[-1].until_ns:
            found.append(wait)
    return found


def _is_all(probe: Probed) -> bool:
    """Whether a stall is all that is odd about it: one of some ms has nothing fail or sent again.

    Of one that a stall has made void, there is nothing else to say.
    """
    is_good = probe.reason is Reason.OK and not probe.retrans
    return is_good or probe.reason is Reason.SELF_STALL


def _steps(case: Case) -> Iterator[Finding]:
    window = case.window
    ours, theirs = "our own clock was stepped, or our host suspended,", "the server's clock jumped"
    for what, steps in ((ours, window.own_steps), (theirs, window.server_steps)):
        recent = [at_ns for at_ns in steps if at_ns >= window.now_ns - _RECENT_NS]
        if recent:
            void = case.ended(Reason.CLOCK_STEP, since_ns=_RECENT_NS)
            yield Finding(
                CLOCK_STEP,
                Culprit.CLOCK,
                f"{what} {counted(len(recent), 'time')} in 15 s",
                confidence=Confidence.PROVEN,
                figures={"steps": len(recent)},
                explains={probe.number for probe in void},
                began_ns=recent[0],
            )
