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
from collections.abc import Iterator
from typing import Any, NamedTuple

from twocans_client.evidence.results import Reason
from twocans_core.net.sockets import Address, lacks_interface
from twocans_core.process.values import label

from .neighbours import Who

__all__ = ["FileSd", "Kind", "Spec", "Target", "parse_file_sd", "parse_spec"]

DEFAULT_PORT = 5000
_SERVICE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_MAX_LABELS = 64
_MAX_LABEL = 128
_MAX_SHOWN = 60
_MAX_TARGETS = 10_000
# What is written in YAML is read by Python code, some 300 KB a second, and no probe goes on.
_MAX_YAML = 256 * 1024


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


class FileSd(NamedTuple):
    """What a file_sd file says.

    Attributes:
        specs: Its targets.
        refused: What of it is not taken, and why: groups, targets, labels.
    """

    specs: list[Spec]
    refused: list[str]


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
        raise ValueError(f"{_cut(ascii(text))} is no target; {hint}")
    if kind is Kind.ENDPOINTSLICES and not _SERVICE.fullmatch(match[2] or ""):
        raise ValueError(f"{text}: name a Service of our own namespace, without a dot")
    port = int(match[3]) if match[3] else DEFAULT_PORT
    if not 0 < port < 65_536:
        raise ValueError(f"{text}: a port is 1 to 65535")
    try:
        label(text)
    except ValueError as error:
        raise ValueError(f"{_cut(ascii(text))} {error}") from None
    spec = Spec(text, match[1] or match[2], port, kind, labels)
    if spec.literal is not None and lacks_interface(ipaddress.ip_address(spec.host)):
        raise ValueError(f"{text}: a link-local address needs its interface: [{spec.host}%eth0]")
    return spec


def parse_file_sd(text: str, *, is_yaml: bool = False) -> FileSd:
    """Read ``[{"targets": ["host:port", ...], "labels": {...}}, ...]``.

    What is wrong in it costs no more than itself: the rest is taken.

    Args:
        text: The file's.
        is_yaml: Whether it may be YAML; that needs PyYAML, unless it is JSON all the same.

    Raises:
        ValueError: It is no list of groups; the message says where.
    """
    try:
        groups = _load(text, is_yaml)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(groups, list):
        raise ValueError("want a list of groups")
    file = FileSd([], [])
    for number, group in enumerate(groups, 1):
        for problem in _read_group(group, file.specs):
            file.refused.append(f"group {number} of {len(groups)}: {problem}")
        if len(file.specs) >= _MAX_TARGETS:
            break
    return file


def _load(text: str, is_yaml: bool) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        if not is_yaml:
            raise ValueError(f"not JSON: {error}") from None
    if len(text) > _MAX_YAML:
        raise ValueError(f"YAML of over {_MAX_YAML} characters takes too long; write it as JSON")
    try:
        import yaml
    except ImportError:
        raise ValueError(
            "YAML cannot be read without PyYAML: pip install 'twocans-client[yaml]', or write the "
            "file as JSON"
        ) from None

    class Loader(yaml.SafeLoader):
        """Takes a scalar as it is written, as Prometheus does: ``01`` is no number."""

        yaml_implicit_resolvers = {  # noqa: RUF012 - as the base class has it
            first: [(tag, pattern) for tag, pattern in pairs if tag.endswith((":null", ":merge"))]
            for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

    try:
        return Loader(text).get_single_data()
    except yaml.YAMLError as error:
        raise ValueError(f"not YAML: {' '.join(str(error).split())}") from None


def _read_group(group: Any, specs: list[Spec]) -> Iterator[str]:
    """Add a group's targets to the list, and yield what of it is not taken."""
    if not isinstance(group, dict) or not isinstance(group.get("targets"), list):
        yield "want an object with a list of targets"
        return
    labels: dict[str, str] = {}
    yield from _read_labels(group.get("labels"), labels)
    pairs = tuple(sorted(labels.items()))
    for text in group["targets"]:
        if len(specs) >= _MAX_TARGETS:
            yield f"of all groups {_MAX_TARGETS} targets are taken, and no more"
            return
        try:
            if not isinstance(text, str):
                raise ValueError(f"{_cut(ascii(text))} is no text")
            specs.append(parse_spec(text, pairs))
        except ValueError as error:
            yield f"target {error}"


def _read_labels(table: Any, labels: dict[str, str]) -> Iterator[str]:
    """Add labels to those there are, and yield which are not taken."""
    if table is None:
        return
    if not isinstance(table, dict):
        yield "labels: want an object"
        return
    for name, value in table.items():
        # Prometheus keeps labels that begin so to itself, and one without a value is none.
        if str(name).startswith("__") or value is None:
            continue
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if not isinstance(name, str) or not _LABEL_NAME.fullmatch(name):
            yield f"label {_cut(ascii(name))}: no label name"
        elif isinstance(value, list | dict) or len(text) > _MAX_LABEL or not text.isprintable():
            yield f"label {_cut(name)}: want at most {_MAX_LABEL} printable characters"
        elif len(labels) >= _MAX_LABELS:
            yield f"label {_cut(name)}: one more than {_MAX_LABELS}"
        else:
            labels[name] = text


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
