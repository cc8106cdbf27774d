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
    tcp_port,
    words,
)

__all__ = ["CONFIGS", "PROG", "ClientConfig", "ProbeConfig", "SendConfig", "ShotConfig"]

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
        "Seconds that one whole probe may take; 30 at most.",
        default=5.0,
        metavar="SECONDS",
    )
    family: str = option(
        choice("any", "ipv4", "ipv6", "prefer-ipv4", "prefer-ipv6"),
        "Which addresses of a name to use: any; ipv4 or ipv6 alone; or prefer-ipv4 or prefer-ipv6, "
        "the other family's where the name has none of this, or the machine no route to them. What "
        "is written as an address is used as it is.",
        default="any",
        metavar="FAMILY",
    )
    stamps: bool = _as_in_common("stamps")
    tcp_info: bool = _as_in_common("tcp_info")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShotConfig(SendConfig):
    """What every probe needs to know that is not of somebody's text."""

    exchanges: int = option(count, "Requests in one probe.", default=1)
    payload_bytes: int = option(
        between(count, "0", "16777216"),  # 16 MiB
        "Bytes of payload in a request; the server's limit is 65536 unless raised.",
        default=64,
        metavar="N",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeConfig(ShotConfig):
    """Settings of the command ``probe``."""

    count: int = option(positive, "Probes to make.", default=5)
    interval_s: float = option(
        _interval, "Seconds between the starts of two probes.", default=0.2, metavar="SECONDS"
    )
    name: str = _as_in_common("name")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClientConfig(ShotConfig, CommonConfig):
    """Settings of one client process."""

    targets: tuple[str, ...] = option(
        words,
        "What to probe: HOST:PORT; dns:NAME:PORT for the servers at all addresses of a name; "
        "endpointslices:SERVICE:PORT for those behind a headless Service, asked of the Kubernetes "
        "API. The port is 5000 unless given. Repeat it; in the variable separate by commas.",
        default=(),
        flag="--target",
        metavar="HOST:PORT",
    )
    targets_file: str = option(
        str,
        "JSON or YAML file in Prometheus' file_sd form with more targets; read again on change. "
        "YAML (.yml, .yaml) needs PyYAML.",
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
        "together save CPU time and delay each other on the user clock only. 0 disables it.",
        default=0.05,
    )
    held: bool = option(
        boolean,
        "Whether to keep one connection of each path open besides, with an exchange now and then: "
        "yes or no.",
        default=True,
        metavar="YES|NO",
    )
    held_interval_s: float = option(
        _held_interval,
        "Seconds between two exchanges on the connection that is kept open; 30 at most.",
        default=10.0,
        metavar="SECONDS",
    )
    resolve_interval_s: float = option(
        _interval,
        "Seconds between two look-ups of a name, more or less a fifth. While it does not resolve "
        "any more, its old addresses are probed for another ten minutes.",
        default=10.0,
        metavar="SECONDS",
    )
    neighbours: int = option(
        positive,
        "Servers probed at most, of each dns: or endpointslices: target and address family.",
        default=10,
    )
    probe_self: bool = option(
        boolean,
        "Whether to probe the server on our own node too: yes or no. Of dns: and endpointslices: "
        "targets.",
        default=False,
        metavar="YES|NO",
    )
    explore_per_s: float = option(
        between(number, "0.01", "100"),
        "New addresses of dns: targets greeted a second, to learn their node and zone.",
        default=1.0,
        metavar="N",
    )
    max_paths: int = option(
        positive,
        "Paths probed at most, of all targets; each has at most 40 series. Others are left out.",
        default=1_000,
    )
    max_in_flight: int = option(
        positive,
        "Probes under way at once, of all paths; beyond it slots are missed. From half of it on, "
        "each path may have its share, so that dead ones do not blind the others.",
        default=1_000,
    )
    drain_grace_s: float = option(
        seconds,
        "Seconds after a server said that it stops in which its silence is no failure. Longer "
        "where a name gave its address: see dns_cache_s.",
        default=30.0,
    )
    dns_cache_s: float = option(
        seconds,
        "Seconds for which a resolver may give an old answer: the longest cache or TTL on the way. "
        "Who said that it stops, or never answered, may be announced for so long without fault.",
        default=30.0,
    )
    linger_s: float = option(
        seconds,
        "Seconds for which a server that is gone from its dns: or endpointslices: target, and did "
        "not say that it stops, is still probed: so a dead node shows.",
        default=300.0,
    )
    duration_s: float = option(
        seconds,
        "Seconds to run, then report and stop, with the exit code of probe. 0: until SIGTERM.",
        default=0.0,
    )
    output: str = option(
        choice("auto", "table", "json"),
        "What stdout shows: table, json (log lines), or auto: the table on a terminal only. With "
        "the table, log lines go to stderr, or nowhere where that is a terminal too. Warnings that "
        "no row tells are below the table.",
        default="auto",
        metavar="{auto,table,json}",
    )
    log_file: str = option(
        str,
        "File that JSON log lines are appended to, whatever stdout shows; opened anew at SIGHUP.",
        default="",
        metavar="FILE",
    )
    http_port: int = option(tcp_port, "Port for /metrics, /healthz and /readyz.", default=5002)


CONFIGS = (ClientConfig, ProbeConfig, ShotConfig)
"""Of all commands, which may share one file."""
