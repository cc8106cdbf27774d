"""Our own side: what this process or its host lacked, or did. No I/O.

It is asked first: who is short of time himself can accuse nobody.
"""

from collections.abc import Iterator

from twocans_client.evidence.results import Reason
from twocans_core.host.stalls import Cause

from .case import Case
from .either_host import CPU_STARVED, CPU_THROTTLED, DESCRIPTORS, PROCESS_PAUSED
from .verdict import Confidence, Culprit, Finding, Kind

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
    apart="nat_port_exhaustion times out instead, and connects elsewhere still work",
    threshold="the errno is decisive: the first one is enough",
    look="`net.ipv4.ip_local_port_range`; who holds the ports: `ss -tan`",
)
SELF_INFLICTED = Kind(
    "self_inflicted",
    "we ourselves stood still, and say nothing about the path",
    (Culprit.TOOL,),
    needs="probes that failed while our own loop stood still for a quarter of the time-out",
    apart="cpu_throttled and process_paused say why; here only our own code is left, or others ran",
    threshold="two such probes in 15 s; a failure with a stall of ours is never the path's",
    look="our CPU and its limit; `twocans_client_stalls_total`",
)
CLOCK_STEP = Kind(
    "clock_step",
    "a clock was stepped, or its host suspended",
    (Culprit.CLOCK,),
    needs="CLOCK_REALTIME or CLOCK_BOOTTIME against CLOCK_MONOTONIC here; the offset of theirs",
    apart="delay_increase: round trips do not change when a clock does",
    threshold="a jump of 100 ms here; there, more than two round trips can explain",
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
    Cause.STARVED: (CPU_STARVED, Culprit.CLIENT_HOST, "others had the CPU that we waited for,"),
    Cause.STOPPED: (PROCESS_PAUSED, Culprit.CLIENT_HOST, "our process was stopped"),
}
_OF_ERRNO = {
    Reason.NO_PORTS: (LOCAL_PORTS, "no local port was left"),
    Reason.NO_DESCRIPTORS: (DESCRIPTORS, "no descriptor was left"),
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
                f"{what} for {len(void)} probes of the last 15 s ({void[-1].detail})",
                confidence=Confidence.PROVEN,
                figures={"probes": len(void)},
                explains={probe.number for probe in void},
                began_ns=void[0].began_ns,
            )


def _stalls(case: Case) -> Iterator[Finding]:
    stalled = [probe for probe in case.odd(_RECENT_NS) if probe.stalled.cause]
    for cause, (kind, culprit, what) in _OF_CAUSE.items():
        own = [probe for probe in stalled if probe.stalled.cause is cause]
        worst_ns = max((probe.stalled.worst_ns for probe in own), default=0)
        total_ns = sum(probe.stalled.total_ns for probe in own)
        is_one_stop = cause is Cause.STOPPED and worst_ns >= _STALLED_NS
        if is_one_stop or (len(own) >= _FEW and total_ns >= _STALLED_NS):
            yield Finding(
                kind,
                culprit,
                f"{what} for up to {worst_ns / 1e9:.3f} s at a stretch, in {len(own)} probes",
                confidence=Confidence.PROVEN,
                figures={"worst_s": worst_ns / 1e9, "probes": len(own)},
                # A stall of some ms makes none fail, and has nothing sent again.
                explains={
                    probe.number for probe in own if probe.reason is Reason.OK and not probe.retrans
                },
                began_ns=own[0].began_ns,
            )
    void = case.ended(Reason.SELF_STALL, since_ns=_RECENT_NS)
    if len(void) >= _FEW:
        yield Finding(
            SELF_INFLICTED,
            Culprit.TOOL,
            f"{len(void)} probes say nothing: {void[-1].detail}",
            confidence=Confidence.PROVEN,
            figures={"probes": len(void)},
            explains={probe.number for probe in void},
            began_ns=void[0].began_ns,
        )


def _steps(case: Case) -> Iterator[Finding]:
    window = case.window
    for whose, steps in (("our own", window.own_steps), ("the server's", window.server_steps)):
        recent = [at_ns for at_ns in steps if at_ns >= window.now_ns - _RECENT_NS]
        if recent:
            void = case.ended(Reason.CLOCK_STEP, since_ns=_RECENT_NS)
            yield Finding(
                CLOCK_STEP,
                Culprit.CLOCK,
                f"{whose} clock was stepped {len(recent)} times in the last 15 s",
                confidence=Confidence.PROVEN,
                figures={"steps": len(recent)},
                explains={probe.number for probe in void},
                began_ns=recent[0],
            )
