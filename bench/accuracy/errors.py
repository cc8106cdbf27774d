"""Every tool's figures against the captures. No I/O."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .capture import Connection, Endpoint, Turn, turns
from .rivals import align

__all__ = ["FIGURES", "Captures", "Errors", "Found", "blackbox", "quantile", "sockperf", "twocans"]

CONNECT, EXCHANGE = "connect", "exchange"
NETWORK, USER, BLACKBOX, SOCKPERF = "twocans", "user clock", "blackbox_exporter", "sockperf"
FIGURES = {
    CONNECT: (NETWORK, USER, BLACKBOX),
    EXCHANGE: (NETWORK, USER, BLACKBOX, SOCKPERF),
}


def quantile(values: Sequence[int], share: float) -> int:
    """Return the smallest value that at least this share of the sorted values does not exceed."""
    rank = -int(-share * len(values) // 1)  # rounded up
    return values[max(0, min(len(values), rank) - 1)]


@dataclass
class Errors:
    """One tool's errors for one kind of figure.

    Attributes:
        errors: Figure less truth, ns, for each sample.
        truths: The truth of each.
        no_figure: Samples for which there was a truth, but the tool gave no figure.
        no_truth: Samples left out because the capture has none: a segment was sent again, or not
            captured, or not found.
    """

    errors: list[int] = field(default_factory=list)
    truths: list[int] = field(default_factory=list)
    no_figure: int = 0
    no_truth: int = 0

    def add(self, figure: int | None, truth: int | None) -> None:
        """Count one sample."""
        if truth is None:
            self.no_truth += 1
        elif figure is None:
            self.no_figure += 1
        else:
            self.errors.append(figure - truth)
            self.truths.append(truth)


Found = dict[tuple[str, str], Errors]
"""By kind of figure and tool."""


class Captures:
    """What both ends' captures show, to be looked up by port or address.

    Args:
        near: Connections in the capture of the client's end.
        far: Connections in the capture of the server's end.
    """

    def __init__(
        self,
        near: Mapping[tuple[Endpoint, Endpoint, int], Connection],
        far: Mapping[tuple[Endpoint, Endpoint, int], Connection],
    ) -> None:
        self._far = far
        self._by_client_port = defaultdict(list)
        self._by_server = defaultdict(list)
        for connection in near.values():
            self._by_client_port[connection.server, connection.client[1]].append(connection)
            self._by_server[connection.server].append(connection)

    def of_port(self, server: Endpoint, port: int, window: tuple[int, int]) -> Connection | None:
        """Return the connection from this port to this server that began within a time.

        None unless it is exactly one: ports are used again.
        """
        begun_ns, ended_ns = window
        found = self._by_client_port.get((server, port), [])
        return _only([one for one in found if begun_ns <= one.syns[0] <= ended_ns])

    def to(self, server: Endpoint) -> Connection | None:
        """Return the connection to this server, if there was exactly one."""
        return _only(self._by_server.get(server, []))

    def all_to(self, server: Endpoint) -> list[Connection]:
        """Return every connection to this server, in the order of their SYNs."""
        return self._by_server.get(server, [])

    def turns(self, near: Connection) -> list[Turn | None]:
        """Return a connection's requests and replies, as ``capture.turns`` does."""
        far = self._far.get((near.client, near.server, near.first_sequence))
        return turns(near, far) if far is not None else []


def _only(found: list[Connection]) -> Connection | None:
    return found[0] if len(found) == 1 else None


class Stamped(NamedTuple):
    """One exchange's timestamps against the captures, ns.

    Attributes:
        t1k: Less the capture's of the same event; so are the next three.
        t2k: Likewise.
        t3k: Likewise.
        t4k: Likewise.
        forward: From t1k to the request in the capture of the server's end.
        reverse: From t3k to the reply in the capture of the client's end.
    """

    t1k: int
    t2k: int
    t3k: int
    t4k: int
    forward: int
    reverse: int


def twocans(
    probes: Iterable[Mapping[str, Any]], captures: Captures, server: Endpoint
) -> tuple[Found, list[Stamped]]:
    """Compare our client's figures, and its timestamps, with the captures.

    Args:
        probes: What ``probes`` printed.
        captures: Of both ends.
        server: Where they went.
    """
    found = {(kind, name): Errors() for kind in FIGURES for name in (NETWORK, USER)}
    stamped = []
    for probe in probes:
        near = None
        if probe["port"] is not None:
            near = captures.of_port(server, probe["port"], probe["window"])
        truth = None if near is None else near.handshake_ns
        for name, figure in zip((NETWORK, USER), probe["connect"], strict=True):
            found[CONNECT, name].add(figure, truth)
        # The first turn is the greeting.
        seen = [] if near is None else captures.turns(near)[1:]
        for at, exchange in enumerate(probe["exchanges"]):
            turn = seen[at] if at < len(seen) else None
            truth = None if turn is None else turn.network_ns
            found[EXCHANGE, NETWORK].add(exchange["network"], truth)
            found[EXCHANGE, USER].add(exchange["user"], truth)
            if turn is not None and None not in exchange["stamps"]:
                stamps = exchange["stamps"]
                pairs = zip(stamps, turn, strict=True)
                t1k, t2k, t3k, t4k = (stamp - seen_ns for stamp, seen_ns in pairs)
                forward, reverse = turn.request_in - stamps[0], turn.reply_in - stamps[2]
                stamped.append(Stamped(t1k, t2k, t3k, t4k, forward, reverse))
    return found, stamped


def blackbox(
    kind: str, answers: Iterable[tuple[str, int | None]], captures: Captures, port: int
) -> Found:
    """Compare blackbox_exporter's durations with the captures.

    Args:
        kind: "connect", or "exchange" with the handshake before it.
        answers: What ``rivals`` printed.
        captures: Of both ends.
        port: Of the server.
    """
    errors = Errors()
    for host, figure in answers:
        near = captures.to((host, port))
        truth = None if near is None else near.handshake_ns
        if kind == EXCHANGE and near is not None and truth is not None:
            seen = captures.turns(near)
            truth = None if not seen or seen[0] is None else truth + seen[0].network_ns
        errors.add(figure, truth)
    return {(kind, BLACKBOX): errors}


def sockperf(
    logs: Iterable[Sequence[tuple[int, int]]], captures: Captures, server: Endpoint
) -> Found:
    """Compare sockperf's round trips with the captures.

    Args:
        logs: One for each run: (sent, received) by sockperf's clock.
        captures: Of both ends.
        server: Where they went; one connection for each run, in order.
    """
    errors = Errors()
    for log, near in zip(logs, captures.all_to(server), strict=False):
        seen = captures.turns(near)
        departures = [near.forward[offset][0].ns for offset in sorted(near.forward)]
        shift = align([sent for sent, _ in log], departures)
        for at, (sent, received) in enumerate(log):
            turn = None if shift is None or not seen else seen[shift + at]
            errors.add(received - sent, None if turn is None else turn.network_ns)
    return {(EXCHANGE, SOCKPERF): errors}
