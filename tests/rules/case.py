"""The words in which cases are written: a world in a line or two, and what fires in it when.

Every check lists every alert that fires at its minute, and there is no other: so "one dead node
gives one alert" is what each of them says.

A can is written ``name@node/zone``: ``s@n0/a`` is s on node n0 in zone a. Where there is no node,
the alert has the name in its place.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from rules.world import ALWAYS, Can, Span, World

Alert = dict[str, str]
Build = Callable[[World], Any]
Verdict = tuple[str, str, str]
Samples = Mapping[tuple[int, str], list[tuple[str, float]]]


class Case(NamedTuple):
    """One world, and which alerts fire in it when.

    Attributes:
        name: A sentence.
        world: The series.
        fires: By minute, the alerts that fire then.
        near_miss: The alerts that this world comes close to; none of them may ever fire.
        expressions: By minute and PromQL, the samples that it gives.
        texts: By minute and name, the alert's annotations.
    """

    name: str
    world: World
    fires: dict[int, list[Alert]]
    near_miss: tuple[str, ...] = ()
    expressions: Samples = MappingProxyType({})
    texts: Mapping[tuple[int, str], list[tuple[Alert, str, str]]] = MappingProxyType({})


def case(
    name: str,
    build: Build,
    *,
    minutes: int = 40,
    quiet: Iterable[int] = (),
    fires: Mapping[Iterable[int], list[Alert]] | None = None,
    near_miss: Iterable[str] = (),
    expressions: Samples | None = None,
    says: Sequence[Any] = (),
) -> Case:
    """Return a case.

    Args:
        name: A sentence.
        build: What puts cans and paths into its world.
        minutes: How long that lasts.
        quiet: Minutes in which nothing fires.
        fires: By minutes, all that fires then.
        near_miss: As in `Case`, without the prefix.
        expressions: As in `Case`.
        says: A minute, then a summary and a description for each of the alerts.
    """
    world = World(minutes)
    build(world)
    at: dict[int, list[Alert]] = {minute: [] for minute in quiet}
    for when, alerts in (fires or {}).items():
        at |= dict.fromkeys(when, alerts)
    texts: dict[tuple[int, str], list[tuple[Alert, str, str]]] = {}
    if says:
        (alerts,) = (fires or {}).values()
        for one, summary, description in zip(alerts, says[1::2], says[2::2], strict=True):
            texts.setdefault((says[0], one["alertname"]), []).append((one, summary, description))
    near = tuple(f"Twocans{short}" for short in near_miss)
    return Case(name, world, at, near, expressions or {}, texts)


def recorded(minute: int, series: Mapping[str, Mapping[str, float]]) -> Samples:
    """Return what these recorded series are, by labels, and that they have no others."""
    return {
        (minute, name): [(f"{name}{labels}", value) for labels, value in samples.items()]
        for name, samples in series.items()
    }


# --- Alerts, with all their labels ------------------------------------------------------------


def alert(short: str, severity: str, **labels: str) -> Alert:
    return {"alertname": f"Twocans{short}", "severity": severity, **labels}


def ends(can: str) -> tuple[str, str, str]:
    """Return the name, the node and the zone of ``name@node/zone``."""
    rest, _, zone = can.partition("/")
    name, _, node = rest.partition("@")
    return name, node or name, zone


def node(can: str) -> str:
    return ends(can)[1]


def source(can: str) -> dict[str, str]:
    name, node, zone = ends(can)
    labels = {"job": "twocans-client", "instance": f"{name}:5002", "client": name}
    return {**labels, "source_node": node, "source_zone": zone}


def target(can: str) -> dict[str, str]:
    name, node, zone = ends(can)
    return {"server": name, "target_node": node, "target_zone": zone}


def server_down(can: str) -> Alert:
    return alert("ServerDown", "critical", node=node(can), **target(can))


def cut_off(can: str) -> Alert:
    return alert("ClientCutOff", "critical", node=node(can), **source(can))


def path_failing(client: str, server: str) -> Alert:
    return alert("PathFailing", "warning", **source(client), **target(server))


def zone_pair(a: str, b: str) -> Alert:
    return alert("ZonePairLosing", "critical", source_zone=a, target_zone=b)


def slow_server(can: str) -> Alert:
    return alert("ConnectLatencyHigh", "warning", scope="server", node=node(can), **target(can))


def slow_client(can: str) -> Alert:
    return alert("ConnectLatencyHigh", "warning", scope="client", node=node(can), **source(can))


def not_probing(can: str, reason: str) -> Alert:
    return alert("ClientNotProbing", "warning", node=node(can), reason=reason, **source(can))


def losing_pair(source: str, target: str) -> Alert:
    (_, a, zone_a), (_, b, zone_b) = ends(source), ends(target)
    nodes = {"source_node": a, "source_zone": zone_a, "target_node": b, "target_zone": zone_b}
    return alert("SegmentsLost", "warning", scope="pair", **nodes)


def losing_end(scope: str, end: str, can: str) -> Alert:
    _, node, zone = ends(can)
    labels = {f"{end}_node": node, f"{end}_zone": zone}
    return alert("SegmentsLost", "warning", scope=scope, node=node, **labels)


def stalled(can: str) -> Alert:
    _, host, zone = ends(can)
    return alert("HostStalled", "warning", node=host, host=host, zone=zone)


def dns_failing(can: str) -> Alert:
    return alert("DnsFailing", "warning", scope="client", node=node(can), **source(can))


def at_limits(can: str) -> Alert:
    return alert("ServerAtLimits", "warning", node=node(can), **target(can))


def fault_of(scope: str, end: dict[str, str], verdict: Verdict) -> Alert:
    """Return the alert of a fault; ``end``: as ``source``, ``target`` or the zones."""
    name, culprit, direction = verdict
    machine = end.get("target_node", "") if scope == "server" else end.get("source_node", "")
    own = {"verdict": name, "culprit": culprit, "direction": direction, "node": machine}
    return alert("FaultNamed", "warning", scope=scope, **own, **end)


# --- Worlds -----------------------------------------------------------------------------------

Which = Callable[[int, int], bool]

FIVE = ("",) * 5
SIX = ("a", "a", "a", "b", "b", "b")
TWO_AND_FOUR = ("a", "a", "b", "b", "b", "b")
DOWN = Span(10, 25)


def on(which: Which, *spans: Span, otherwise: Sequence[Span] = ()) -> Callable[[int, int], Any]:
    """Return what a mesh takes for its paths: these spans on those that are meant."""
    return lambda a, b: spans if which(a, b) else otherwise


def of(*clients: int) -> Which:
    return lambda a, b: a in clients


def to(*servers: int) -> Which:
    return lambda a, b: b in servers


def only(*pairs: tuple[int, int]) -> Which:
    return lambda a, b: (a, b) in pairs


def a_to_b(a: int, b: int) -> bool:
    """Whether a path leads from zone a of SIX to zone b."""
    return a < 3 <= b


def mesh(
    zones: Sequence[str],
    clients: Mapping[int, dict[str, Any]] | None = None,
    servers: Mapping[int, dict[str, Any]] | None = None,
    **path: Callable[[int, int], Any],
) -> Callable[[World], list[Can]]:
    """Put a node into each zone given, n0 and so on; every client probes every other node.

    Args:
        zones: The nodes' zones.
        clients: By number, what is special about a client.
        servers: By number, what is special about a server.
        path: By argument of `World.path`, its value for a client's and a server's number.
    """

    def build(world: World) -> list[Can]:
        both = [
            (
                world.client(f"n{n}", f"n{n}", zone, **(clients or {}).get(n, {})),
                world.server(f"n{n}", f"n{n}", zone, **(servers or {}).get(n, {})),
            )
            for n, zone in enumerate(zones)
        ]
        for a, (client, _) in enumerate(both):
            for b, (_, server) in enumerate(both):
                if a != b:
                    world.path(client, server, **{key: of(a, b) for key, of in path.items()})
        return [client for client, _ in both]

    return build


def pair(**path: Any) -> Callable[[World], Can]:
    """Put in what compose has: a client and a server, which have no node and no zone."""

    def build(world: World) -> Can:
        client = world.client("client")
        world.path(client, world.server("server"), target="server.path:5000", **path)
        return client

    return build


def clients_of(world: World, server: Can, count: int, **path: Any) -> None:
    """Put in clients c0 and so on, on nodes m0 and so on in zone a, that probe this server."""
    for number in range(count):
        world.path(world.client(f"c{number}", f"m{number}", "a"), server, **path)


def discovered(world: World, can: Can, *spans: Span, target: str = "dns:servers:5000") -> None:
    labels = {**can.scrape, "target": target}
    world.gauge("twocans_client_discovered_addresses", labels, spans, [ALWAYS])
