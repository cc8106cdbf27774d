"""Write the parts of docs/ that are made from the code.

python -m scripts.generate_docs           write them
python -m scripts.generate_docs --check   exit 1 when one of them is stale
"""

import ast
import inspect
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path as File
from typing import TYPE_CHECKING, Any, cast

from prometheus_client.metrics_core import Metric

from scripts.generated import write_or_check
from scripts.verdicts_page import verdicts
from twocans_client.config import ClientConfig, DiagnoseConfig, ProbeConfig, SendConfig
from twocans_client.discovery.resolver import Resolution
from twocans_client.discovery.specs import Target, parse_spec
from twocans_client.evidence import results
from twocans_client.evidence.loss import Fates, Segments
from twocans_client.evidence.results import OUTCOMES, Exchange, Outcome, ProbeResult, Reason
from twocans_client.evidence.split import Stamps
from twocans_client.export.metrics import ClientCollector
from twocans_client.export.snapshot import View
from twocans_client.paths.path import Path
from twocans_client.paths.tally import ClientTally
from twocans_client.report.next_steps import NEXT_STEPS
from twocans_client.verdicts.engine import AT_ONCE, Verdict
from twocans_client.verdicts.own_side import LOCAL_PORTS
from twocans_client.verdicts.verdict import Culprit, Finding
from twocans_core.host.stalls import StallWatch
from twocans_core.kernel.tcpinfo import AcceptQueue
from twocans_core.process.common import CommonConfig
from twocans_core.process.http import HttpServer
from twocans_core.process.settings import rows
from twocans_core.process.telemetry import SelfCollector, make_registry
from twocans_core.protocol.session import ALLOWANCE_BYTES
from twocans_server.config import ServerConfig
from twocans_server.limits import Limits
from twocans_server.metrics import ServerCollector
from twocans_server.tally import ServerTally

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

DOCS = File(__file__).parent.parent / "docs"
_STAMPS = Stamps(0, 1, 2, 3, 4, 5, 6, 7, 10, 1)
_STAMPED = Exchange.of(1, 10, _STAMPS)
_EXCHANGES = [
    Exchange.of(1, 10, stamps, resent=resent)
    for stamps in (_STAMPS, _STAMPS._replace(t1k=None))
    for resent in (False, True)
]
_NOTE = "<!-- Made by `make docs` from the code. Edit the code. -->\n"


def main() -> int:
    """Write or check; returns the exit code."""
    return write_or_check({DOCS / name: make for name, make in PAGES.items()}, __doc__, None)


# --- configuration.md -----------------------------------------------------------------------

_SETTINGS = """\
Every setting can be given as a flag, as an environment variable or in a TOML file
(`--config FILE` or `TWOCANS_CONFIG`), in that order; otherwise its default applies.
In the file, a setting has its variable's name in lower case, without `TWOCANS_`.
One file may hold the settings of all commands of a program.
A duration is in seconds, or has a unit: `500ms`, `2s`, `5m`.
An empty variable counts as not set.
A value in quotation marks is refused: an env file would make them part of the value.
A wrong setting is refused with exit code 3.
`--print-config` prints every setting and where it came from.
"""

_LIMITS = """\
What a client may ask of the server.
`twocans_server_limit_hits_total{limit="..."}` counts each time that one is reached, by its name.
"""

_BOUNDS = f"""\
Two limits are not settings.
On each connection the server sends at most {ALLOWANCE_BYTES:,} bytes more than it received
(label `allowance`).
At seven eighths of the cgroup's memory limit the server accepts no connection, and closes
others until there is room (label `memory`): first those without a greeting, then those that
hold most, then those that have been silent for longest.
"""

_TARGETS_FILE = """\
`targets_file` names a file in Prometheus' `file_sd` format: JSON, or YAML if its name ends
in `.yml` or `.yaml` and PyYAML is installed (`pip install 'twocans-client[yaml]'`; the image
does not include it).
It is read again when it changes; while it cannot be read, the last good list stays.
A wrong group, target or label is left out alone: the log event `targets_refused` names it,
and `twocans_client_targets_refused` counts it.
Labels appear on `twocans_client_path_info`, prefixed with `label_`.
Those that begin with `__` are dropped, as in Prometheus.

```json
[{"targets": ["server:5000", "dns:servers.example:5000"], "labels": {"team": "net"}}]
```
"""


def configuration() -> str:
    """Return docs/configuration.md."""
    limits = {row.name for row in rows(Limits)}
    server = [row for row in rows(ServerConfig) if row.name not in limits]
    return "\n".join(
        [
            "# Configuration",
            "",
            _NOTE,
            _SETTINGS,
            "## `twocans-server`",
            "",
            *_settings_table(server),
            "",
            "### Limits",
            "",
            _LIMITS,
            *_limits_table(),
            "",
            _BOUNDS,
            "## `twocans-client run`",
            "",
            *_settings_table(rows(ClientConfig)),
            "",
            "### Targets from a file",
            "",
            _TARGETS_FILE,
            "## `twocans-client probe`",
            "",
            *_settings_table(rows(ProbeConfig)),
            "",
            "## `twocans-client diagnose`",
            "",
            *_settings_table(rows(DiagnoseConfig)),
            "",
            "## `twocans-client send`",
            "",
            *_settings_table(rows(SendConfig)),
            "",
        ]
    )


def _settings_table(settings: Iterable[Any]) -> list[str]:
    lines = ["| flag | variable | default | |", "|---|---|---|---|"]
    for row in settings:
        default = f"`{row.default}`" if row.default else row.metadata.get("unset", "none")
        cells = (f"`{row.flag}`", f"`{row.variable}`", default, row.metadata["help"])
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _limits_table() -> list[str]:
    lines = ["| limit and flag | default | of what | beyond it |", "|---|---:|---|---|"]
    for row in rows(Limits):
        default = f"{int(row.default):,}" if row.default.isdigit() else row.default
        cells = (f"`{row.flag}`", default, row.metadata["help"], row.metadata["beyond"])
        lines.append(f"| {' | '.join(cells)} |")
    return lines


# --- metrics.md -----------------------------------------------------------------------------

_METRICS = """\
Served at `/metrics`: the server's on port 5001, the client's on port 5002.
Durations are in seconds.
[measuring.md](measuring.md) defines where each phase begins and ends and on which clock, and
[the words](measuring.md#words) used here.
Both processes also export prometheus_client's `process_*` (descriptors, memory, CPU) and
`python_info`.

The series of a path have the labels `target`, as configured; `server`, the name that the
server announced; and `family`, `4` or `6`.
`twocans_client_path_info` has the rest of what is known of the server.
Before it first answers, `server` is the name of its node, if known, or else the host of the
target. Equal names of one target are numbered.
It is never an address: for that, see `path_added` in the log.

A path has at most 40 series, which disappear with it.
The first four reasons for which its probes failed have a name, later ones are `other`.
A verdict has a series while it stands; four at most do.
Its counters start from zero when another server takes over the address.

What was not measured has no series, or no sample: it is never 0.
While a proxy is recognised on the path there is no `twocans_client_path_segments_total`, but
`twocans_client_retransmitted_segments_total` instead.
The parts of exchanges are absent where kernels take no timestamps (`--stamps no`).
The segment counters stand still where a kernel has no counters (gVisor).

`listen_overflows` and `listen_drops` count every program in the network namespace, since it
was created: look at their growth.
"""


def metrics() -> str:
    """Return docs/metrics.md."""
    return "\n".join(
        [
            "# Metrics",
            "",
            _NOTE,
            _METRICS,
            "## Client",
            "",
            *_metrics_table(client_families()),
            "",
            "`scheduled = ok + fail + void + missed + in flight`, at every scrape, for every path.",
            "",
            "### Outcomes and reasons",
            "",
            "| outcome | reason | |",
            "|---|---|---|",
            *(
                f"| {OUTCOMES[reason]} | `{reason}` | {text} |"
                for reason, text in _reason_texts().items()
            ),
            "",
            "## Server",
            "",
            *_metrics_table(server_families()),
            "",
        ]
    )


def client_families(
    *, paths: int = 1, proxied: int = 1, zones: int = 1, healthy: bool = False
) -> list[Metric]:
    """Return every family that a client can export, each with every label it can have.

    Args:
        paths: How many it probes.
        proxied: How many more, with a proxy on each.
        zones: In how many zones they are.
        healthy: Without what only shows once something went wrong: reasons, verdicts, exchanges
            without timestamps.
    """
    tally = ClientTally()
    reasons = [Reason.OK] if healthy else list(Reason)
    exchanges = [_STAMPED] if healthy else _EXCHANGES
    for number in range(zones):
        for sized in (None, _STAMPED):
            tally.observe(_result(Reason.OK, exchanges, sized), f"zone-{number}")
        for exchange in exchanges:
            tally.observe_held(exchange, f"zone-{number}", tainted=False)
        tally.count_segments(Segments(Fates(damaged=0), Fates(damaged=0)), f"zone-{number}")
    tally.observe_resolution(Resolution((), 1))
    probed = [
        Path(Target(parse_spec(f"server-{number}:5000"), None), drain_grace_ns=0)
        for number in range(paths + proxied)
    ]
    for number, path in enumerate(probed):
        path.is_counted = number < paths
        for reason in reasons:
            path.begin()
            # Several: a direction is told of what was seen often enough.
            result = _result(reason, [_STAMPED] * 10)
            path.record(result)
            path.measure(result)
        for culprit in [] if healthy else [*Culprit][:AT_ONCE]:
            finding = Finding(LOCAL_PORTS, culprit, "")
            path.verdicts[finding.key] = Verdict(finding, 0, 0)
    loop = cast("AbstractEventLoop", _SameThread())
    view = View("", probed, discovered={"dns:servers:5000": len(probed)})
    if not healthy:
        view = view._replace(unusable={("dns:servers:5000", "6"): 1})
    return _families("client", ClientCollector(tally, lambda: view, loop))


def _result(
    reason: Reason, exchanges: list[Exchange], sized: Exchange | None = None
) -> ProbeResult:
    return ProbeResult(
        intended_ns=0,
        started_ns=0,
        started_real_ns=0,
        ended_ns=9,
        dialled=True,
        reason=reason,
        connect_ns=1,
        handshake_ns=1,
        greet_ns=1,
        accept_ns=1,
        close_ns=1,
        exchanges=exchanges,
        is_sized=sized is not None,
        sized=sized,
    )


def server_families() -> list[Metric]:
    """Return every family that a server can export, each with every label it can have."""
    tally = ServerTally()
    tally.protocol_errors["too_big"] = 1
    return _families("server", ServerCollector(tally, lambda: AcceptQueue(0, 1), lambda: False))


class _SameThread:
    """A loop that is only asked to call something soon."""

    def call_soon_threadsafe(self, callback: Callable[[], None]) -> None:
        callback()


def _families(role: str, collector: Any) -> list[Metric]:
    registry = make_registry(
        SelfCollector(role, StallWatch(), None, CommonConfig().about()), collector
    )
    server = HttpServer(
        "127.0.0.1", 0, registry, role=role, is_healthy=lambda: True, is_ready=lambda: True
    )
    server.server_close()
    families = [family for family in registry.collect() if family.name.startswith("twocans_")]
    return sorted(families, key=lambda family: family.name)


def _metrics_table(families: Iterable[Metric]) -> list[str]:
    lines = ["| metric | type | labels | |", "|---|---|---|---|"]
    for family in families:
        suffix = "_total" if family.type == "counter" else ""
        names = {name: None for sample in family.samples for name in sample.labels}
        labels = ", ".join(f"`{name}`" for name in names if name not in ("le", "quantile"))
        lines.append(
            f"| `{family.name}{suffix}` | {family.type} | {labels} | {family.documentation} |"
        )
    return lines


def _reason_texts() -> dict[Reason, str]:
    """Read what stands below each reason in results.py: enum members have no docstrings."""
    tree = ast.parse(inspect.getsource(results))
    (body,) = [
        node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Reason"
    ]
    texts = {Reason.OK: "All went well."}
    for node, text in pairwise(body):
        match node, text:
            case (
                ast.Assign(value=ast.Constant(value=str(value))),
                ast.Expr(value=ast.Constant(value=str(words))),
            ):
                texts[Reason(value)] = " ".join(words.split())
    missing = set(Reason) - texts.keys()
    if missing:
        raise SystemExit(f"no text for {', '.join(missing)} in results.py")
    order = [*Outcome]
    return dict(sorted(texts.items(), key=lambda item: order.index(OUTCOMES[item[0]])))


# --- logs.md --------------------------------------------------------------------------------

_BEGIN, _END = "| reason | what it proves | look next |\n", "\n## Health"


def logs() -> str:
    """Return docs/logs.md with its table of next steps made anew; the rest is written by hand."""
    before, rest = (DOCS / "logs.md").read_text().split(_BEGIN)
    _, after = rest.split(_END)
    table = [f"| `{reason}` | {step.proves} | {step.look} |" for reason, step in NEXT_STEPS.items()]
    return "\n".join([f"{before}{_BEGIN}|---|---|---|", *table, f"{_END}{after}"])


PAGES = {
    "configuration.md": configuration,
    "metrics.md": metrics,
    "logs.md": logs,
    "verdicts.md": verdicts,
}

if __name__ == "__main__":
    raise SystemExit(main())
