"""What a target is, and how it is written. No I/O.

HOST:PORT                    one path; a name's first address is used
dns:NAME:PORT                the servers at the addresses that the name has
endpointslices:SERVICE:PORT  the servers behind a headless Service, asked of Kubernetes
file_sd                      a list of these, in the form that Prometheus reads
"""

import enum
import ipaddress
import json
import re
from typing import Any, NamedTuple

from twocans_core.settings import label
from twocans_core.sockets import Address

from .neighbours import Who
from .results import Reason

__all__ = ["Kind", "Spec", "Target", "parse_file_sd", "parse_spec"]

DEFAULT_PORT = 5000
_SERVICE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_MAX_LABELS = 10
_MAX_TARGETS = 10_000


class Kind(enum.StrEnum):
    """How a target's addresses are found. Values are the prefixes that say so."""

    ONE = ""
    DNS = "dns:"
    ENDPOINTSLICES = "endpointslices:"


class Spec(NamedTuple):
    """One target as it was configured.

    Attributes:
        text: As written; a metric label.
        host: Name or address.
        port: TCP port.
        kind: How its addresses are found. But for ``ONE``, each may be a path of its own.
        labels: From the file_sd file.
    """

    text: str
    host: str
    port: int
    kind: Kind = Kind.ONE
    labels: tuple[tuple[str, str], ...] = ()

    @property
    def literal(self) -> Address | None:
        """The address, where no name has to be looked up."""
        if self.kind is Kind.ENDPOINTSLICES:
            return None
        try:
            return Address(str(ipaddress.ip_address(self.host)), self.port)
        except ValueError:
            return None


class Target(NamedTuple):
    """What one path goes to.

    Attributes:
        spec: What it was made from.
        address: Where to connect to; None while the name does not resolve.
        problem: Why there is no address; None where there is one.
        who: Who is there, as far as it is known before the first probe.
    """

    spec: Spec
    address: Address | None
    problem: Reason | None = None
    who: Who | None = None

    @property
    def family(self) -> str:
        """``4`` or ``6``; ``""`` while the name does not resolve."""
        return "" if self.address is None else self.address.family

    @property
    def key(self) -> str:
        """What makes it another path: the configured text, and of a name with many the address."""
        if self.spec.kind is not Kind.ONE and self.address is not None:
            return f"{self.spec.text} {self.address.host}"
        return self.spec.text


def parse_spec(text: str, labels: tuple[tuple[str, str], ...] = ()) -> Spec:
    """Read HOST, HOST:PORT, [IPV6]:PORT, dns:NAME:PORT or endpointslices:SERVICE:PORT.

    Raises:
        ValueError: It is none of them; the message says what to write.
    """
    kind = next((kind for kind in Kind if kind and text.startswith(kind)), Kind.ONE)
    rest = text.removeprefix(kind)
    match = re.fullmatch(r"(?:\[([^\]]+)\]|([^:\[\]/\s]+))(?::([0-9]{1,5}))?", rest)
    if match is None or not text.isprintable():
        hint = "write HOST:PORT, [IPV6]:PORT, dns:NAME:PORT or endpointslices:SERVICE:PORT"
        raise ValueError(f"{text!a} is no target; {hint}")
    if kind is Kind.ENDPOINTSLICES and not _SERVICE.fullmatch(match[2] or ""):
        raise ValueError(f"{text}: name a Service of our own namespace, without a dot")
    port = int(match[3]) if match[3] else DEFAULT_PORT
    if not 0 < port < 65_536:
        raise ValueError(f"{text}: a port is 1 to 65535")
    return Spec(label(text), match[1] or match[2], port, kind, labels)


def parse_file_sd(text: str) -> list[Spec]:
    """Read ``[{"targets": ["host:port", ...], "labels": {...}}, ...]``.

    Raises:
        ValueError: It is not of that form; the message says where.
    """
    try:
        groups = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(groups, list):
        raise ValueError("want a list of groups")
    specs: list[Spec] = []
    for number, group in enumerate(groups):
        if not isinstance(group, dict) or not isinstance(group.get("targets"), list):
            raise ValueError(f"group {number}: want an object with a list of targets")
        labels = _read_labels(group.get("labels", {}), number)
        for text in group["targets"]:
            if not isinstance(text, str):
                raise ValueError(f"group {number}: {text!a} is no text")
            specs.append(parse_spec(text, labels))
        if len(specs) > _MAX_TARGETS:
            raise ValueError(f"more than {_MAX_TARGETS} targets")
    return specs


def _read_labels(table: Any, number: int) -> tuple[tuple[str, str], ...]:
    if not isinstance(table, dict) or len(table) > _MAX_LABELS:
        raise ValueError(f"group {number}: want at most {_MAX_LABELS} labels")
    for name in table:
        if not _LABEL_NAME.fullmatch(name):
            raise ValueError(f"group {number}: {name!a} is no label name")
    return tuple((name, label(str(value))) for name, value in sorted(table.items()))
