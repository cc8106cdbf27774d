"""What a target is, and how it is written. No I/O.

HOST:PORT                    one path; a name's first address is used
dns:NAME:PORT                the servers at the addresses that the name has
endpointslices:SERVICE:PORT  the servers behind a headless Service, asked of Kubernetes
file_sd                      a list of these, in the form that Prometheus reads
"""

import enum
import ipaddress
import re
from typing import NamedTuple

from twocans_client.evidence.results import Reason
from twocans_core.net.sockets import Address, lacks_interface
from twocans_core.process.values import label
from twocans_core.protocol.messages import Identity

__all__ = ["Kind", "Spec", "Target", "Who", "cut", "parse_spec"]

DEFAULT_PORT = 5000
_SERVICE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_MAX_SHOWN = 60


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
        kind: How its addresses are found. Except with ``ONE``, each may be a path of its own.
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


class Who(NamedTuple):
    """Who a server says that it is; each may be empty."""

    name: str = ""
    node: str = ""
    zone: str = ""
    version: str = ""

    @classmethod
    def of(cls, identity: Identity) -> "Who":
        """Return who it is that greeted us: all of it but the process."""
        return cls(*identity[1:])

    def or_else(self, other: "Who | None") -> "Who":
        """Return this, with what it lacks taken from another."""
        return Who(*(mine or theirs for mine, theirs in zip(self, other or Who(), strict=True)))


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
        raise ValueError(f"{cut(ascii(text))} is no target; {hint}")
    if kind is Kind.ENDPOINTSLICES and not _SERVICE.fullmatch(match[2] or ""):
        raise ValueError(f"{text}: name a Service of our own namespace, without a dot")
    port = int(match[3]) if match[3] else DEFAULT_PORT
    if not 0 < port < 65_536:
        raise ValueError(f"{text}: a port is 1 to 65535")
    try:
        label(text)
    except ValueError as error:
        raise ValueError(f"{cut(ascii(text))} {error}") from None
    spec = Spec(text, match[1] or match[2], port, kind, labels)
    if spec.literal is not None and lacks_interface(ipaddress.ip_address(spec.host)):
        raise ValueError(f"{text}: a link-local address needs its interface: [{spec.host}%eth0]")
    return spec


def cut(text: str) -> str:
    """Return a text as it is shown in a refusal: of a long one the beginning."""
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
