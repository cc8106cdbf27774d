"""The client's settings: of the service, and of the one-shot commands."""

import dataclasses
from typing import Any

from twocans_core.process.common import CommonConfig
from twocans_core.process.settings import option
from twocans_core.process.values import (
    between,
    boolean,
    choice,
    count,
    number,
    positive,
    seconds,
    size,
    tcp_port,
    words,
)

__all__ = [
    "CONFIGS",
    "PROG",
    "ClientConfig",
    "DiagnoseConfig",
    "ProbeConfig",
    "SendConfig",
    "ShotConfig",
]

PROG = "twocans-client"


_interval = between(seconds, "1ms", "24h")
# The kernel gives up by then anyway.
_timeout = between(seconds, "1ms", "30s")
# Middleboxes forget what is silent for longer.
_held_interval = between(seconds, "10ms", "30s")


def _as_in_common(name: str) -> Any:
    """Declare a field as ``CommonConfig`` has it."""
    (same,) = (field for field in dataclasses.fields(CommonConfig) if field.name == name)
    return dataclasses.field(default=same.default, metadata=same.metadata)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SendConfig:
    """Settings of the command ``send``: what every probe needs to know."""

    timeout_s: float = option(
        _timeout,
        "Time limit of a whole probe in seconds; 30 at most.",
        default=5.0,
        metavar="SECONDS",
    )
    family: str = option(
        choice("any", "ipv4", "ipv6", "prefer-ipv4", "prefer-ipv6"),
        "Which addresses of a name to use: any; ipv4 or ipv6 only; prefer-ipv4 or prefer-ipv6, "
        "which fall back to the other family if the name has no address of this one, or the "
        "machine no route to it. A literal address is used as it is.",
        default="any",
        metavar="FAMILY",
    )
    stamps: bool = _as_in_common("stamps")
    tcp_info: bool = _as_in_common("tcp_info")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShotConfig(SendConfig):
    """What every probe needs to know that is not of somebody's text."""

    exchanges: int = option(count, "Exchanges in one probe.", default=1)
    payload_bytes: int = option(
        between(count, "0", "16777216"),  # 16 MiB
        "Payload of a request in bytes; the server's limit is 65536 unless raised.",
        default=64,
        metavar="N",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeConfig(ShotConfig):
    """Settings of the command ``probe``."""

    count: int = option(positive, "Number of probes.", default=5)
    interval_s: float = option(
        _interval, "Seconds between the starts of two probes.", default=0.2, metavar="SECONDS"
    )
    name: str = _as_in_common("name")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiagnoseConfig(SendConfig):
    """Settings of the command ``diagnose``."""

    watch_s: float = option(
        between(seconds, "1s", "10m"),
        "Most seconds for which the path is watched; less where all is well, or a fault is found "
        "sooner. The load afterwards takes three more.",
        default=16.0,
        metavar="SECONDS",
    )
    idle_s: float = option(
        between(seconds, "0s", "24h"),
        "Seconds for which idle connections are watched as well, to find out after which silence "
        "connections are cut. 0: none.",
        default=0.0,
        flag="--idle",
        metavar="SECONDS",
    )
    name: str = _as_in_common("name")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClientConfig(ShotConfig, CommonConfig):
    """Settings of one client process."""

    targets: tuple[str, ...] = option(
        words,
        "What to probe: HOST:PORT; dns:NAME:PORT for the servers at all addresses of a name; "
        "endpointslices:SERVICE:PORT for the servers of a headless Service, from the Kubernetes "
        "API. The default port is 5000. Repeatable; in the variable, separate targets by commas.",
        default=(),
        flag="--target",
        metavar="HOST:PORT",
    )
    targets_file: str = option(
        str,
        "JSON or YAML file with more targets, in Prometheus' file_sd format; read again when it "
        "changes. YAML (.yml, .yaml) needs PyYAML.",
        default="",
        metavar="FILE",
    )
    interval_s: float = option(
        _interval,
        "Seconds between the starts of two probes of one path.",
        default=1.0,
        metavar="SECONDS",
    )
    grid_s: float = option(
        seconds,
        "Align the starts of all paths' probes to a grid of this many seconds. Probes that start "
        "together save CPU time, and delay each other on the user clock only. 0 disables it.",
        default=0.05,
    )
    held: bool = option(
        boolean,
        "Whether each path keeps one connection open beside its probes (the held connection): yes "
        "or no.",
        default=True,
        metavar="YES|NO",
    )
    held_interval_s: float = option(
        _held_interval,
        "Seconds between two exchanges on a held connection; 30 at most.",
        default=10.0,
        metavar="SECONDS",
    )
    sized_interval_s: float = option(
        seconds,
        "Most seconds between two sized exchanges of one path: the last of a probe, eight full "
        "segments and a short tail, as far as the server takes it. They show what only large "
        "packets meet. Every twentieth probe has one in any case. 0 disables them.",
        default=60.0,
    )
    idle_connections: int = option(
        between(count, "0", "16"),
        "Connections of each path that say nothing for long and are then used once, to find out "
        "after which silence connections are cut. Each needs a descriptor here and a place at the "
        "server. 0 disables them.",
        default=3,
        metavar="N",
    )
    budget: int = option(
        between(size, "1kB", "1000GB"),
        "Most bytes that one path may cost an hour, both directions together, with the headers of "
        "IP and TCP; 200MB is 444 kbit/s. Beyond it extras are left out first, then slots are "
        "missed. What the settings cannot do within it is refused at start.",
        default=200_000_000,
        metavar="BYTES",
    )
    resolve_interval_s: float = option(
        _interval,
        "Seconds between two look-ups of a name, plus or minus a fifth. If the look-ups fail, "
        "known addresses are probed for ten more minutes.",
        default=10.0,
        metavar="SECONDS",
    )
    neighbours: int = option(
        positive,
        "Most servers to probe for each dns: or endpointslices: target and address family.",
        default=10,
    )
    probe_self: bool = option(
        boolean,
        "Whether to probe the server on our own node too, for dns: and endpointslices: targets: "
        "yes or no.",
        default=False,
        metavar="YES|NO",
    )
    explore_per_s: float = option(
        between(number, "0.01", "100"),
        "New addresses of dns: targets to greet per second, to learn their node and zone.",
        default=1.0,
        metavar="N",
    )
    max_paths: int = option(
        positive,
        "Maximum number of paths to probe, over all targets; the rest are left out. Each path has "
        "at most 40 series.",
        default=1_000,
    )
    max_in_flight: int = option(
        positive,
        "Most probes in flight, over all paths; beyond it slots are missed. From half of it on "
        "each path is limited to its share, so that dead paths do not starve the others.",
        default=1_000,
    )
    drain_grace_s: float = option(
        seconds,
        "Seconds after a server announced its stop during which its silence is not a failure. "
        "Longer if a name gave its address: see dns_cache_s.",
        default=30.0,
    )
    dns_cache_s: float = option(
        seconds,
        "Seconds for which a resolver may give an old answer: the longest cache or TTL on the way "
        "to it. For that long a server that announced its stop, or never answered, may still be "
        "listed and is not a failure.",
        default=30.0,
    )
    linger_s: float = option(
        seconds,
        "Seconds for which a server is still probed that left its dns: or endpointslices: target "
        "without announcing its stop: so a dead node shows.",
        default=300.0,
    )
    duration_s: float = option(
        seconds,
        "Seconds to run; then report, and exit like probe. 0: until SIGTERM.",
        default=0.0,
    )
    output: str = option(
        choice("auto", "table", "json"),
        "What stdout shows: table; json (log lines); auto: the table on a terminal, else json. "
        "With the table, log lines go to stderr unless that is a terminal too; warnings that are "
        "in no row appear below the table.",
        default="auto",
        metavar="{auto,table,json}",
    )
    log_file: str = option(
        str,
        "File to append JSON log lines to, independent of output; reopened on SIGHUP.",
        default="",
        metavar="FILE",
    )
    http_port: int = option(
        tcp_port, "Port to serve /metrics, /healthz and /readyz on.", default=5002
    )


CONFIGS = (ClientConfig, ProbeConfig, ShotConfig, DiagnoseConfig)
"""Of all commands, which may share one file."""
