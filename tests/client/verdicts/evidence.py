"""Windows made to order, and what a family says of them."""

from collections.abc import Iterable
from types import ModuleType
from typing import Any

from hypothesis import strategies as st

from client.far_end import ADDRESS, LOCAL, SERVER, ended
from client.makers import connection, exchange
from twocans_client.evidence.results import ProbeResult, Reason
from twocans_client.evidence.testimony import Fate, HostHistory, Question, Seen, Testimony
from twocans_client.evidence.window import Window
from twocans_client.verdicts.case import Case
from twocans_client.verdicts.verdict import Finding
from twocans_core.kernel.errqueue import Icmp
from twocans_core.kernel.standing import NO_STANDING, Standing
from twocans_core.kernel.tcpinfo import TcpCounts
from twocans_core.protocol.messages import Identity

US = 1_000
MS = 1_000 * US
S = 1_000 * MS
STANDING = NO_STANDING._replace(
    state=1,
    retransmits=0,
    probes=0,
    backoff=0,
    unacked=0,
    sacked=0,
    lost=0,
    retrans=0,
    total_retrans=0,
    bytes_acked=100,
    segs_out=3,
    segs_in=2,
    notsent_bytes=0,
    snd_wnd=65_535,
)


def probe(reason: Reason, at_ns: int, took_ns: int = MS, **fields: Any) -> ProbeResult:
    """Return a probe that began then and took so long."""
    fields = {"address": ADDRESS, "local": LOCAL, "timeout_ns": 5 * S, **fields}
    result = ended(reason, at_ns, **fields)
    result.ended_ns = at_ns + took_ns
    return result


def good(at_ns: int, *, syns_lost: int = 0, **fields: Any) -> ProbeResult:
    """Return a probe that went well, or took a second SYN."""
    connect_ns = 100 * US + syns_lost * S
    made = {
        **connection(syns_lost=syns_lost),
        "server": SERVER,
        "seen_as": LOCAL,
        "connect_ns": connect_ns,
        "handshake_ns": None if syns_lost else 60 * US,
        "greet_ns": 100 * US,
        "exchanges": [exchange()],
        **fields,
    }
    return probe(Reason.OK, at_ns, connect_ns + 400 * US, **made)


def silent(at_ns: int, *, resent: int = 4, took_ns: int = 5 * S, **fields: Any) -> ProbeResult:
    """Return a probe whose SYNs nobody answered."""
    standing = STANDING._replace(
        state=2, retransmits=resent, total_retrans=resent, unacked=1, retrans=1, segs_in=0
    )
    made = {"standing": standing, "retrans": resent, "sent_in_vain": resent, **fields}
    return probe(Reason.CONNECT_TIMEOUT, at_ns, took_ns, **made)


def refused(at_ns: int, took_ns: int = 100 * US, **fields: Any) -> ProbeResult:
    """Return a probe that a reset refused."""
    made = {"standing": STANDING._replace(state=7, segs_in=1), **fields}
    return probe(Reason.REFUSED, at_ns, took_ns, **made)


def rejected(
    at_ns: int, sender: str, code: int = 13, took_ns: int = 100 * US, **fields: Any
) -> ProbeResult:
    """Return a probe that an ICMP message ended, type 3 with this code."""
    reason = Reason.REFUSED if code == 3 else Reason.UNREACHABLE
    made = {
        "standing": STANDING._replace(state=2, segs_in=0, segs_out=1),
        "icmp": Icmp(3, code, sender),
        **fields,
    }
    return probe(reason, at_ns, took_ns, **made)


def window(*results: ProbeResult) -> Window:
    """Return a window that was fed with these, in the order in which they ended."""
    made = Window()
    for result in sorted(results, key=lambda each: each.ended_ns):
        made.probed(result, result.segments)
    return made


def told_by_server(
    made: Window,
    *of: Seen,
    since_ns: int = 0,
    asked_ns: int = 0,
    server: Identity = SERVER,
    **host: Any,
) -> Testimony:
    """Let a server have said what it saw of some connections, and what its host went through.

    Args:
        made: The window that is told.
        of: What it saw.
        since_ns: Since when it tells of its host.
        asked_ns: When it was asked.
        server: Who.
        host: Fields of ``HostHistory``, or of its ``tcp``.
    """
    tcp = {name: host.pop(name) for name in list(host) if name in TcpCounts._fields}
    counts = TcpCounts(*[0] * len(TcpCounts._fields))._replace(**tcp)
    history = HostHistory(
        since_ns=since_ns,
        stalled_ns=None,
        worst_ns=None,
        cause="",
        throttled_ns=None,
        run_delay_ns=None,
        tcp=counts,
        accept_errors=None,
        connections=None,
        max_connections=None,
        accept_queue=None,
        accept_queue_limit=None,
        half_open=None,
        limits=(),
    )
    told = Testimony(
        server, None, asked_ns, asked_ns + MS, -60 * S, -60 * S, of, history._replace(**host)
    )
    made.testified(told)
    return told


def seen(of: ProbeResult, fate: Fate = Fate.UNKNOWN, **fields: Any) -> Seen:
    """Return what a server says of a probe."""
    port = of.local[1] if of.local else None
    return Seen(Question(of.connection, port, of.started_ns), fate, **fields)


def every(step_ns: int, from_ns: int, to_ns: int) -> Iterable[int]:
    """Return moments from one to before another."""
    return range(from_ns, to_ns, step_ns)


def judge(family: ModuleType, made: Window) -> list[Finding]:
    """Return what one family says of a window, as the engine asks it."""
    case, found = Case(made), []
    for finding in family.judge(case):
        case.explain(finding.kind.name, finding.explains)
        found.append(finding)
    return found


def said(family: ModuleType, made: Window) -> list[tuple[str, str, str, str]]:
    """Return the same as names: verdict, culprit, direction, confidence."""
    return [
        (
            finding.kind.name,
            str(finding.culprit),
            str(finding.direction),
            str(finding.confidence),
        )
        for finding in judge(family, made)
    ]


# --- anything at all ------------------------------------------------------------------------

_few = st.none() | st.integers(0, 7)
_standings = st.builds(
    lambda **fields: STANDING._replace(**fields),
    state=st.integers(1, 7),
    retransmits=_few,
    probes=_few,
    unacked=_few,
    retrans=_few,
    total_retrans=_few,
    segs_in=_few,
    segs_out=st.integers(1, 9),
    notsent_bytes=_few,
    bytes_acked=_few,
)
_icmps = st.builds(
    Icmp,
    st.sampled_from([1, 3, 11]),
    st.integers(0, 15),
    st.sampled_from([LOCAL[0], ADDRESS.host, "192.0.2.254", "2001:db8::1"]),
)


@st.composite
def probes(draw: st.DrawFn) -> ProbeResult:
    """Return any probe, also such as cannot be."""
    reason = draw(st.sampled_from(Reason))
    made = dict(connection(syns_lost=draw(st.integers(0, 3)))) if draw(st.booleans()) else {}
    fields: dict[str, Any] = {
        **made,
        "address": draw(st.sampled_from([ADDRESS, None])),
        "local": draw(st.sampled_from([LOCAL, ("192.0.2.1", 40_016), None])),
        "server": draw(st.sampled_from([SERVER, SERVER._replace(instance=b"t" * 16), None])),
        "server_began_ns": draw(st.none() | st.integers(-(10**12), 60 * S)),
        "seen_as": draw(st.sampled_from([LOCAL, ("192.0.2.9", 1_024), None])),
        "connect_ns": draw(st.none() | st.integers(1, 5 * S)),
        "handshake_ns": draw(st.none() | st.integers(1, 5 * S)),
        "greet_ns": draw(st.none() | st.integers(1, 5 * S)),
        "retrans": draw(_few),
        "sent_in_vain": draw(st.integers(0, 7)),
        "standing": draw(st.none() | _standings),
        "icmp": draw(st.none() | _icmps),
        "overflows": draw(st.integers(0, 3)),
        "draining": draw(st.booleans()),
    }
    at_ns = draw(st.integers(0, 60 * S))
    return probe(reason, at_ns, draw(st.integers(0, 6 * S)), **fields)


@st.composite
def windows(draw: st.DrawFn) -> Window:
    """Return a window of any evidence."""
    return window(*draw(st.lists(probes(), max_size=30)))


@st.composite
def healthy(draw: st.DrawFn) -> Window:
    """Return the window of a good path: jitter, and now and then a SYN that is lost."""
    count = draw(st.integers(1, 200))
    lost = draw(st.sets(st.integers(0, count), max_size=1 + count // 100))
    jitter = draw(st.integers(0, 10 * MS))
    return window(
        *(
            good(
                at * 100 * MS,
                syns_lost=at in lost,
                handshake_ns=None if at in lost else 60 * US + at % 7 * jitter // 7,
            )
            for at in range(count)
        )
    )


__all__ = [
    "MS",
    "STANDING",
    "US",
    "S",
    "Standing",
    "every",
    "good",
    "healthy",
    "judge",
    "probe",
    "probes",
    "refused",
    "rejected",
    "said",
    "seen",
    "silent",
    "told_by_server",
    "window",
    "windows",
]
