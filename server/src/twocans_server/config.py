"""The server's settings."""

import dataclasses

from twocans_core.process.common import CommonConfig
from twocans_core.process.settings import option
from twocans_core.process.values import positive, seconds, tcp_port

from .limits import Limits

__all__ = ["ServerConfig"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerConfig(Limits, CommonConfig):
    """Settings of one server process."""

    host: str = option(
        str,
        "Address to listen on for probes.",
        default="",
        unset="every IPv4 and IPv6 address",
        metavar="ADDRESS",
    )
    port: int = option(
        tcp_port, "Port to listen on for probes; 0 lets the kernel choose.", default=5000
    )
    backlog: int = option(
        positive,
        "Length of the accept queue, in connections; capped by the kernel's somaxconn.",
        default=4096,
    )
    http_port: int = option(
        tcp_port, "Port to serve /metrics, /healthz and /readyz on.", default=5001
    )
    drain_accept_s: float = option(
        seconds,
        "Seconds after SIGTERM during which new connections are still served. Keep it longer than "
        "the clients' interval: then each path learns of the stop and counts no failure.",
        default=5.0,
    )
    drain_s: float = option(
        seconds,
        "Seconds after drain_accept_s during which open connections may finish.",
        default=20.0,
    )
