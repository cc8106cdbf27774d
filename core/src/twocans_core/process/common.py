"""The settings that the server and the client share."""

import dataclasses
import os

from .settings import option
from .values import boolean, choice, label, place, tcp_port

__all__ = ["CommonConfig"]

_PLACE = ("node", "zone", "namespace", "address")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CommonConfig:
    """Settings of one process, server or client."""

    name: str = option(place, "Name of this process.", default="", unset="the machine's host name")
    node: str = option(place, "Machine that this process runs on, for labels.", default="")
    zone: str = option(place, "Failure domain that this process runs in, for labels.", default="")
    namespace: str = option(place, "Kubernetes namespace that this process runs in.", default="")
    address: str = option(
        label,
        "IP address at which other hosts reach this process, for the log and the metric _info.",
        default="",
    )
    http_host: str = option(
        str,
        "Address to serve /metrics, /healthz and /readyz on.",
        default="",
        unset="every address",
        metavar="ADDRESS",
    )
    http_port: int = option(tcp_port, "Port to serve /metrics, /healthz and /readyz on.", default=0)
    stamps: bool = option(
        boolean,
        "Whether to request kernel timestamps: yes or no. Without them, every duration except the "
        "handshake is on the user clock.",
        default=True,
        metavar="YES|NO",
    )
    tcp_info: bool = option(
        boolean,
        "Whether to read the kernel's counters of each connection (TCP_INFO): yes or no. Without "
        "them loss is unknown.",
        default=True,
        hidden=True,
    )
    metrics: bool = option(
        boolean,
        "Whether to keep metrics: yes or no. With no, /metrics answers 404; /healthz and /readyz "
        "still work.",
        default=True,
        hidden=True,
    )
    log_level: str = option(
        choice("debug", "info", "warning", "error"),
        "Lowest level to log: debug, info, warning or error.",
        default="info",
        metavar="LEVEL",
    )

    def about(self) -> dict[str, str]:
        """Return who this process is: the fields of its ``_info`` metric."""
        name = self.name or os.uname().nodename
        return {"name": name, **{field: getattr(self, field) for field in _PLACE}}

    def where(self) -> dict[str, str]:
        """Return where it runs, as far as configured, for its first log line."""
        fields = {
            "k8s.node.name": self.node,
            "cloud.availability_zone": self.zone,
            "k8s.namespace.name": self.namespace,
            "network.local.address": self.address,
        }
        return {key: value for key, value in fields.items() if value}
