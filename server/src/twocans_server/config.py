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
        "Address to listen on.",
        default="",
        unset="every IPv4 and IPv6 address",
        metavar="ADDRESS",
    )
    port: int = option(tcp_port, "Port to listen on; 0 lets the kernel choose.", default=5000)
    backlog: int = option(
        positive, "Connections that may wait to be accepted; capped by somaxconn.", default=4096
    )
    http_port: int = option(tcp_port, "Port for /metrics, /healthz and /readyz.", default=5001)
    drain_accept_s: float = option(
        seconds,
        "Seconds after SIGTERM in which new connections are still served. Longer than the clients' "
        "interval: then each path hears of the stop and counts no failure.",
        default=5.0,
    )
    drain_s: float = option(
        seconds, "Seconds after that in which open connections may finish.", default=20.0
    )
