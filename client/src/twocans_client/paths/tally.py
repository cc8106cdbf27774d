"""What the client counts over all paths, in plain numbers. No I/O.

Histograms by phase, by part and by the server's zone, which are few; what is of one path is in
``path``. ``metrics`` renders both.
"""

from collections import Counter
from collections.abc import Set

from twocans_client.discovery.resolver import Resolution
from twocans_client.evidence.idle import IdleResult
from twocans_client.evidence.loss import Segments
from twocans_client.evidence.results import OUTCOMES, Exchange, Outcome, ProbeResult, Reason
from twocans_client.evidence.split import Refusal
from twocans_core.histogram import PART_BOUNDS_S, Histogram
from twocans_core.host.stalls import Cause
from twocans_core.kernel.tcpinfo import Limited

from .purse import Cost

__all__ = ["LIMITS", "ClientTally"]

# A server chooses the zone that it announces. This many are believed; the rest are "other".
_MAX_ZONES = 64
# A zone that no path is in any more is kept for a rollout's time, so that its series go on.
_ZONE_KEPT_NS = 600 * 1_000_000_000
_OTHER = "other"
LIMITS = ("busy", "receiver", "send_buffer")
"""How long a connection had something to send, and what of that it waited for."""


class ClientTally:
    """What the client counts over all paths, in plain numbers. Written on the loop only.

    Attributes:
        phases: Durations, by phase, clock and the server's zone.
        parts: Parts of exchanges, by part and the server's zone.
        segments: What became of them, by the server's zone.
        splits: Exchanges, by whether they could be split.
        tainted: Probes whose user-clock phases our own stall has spoiled, by its cause.
        server_clock_steps: Times that the offset of a server's clock jumped.
        held_exchanges: Exchanges on held connections.
        held_skipped: Slots of held connections in which the last exchange was still waited for.
        held_endings: Held connections ended, by reason and whether it was our own doing.
        idle_connections: Idle connections by what their silence did: nothing (``ok``), a failure,
            by its reason; or nobody knows (``void``).
        limited_us: How long held connections were busy, and what held them up, by our kernel.
        start_delay: From the intended to the real start of a probe.
        late: Probes in which something was found only by the last look after a deadline.
        server_restarts: Greetings by a new process of a server that was known.
        clock_steps: Times that our clock was stepped or our host suspended.
        resolutions: Look-ups, by outcome.
        introductions: Greetings of new addresses, by outcome.
        over_budget: What was left out as its path has a budget, by what it was for.
        bytes_sent: On measured connections, protocol included; so is the next.
        bytes_received: Read on them.
    """

    def __init__(self) -> None:
        self.phases: dict[tuple[str, str, str], Histogram] = {}
        self.parts: dict[tuple[str, str], Histogram] = {}
        self.segments: dict[str, Segments] = {}
        self.splits: Counter[str] = Counter(dict.fromkeys(("split", *map(str, Refusal)), 0))
        self.tainted: Counter[str] = Counter(dict.fromkeys(map(str, Cause), 0))
        self.server_clock_steps = 0
        self.held_exchanges = 0
        self.held_skipped = 0
        # Endings are rare: the first of a kind shows only if its series was there before.
        self.held_endings: Counter[tuple[str, str]] = Counter(
            {(str(why), "no" if OUTCOMES[why] is Outcome.FAIL else "yes"): 0 for why in Reason}
        )
        self.idle_connections: Counter[str] = Counter(
            {"ok": 0, "reply_timeout": 0, "reset": 0, "closed_early": 0, "void": 0}
        )
        self.limited_us = dict.fromkeys(LIMITS, 0)
        self.start_delay = Histogram()
        self.late = 0
        self.clock_steps = 0
        self.server_restarts = 0
        self.resolutions: Counter[str] = Counter(
            {"ok": 0, "dns_failure": 0, "dns_timeout": 0, "watch_failure": 0}
        )
        self.introductions: Counter[str] = Counter(dict.fromkeys(map(str, Outcome), 0))
        self.over_budget: Counter[str] = Counter(dict.fromkeys(map(str, Cost), 0))
        self.bytes_sent = 0
        self.bytes_received = 0
        # Since when no path is in it; None while one is.
        self._zones: dict[str, int | None] = {}

    def observe(self, result: ProbeResult, zone: str) -> None:
        """Count one probe that ended.

        Args:
            result: What it found.
            zone: The server's, as far as the path knows it: a probe that nobody answered
                belongs beside the good ones of its path.
        """
        zone = self._known_zone(zone)
        for phase, clock, ns in result.phases():
            self._phase(phase, clock, zone).observe(ns)
        for exchange in result.exchanges:
            self._observe_parts(exchange, zone)
        if result.accept_ns is not None:
            self._part("accept", zone).observe(result.accept_ns)
        if result.client_connect_ns is not None:
            self._part("client_connect", zone).observe(result.client_connect_ns)
        if result.tainted and result.outcome is Outcome.OK:
            self.tainted[result.tainted] += 1
        # A sized probe takes longer because of its size, which says nothing of the others.
        if result.dialled and result.is_clean and not result.is_sized:
            self._phase("probe", "user", zone).observe(result.total_ns)
            self._phase("response", "user", zone).observe(result.response_ns)
        self.start_delay.observe(max(0, result.started_ns - result.intended_ns))
        self.late += result.late
        self.bytes_sent += result.bytes_sent
        self.bytes_received += result.bytes_received

    def observe_held(self, exchange: Exchange, zone: str, *, tainted: bool) -> None:
        """Count one exchange on a held connection."""
        zone = self._known_zone(zone)
        self.held_exchanges += 1
        self._observe_parts(exchange, zone)
        if exchange.resent:
            return
        if exchange.split is not None:
            self._phase("held_network", "kernel", zone).observe(exchange.split.network_ns)
        elif exchange.user_split is not None and not tainted:
            self._phase("held_network", "user", zone).observe(exchange.user_split[0])

    def idled(self, result: IdleResult) -> None:
        """Count one idle connection."""
        told = result.is_good or result.is_bad
        self.idle_connections[str(result.reason) if told else "void"] += 1

    def count_segments(self, segments: Segments, zone: str) -> None:
        """Count what became of a connection's segments."""
        zone = self._known_zone(zone)
        self.segments[zone] = self.segments.get(zone, Segments()) + segments

    def count_limited(self, limited: Limited) -> None:
        """Count what held a connection up since the last time."""
        for by, us in zip(LIMITS, limited, strict=True):
            self.limited_us[by] += us or 0

    def leave_out(self, kind: Cost) -> None:
        """Count what a path's budget did not allow."""
        self.over_budget[kind] += 1

    def observe_resolution(self, resolution: Resolution) -> None:
        """Count one look-up."""
        self.resolutions[str(resolution.problem or "ok")] += 1
        if resolution.duration_ns is not None:
            self._phase("resolve", "user", "").observe(resolution.duration_ns)

    def _phase(self, phase: str, clock: str, zone: str) -> Histogram:
        key = (phase, clock, zone)
        found = self.phases.get(key)
        if found is None:
            found = self.phases[key] = Histogram()
        return found

    def _observe_parts(self, exchange: Exchange, zone: str) -> None:
        split = exchange.split
        self.splits[exchange.refusal or "split"] += 1
        if split is not None and not exchange.resent:
            for part, ns in split.parts():
                self._part(part, zone).observe(ns)

    def _part(self, part: str, zone: str) -> Histogram:
        key = (part, zone)
        found = self.parts.get(key)
        if found is None:
            found = self.parts[key] = Histogram(PART_BOUNDS_S)
        return found

    def keep_zones(self, zones: Set[str], now_ns: int) -> None:
        """Forget zones that no path has been in for ten minutes.

        Args:
            zones: Those that paths are in.
            now_ns: CLOCK_MONOTONIC.
        """
        for zone, unused_ns in list(self._zones.items()):
            if zone in zones:
                self._zones[zone] = None
            elif unused_ns is None:
                self._zones[zone] = now_ns
            elif now_ns - unused_ns >= _ZONE_KEPT_NS:
                del self._zones[zone]
        kept = {"", _OTHER, *self._zones}
        self.phases = {key: value for key, value in self.phases.items() if key[-1] in kept}
        self.parts = {key: value for key, value in self.parts.items() if key[-1] in kept}
        self.segments = {key: value for key, value in self.segments.items() if key in kept}

    def _known_zone(self, zone: str) -> str:
        if zone not in self._zones and len(self._zones) >= _MAX_ZONES:
            return _OTHER
        self._zones[zone] = None
        return zone
