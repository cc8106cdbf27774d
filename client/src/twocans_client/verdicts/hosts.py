"""The server's host and program: why a server was slow, by its own account. No I/O.

That it was slow the timestamps of the kernels say; why, only the server knows. Without its witness
nothing is said here.
"""

from collections.abc import Iterator

from twocans_client.evidence.results import Reason
from twocans_client.evidence.testimony import HostHistory
from twocans_client.evidence.window import SERVER_SLOW_NS, Probed
from twocans_core.host.stalls import Cause

from .case import Case
from .either_host import CPU_STARVED, CPU_THROTTLED, PROCESS_PAUSED
from .verdict import Confidence, Culprit, Finding, Kind

__all__ = ["KINDS", "judge"]

_RECENT_NS = 15_000_000_000
# Of what the witness tells of: less is what any busy machine does.
_STALLED_NS = 50_000_000
_STOPPED_NS = 150_000_000
_FEW = 2
# Of the newest eight probes. Ours answers within 0.1 ms; where one in a hundred takes 5 ms for no
# reason of its program's, six of eight do once in 10^10 looks.
_NEWEST, _MOST_OF_THEM = 8, 6
# How it looks when the server's kernel answered and its program did not.
_SILENT = (
    Reason.GREETING_TIMEOUT,
    Reason.REPLY_TIMEOUT,
    Reason.CLOSE_TIMEOUT,
)

SLOW_APP = Kind(
    "slow_app",
    "the server's program is slow to answer",
    (Culprit.SERVER_APP,),
    needs="both kernels' timestamps of the exchange, and the server's own account of its host",
    apart="cpu_throttled, cpu_starved, process_paused: its host kept it from running; "
    "delay_increase: the network's share grows",
    threshold="six of eight probes waited 5 ms or longer for the program, and its host did not "
    "keep it from running; by chance once in 10^10 looks",
    look="what that program does; `twocans_server_loop_lag_seconds`",
)
KINDS = (SLOW_APP,)

_OF_CAUSE = {
    Cause.THROTTLED: (CPU_THROTTLED, "a CPU limit stopped the server's process"),
    Cause.STARVED: (CPU_STARVED, "others had the CPU that the server's process waited for,"),
    Cause.STOPPED: (PROCESS_PAUSED, "the server's process was stopped"),
    Cause.SUSPENDED: (PROCESS_PAUSED, "the server's host was suspended"),
}


def judge(case: Case) -> Iterator[Finding]:
    """Yield why the server was slow."""
    slow = [
        probe
        for probe in case.odd(_RECENT_NS)
        if probe.server_held_ns >= SERVER_SLOW_NS or probe.reason in _SILENT
    ]
    if not slow:
        return
    host = _history(case, slow)
    if host is None:
        return
    cause = _cause(host)
    if cause is not None:
        kind, what = _OF_CAUSE[cause]
        kept_ns = _kept_ns(host, cause)
        is_one_stop = kind is PROCESS_PAUSED and (host.worst_ns or 0) >= _STOPPED_NS
        if is_one_stop or (len(slow) >= _FEW and kept_ns >= _STALLED_NS):
            yield Finding(
                kind,
                Culprit.SERVER_HOST,
                f"{what} for {kept_ns / 1e9:.3f} s in all, as it says itself, "
                f"and {len(slow)} probes waited for it",
                confidence=Confidence.PROVEN,
                figures={
                    "stalled_s": kept_ns / 1e9,
                    "worst_s": (host.worst_ns or 0) / 1e9,
                    "probes": len(slow),
                },
                explains={probe.number for probe in slow},
                began_ns=slow[0].began_ns,
            )
        return
    yield from _slow_app(case)


def _history(case: Case, slow: list[Probed]) -> HostHistory | None:
    """Return what the server's host went through while the newest slow probe ran, if it says."""
    began_ns, instance = slow[0].began_ns, slow[-1].instance
    for testimony in reversed(case.window.testimonies):
        is_same = not instance or testimony.server.instance == instance
        host = testimony.host
        if is_same and host.since_ns is not None and testimony.answered_ns > began_ns:
            return host
    return None


def _cause(host: HostHistory) -> Cause | None:
    """Return what kept the server's process from running, if that is its host's doing."""
    # The sum of the throttling is known whatever the worst stall was of.
    if (host.throttled_ns or 0) >= _STALLED_NS:
        return Cause.THROTTLED
    if not host.cause or (host.stalled_ns or 0) < _STALLED_NS:
        return None
    try:
        cause = Cause(host.cause)
    except ValueError:  # a later server may know others
        return None
    return cause if cause in _OF_CAUSE else None


def _kept_ns(host: HostHistory, cause: Cause) -> int:
    known = host.throttled_ns if cause is Cause.THROTTLED else host.stalled_ns
    return known or 0


def _slow_app(case: Case) -> Iterator[Finding]:
    newest = case.window.newest(_NEWEST)
    held = [probe for probe in newest if _app_ns(probe) >= SERVER_SLOW_NS]
    if len(newest) < _NEWEST or len(held) < _MOST_OF_THEM:
        return
    took_ns = sorted(map(_app_ns, held))
    middle_ns = took_ns[len(took_ns) // 2]
    yield Finding(
        SLOW_APP,
        Culprit.SERVER_APP,
        f"the server's program took {middle_ns / 1e9:.4f} s to answer (the median of {len(held)} "
        "probes), and its host did not keep it from running",
        confidence=Confidence.STATISTICAL,
        figures={"app_s": middle_ns / 1e9, "probes": len(held)},
        explains={probe.number for probe in held},
        began_ns=held[0].began_ns,
    )


def _app_ns(probe: Probed) -> int:
    """Return how long the program took, from the request read to the reply sent."""
    split = probe.split
    return split.server_app_ns + (split.server_stall_ns or 0) if split is not None else 0
