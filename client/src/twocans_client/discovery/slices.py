"""Read what the Kubernetes API says about a Service's endpoints. No I/O.

A Service has any number of EndpointSlices, each of one address family; the controller makes,
fills and drops them as it likes. What is there is all of them together: see ``merge``.

API: discovery.k8s.io/v1, EndpointSlice; lists and watches: the API's general concepts.
"""

import ipaddress
import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from twocans_core.net.sockets import Address
from twocans_core.process.values import place

__all__ = [
    "BadAnswer",
    "Change",
    "Endpoint",
    "Expired",
    "Page",
    "merge",
    "parse_change",
    "parse_page",
    "parse_status",
]

_VERSIONS = {"IPv4": 4, "IPv6": 6}
_GONE = 410
_MAX_VERSION = 256
_MAX_CONTINUE = 16 * 1024
_MAX_MESSAGE = 400


class BadAnswer(Exception):
    """The API server's answer is not what it should be. The text says in what way."""


class Expired(Exception):
    """The API server no longer knows the version that was asked for: list again."""


class Endpoint(NamedTuple):
    """One server that is ready.

    Attributes:
        address: Where to connect to.
        node: The node it runs on; ``""`` where the API does not say.
        zone: The node's zone; likewise.
    """

    address: Address
    node: str = ""
    zone: str = ""


class Page(NamedTuple):
    """One page of a list.

    Attributes:
        slices: Each slice's ready endpoints, by the slice's name. Slices without are left out.
        version: What a watch that begins after this list starts from.
        more: What to ask for the next page with; ``""`` on the last.
    """

    slices: dict[str, list[Endpoint]]
    version: str
    more: str


class Change(NamedTuple):
    """One event of a watch.

    Attributes:
        name: The slice that is different now; ``""`` when none is.
        endpoints: Its ready endpoints now; none when the slice is gone.
        version: What a watch that goes on after this event starts from.
    """

    name: str
    endpoints: list[Endpoint]
    version: str


def parse_page(data: bytes, port: int) -> Page:
    """Read one page of a list of EndpointSlices.

    Args:
        data: The body.
        port: What every endpoint's address gets, whatever ports a slice has.

    Raises:
        BadAnswer: It is no such list.
    """
    page = _object(_load(data))
    items = page.get("items")
    if not isinstance(items, list | None):
        raise BadAnswer("items is no list")
    slices = {_name(item): _endpoints(item, port) for item in items or ()}
    full = {name: endpoints for name, endpoints in slices.items() if endpoints}
    more = _object(page.get("metadata")).get("continue") or ""
    return Page(full, _version(page), _token(more, _MAX_CONTINUE, "continue") if more else "")


def parse_change(data: bytes, port: int) -> Change:
    """Read one event of a watch, a line. Arguments as of ``parse_page``.

    Raises:
        Expired: It says that the watch began too far in the past.
        BadAnswer: It is no such event, or one that reports an error.
    """
    event = _object(_load(data))
    kind, item = event.get("type"), _object(event.get("object"))
    if kind == "ERROR":
        if item.get("code") == _GONE:
            raise Expired
        raise BadAnswer(f"the watch ended with an error: {_message(item)}")
    if kind == "BOOKMARK":
        return Change("", [], _version(item))
    if kind == "DELETED":
        return Change(_name(item), [], _version(item))
    if kind in ("ADDED", "MODIFIED"):
        return Change(_name(item), _endpoints(item, port), _version(item))
    raise BadAnswer("an event of an unknown type")


def parse_status(data: bytes) -> str:
    """Return the message of an API error's body, printable and short; ``""`` without one."""
    try:
        return _message(_object(_load(data)))
    except BadAnswer:
        return ""


def merge(slices: Mapping[str, Iterable[Endpoint]]) -> list[Endpoint]:
    """Return the endpoints of all slices, each address once, sorted by it.

    An endpoint may be in two slices while it moves from one to the other. The entry that says
    more about it is taken, then the one of the slice whose name comes first.
    """
    found: dict[Address, Endpoint] = {}
    for name in sorted(slices):
        for endpoint in slices[name]:
            other = found.setdefault(endpoint.address, endpoint)
            if other is not endpoint and _known(endpoint) > _known(other):
                found[endpoint.address] = endpoint
    return sorted(found.values())


def _known(endpoint: Endpoint) -> tuple[bool, bool]:
    return bool(endpoint.node), bool(endpoint.zone)


def _endpoints(item: Any, port: int) -> list[Endpoint]:
    """Return the ready endpoints of one slice; what is odd in it is left out."""
    family = item.get("addressType")
    version = _VERSIONS.get(family) if isinstance(family, str) else None
    entries = item.get("endpoints")
    if version is None or not isinstance(entries, list):
        return []
    found = (_endpoint(entry, version, port) for entry in entries if isinstance(entry, dict))
    return [endpoint for endpoint in found if endpoint is not None]


def _endpoint(entry: dict[str, Any], version: int, port: int) -> Endpoint | None:
    host = _host(entry.get("addresses"), version)
    if host is None or not _is_ready(entry.get("conditions")):
        return None
    return Endpoint(Address(host, port), _label(entry.get("nodeName")), _label(entry.get("zone")))


def _host(addresses: Any, version: int) -> str | None:
    # More than the first has no meaning; the controller writes no more than one.
    if not isinstance(addresses, list) or not addresses or not isinstance(addresses[0], str):
        return None
    try:
        address = ipaddress.ip_address(addresses[0])
    except ValueError:
        return None
    # An address with a scope is right on one host only.
    return str(address) if address.version == version and "%" not in addresses[0] else None


def _is_ready(conditions: Any) -> bool:
    """Whether a new connection is welcome; what is not said means yes.

    A Service that publishes addresses before they are ready calls them all ready, those that
    terminate too: so both are looked at.
    """
    if not isinstance(conditions, dict):
        return conditions is None
    return conditions.get("ready") is not False and conditions.get("terminating") is not True


def _label(value: Any) -> str:
    try:
        return place(value) if isinstance(value, str) else ""
    except ValueError:
        return ""


def _load(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise BadAnswer("not JSON, or cut off") from None


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadAnswer("no object where one should be")
    return value


def _name(item: Any) -> str:
    name = _object(_object(item).get("metadata")).get("name")
    if not isinstance(name, str) or not name:
        raise BadAnswer("a slice has no name")
    return name


def _version(item: dict[str, Any]) -> str:
    version = _object(item.get("metadata")).get("resourceVersion")
    return _token(version, _MAX_VERSION, "resourceVersion")


def _token(value: Any, most: int, what: str) -> str:
    """Return an opaque text that will be part of a request."""
    good = isinstance(value, str) and 0 < len(value) <= most
    if not good or not (value.isascii() and value.isprintable()):
        raise BadAnswer(f"{what} is no short text")
    return str(value)


def _message(status: dict[str, Any]) -> str:
    message = status.get("message")
    if not isinstance(message, str):
        return ""
    plain = message[:_MAX_MESSAGE].encode("ascii", "replace").decode()
    return "".join(char if char.isprintable() else "?" for char in plain)
