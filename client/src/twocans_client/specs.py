"""What a target is, and how it is written. No I/O.

HOST:PORT          one path; a name's first address is used
dns:NAME:PORT      one path for each address that the name has
file_sd            a list of both, in the form that Prometheus reads
"""

import ipaddress
import json
import re
from typing import Any, NamedTuple

from twocans_core.settings import label
from twocans_core.sockets import Address

from .results import Reason

__all__ = ["Spec", "Target", "parse_file_sd", "parse_spec"]

DEFAULT_PORT = 5000
_DNS_PREFIX = "dns:"
_LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_MAX_LABELS = 10
_MAX_TARGETS = 10_000


class Spec(NamedTuple):
    """One target as it was configured.

    Attributes:
        text: As written; a metric label.
        host: Name or address.
        port: TCP port.
        every: Whether every address of the name is a path of its own.
        labels: From the file_sd file.
    """

    text: str
    host: str
    port: int
    every: bool = False
    labels: tuple[tuple[str, str], ...] = ()

    @property
    def literal(self) -> Address | None:
        """The address, where no name has to be looked up."""
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
    """

    spec: Spec
    address: Address | None
    problem: Reason | None = None

    @property
    def family(self) -> str:
        """``4`` or ``6``; ``""`` while the name does not resolve."""
        return "" if self.address is None else "6" if ":" in self.address.host else "4"

    @property
    def key(self) -> str:
        """What makes it another path: the configured text, and with ``dns:`` the address."""
        if self.spec.every and self.address is not None:
            return f"{self.spec.text} {self.address.host}"
        return self.spec.text


def parse_spec(text: str, labels: tuple[tuple[str, str], ...] = ()) -> Spec:
    """Read HOST, HOST:PORT, [IPV6]:PORT or dns:NAME:PORT.

    Raises:
        ValueError: It is none of them; the message says what to write.
    """
    rest = text.removeprefix(_DNS_PREFIX)
    match = re.fullmatch(r"(?:\[([^\]]+)\]|([^:\[\]/\s]+))(?::([0-9]{1,5}))?", rest)
    if match is None or not text.isprintable():
        hint = "write HOST:PORT, [IPV6]:PORT or dns:NAME:PORT"
        raise ValueError(f"{text!a} is no target; {hint}")
    port = int(match[3]) if match[3] else DEFAULT_PORT
    if not 0 < port < 65_536:
        raise ValueError(f"{text}: a port is 1 to 65535")
    return Spec(label(text), match[1] or match[2], port, rest != text, labels)


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
