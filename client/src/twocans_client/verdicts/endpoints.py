"""Balancers and proxies: what is dead behind an address. No I/O."""

from collections.abc import Iterator
from itertools import pairwise

from twocans_client.evidence.results import Reason
from twocans_client.evidence.rows import Probed

from .case import Case
from .handshakes import told_since
from .verdict import Confidence, Culprit, Finding, Kind
from .words import counted

__all__ = ["KINDS", "judge"]

_RECENT_NS = 20_000_000_000
_FEW = 3
# Lanes of a path follow from the lowest bits of a port (``probes.ports``): a fault of a lane never
# leaves two connections of one class with different fates.
_CLASSES = 16
_MIXED_CLASSES = 3
_WAITED_NS = 2_100_000_000
# Where SYNs are lost by chance many connections come to be with the second or third.
_FEW_RETRIED = 10
# What loses SYNs of all was named before.
_OTHERS = frozenset(
    {
        "syn_loss",
        "synack_loss",
        "backlog_overflow",
        "new_connection_limit",
        "nat_port_exhaustion",
        "path_subset_loss",
        "blackout",
    }
)

BACKEND_DEAD = Kind(
    "backend_dead",
    "something accepts connections for a server that is not there, then drops them",
    (Culprit.SERVER_APP,),
    needs="connections that were accepted and ended before a WELCOME, at an address where a server "
    "or a proxy is known. If the server can be asked, it never saw them",
    apart="refused_by_server: nothing accepts; rst_injected: the server saw the connection; "
    "app_hung: nothing closes it",
    threshold="three connections, and none greeted between the first and the last. Provisional, "
    "unless the server never saw them or a proxy is known",
    look="the back ends of the proxy or balancer at that address, and its health checks",
    rivals=frozenset({"rst_injected", "closed_by_server"}),
)
STALE = Kind(
    "stale_endpoint",
    "one of the servers behind the address is dead",
    (Culprit.CONFIGURATION,),
    needs="connections that fail among others that are good: none of their SYNs is answered, or "
    "they are refused",
    apart="path_subset_loss: it depends on the port; syn_loss: a second SYN gets through; "
    "backlog_overflow: a server that answers says that its accept queue was full",
    threshold="three failed connections, alternating with good ones. At most one in ten of the "
    "good ones lost its first SYN. In three classes of local ports (modulo 16) some failed and "
    "some were good, which no lane of a path does. The servers that answer are asked first; the "
    "verdict is provisional if they cannot tell",
    rivals=frozenset({"backlog_overflow", "new_connection_limit"}),
    look="the endpoints of that address: `kubectl get endpointslices`, the balancer's back ends",
)
KINDS = (BACKEND_DEAD, STALE)


def judge(case: Case) -> Iterator[Finding]:
    """Yield what is dead behind the address."""
    yield from _dead_backend(case)
    yield from _stale(case)


def _dead_backend(case: Case) -> Iterator[Finding]:
    window = case.window
    closed = [
        probe
        for probe in case.ended(
            Reason.RESET, Reason.CLOSED_EARLY, Reason.GREETING_TIMEOUT, since_ns=_RECENT_NS
        )
        if probe.phase == "greet" and not probe.instance
    ]
    is_proxied = bool(window.proxy_sign)
    if not is_proxied:  # who is only silent may be our server, hung
        closed = [probe for probe in closed if probe.reason is not Reason.GREETING_TIMEOUT]
    if len(closed) < _FEW or not (window.met or is_proxied):
        return
    first_ns, last_ns = closed[0].began_ns, closed[-1].began_ns
    if any(first_ns < probe.began_ns < last_ns for probe in _good(case)):
        return  # some are greeted: a box resets some, or the server does
    unseen = strangers = 0
    for probe in closed:
        told = window.seen(probe)
        if told is not None:
            testimony, seen = told
            unseen += testimony.never_came(seen)
            strangers += not testimony.never_came(seen)
    if strangers:
        return  # the server saw them: it closed them itself, or somebody did in its name
    if unseen:
        confidence, why = Confidence.PROVEN, f"; the server never saw {unseen} of them"
    elif is_proxied:
        confidence, why = Confidence.STATISTICAL, f"; a proxy is known ({window.proxy_sign})"
    else:
        confidence, why = Confidence.PROVISIONAL, ""
    reasons = sorted({str(probe.reason) for probe in closed})
    yield Finding(
        BACKEND_DEAD,
        Culprit.SERVER_APP,
        f"{len(closed)} connections were accepted and ended before a greeting "
        f"({', '.join(reasons)}){why}",
        confidence=confidence,
        figures={"probes": len(closed)},
        explains={probe.number for probe in closed},
        began_ns=first_ns,
    )


def _stale(case: Case) -> Iterator[Finding]:
    if (case.found | case.standing) & _OTHERS:
        return
    dead = [
        probe
        for probe in case.ended(
            Reason.CONNECT_TIMEOUT, Reason.REFUSED, Reason.UNREACHABLE, since_ns=_RECENT_NS
        )
        if probe.local_port is not None
    ]
    # Those of which two SYNs more than the first had no answer will hardly come to be.
    waiting = [
        each
        for each in case.window.waiting
        if each.connected_ns is None
        and each.local_port is not None
        and case.window.now_ns - each.began_ns >= _WAITED_NS
    ]
    fates = [(each.began_ns, each.local_port or 0) for each in dead]
    fates += [(each.began_ns, each.local_port or 0) for each in waiting]
    if len(fates) < _FEW:
        return
    first_ns, last_ns = min(fates)[0], max(fates)[0]
    among = [
        probe
        for probe in _good(case)
        if first_ns <= probe.began_ns <= last_ns and probe.local_port is not None
    ]
    retried = sum(bool(probe.syns_resent) for probe in among)
    if len(among) < _FEW or retried * _FEW_RETRIED > len(among):
        return
    classes = {port % _CLASSES for _, port in fates}
    mixed = classes & {
        (probe.local_port or 0) % _CLASSES for probe in among if not probe.syns_resent
    }
    if len(mixed) < _MIXED_CLASSES or not _alternate([at for at, _ in fates], among):
        return
    confidence = Confidence.STATISTICAL
    if STALE.name not in case.standing:
        testimony = told_since(case, first_ns)
        if testimony is not None and testimony.host.tcp.listen_overflows:
            return
        if testimony is None:
            # A full accept queue looks the same, until the server has been asked.
            if not _is_mute(case, first_ns):
                return
            confidence = Confidence.PROVISIONAL
    share = len(fates) / (len(fates) + len(among))
    servers = len({probe.instance for probe in among})
    yield Finding(
        STALE,
        Culprit.CONFIGURATION,
        f"{len(fates)} connections failed among {len(among)} good ones; {len(mixed)} classes of "
        f"local ports (modulo {_CLASSES}) had both; {counted(servers, 'server')} answered",
        confidence=confidence,
        figures={"share": share, "probes": len(fates), "servers": servers},
        explains={probe.number for probe in dead},
        began_ns=first_ns,
    )


def _is_mute(case: Case, since_ns: int) -> bool:
    """Whether who answers was asked since then, and does not say what it saw."""
    unanswered = case.window.unanswered
    return unanswered is not None and unanswered.ended_ns > since_ns


def _good(case: Case) -> Iterator[Probed]:
    return (probe for probe in case.window.probes if probe.reason is Reason.OK)


def _alternate(dead: list[int], good: list[Probed]) -> bool:
    """Whether good and dead ones take turns, so that none is an outage of all."""
    fates = sorted([(at_ns, True) for at_ns in dead] + [(g.began_ns, False) for g in good])
    turns = sum(before[1] != after[1] for before, after in pairwise(fates))
    return turns >= 2 * _FEW - 1
