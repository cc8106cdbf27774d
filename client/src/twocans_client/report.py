"""What people read: the report, the waterfall, the JSON document. Text only, no I/O."""

import json
import math
from collections import Counter, deque
from collections.abc import Iterable, Mapping

from .results import Outcome, ProbeResult

__all__ = ["Report", "printable", "show_ns", "waterfall"]

_KEPT = 10_000
_UNITS = (("µs", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000))
_BAR = 40

# In the order in which a probe goes through them; indented ones are parts of the one above.
_PHASES = (
    ("resolve", "resolve"),
    ("connect", "connect"),
    ("handshake", "  handshake"),
    ("greet", "greet"),
    ("exchange", "exchange"),
    ("client", "  client"),
    ("network", "  network"),
    ("server", "  server"),
    ("close", "close"),
)


class Report:
    """Collect results and say what they amount to.

    Quantiles are exact, over the newest 10,000 samples of each phase.
    """

    def __init__(self) -> None:
        self.outcomes = dict.fromkeys(Outcome, 0)
        self.reasons: Counter[str] = Counter()
        self.bytes_sent = 0
        self.bytes_received = 0
        self.retransmits = 0
        self._samples: dict[str, deque[int]] = {}
        self._clocks: dict[str, str] = {}

    def add(self, result: ProbeResult) -> None:
        """Take in one result."""
        self.outcomes[result.outcome] += 1
        self.reasons[result.reason] += 1
        self.bytes_sent += result.bytes_sent
        self.bytes_received += result.bytes_received
        self.retransmits += result.retrans or 0
        if result.server_ended is not None:
            self.retransmits += result.server_ended.total_retrans or 0
        for phase, clock, ns in result.phases():
            self._clocks[phase] = clock
            self._samples.setdefault(phase, deque(maxlen=_KEPT)).append(ns)

    def quantile(self, phase: str, q: float) -> int | None:
        """Return the smallest sample that a share of ``q`` is not above; None without any."""
        samples = sorted(self._samples.get(phase, ()))
        if not samples:
            return None
        return samples[max(0, math.ceil(q * len(samples)) - 1)]

    @property
    def exit_code(self) -> int:
        """0 good, 1 degraded, 2 bad, 3 unknown, as monitoring plugins have it."""
        ok, fail = self.outcomes[Outcome.OK], self.outcomes[Outcome.FAIL]
        if fail:
            return 1 if ok else 2
        if not ok:
            return 3
        return 1 if self.retransmits else 0

    def text(self) -> str:
        """Return the report, for people."""
        lines = [f"{'phase':14}{'clock':8}{'p50':>10}{'p99':>10}{'max':>10}{'samples':>9}"]
        for phase, title in _PHASES:
            if phase in self._samples:
                figures = "".join(
                    f"{show_ns(self.quantile(phase, q)):>10}" for q in (0.5, 0.99, 1.0)
                )
                count = len(self._samples[phase])
                lines.append(f"{title:14}{self._clocks[phase]:8}{figures}{count:>9}")
        reasons = ", ".join(
            f"{count} {reason}" for reason, count in self.reasons.most_common() if reason != "ok"
        )
        outcomes = ", ".join(f"{count} {name}" for name, count in self.outcomes.items())
        lines += [
            "",
            f"outcomes     {outcomes}" + (f" ({reasons})" if reasons else ""),
            f"bytes        {self.bytes_sent:,} sent, {self.bytes_received:,} received",
            f"retransmits  {self.retransmits}, both ends together",
        ]
        return "\n".join(lines)

    def document(self, results: Iterable[ProbeResult], target: str) -> str:
        """Return the report as one JSON document; durations in seconds."""
        phases = {
            phase: {
                "clock": self._clocks[phase],
                "samples": len(self._samples[phase]),
                **{
                    name: (self.quantile(phase, q) or 0) / 1e9
                    for name, q in (("p50_s", 0.5), ("p99_s", 0.99), ("max_s", 1.0))
                },
            }
            for phase, _ in _PHASES
            if phase in self._samples
        }
        document = {
            "schema": 1,
            "target": target,
            "outcomes": {str(name): count for name, count in self.outcomes.items()},
            "reasons": dict(self.reasons),
            "bytes_sent": self.bytes_sent,
            "bytes_received": self.bytes_received,
            "retransmits": self.retransmits,
            "phases": phases,
            "probes": [_probe_fields(result) for result in results],
        }
        return json.dumps(document, indent=2)


def _probe_fields(result: ProbeResult) -> dict[str, object]:
    fields: dict[str, object] = {
        "outcome": result.outcome,
        "reason": result.reason,
        "started_s": result.started_real_ns / 1e9,
        "total_s": result.total_ns / 1e9,
        "worst_lag_s": result.worst_lag_ns / 1e9,
    }
    if result.detail:
        fields["detail"] = result.detail
    if result.server is not None:
        names = result.server._asdict()
        fields["server"] = {**names, "instance": result.server.instance.hex()}
    for name, address in (("local", result.local), ("seen_as", result.seen_as)):
        if address is not None:
            fields[name] = list(address)
    phases: dict[str, list[float]] = {}
    for phase, _, ns in result.phases():
        phases.setdefault(phase, []).append(ns / 1e9)
    fields["phases_s"] = phases
    for name, counters in (
        ("client_tcp_info_connected", result.connected),
        ("client_tcp_info", result.ended),
        ("server_tcp_info_greeted", result.server_greeted),
        ("server_tcp_info", result.server_ended),
    ):
        if counters is not None:
            fields[name] = _measured(counters._asdict())
    return fields


def _measured(table: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in table.items() if value is not None}


def waterfall(result: ProbeResult) -> str:
    """Return one probe as bars, one below the other, in the order in which things happened."""
    rows: list[tuple[str, int]] = []
    details: dict[int, list[str]] = {}
    for phase, _, ns in result.phases():
        if phase in ("handshake", "network", "server", "client"):
            details.setdefault(len(rows) - 1, []).append(f"{phase} {show_ns(ns)}")
        else:
            rows.append((phase, ns))
    in_all_ns = result.total_ns + (result.resolve_ns or 0)
    rest_ns = in_all_ns - sum(ns for _, ns in rows)
    if rest_ns > 0 and rows:
        rows.append(("our own", rest_ns))
    total_ns = max(1, sum(ns for _, ns in rows))
    lines = []
    begun_ns = 0
    for index, (phase, ns) in enumerate(rows):
        start = begun_ns * _BAR // total_ns
        width = max(1, (begun_ns + ns) * _BAR // total_ns - start)
        bar = " " * min(start, _BAR - 1) + "█" * width
        note = ", ".join(details.get(index, ()))
        lines.append(f"{phase:10}{show_ns(ns):>10}  {bar:{_BAR + 1}} {note}".rstrip())
        begun_ns += ns
    verdict = result.outcome if result.reason == "ok" else f"{result.outcome}: {result.reason}"
    lines.append(f"{verdict}, {show_ns(in_all_ns)} in all" + _and(result.detail))
    if result.server is not None:
        who = ", ".join(filter(None, (result.server.name, result.server.node, result.server.zone)))
        lines.append(f"server {who or 'unnamed'}, twocans {result.server.version}")
    return "\n".join(lines)


def _and(detail: str) -> str:
    return f" ({printable(detail)})" if detail else ""


def show_ns(ns: int | None) -> str:
    """Return a duration with three digits in the unit that suits it; ``-`` for None."""
    if ns is None:
        return "-"
    unit, size = next((pair for pair in _UNITS if ns < 1000 * pair[1]), _UNITS[-1])
    value = ns / size
    digits = 0 if value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{digits}f} {unit}"


def printable(text: str) -> str:
    """Return a text that a terminal only shows: control characters become ``?``."""
    return "".join(char if char.isprintable() else "?" for char in text)
