"""What many probes amount to, in plain numbers. No I/O.

``text`` says it to people and ``document`` to programs.
"""

import math
from collections import Counter, deque
from typing import TYPE_CHECKING

from twocans_client.evidence.direction import Offset, OneWay
from twocans_client.evidence.loss import Segments
from twocans_client.evidence.overflows import Overflows
from twocans_client.evidence.proxy import Proxy, breaks
from twocans_client.evidence.results import Exchange, Outcome, ProbeResult, Reason
from twocans_client.evidence.split import Refusal, Split

if TYPE_CHECKING:
    from twocans_client.verdicts.engine import Verdict

__all__ = ["HOLDERS", "QUANTILES", "Report"]

QUANTILES = (("p50", 0.5), ("p99", 0.99), ("max", 1.0))

HOLDERS = ("client", "network", "recovery", "server_host", "server_app", "server")
"""Who may have the time of an exchange. ``recovery`` is the network's, in exchanges in which a
segment was sent again. ``server`` is host and program, where only the user's clock tells."""

# A server chooses its instance, so a hostile one is always another. The oldest is forgotten.
_SERVERS_KEPT = 1_000
# Of most parts a program timestamps one end and a kernel the other.
_CLOCKS = {"server_stall": "user", "server_app": "user", "client_qdisc": "kernel"}
_STATES = ("ok", "degraded", "fail", "unknown")
_ADDRESSES_KEPT = 3
# Of fewer probes hardly any statistic says anything.
_FEW = 20


class _Server:
    """One server process: its clock, and what became of segments between it and us."""

    def __init__(self) -> None:
        self.one_way = OneWay()
        self.proxy = Proxy()
        self.overflows = Overflows()
        self.sign = ""  # stays, as loss is told over the whole run
        self.segments = Segments()
        self.accounts = 0


class Report:
    """Collect results, about in the order in which they ended, and say what they amount to.

    Quantiles are exact, over the newest samples of each phase and part.

    Args:
        kept: How many of each.

    Attributes:
        path: What they were probes of.
        addresses: Where they went, the first three.
        newest: Of each reason but ``ok``, the newest probe that ended so.
        outcomes: Probes, by outcome.
        reasons: Probes, by reason.
        bytes_sent: In all; so is the next.
        bytes_received: By us.
        retransmits: Segments sent again, by both ends together; None if our kernel did not count.
        splits: Exchanges, by whether they could be split, or why not.
        tainted: Good probes in whose time we stood still, by the cause.
        directions: Exchanges, by where their delay grew; those that could be judged.
        unjudged: Exchanges with all timestamps, but when too few were known to judge them.
        spent_ns: Time of exchanges, by clock and by who had it. By the user's clock that is
            only ``network``, with everybody's wake-ups in it, and ``server``.
        spent_on: How many exchanges those are, by clock.
        unaccounted: Probes that failed and whose segments are in no account, by reason. Loss may
            be why, so what is counted as lost is then the least that was.
        unanswered: SYNs of connections that never came to be.
        verdicts: What was found to be wrong, in the order in which it was, as told from outside;
            None: nobody looked.
        only_connects: Probes only connected, so one end's kernel is all that knows anything.
    """

    def __init__(self, kept: int = 10_000) -> None:
        self.path = ""
        self.addresses: list[str] = []
        self.newest: dict[Reason, ProbeResult] = {}
        self._kept = kept
        self.outcomes = dict.fromkeys(Outcome, 0)
        self.reasons: Counter[str] = Counter()
        self.bytes_sent = 0
        self.bytes_received = 0
        self.retransmits: int | None = None
        self.splits: Counter[str] = Counter()
        self.tainted: Counter[str] = Counter()
        self.directions: Counter[str] = Counter()
        self.unjudged = 0
        self.spent_ns: Counter[tuple[str, str]] = Counter()
        self.spent_on: Counter[str] = Counter()
        self.unaccounted: Counter[str] = Counter()
        self.unanswered = 0
        self.verdicts: list[Verdict] | None = None
        self.only_connects = False
        self._samples: dict[tuple[str, str], deque[int]] = {}
        self._servers: dict[bytes, _Server] = {}

    def add(self, result: ProbeResult) -> None:
        """Take in one result."""
        self.outcomes[result.outcome] += 1
        self.reasons[result.reason] += 1
        self.path = result.path
        if result.reason is not Reason.OK:
            self.newest[result.reason] = result
        if result.address is not None and len(self.addresses) < _ADDRESSES_KEPT:
            self.addresses += {str(result.address)} - {*self.addresses}
        self.bytes_sent += result.bytes_sent
        self.bytes_received += result.bytes_received
        if result.retrans is not None:
            theirs = result.server_ended.total_retrans if result.server_ended else None
            self.retransmits = (self.retransmits or 0) + result.retrans + (theirs or 0)
        if result.tainted and result.outcome is Outcome.OK:
            self.tainted[result.tainted] += 1
        for phase, clock, ns in result.phases():
            self._sample(phase, clock, ns)
        if result.client_connect_ns is not None and result.is_clean:
            self._sample("client_connect", "user", result.client_connect_ns)
        if result.accept_ns is not None:
            self._sample("accept", "both", result.accept_ns)
        for exchange in result.exchanges:
            self._spend(exchange, is_clean=result.is_clean)
        if (segments := result.segments) is not None:
            self.unanswered += segments.forward.unanswered
        if result.dialled and result.outcome is Outcome.FAIL and result.bye is None:
            self.unaccounted[result.reason] += 1
        if result.reason is Reason.CLOCK_STEP:
            # It is our clock that was stepped, so the offset of every server's has jumped.
            for known in self._servers.values():
                known.one_way.forget_clocks()
        elif result.server is not None:
            server = self._server(result.server.instance)
            self._judge(server, result)
            self._account(server, result)

    def rows(self) -> dict[tuple[str, str], int]:
        """Return how many samples there are of each phase and part, by clock."""
        return {key: len(samples) for key, samples in self._samples.items()}

    def quantile(self, what: str, clock: str, q: float) -> int | None:
        """Return the smallest sample that a share of ``q`` is not above; None without any."""
        samples = sorted(self._samples.get((what, clock), ()))
        if not samples:
            return None
        # The nearest rank, without interpolation: each figure is a duration that was measured.
        return samples[max(0, math.ceil(q * len(samples)) - 1)]

    @property
    def offset(self) -> Offset | None:
        """The server's clock less ours, if it is one server whose timestamps we have."""
        offsets = [server.one_way.offset for server in self._servers.values()]
        return offsets[0] if len(offsets) == 1 else None

    @property
    def accounts(self) -> int:
        """Probes whose segments are accounted for, and as one connection may have counted."""
        return sum(server.accounts for server in self._servers.values())

    @property
    def proxies(self) -> list[str]:
        """Signs of a proxy, of the servers at which there was one."""
        return [server.sign for server in self._servers.values() if server.sign]

    def is_proxied(self, result: ProbeResult) -> bool:
        """Whether there was a sign of a proxy between us and this probe's server."""
        server = self._servers.get(result.server.instance) if result.server else None
        return server is not None and bool(server.sign)

    @property
    def segments(self) -> Segments | None:
        """What became of the segments, of servers without a proxy; None if nobody knows."""
        claimed = [each for each in self._servers.values() if each.accounts and not each.sign]
        return sum((server.segments for server in claimed), Segments()) if claimed else None

    @property
    def boxes(self) -> list[str]:
        """What was found on the way that leaves a connection whole (``Proxy.boxes``)."""
        return sorted({box for server in self._servers.values() for box in server.proxy.boxes})

    @property
    def exit_code(self) -> int:
        """0 good, 1 degraded, 2 bad, 3 unknown, as monitoring plugins have it."""
        ok, fail = self.outcomes[Outcome.OK], self.outcomes[Outcome.FAIL]
        if fail:
            return 1 if ok else 2
        if not ok:
            return 3
        return int(self.is_lossy)

    @property
    def state(self) -> str:
        """The exit code in a word: ok, degraded, fail or unknown."""
        return _STATES[self.exit_code]

    @property
    def is_unexplained(self) -> bool:
        """Whether probes failed and no verdict says why, though one was looked for."""
        if self.verdicts is None or not self.outcomes[Outcome.FAIL]:
            return False
        return all(verdict.finding.kind.is_info for verdict in self.verdicts)

    @property
    def lacking(self) -> list[str]:
        """Which evidence would help to name why probes failed."""
        lacking = []
        whole = sum(self.outcomes.values())
        if whole < _FEW:
            lacking.append(f"more than {whole} probe{'s' * (whole != 1)} (--count)")
        if self.addresses and not self._servers and not self.only_connects:
            lacking.append("what the server saw, as it never greeted us: see its log")
        if self._servers and self.retransmits is None:
            lacking.append("the kernel's counters (--tcp-info)")
        if self.splits and set(self.splits) == {Refusal.UNSTAMPED}:
            lacking.append("kernel timestamps (--stamps)")
        return lacking

    @property
    def is_lossy(self) -> bool:
        """Whether segments were lost, or sent again."""
        both = self.segments or ()
        lost = any(fates.lost + fates.acks_lost + fates.unsent for fates in both)
        # Retransmissions count without any loss as well: a sender that waited for its timer was
        # slow.
        return lost or bool(self.retransmits)

    def _sample(self, what: str, clock: str, ns: int) -> None:
        self._samples.setdefault((what, clock), deque(maxlen=self._kept)).append(ns)

    def _spend(self, exchange: Exchange, *, is_clean: bool) -> None:
        """Say of one exchange who had its time."""
        self.splits[exchange.refusal or "split"] += 1
        split = exchange.split
        if split is not None:
            for part, ns in split.parts():
                if part != "network":  # phases() tells it apart from recovery
                    self._sample(part, _CLOCKS.get(part, "both"), ns)
            self.spent_on["kernel"] += 1
            for holder, ns in _holders(split, resent=exchange.resent):
                self.spent_ns["kernel", holder] += ns
        elif exchange.refusal is Refusal.UNSTAMPED and exchange.user_split and is_clean:
            self.spent_on["user"] += 1
            for holder, ns in zip(("network", "server"), exchange.user_split, strict=True):
                self.spent_ns["user", holder] += ns

    def _server(self, instance: bytes) -> _Server:
        server = self._servers.get(instance)
        if server is None:
            if len(self._servers) >= _SERVERS_KEPT:
                del self._servers[next(iter(self._servers))]
            server = self._servers[instance] = _Server()
        return server

    def _judge(self, server: _Server, result: ProbeResult) -> None:
        """Say in which direction delays grew."""
        for exchange in result.exchanges:
            split = exchange.split
            if split is None or exchange.resent:
                continue
            growth = server.one_way.observe(result.ended_ns, split.forward_ns, split.reverse_ns)
            if growth.total_ns is None:
                self.unjudged += 1
            else:
                self.directions[growth.direction] += 1

    def _account(self, server: _Server, result: ProbeResult) -> None:
        """Say what became of a connection's segments, and whether that can be claimed."""
        # Before the segments: they are computed with it.
        result.overflows = server.overflows.since(result)
        segments = server.proxy.probe(result)
        if segments is not None and not breaks(segments):
            server.accounts += 1
            server.segments += segments
        server.sign = server.proxy.sign or server.sign


def _holders(split: Split, *, resent: bool) -> list[tuple[str, int]]:
    return [
        ("client", split.client_ns),
        ("recovery" if resent else "network", split.network_ns),
        ("server_host", split.server_ns - split.server_app_ns),
        ("server_app", split.server_app_ns),
    ]
