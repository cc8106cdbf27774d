"""The server's host and program: why a server was slow, by its own account. No I/O.

The kernels' timestamps show that it was slow; only the server knows why. Without its witness
nothing is said here.
"""

from collections.abc import Iterator, Set

from twocans_client.evidence.results import Reason
from twocans_client.evidence.rows import SERVER_SLOW_NS, Probed
from twocans_client.evidence.testimony import HostHistory
from twocans_client.evidence.window import Window
from twocans_core.host.stalls import Cause

from .case import Case
from .either_host import CPU_STARVED, CPU_THROTTLED, PROCESS_PAUSED
from .verdict import Confidence, Culprit, Finding, Kind
from .words import counted

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
    needs="both kernels' timestamps of the exchange, and the server's account of its own host",
    apart="cpu_throttled, cpu_starved, process_paused: the host kept the program from running; "
    "delay_increase: the network's share grows",
    threshold="six of the newest eight probes waited 5 ms or longer for the program, and its host "
    "did not keep it from running; by chance, once in 10^10 looks",
    look="what that program does; `twocans_server_loop_lag_seconds`",
)
KINDS = (SLOW_APP,)

_OF_CAUSE = {
    Cause.THROTTLED: (CPU_THROTTLED, "a CPU limit stopped the server's process"),
    Cause.STARVED: (CPU_STARVED, "the server's process waited for a CPU"),
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
    told = list(_told(case.window, slow))
    for cause, (kind, what) in _OF_CAUSE.items():
        of_it = [(host, rows) for host, rows in told if _cause(host) is cause]
        kept = {probe.number: probe for _, rows in of_it for probe in rows if probe in slow}
        if not kept:
            continue
        worst_ns = max(host.worst_ns or 0 for host, _ in of_it)
        kept_ns = max(_kept_ns(host, cause) for host, _ in of_it)
        is_one_stop = kind is PROCESS_PAUSED and worst_ns >= _STOPPED_NS
        if is_one_stop or (len(kept) >= _FEW and kept_ns >= _STALLED_NS):
            # What a limit explains, a later account of the same time cannot blame on others.
            slow = [probe for probe in slow if probe.number not in kept]
            yield Finding(
                kind,
                Culprit.SERVER_HOST,
                f"{what} for {kept_ns / 1e9:.3f} s, by the server's own account, "
                f"and {counted(len(kept), 'probe')} waited for it",
                confidence=Confidence.PROVEN,
                figures={
                    "stalled_s": kept_ns / 1e9,
                    "worst_s": worst_ns / 1e9,
                    "probes": len(kept),
                },
                explains=kept.keys(),
                began_ns=min(probe.began_ns for probe in kept.values()),
            )
    if told and len(slow) >= _MOST_OF_THEM:
        yield from _slow_app(case, {probe.number for probe in slow})


def _told(window: Window, slow: list[Probed]) -> Iterator[tuple[HostHistory, list[Probed]]]:
    """Yield what the server said of its host, and the slow probes of that time."""
    for testimony in window.testimonies:
        host, instance = testimony.host, testimony.server.instance
        if host.since_ns is None:
            continue
        rows = [
            probe
            for probe in slow
            if probe.instance in (b"", instance)
            and probe.ended_ns >= host.since_ns
            and probe.began_ns <= testimony.answered_ns
        ]
        if rows:
            yield host, rows


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
    match cause:
        case Cause.THROTTLED:
            return host.throttled_ns or 0
        case Cause.STARVED:
            return host.stalled_ns or 0
    return host.worst_ns or 0  # the cause is of that stretch; the sum has others in it


def _slow_app(case: Case, left: Set[int]) -> Iterator[Finding]:
    newest = case.window.newest(_NEWEST)
    held = [probe for probe in newest if probe.number in left and _app_ns(probe) >= SERVER_SLOW_NS]
    if len(held) < _MOST_OF_THEM:
        return
    took_ns = sorted(map(_app_ns, held))
    middle_ns = took_ns[len(took_ns) // 2]
    yield Finding(
        SLOW_APP,
        Culprit.SERVER_APP,
        f"the server's program took {middle_ns / 1e9:.4f} s to answer (median of {len(held)} "
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
