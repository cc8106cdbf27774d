"""Cans as Prometheus would see them, for ``promtool test rules``.

A world is a set of series with a value for every scrape. Cans and paths are described by what
happens in which minutes; the counters follow, at one probe a second.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from math import ceil
from types import MappingProxyType
from typing import Any, NamedTuple

STEP_S = 30
_BEATS_A_STEP = 50 * STEP_S
GROUPS = ["twocans-paths", "twocans-segments", "twocans-latency", "twocans-processes"]


class Span(NamedTuple):
    """From one minute up to another, something has a value.

    Attributes:
        start: First minute.
        end: First minute after it.
        value: What it is then.
    """

    start: float
    end: float
    value: float = 1.0


ALWAYS = Span(0, 1e9)


def track(spans: Iterable[Span], steps: int, otherwise: float = 0.0) -> list[float]:
    """Return the value at every scrape: that of the last span that it is in."""
    values = [otherwise] * steps
    for span in spans:
        first, end = (min(steps, ceil(minute * 60 / STEP_S)) for minute in span[:2])
        values[first:end] = [span.value] * (end - first)
    return values


class Can(NamedTuple):
    """Who a can is, and the labels of its scrape."""

    name: str
    node: str
    zone: str
    scrape: dict[str, str]


class World:
    """The series of one case.

    Args:
        minutes: How long it lasts.
    """

    def __init__(self, minutes: int) -> None:
        self.minutes = minutes
        self.steps = minutes * 60 // STEP_S + 1
        self.series: dict[str, list[float | None]] = {}

    # --- cans -----------------------------------------------------------------------------------

    def client(self, name: str, node: str = "", zone: str = "", **own: Sequence[Span]) -> Can:
        """Add a client; ``own`` is as `_can` has it."""
        return self._can("client", name, node, zone, **own)

    def server(
        self,
        name: str,
        node: str = "",
        zone: str = "",
        *,
        alive: Sequence[Span] = (ALWAYS,),
        draining: Sequence[Span] = (),
        limit_hits_a_minute: Mapping[str, Sequence[Span]] | None = None,
        queue: Sequence[Span] = (),
        overflows_a_minute: Sequence[Span] = (),
        accept_errors_a_minute: Sequence[Span] = (),
        **own: Sequence[Span],
    ) -> Can:
        """Add a server, and what happens at its port.

        Args:
            name: What it announces.
            node: Machine.
            zone: Zone.
            alive: While 1, it can be scraped.
            draining: While 1, it is about to stop.
            limit_hits_a_minute: By limit.
            queue: Connections that wait to be accepted, of 100.
            overflows_a_minute: Connections dropped by a full queue.
            accept_errors_a_minute: Times that accept() failed.
            own: As `_can` has it.
        """
        can = self._can("server", name, node, zone, alive=alive, **own)
        for gauge, spans in (
            ("draining", draining),
            ("accept_queue_connections", queue),
            ("accept_queue_limit_connections", [Span(0, 1e9, 100)]),
        ):
            self.gauge(f"twocans_server_{gauge}", can.scrape, spans, alive)
        for counter, spans in (
            ("listen_overflows", overflows_a_minute),
            ("accept_errors", accept_errors_a_minute),
        ):
            self.counter(f"twocans_server_{counter}_total", can.scrape, spans, alive)
        limits = {"max_connections": (), "idle_s": (), **(limit_hits_a_minute or {})}
        for limit, hits in limits.items():
            labels = {**can.scrape, "limit": limit}
            self.counter("twocans_server_limit_hits_total", labels, hits, alive)
        return can

    def _can(
        self,
        kind: str,
        name: str,
        node: str,
        zone: str,
        *,
        alive: Sequence[Span] = (ALWAYS,),
        listed: Sequence[Span] = (ALWAYS,),
        lag_s: Sequence[Span] = (),
        stalls_a_minute: Sequence[Span] = (),
        throttled: Sequence[Span] = (),
    ) -> Can:
        """Add what both cans export.

        Args:
            kind: client or server.
            name: What it calls itself.
            node: Machine.
            zone: Zone.
            alive: While 1, it can be scraped; ``up`` is 0 else.
            listed: While 1, it is a target at all.
            lag_s: Mean lag of its loop, s.
            stalls_a_minute: Stalls of 0.2 s.
            throttled: Share of the time taken by a CPU limit.
        """
        port = {"client": 5002, "server": 5001}[kind]
        scrape = {
            "job": f"twocans-{kind}",
            "instance": f"{name}:{port}",
            # As a PodMonitor has it: what the can says of its namespace becomes exported_*.
            "namespace": "of-the-pod",
            "pod": f"twocans-{kind}-{name}",
        }
        # By hand: `up` is 0 where the rest has no value.
        self.gauge("up", scrape, alive, listed)
        own = {"exported_namespace": "its-own", "address": "192.0.2.1"}
        info = {**scrape, **own, "name": name, "node": node, "zone": zone}
        self.gauge(f"twocans_{kind}_info", info, [ALWAYS], alive)
        lag = f"twocans_{kind}_loop_lag_seconds"
        beats, late, total = 0.0, 0.0, 0.0
        rows: dict[str, list[float]] = {"count": [], "sum": [], "0.1": [], "+Inf": []}
        means = track(lag_s, self.steps, 0.0005)
        for mean, stalls in zip(means, track(stalls_a_minute, self.steps), strict=True):
            long = stalls * STEP_S / 60
            beats += _BEATS_A_STEP
            late += long
            total += _BEATS_A_STEP * mean + long * 0.2
            for row, value in zip(rows.values(), (beats, total, beats - late, beats), strict=True):
                row.append(value)
        self._add(f"{lag}_count", scrape, rows["count"], alive)
        self._add(f"{lag}_sum", scrape, rows["sum"], alive)
        for le in ("0.1", "+Inf"):
            self._add(f"{lag}_bucket", {**scrape, "le": le}, rows[le], alive)
        a_minute = [span._replace(value=span.value * 60) for span in throttled]
        self.counter(f"twocans_{kind}_cpu_throttled_seconds_total", scrape, a_minute, alive)
        starved = [span._replace(value=span.value * 0.2) for span in stalls_a_minute]
        for cause, spans in (("starved", starved), ("throttled", a_minute)):
            labels = {**scrape, "cause": cause}
            self.counter(f"twocans_{kind}_stall_seconds_total", labels, spans, alive)
        return Can(name, node, zone, scrape)

    # --- paths ----------------------------------------------------------------------------------

    def path(
        self,
        client: Can,
        server: Can | None,
        *,
        target: str = "dns:servers:5000",
        label: str | None = None,
        family: str = "4",
        fail: Sequence[Span] = (),
        reason: str = "connect_timeout",
        void: Sequence[Span] = (),
        void_reason: str = "draining",
        missed: Sequence[Span] = (),
        scheduled: Sequence[Span] = (ALWAYS,),
        connect_s: Sequence[Span] = (),
        lost: Mapping[str, Sequence[Span]] | None = None,
        segments_a_minute: Mapping[str, float] = MappingProxyType({"forward": 270, "reverse": 270}),
        proxied: Sequence[Span] = (),
        verdicts: Mapping[tuple[str, str, str], Sequence[Span]] = MappingProxyType({}),
        alive: Sequence[Span] = (ALWAYS,),
        restarts: Sequence[float] = (),
    ) -> None:
        """Add a path.

        Args:
            client: One end.
            server: The other; None while nobody has answered.
            target: As configured.
            label: The label ``server``, where it is not the server's name.
            family: 4 or 6.
            fail: Share of the probes that fail.
            reason: Why.
            void: Share that is void.
            void_reason: Why.
            missed: Share of the slots that is missed.
            scheduled: Slots a second; at most 1.
            connect_s: How long connecting takes, s; 0.5 ms else.
            lost: Share of the segments that is lost, by direction; without it nobody counts them.
            segments_a_minute: Sent, by direction.
            proxied: While 1, a proxy is recognised.
            verdicts: When they stand, by name, culprit and direction; 0 if nothing is wrong.
            alive: While 1, the path is exported.
            restarts: Minutes in which the counters begin from 0.
        """
        name = label if label is not None else (server.name if server else "")
        labels = {**client.scrape, "target": target, "server": name, "family": family}
        info = {"node": server.node, "zone": server.zone} if server else {}
        one = [ALWAYS]
        self.gauge("twocans_client_path_info", {**labels, **info, "version": "1"}, one, alive)
        counts = dict.fromkeys(("scheduled", "ok", "fail", "void", "missed", "seconds"), 0.0)
        rows: dict[str, list[float]] = {name: [] for name in counts}
        shares = {"fail": fail, "void": void, "missed": missed}
        tracks = {name: track(spans, self.steps) for name, spans in shares.items()}
        due = track(scheduled, self.steps)
        took = track(connect_s, self.steps, 0.0005)
        for step in range(self.steps):
            if step * STEP_S / 60 in restarts:
                counts = dict.fromkeys(counts, 0.0)
            slots = STEP_S * due[step]
            parts = {name: slots * values[step] for name, values in tracks.items()}
            parts["ok"] = slots - sum(parts.values())
            parts["scheduled"] = slots
            parts["seconds"] = parts["ok"] * took[step]
            for key, value in parts.items():
                counts[key] += value
                rows[key].append(counts[key])
        add = self._add
        for outcome in ("ok", "fail", "void"):
            found = {**labels, "outcome": outcome}
            add("twocans_client_probes_total", found, rows[outcome], alive)
        for outcome, why in (("fail", reason), ("void", void_reason)):
            if rows[outcome][-1]:  # as the client does: a reason has a series once it was
                found = {**labels, "outcome": outcome, "reason": why}
                add("twocans_client_probe_reasons_total", found, rows[outcome], alive)
        add("twocans_client_probes_scheduled_total", labels, rows["scheduled"], alive)
        add("twocans_client_probes_missed_total", labels, rows["missed"], alive)
        counted = [*alive, *(span._replace(value=1 - span.value) for span in proxied)]
        for direction in ("forward", "reverse") if lost is not None else ():
            share = (lost or {}).get(direction, ())
            sent = segments_a_minute[direction]
            gone = [span._replace(value=sent * span.value) for span in share]
            for fate, spans in (("sent", [Span(0, 1e9, sent)]), ("lost", gone)):
                found = {**labels, "direction": direction, "fate": fate}
                self.counter("twocans_client_path_segments_total", found, spans, counted)
        for (verdict, culprit, direction), stands in verdicts.items():
            own = {"verdict": verdict, "culprit": culprit, "direction": direction}
            shown = [span._replace(value=1) for span in stands]
            self.gauge("twocans_client_path_verdict", {**labels, **own}, stands, shown)
        phase = {**labels, "phase": "connect"}
        add("twocans_client_path_phase_seconds_sum", phase, rows["seconds"], alive)
        add("twocans_client_path_phase_seconds_count", phase, rows["ok"], alive)

    # --- series ---------------------------------------------------------------------------------

    def gauge(
        self, name: str, labels: dict[str, str], spans: Sequence[Span], alive: Sequence[Span]
    ) -> None:
        """Add a series that has what its spans say, and 0 else."""
        self._add(name, labels, track(spans, self.steps), alive)

    def counter(
        self,
        name: str,
        labels: dict[str, str],
        a_minute: Sequence[Span],
        alive: Sequence[Span] = (ALWAYS,),
    ) -> None:
        """Add a series that grows by so much a minute."""
        grown = (value * STEP_S / 60 for value in track(a_minute, self.steps))
        values = [*accumulate(grown)]
        self._add(name, labels, values, alive)

    def _add(
        self, name: str, labels: dict[str, str], values: Sequence[float], alive: Sequence[Span]
    ) -> None:
        text = f"{name}{selector(labels)}"
        assert text not in self.series, text
        seen = track(alive, self.steps)
        self.series[text] = [v if ok else None for v, ok in zip(values, seen, strict=True)]

    def labelled(self, target: Mapping[str, str]) -> "World":
        """Return this world as scraped from targets that have these labels, too.

        Where a series has such a label of its own, Prometheus calls that exported_*: the default,
        without honor_labels.
        """
        world = World(self.minutes)
        for text, values in self.series.items():
            name, _, rest = text.partition("{")
            own = dict(re.findall(r'(\w+)="([^"]*)"', rest))
            moved = {f"exported_{key}" if key in target else key: own[key] for key in own}
            world.series[f"{name}{selector({**moved, **target})}"] = values
        return world

    def document(self, rules: str, tests: dict[str, Any]) -> dict[str, Any]:
        """Return the file that promtool reads."""
        return {
            "rule_files": [rules],
            "evaluation_interval": f"{STEP_S}s",
            "group_eval_order": GROUPS,
            "tests": [
                {
                    "interval": f"{STEP_S}s",
                    "input_series": [
                        {"series": name, "values": _notation(values)}
                        for name, values in self.series.items()
                    ],
                    **tests,
                }
            ],
        }


def selector(labels: dict[str, str]) -> str:
    """Write labels as PromQL does; empty ones are none."""
    pairs = (f'{name}="{value}"' for name, value in sorted(labels.items()) if value)
    return f"{{{', '.join(pairs)}}}"


def _notation(values: Sequence[float | None]) -> str:
    words = []
    before: float | None = None
    for value in values:
        if value is None:
            # What a failed scrape, or a scrape without the series, leaves in Prometheus.
            words.append("_" if before is None else "stale")
        else:
            words.append(repr(round(value, 9)))
        before = value
    return " ".join(words)
