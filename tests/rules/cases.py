"""What the alerts do in which world: fires, does not fire in the near miss, resolves.

Every check lists every alert that fires at its minute, and there is no other: so "one dead node
gives one alert" is what each of them says.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from rules.world import Can, Span, World

Alert = dict[str, str]


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
    expressions: Mapping[tuple[int, str], list[tuple[str, float]]] = MappingProxyType({})
    texts: Mapping[tuple[int, str], list[tuple[Alert, str, str]]] = MappingProxyType({})


CASES: list[Case] = []


def case(make: Callable[[], Case]) -> Callable[[], Case]:
    CASES.append(make())
    return make


# --- Alerts, with all their labels ------------------------------------------------------------


def alert(short: str, severity: str, **labels: str) -> Alert:
    return {"alertname": f"Twocans{short}", "severity": severity, **labels}


def server_down(can: Can) -> Alert:
    target = {"server": can.name, "target_node": can.host, "target_zone": can.zone}
    return alert("ServerDown", "critical", node=can.host, **target)


def source(can: Can) -> dict[str, str]:
    labels = {key: can.scrape[key] for key in ("job", "instance")}
    return {**labels, "client": can.name, "source_node": can.host, "source_zone": can.zone}


def cut_off(can: Can) -> Alert:
    return alert("ClientCutOff", "critical", node=can.host, **source(can))


def path_failing(client: Can, server: Can) -> Alert:
    target = {"server": server.name, "target_node": server.host, "target_zone": server.zone}
    return alert("PathFailing", "warning", **source(client), **target)


def zone_pair(a: str, b: str) -> Alert:
    return alert("ZonePairLosing", "critical", source_zone=a, target_zone=b)


def slow(scope: str, **labels: str) -> Alert:
    return alert("ConnectLatencyHigh", "warning", scope=scope, **labels)


def slow_server(can: Can) -> Alert:
    target = {"server": can.name, "target_node": can.host, "target_zone": can.zone}
    return slow("server", node=can.host, **target)


def not_probing(can: Can, reason: str) -> Alert:
    return alert("ClientNotProbing", "warning", node=can.host, reason=reason, **source(can))


def losing_pair(source: Can, target: Can) -> Alert:
    ends = {"source_node": source.host, "source_zone": source.zone}
    ends |= {"target_node": target.host, "target_zone": target.zone}
    return alert("SegmentsLost", "warning", scope="pair", **ends)


def stalled(can: Can) -> Alert:
    return alert("HostStalled", "warning", node=can.host, host=can.host, zone=can.zone)


def at_limits(can: Can) -> Alert:
    target = {"server": can.name, "target_node": can.host, "target_zone": can.zone}
    return alert("ServerAtLimits", "warning", node=can.host, **target)


# --- Worlds -----------------------------------------------------------------------------------

Spans = Sequence[Span]


def mesh(
    minutes: int,
    zones: Sequence[str],
    *,
    path: Callable[[int, int], dict[str, Any]] = lambda a, b: {},
    client: Callable[[int], dict[str, Any]] = lambda a: {},
    server: Callable[[int], dict[str, Any]] = lambda b: {},
) -> tuple[World, list[Can], list[Can]]:
    """Return a world with a node for each zone given, every client probing every other node."""
    world = World(minutes)
    nodes = [f"n{number}" for number in range(len(zones))]
    clients, servers = [], []
    for number, (node, zone) in enumerate(zip(nodes, zones, strict=True)):
        servers.append(world.server(node, node, zone, **server(number)))
        clients.append(world.client(node, node, zone, **client(number)))
    for a, one in enumerate(clients):
        for b, other in enumerate(servers):
            if a != b:
                world.path(one, other, **path(a, b))
    return world, clients, servers


def pair(minutes: int, **path: Any) -> tuple[World, Can, Can]:
    """Return compose's world: a client and a server, which have no node and no zone."""
    world = World(minutes)
    server, client = world.server("server"), world.client("client")
    world.path(client, server, target="server.path:5000", **path)
    return world, client, server


PATH_M0 = (
    'job="twocans-client", instance="c0:5002", client="c0", source_node="m0", source_zone="a",'
    ' server="s", target_node="n0", target_zone="a"'
)
FIVE = ("", "", "", "", "")
SIX = ("a", "a", "a", "b", "b", "b")


# --- A server is down -------------------------------------------------------------------------


@case
def one_dead_node_that_is_dead_for_good() -> Case:
    # DNS drops it within a minute; its clients give it up at 16.
    def path(a: int, b: int) -> dict[str, Any]:
        end = 10 if a == 4 else 16 if b == 4 else 999
        return {"fail": [Span(10, 999)] if b == 4 else [], "alive": [Span(0, end)]}

    away: dict[str, Any] = {"alive": [Span(0, 10)]}
    world, _, servers = mesh(
        90,
        FIVE,
        path=path,
        client=lambda a: away if a == 4 else {},
        server=lambda b: away if b == 4 else {},
    )
    alerts = [server_down(servers[4])]
    text = (
        server_down(servers[4]),
        "Server n4 on node n4 cannot be reached",
        "It was down when its clients gave it up, and its metrics still cannot be scraped.",
    )
    return Case(
        "a node that is dead for good gives one alert for good, though nobody probes it any more",
        world,
        {minute: alerts if minute >= 14 else [] for minute in (9, 12, *range(14, 89, 3))},
        texts={(60, "TwocansServerDown"): [text]},
    )


@case
def a_server_that_crashes_for_good_and_is_mended() -> Case:
    def path(_: int, b: int) -> dict[str, Any]:
        alive = [Span(0, 16), Span(50, 999)] if b == 4 else [Span(0, 999)]
        return {"fail": [Span(10, 50)] if b == 4 else [], "alive": alive}

    away: dict[str, Any] = {"alive": [Span(0, 10), Span(50, 999)]}
    world, _, servers = mesh(70, FIVE, path=path, server=lambda b: away if b == 4 else {})
    alerts = [server_down(servers[4])]
    return Case(
        "a server that goes on crashing is one alert until it is back",
        world,
        {
            **dict.fromkeys((14, *range(16, 50, 2)), alerts),
            **{minute: [] for minute in (9, 12, 53, 56, 69)},
        },
    )


@case
def a_server_that_nobody_saw_fail_and_is_not_scraped() -> Case:
    world, _, _ = mesh(40, FIVE, server=lambda b: {"alive": [Span(0, 10)]} if b == 4 else {})
    return Case(
        "a server that answers its clients is not down because it cannot be scraped",
        world,
        {minute: [] for minute in (14, 20, 39)},
        near_miss=("TwocansServerDown",),
    )


@case
def one_dead_node_of_five() -> Case:
    dead = Span(10, 25)
    world, _, servers = mesh(
        45,
        FIVE,
        # Nobody can scrape it either, and its client does not probe.
        path=lambda a, b: {
            "fail": [dead] if b == 4 else [],
            "alive": [Span(0, 10), Span(25, 99)] if a == 4 else [Span(0, 99)],
        },
        client=lambda a: {"alive": [Span(0, 10), Span(25, 99)]} if a == 4 else {},
        server=lambda b: {"alive": [Span(0, 10), Span(25, 99)]} if b == 4 else {},
    )
    alerts = [server_down(servers[4])]
    text = (
        server_down(servers[4]),
        "Server n4 on node n4 cannot be reached",
        "100% of the paths to it fail at more than half of their probes, of 4"
        " client(s), over IPv4."
        " Mostly: connect_timeout.",
    )
    return Case(
        "one dead node of five gives one alert, which names it",
        world,
        # Silent since 10:00, it is down at 11:30 at the latest.
        {9: [], 12: [], 14: alerts, 20: alerts, 25: alerts, 28: [], 32: [], 44: []},
        expressions={
            (20, "server:twocans_probed_by:count"): [
                (
                    f'server:twocans_probed_by:count{{server="n{n}", target_node="n{n}"}}',
                    3 if n != 4 else 4,
                )
                for n in range(5)
            ]
        },
        texts={(20, "TwocansServerDown"): [text]},
    )


@case
def a_node_cut_off_in_both_directions() -> Case:
    world, _, servers = mesh(
        40, FIVE, path=lambda a, b: {"fail": [Span(10, 25)] if 4 in (a, b) else []}
    )
    alerts = [server_down(servers[4])]
    return Case(
        "a node that is cut off in both directions is one alert, its client's included",
        world,
        {9: [], 14: alerts, 24: alerts, 28: [], 32: [], 39: []},
    )


@case
def a_server_that_half_of_the_clients_reach() -> Case:
    world, clients, servers = mesh(
        40, FIVE, path=lambda a, b: {"fail": [Span(10, 25)] if b == 4 and a in (0, 1) else []}
    )
    failing = [path_failing(clients[0], servers[4]), path_failing(clients[1], servers[4])]
    return Case(
        "a server that half of its clients reach is not down",
        world,
        {9: [], 14: [], 17: failing, 24: failing, 31: []},
        near_miss=("TwocansServerDown",),
    )


@case
def a_server_that_is_back_after_ninety_seconds() -> Case:
    world, _, _ = mesh(30, FIVE, path=lambda a, b: {"fail": [Span(10, 11.5)] if b == 4 else []})
    return Case(
        "a server that is back after 90 seconds wakes nobody",
        world,
        {minute: [] for minute in range(9, 30)},
        near_miss=("TwocansServerDown", "TwocansPathFailing"),
    )


@case
def a_server_that_fails_less_than_half() -> Case:
    world, clients, servers = mesh(
        40, FIVE, path=lambda a, b: {"fail": [Span(10, 25, 0.45)] if b == 4 else []}
    )
    return Case(
        "a server at which less than half of the probes fail is not down",
        world,
        {9: [], 14: [], 18: [path_failing(one, servers[4]) for one in clients[:4]], 32: []},
        near_miss=("TwocansServerDown",),
    )


@case
def the_only_client_of_a_server() -> Case:
    world, _, server = pair(40, fail=[Span(10, 25)])
    return Case(
        "with one client and one server, the server is down",
        world,
        {9: [], 12: [], 14: [server_down(server)], 25: [server_down(server)], 28: [], 39: []},
    )


@case
def a_server_that_was_never_there() -> Case:
    world = World(20)
    client = world.client("client")
    world.path(client, None, target="nobody:5000", fail=[Span(0, 99)], reason="refused")
    nobody = Can("", "nobody:5000", "", {})
    text = (
        server_down(nobody),
        "Server (no name) on node nobody:5000 cannot be reached",
        "100% of the paths to it fail at more than half of their probes, of 1"
        " client(s), over IPv4."
        " Mostly: refused.",
    )
    return Case(
        "a server that never answered is called as its target",
        world,
        {1: [], 4: [server_down(nobody)], 19: [server_down(nobody)]},
        texts={(10, "TwocansServerDown"): [text]},
    )


@case
def a_server_whose_ipv6_is_broken() -> Case:
    world = World(40)
    server = world.server("s", "n0", "a")
    for number in range(3):
        client = world.client(f"c{number}", f"m{number}", "a")
        world.path(client, server)
        world.path(client, server, family="6", fail=[Span(10, 25)], reason="unreachable")
    text = (
        server_down(server),
        "Server s on node n0 in zone a cannot be reached",
        "100% of the paths to it fail at more than half of their probes, of 3"
        " client(s), over IPv6."
        " Mostly: unreachable.",
    )
    return Case(
        "a server whose IPv6 is broken is one alert, which says so",
        world,
        {9: [], 14: [server_down(server)], 25: [server_down(server)], 29: [], 39: []},
        texts={(20, "TwocansServerDown"): [text]},
        expressions={
            (20, "path:twocans_probes_failed:ratio_rate5m{source_node='m0'}"): [
                (
                    "path:twocans_probes_failed:ratio_rate5m"
                    f'{{{PATH_M0}, family="{family}", target="dns:servers:5000"}}',
                    value,
                )
                for family, value in (("4", 0), ("6", 1))
            ],
            (20, "node_pair:twocans_probes_failed:ratio_rate5m"): [
                (
                    "node_pair:twocans_probes_failed:ratio_rate5m"
                    f'{{source_node="m{n}", source_zone="a", target_node="n0", target_zone="a"}}',
                    0.5,
                )
                for n in range(3)
            ],
        },
    )


@case
def a_server_that_most_but_its_zone_fail_at() -> Case:
    # Reached from its own zone, so it does not fail from everywhere; but b's line to it alone.
    world, _, servers = mesh(
        40,
        ("a", "a", "b", "b", "b", "b"),
        path=lambda a, b: {"fail": [Span(10, 25)] if b == 0 and a >= 2 else []},
    )
    alerts = [server_down(servers[0])]
    return Case(
        "a server that most clients fail at is down, though its neighbour reaches it",
        world,
        {9: [], 14: alerts, 25: alerts, 29: [], 39: []},
    )


@case
def eight_dead_servers_of_ten() -> Case:
    world, _, servers = mesh(
        40, FIVE * 2, path=lambda a, b: {"fail": [Span(10, 25)] if b >= 2 else []}
    )
    alerts = [server_down(one) for one in servers[2:]]
    return Case(
        "eight dead servers of ten are eight alerts, and no client is blamed",
        world,
        {9: [], 14: alerts, 25: alerts, 29: [], 39: []},
        near_miss=("TwocansClientCutOff",),
    )


# --- A client is cut off ----------------------------------------------------------------------


@case
def one_client_cut_off() -> Case:
    world, clients, _ = mesh(45, FIVE, path=lambda a, b: {"fail": [Span(10, 25)] if a == 2 else []})
    text = (
        cut_off(clients[2]),
        "Client n2 on node n2 reaches hardly any server",
        "100% of its paths fail, over IPv4, to servers that are not down otherwise: it"
        " is its own side."
        " Mostly: connect_timeout.",
    )
    alerts = [cut_off(clients[2])]
    return Case(
        "one client that is cut off gives one alert, and no path or server is blamed",
        world,
        {9: [], 12: [], 14: alerts, 20: alerts, 25: alerts, 28: [], 32: [], 44: []},
        texts={(20, "TwocansClientCutOff"): [text]},
    )


@case
def four_of_ten_clients_cut_off() -> Case:
    world, clients, _ = mesh(
        40, FIVE * 2, path=lambda a, b: {"fail": [Span(10, 25)] if a >= 6 else []}
    )
    alerts = [cut_off(one) for one in clients[6:]]
    return Case(
        "four clients of ten that are cut off are four alerts, and no server is blamed",
        world,
        {9: [], 14: alerts, 25: alerts, 29: [], 39: []},
        near_miss=("TwocansServerDown", "TwocansZonePairLosing", "TwocansPathFailing"),
    )


@case
def a_lone_client_with_three_servers() -> Case:
    world = World(40)
    client = world.client("c")
    for number in range(3):
        world.path(client, world.server(f"s{number}"), fail=[Span(10, 25)])
    return Case(
        "a lone client that fails to all of three servers is cut off",
        world,
        {9: [], 14: [cut_off(client)], 25: [cut_off(client)], 29: [], 39: []},
        near_miss=("TwocansServerDown",),
    )


@case
def a_lone_client_with_three_of_four_servers_failing() -> Case:
    world = World(40)
    client = world.client("c")
    servers = [world.server(f"s{number}") for number in range(4)]
    for number, server in enumerate(servers):
        world.path(client, server, fail=[Span(10, 25)] if number < 3 else [])
    alerts = [server_down(server) for server in servers[:3]]
    return Case(
        "a client that reaches one of four servers is not cut off",
        world,
        {9: [], 14: alerts, 25: alerts, 29: []},
        near_miss=("TwocansClientCutOff",),
    )


@case
def one_client_with_three_targets() -> Case:
    world = World(40)
    server = world.server("s", "n0", "a")
    clients = [world.client(f"c{number}", f"m{number}", "a") for number in range(2)]
    for target in ("dns:one:5000", "dns:two:5000", "dns:three:5000"):
        world.path(clients[0], server, target=target, fail=[Span(10, 25)])
    world.path(clients[1], server)
    alerts = [path_failing(clients[0], server)]
    return Case(
        "a server that one client of two fails at, over three targets, is not down",
        world,
        {9: [], 14: [], 17: alerts, 24: alerts, 32: []},
        near_miss=("TwocansServerDown",),
    )


@case
def a_client_that_reaches_one_server_of_four() -> Case:
    world, clients, servers = mesh(
        40, FIVE, path=lambda a, b: {"fail": [Span(10, 25)] if a == 0 and b in (1, 2, 3) else []}
    )
    alerts = [path_failing(clients[0], server) for server in servers[1:4]]
    return Case(
        "a client that reaches one server of four, which others reach, is not cut off",
        world,
        {9: [], 14: [], 17: alerts, 24: alerts, 32: []},
        near_miss=("TwocansClientCutOff", "TwocansServerDown"),
    )


@case
def a_client_that_reaches_its_own_zone() -> Case:
    # Zone b is 4 servers of 5; the one of its own zone answers.
    world, clients, _ = mesh(
        40,
        ("a", "a", "b", "b", "b", "b"),
        path=lambda a, b: {"fail": [Span(10, 25)] if a == 0 and b >= 2 else []},
    )
    alerts = [cut_off(clients[0])]
    return Case(
        "a client that reaches nothing but its neighbour is cut off",
        world,
        {9: [], 14: alerts, 25: alerts, 29: [], 39: []},
    )


# --- Nothing is wrong -------------------------------------------------------------------------


@case
def a_rolling_restart() -> Case:
    # Each server in turn says that it leaves; its silence is void; then it is back, its paths new.
    world, _, _ = mesh(
        30,
        FIVE,
        path=lambda a, b: {
            "void": [Span(5 + 2 * b, 6 + 2 * b)],
            "restarts": [16 + a],
        },
        server=lambda b: {"draining": [Span(5 + 2 * b, 5.5 + 2 * b)]},
    )
    return Case(
        "a rolling restart of servers that say goodbye, and then of clients, is no alert",
        world,
        {minute: [] for minute in range(1, 30)},
        near_miss=("TwocansServerDown", "TwocansPathFailing", "TwocansClientNotProbing"),
        expressions={
            # Two minutes' worth of the five were void; of the rest none failed.
            (8, "max(path:twocans_probes_failed:ratio_rate5m)"): [("{}", 0)],
            (20, "max(path:twocans_probes_failed:ratio_rate5m)"): [("{}", 0)],
            (6, "server:twocans_leaving:info"): [
                ('server:twocans_leaving:info{server="n0", target_node="n0"}', 1)
            ],
            (20, "server:twocans_leaving:info"): [],
        },
    )


@case
def a_server_that_drains_and_that_nobody_heard() -> Case:
    world, _, _ = mesh(
        40,
        FIVE,
        path=lambda a, b: {"fail": [Span(10, 15)] if b == 4 else []},
        server=lambda b: {"draining": [Span(9, 12)]} if b == 4 else {},
    )
    return Case(
        "a server that drains for three minutes and is back two later is no alert",
        world,
        {minute: [] for minute in range(9, 40)},
        near_miss=("TwocansServerDown", "TwocansPathFailing", "TwocansZonePairLosing"),
    )


@case
def a_client_that_restarts_while_a_path_fails() -> Case:
    world, clients, servers = mesh(
        40,
        FIVE,
        path=lambda a, b: {
            "fail": [Span(5, 30, 0.25)] if (a, b) == (0, 1) else [],
            "restarts": [15, 18] if a == 0 else [],
        },
    )
    # A counter that begins from 0 is no jump back by thousands, and no gap.
    ratio = "round(path:twocans_probes_failed:ratio_rate5m{source_node='n0',server='n1'}, 0.001)"
    labels = (
        '{job="twocans-client", instance="n0:5002", client="n0", source_node="n0",'
        ' target="dns:servers:5000", server="n1", family="4", target_node="n1"}'
    )
    alerts = [path_failing(clients[0], servers[1])]
    text = (
        alerts[0],
        "Path from n0 (node n0) to n1 (node n1) fails at 25% of its probes",
        "Others reach this server, and this client reaches others: it is what lies between."
        " Mostly: connect_timeout.",
    )
    return Case(
        "counters that begin anew change no ratio and resolve no alert",
        world,
        {4: [], 9: [], 12: alerts, 16: alerts, 19: alerts, 23: alerts, 30: alerts, 36: []},
        expressions={(minute, ratio): [(labels, 0.25)] for minute in (12, 15, 16, 18, 20, 25)},
        texts={(14, "TwocansPathFailing"): [text]},
    )


@case
def a_path_that_fails_now_and_then() -> Case:
    world, _, _ = mesh(
        40, FIVE, path=lambda a, b: {"fail": [Span(5, 40, 0.04)] if (a, b) == (0, 1) else []}
    )
    return Case(
        "a path that fails at 4 probes in a hundred wakes nobody",
        world,
        {minute: [] for minute in range(5, 40, 5)},
        near_miss=("TwocansPathFailing",),
    )


@case
def a_new_path() -> Case:
    world = World(30)
    server = world.server("s", "n0", "a")
    client = world.client("c0", "m0", "a")
    # Not answered in its first minute; then known by its name.
    world.path(client, None, label="", alive=[Span(10, 11)], fail=[Span(0, 99)])
    world.path(client, server, alive=[Span(11, 99)])
    info = "path:twocans_path:info"
    common = (
        'job="twocans-client", instance="c0:5002", client="c0", source_node="m0", source_zone="a"'
    )
    rest = 'family="4", target="dns:servers:5000"'
    failed = "path:twocans_probes_failed:ratio_rate5m"
    return Case(
        "a path that is new fails for a minute and wakes nobody",
        world,
        {minute: [] for minute in range(9, 30)},
        near_miss=("TwocansServerDown",),
        expressions={
            (9, info): [],
            (10, info): [(f'{info}{{{common}, {rest}, target_node="dns:servers:5000"}}', 1)],
            (11, info): [
                (f'{info}{{{common}, {rest}, server="s", target_node="n0", target_zone="a"}}', 1)
            ],
            # What left is gone at once, although its rate is not; the new one has no rate yet.
            (11, failed): [],
            (12, failed): [
                (f'{failed}{{{common}, {rest}, server="s", target_node="n0", target_zone="a"}}', 0)
            ],
        },
    )


@case
def two_servers_that_nobody_knows() -> Case:
    world = World(10)
    client = world.client("c")
    world.path(client, None, label="")
    world.path(client, None, label="#2")
    world.path(client, Can("twin", "", "", {}), label="twin")
    world.path(client, Can("twin", "", "", {}), label="twin#2")
    return Case(
        "a server's stand-in is its name, and before it has one its target",
        world,
        {9: []},
        expressions={
            (9, "count by (server, target_node) (path:twocans_path:info)"): [
                ('{target_node="dns:servers:5000"}', 1),
                ('{server="#2", target_node="dns:servers:5000"}', 1),
                ('{server="twin", target_node="twin"}', 1),
                ('{server="twin#2", target_node="twin#2"}', 1),
            ]
        },
    )


@case
def a_path_without_a_probe() -> Case:
    world, _, _ = pair(20, scheduled=[Span(0, 99, 0.0)])
    return Case(
        "a path without a probe has no ratio and no mean, rather than NaN",
        world,
        {3: []},
        expressions={
            (10, "count(path:twocans_path:info)"): [("{}", 1)],
            (10, "{__name__=~'(path|node_pair|zone_pair):.*(ratio_rate5m|mean5m)'}"): [],
        },
    )


@case
def void_probes() -> Case:
    world, _, _ = pair(15, fail=[Span(0, 99, 0.015625)], void=[Span(0, 99, 0.5)])
    return Case(
        "a void probe is nobody's failure, and no success",
        world,
        {9: []},
        expressions={
            (12, "zone_pair:twocans_probes_failed:ratio_rate5m"): [
                ("zone_pair:twocans_probes_failed:ratio_rate5m", 0.03125)
            ]
        },
    )


@case
def a_pair_without_nodes_and_zones() -> Case:
    world, _, _ = pair(20, connect_s=[Span(0, 99, 0.25)], fail=[Span(0, 99, 0.125)])
    path = (
        '{job="twocans-client", instance="client:5002", client="client", source_node="client",'
        ' target="server.path:5000", server="server", family="4", target_node="server"}'
    )
    nodes = '{source_node="client", target_node="server"}'
    values = {"probes_failed:ratio_rate5m": 0.125, "connect_seconds:mean5m": 0.25}
    levels = {"path": path, "node_pair": nodes, "zone_pair": ""}
    return Case(
        "where a can has no node its name stands in, and no zone is none",
        world,
        {4: []},
        expressions={
            (15, f"{level}:twocans_{rest}"): [(f"{level}:twocans_{rest}{labels}", value)]
            for level, labels in levels.items()
            for rest, value in values.items()
        }
        | {
            (15, "server:twocans_probed_by:count"): [
                ('server:twocans_probed_by:count{server="server", target_node="server"}', 1)
            ],
            (15, "server:twocans_server:info"): [
                (
                    'server:twocans_server:info{job="twocans-server", instance="server:5001",'
                    ' server="server", target_node="server"}',
                    1,
                )
            ],
            (15, "client:twocans_client:info"): [
                (
                    'client:twocans_client:info{job="twocans-client", instance="client:5002",'
                    ' client="client", source_node="client"}',
                    1,
                )
            ],
        },
    )


@case
def a_namespace_of_the_can_only() -> Case:
    # Without a PodMonitor nothing clashes, and `namespace` is on the info and on nothing else.
    world = World(10)
    scrape = {"job": "twocans-client", "instance": "c:5002"}
    can = Can("c", "m", "z", scrape)
    one = [Span(0, 99)]
    info = {**scrape, "name": "c", "node": "m", "zone": "z", "namespace": "its-own"}
    world.gauge("twocans_client_info", info, one, one)
    world.path(can, Can("s", "n", "y", {}))
    return Case(
        "paths find their client, whatever label of it is called namespace",
        world,
        {9: []},
        expressions={
            (9, "node_pair:twocans_probes_failed:ratio_rate5m"): [
                (
                    "node_pair:twocans_probes_failed:ratio_rate5m"
                    '{source_node="m", source_zone="z", target_node="n", target_zone="y"}',
                    0,
                )
            ]
        },
    )


@case
def several_targets() -> Case:
    world = World(20)
    server = world.server("s", "n0", "b")
    client = world.client("c", "m0", "a")
    world.path(client, server, target="dns:one:5000", fail=[Span(0, 99, 0.5)])
    world.path(client, server, target="dns:two:5000")
    return Case(
        "a server that two targets name is one server, and its client is one",
        world,
        {4: [], 15: [path_failing(client, server)]},
        expressions={
            (10, "server:twocans_probed_by:count"): [
                (
                    'server:twocans_probed_by:count{server="s", target_node="n0", target_zone="b"}',
                    1,
                )
            ],
            (10, "count(path:twocans_probes_failed:ratio_rate5m)"): [("{}", 2)],
            (10, "node_pair:twocans_probes_failed:ratio_rate5m"): [
                (
                    "node_pair:twocans_probes_failed:ratio_rate5m"
                    '{source_node="m0", source_zone="a", target_node="n0", target_zone="b"}',
                    0.25,
                )
            ],
        },
    )


# --- A pair of zones --------------------------------------------------------------------------


@case
def a_pair_of_zones_loses() -> Case:
    # Each path a little otherwise, so that the worst are the worst.
    world, _, _ = mesh(
        40,
        SIX,
        path=lambda a, b: {
            "fail": [Span(10, 25, 0.2 + 0.03 * a + 0.01 * (b - 3))] if a < 3 <= b else []
        },
    )
    alerts = [zone_pair("a", "b")]
    text = (
        alerts[0],
        "From zone a to zone b, 24% of all probes fail",
        "9 of 9 paths lose, and no server that is down explains it. The worst:"
        " n2 to n5 28%; n2 to n4 27%; n2 to n3 26%;",
    )
    ratio = "zone_pair:twocans_probes_failed:ratio_rate5m"
    return Case(
        "a pair of zones that loses is one alert, by direction",
        world,
        {9: [], 13: [], 17: alerts, 20: alerts, 25: alerts, 31: [], 39: []},
        expressions={
            (20, f"round({ratio} * 100)"): [
                (f'{{source_zone="{a}", target_zone="{b}"}}', 24 if a + b == "ab" else 0)
                for a in "ab"
                for b in "ab"
            ]
        },
        texts={(20, "TwocansZonePairLosing"): [text]},
    )


@case
def a_pair_of_zones_is_parted() -> Case:
    world, _, _ = mesh(
        40,
        ("a", "a", "b", "b", "b", "b"),
        path=lambda a, b: {"fail": [Span(10, 25)] if (a < 2) != (b < 2) else []},
    )
    alerts = [zone_pair("a", "b"), zone_pair("b", "a")]
    return Case(
        "two zones that are parted are two alerts, and no server or client is blamed",
        world,
        {9: [], 17: alerts, 25: alerts, 31: [], 39: []},
        near_miss=("TwocansServerDown", "TwocansClientCutOff", "TwocansPathFailing"),
    )


@case
def servers_of_a_zone_that_crash_in_turn() -> Case:
    # Each for 90 seconds, and the next as soon as one is back: five minutes still know of three.
    world, _, _ = mesh(
        40,
        ("a", "a", "b", "b", "b", "b", "b", "b"),
        path=lambda a, b: {
            "fail": [Span(10 + 1.5 * (b - 2), 11.5 + 1.5 * (b - 2))] if b >= 2 else []
        },
    )
    return Case(
        "servers of a zone that crash one after the other are no pair of zones that loses",
        world,
        {minute: [] for minute in range(9, 40)},
        near_miss=("TwocansZonePairLosing", "TwocansServerDown", "TwocansPathFailing"),
    )


@case
def clients_of_a_zone_that_are_cut_off_in_turn() -> Case:
    world, _, _ = mesh(
        40,
        ("a", "a", "b", "b", "b", "b", "b", "b"),
        path=lambda a, b: {
            "fail": [Span(10 + 1.5 * (a - 2), 11.5 + 1.5 * (a - 2))] if a >= 2 else []
        },
    )
    return Case(
        "clients of a zone that are cut off one after the other are no pair of zones that loses",
        world,
        {minute: [] for minute in range(9, 40)},
        near_miss=("TwocansZonePairLosing", "TwocansClientCutOff", "TwocansPathFailing"),
    )


@case
def a_dead_server_behind_a_pair_of_zones_that_loses() -> Case:
    world = World(40)
    servers = [world.server(f"s{number}", f"n{number}", "b") for number in range(4)]
    for number in range(4):
        client = world.client(f"c{number}", f"m{number}", "a")
        for server in servers:
            share = 1.0 if server is servers[0] else 0.2
            world.path(client, server, fail=[Span(10, 25, share)])
    both = [server_down(servers[0]), zone_pair("a", "b")]
    return Case(
        "a dead server behind a pair of zones that loses has an alert of its own",
        world,
        {9: [], 14: both[:1], 17: both, 25: both, 32: [], 39: []},
    )


@case
def two_dead_servers_of_a_zone() -> Case:
    world, _, servers = mesh(
        40, SIX, path=lambda a, b: {"fail": [Span(10, 25)] if b in (3, 4) else []}
    )
    alerts = [server_down(servers[3]), server_down(servers[4])]
    return Case(
        "two dead servers of a zone explain what its pairs lose",
        world,
        {9: [], 14: alerts, 20: alerts, 25: alerts, **{m: [] for m in range(28, 40)}},
        near_miss=("TwocansZonePairLosing", "TwocansPathFailing"),
    )


@case
def one_bad_path_of_a_pair_of_zones() -> Case:
    world, clients, servers = mesh(
        40, SIX, path=lambda a, b: {"fail": [Span(10, 25, 0.3 if (a, b) == (0, 3) else 0.009)]}
    )
    return Case(
        "one bad path of nine is a path, and not a pair of zones",
        world,
        {
            9: [],
            17: [path_failing(clients[0], servers[3])],
            25: [path_failing(clients[0], servers[3])],
            31: [],
        },
        near_miss=("TwocansZonePairLosing",),
    )


@case
def three_bad_paths_to_one_server() -> Case:
    world, clients, servers = mesh(
        40, SIX, path=lambda a, b: {"fail": [Span(10, 25, 0.3)] if a < 3 and b == 3 else []}
    )
    return Case(
        "what one server alone loses is no pair of zones",
        world,
        {9: [], 20: [path_failing(one, servers[3]) for one in clients[:3]], 31: []},
        near_miss=("TwocansZonePairLosing",),
    )


@case
def three_bad_paths_from_one_client() -> Case:
    world, clients, servers = mesh(
        40, SIX, path=lambda a, b: {"fail": [Span(10, 25, 0.3)] if a == 0 and b >= 3 else []}
    )
    return Case(
        "what one client alone loses is no pair of zones",
        world,
        {9: [], 20: [path_failing(clients[0], one) for one in servers[3:]], 31: []},
        near_miss=("TwocansZonePairLosing",),
    )


@case
def a_pair_of_zones_loses_a_little() -> Case:
    world, _, _ = mesh(
        40, SIX, path=lambda a, b: {"fail": [Span(10, 30, 0.009)] if a < 3 <= b else []}
    )
    return Case(
        "a pair of zones that loses 9 probes in a thousand wakes nobody",
        world,
        {minute: [] for minute in range(10, 40, 3)},
        near_miss=("TwocansZonePairLosing",),
    )


@case
def two_bad_paths_of_nine() -> Case:
    world, clients, servers = mesh(
        40, SIX, path=lambda a, b: {"fail": [Span(10, 25)] if (a, b) in ((0, 3), (1, 4)) else []}
    )
    alerts = [path_failing(clients[0], servers[3]), path_failing(clients[1], servers[4])]
    return Case(
        "two bad paths of nine are two paths: less than a quarter",
        world,
        {9: [], 17: alerts, 25: alerts, 31: []},
        near_miss=("TwocansZonePairLosing", "TwocansServerDown"),
    )


# --- Segments are lost ------------------------------------------------------------------------


def losing(
    from_to: Callable[[int, int], bool], share: float = 0.005, start: float = 10, end: float = 35
) -> Callable[[int, int], dict[str, Any]]:
    """Lose some of what some nodes send to others, as both cans of either see it.

    The farther from the first node the more of it, so that one pair is the worst.
    """

    def of(sender: int, receiver: int) -> list[Span]:
        worse = 1 + (3 * sender + receiver) / 10
        return [Span(start, end, share * worse)] if from_to(sender, receiver) else []

    return lambda a, b: {"lost": {"forward": of(a, b), "reverse": of(b, a)}}


@case
def a_pair_of_nodes_that_loses_one_way() -> Case:
    world, clients, servers = mesh(60, FIVE, path=losing(lambda a, b: (a, b) == (0, 1)))
    alerts = [losing_pair(clients[0], servers[1])]
    ends = 'source_node="n0", target_node="n1"'
    text = (
        alerts[0],
        "0.55% of the segments from node n0 to node n1 get lost",
        "30 of 5400 in 10 minutes by both ends' counters; with 95 % certainty at least 0.3849%."
        " It is the way there from client n0 to server n1; the way back to client n1 from server"
        " n0; TCP sends them again, so no probe need fail.",
    )
    return Case(
        "one node that loses what it sends to one other is one alert, which says the direction",
        world,
        {9: [], 24: [], 29: alerts, 34: alerts, 48: [], 59: []},
        expressions={
            (30, f"round(node_pair:twocans_segments_{fate}:increase10m{{{ends}}})"): [
                (f"{{{ends}}}", value)
            ]
            for fate, value in (("sent", 5400), ("lost", 30))
        },
        texts={(30, "TwocansSegmentsLost"): [text]},
    )


@case
def a_pair_that_loses_in_reverse() -> Case:
    each = {"forward": 300, "reverse": 270}
    world, client, server = pair(60, lost={"reverse": [Span(5, 99, 0.01)]}, segments_a_minute=each)
    text = (
        losing_pair(server, client),
        "1% of the segments from node server to node client get lost",
        "27 of 2700 in 10 minutes by both ends' counters; with 95 % certainty at least 0.6882%."
        " It is the way back to client client from server server; TCP sends them again, so no"
        " probe need fail.",
    )
    return Case(
        "with one client and one server, what is lost in the reverse direction is the server's",
        world,
        {15: [], 30: [losing_pair(server, client)], 59: [losing_pair(server, client)]},
        texts={(40, "TwocansSegmentsLost"): [text]},
    )


@case
def a_node_that_receives_badly() -> Case:
    world, _, servers = mesh(60, FIVE, path=losing(lambda _, b: b == 4))
    node = servers[4].host
    alerts = [
        alert("SegmentsLost", "warning", scope="receiver", node=node, target_node=node),
    ]
    text = (
        alerts[0],
        "0.925% of the segments sent to node n4 get lost",
        "By both ends' counters of 10 minutes, from 100% of the nodes or more, of every zone. The"
        " worst: from node n3 at least 0.8983%; from node n2 at least 0.7673%; from node n1 at"
        " least 0.6377%; TCP sends them again, so no probe need fail.",
    )
    return Case(
        "a node that loses what everybody sends to it is one alert for both its cans",
        world,
        {9: [], 24: [], 29: alerts, 34: alerts, 48: [], 59: []},
        expressions={
            (30, "receiver:twocans_segments_lost:ratio"): [
                ('receiver:twocans_segments_lost:ratio{target_node="n4"}', 1)
            ]
        },
        texts={(30, "TwocansSegmentsLost"): [text]},
    )


@case
def a_node_that_sends_badly() -> Case:
    world, clients, _ = mesh(60, SIX, path=losing(lambda a, _: a == 0))
    source = {"source_node": clients[0].host, "source_zone": clients[0].zone}
    alerts = [alert("SegmentsLost", "warning", scope="sender", node=clients[0].host, **source)]
    text = (
        alerts[0],
        "0.65% of the segments that node n0 in zone a sends get lost",
        "By both ends' counters of 10 minutes, to 100% of the nodes or more, of every zone. The"
        " worst: to node n5 at least 0.5523%; to node n4 at least 0.51%; to node n3 at least"
        " 0.468%; TCP sends them again, so no probe need fail.",
    )
    return Case(
        "a node that loses what it sends to everybody is one alert for both its cans",
        world,
        {9: [], 24: [], 29: alerts, 34: alerts, 48: [], 59: []},
        texts={(30, "TwocansSegmentsLost"): [text]},
    )


@case
def a_few_pairs_that_lose() -> Case:
    # What one node sends to three of five, and what two of five send to another.
    pairs = ((0, 1), (0, 2), (0, 3), (1, 5), (2, 5))
    world, clients, servers = mesh(60, ("",) * 6, path=losing(lambda a, b: (a, b) in pairs))
    alerts = [losing_pair(clients[a], servers[b]) for a, b in pairs]
    return Case(
        "five pairs of thirty that lose are five alerts, though some have a node in common",
        world,
        {9: [], 24: [], 29: alerts, 34: alerts, 48: [], 59: []},
    )


@case
def a_zone_of_one_node() -> Case:
    pairs = [(0, n) for n in (1, 2, 3)] + [(n, 0) for n in (1, 2, 3)]
    world, clients, servers = mesh(
        60, ("a", "b", "b", "b", "c"), path=losing(lambda a, b: (a, b) in pairs)
    )
    alerts = [losing_pair(clients[a], servers[b]) for a, b in pairs]
    return Case(
        "one node that loses to and from a zone, and not to another, is its pairs",
        world,
        {9: [], 24: [], 29: alerts, 34: alerts, 48: [], 59: []},
    )


@case
def a_server_of_which_some_cannot_say() -> Case:
    world = World(60)
    server = world.server("s", "n0", "a")
    few = {"forward": 90, "reverse": 90}
    for number in range(5):
        client = world.client(f"c{number}", f"m{number}", "a")
        if number < 2:
            world.path(client, server, lost={"forward": [Span(10, 35, 0.01)]})
        else:
            world.path(client, server, lost={}, segments_a_minute=few)
    target = {"target_node": "n0", "target_zone": "a"}
    alerts = [alert("SegmentsLost", "warning", scope="receiver", node="n0", **target)]
    return Case(
        "of what is sent to a node, only those count who sent enough to say something",
        world,
        {9: [], 24: [], 29: alerts, 34: alerts, 48: [], 59: []},
    )


@case
def a_pair_of_zones_loses_segments() -> Case:
    world, _, _ = mesh(60, SIX, path=losing(lambda a, b: a < 3 <= b))
    alerts = [alert("SegmentsLost", "warning", scope="zones", source_zone="a", target_zone="b")]
    text = (
        alerts[0],
        "0.85% of the segments from zone a to zone b get lost",
        "By both ends' counters of 10 minutes, between 100% of their nodes, and no node alone"
        " explains it. The worst: from node n2 to node n5 at least 0.8108%; from node n2 to node n4"
        " at least 0.7673%; from node n2 to node n3 at least 0.7239%; TCP sends them again, so no"
        " probe need fail.",
    )
    return Case(
        "what is lost between two zones in one direction is one alert",
        world,
        {9: [], 24: [], 29: alerts, 34: alerts, 48: [], 59: []},
        texts={(30, "TwocansSegmentsLost"): [text]},
    )


@case
def a_pair_that_loses_both_ways() -> Case:
    both = {"forward": [Span(10, 35, 0.01)], "reverse": [Span(10, 35, 0.01)]}
    world, client, server = pair(60, lost=both)
    alerts = [losing_pair(client, server), losing_pair(server, client)]
    return Case(
        "two nodes that lose in both directions are no zones, and each direction is said",
        world,
        {9: [], 24: [], 29: alerts, 34: alerts, 48: [], 59: []},
    )


@case
def a_pair_that_loses_below_the_bound() -> Case:
    # 5.4 of 2,700: it may well be less than one in a thousand.
    world, _, _ = pair(60, lost={"forward": [Span(5, 99, 0.002)]})
    return Case(
        "two lost in a thousand of so few segments may be chance",
        world,
        {minute: [] for minute in range(5, 60, 5)},
        near_miss=("TwocansSegmentsLost",),
        expressions={
            (40, "round(node_pair:twocans_segments_lost:increase10m * 10)"): [
                ('{source_node="client", target_node="server"}', 54),
                ('{source_node="server", target_node="client"}', 0),
            ],
            (40, "node_pair:twocans_segments_lost:low10m"): [],
        },
    )


@case
def a_pair_that_loses_much_of_little() -> Case:
    few = {"forward": 95, "reverse": 200}
    world, _, _ = pair(60, lost={"forward": [Span(5, 99, 0.05)]}, segments_a_minute=few)
    return Case(
        "of fewer than a thousand segments nothing is said",
        world,
        {minute: [] for minute in range(5, 60, 5)},
        near_miss=("TwocansSegmentsLost",),
    )


@case
def a_pair_with_a_proxy() -> Case:
    world = World(60)
    client = world.client("client")
    bad = {"forward": [Span(5, 99, 0.3)], "reverse": [Span(5, 99, 0.3)]}
    world.path(client, world.server("s0"), lost=bad, proxied=[Span(0, 99)])
    # Recognised when three minutes of nonsense were counted.
    world.path(client, world.server("s1"), lost=bad, proxied=[Span(8, 99)])
    return Case(
        "where a proxy is recognised no loss is claimed",
        world,
        {minute: [] for minute in range(5, 60, 5)},
        near_miss=("TwocansSegmentsLost",),
        expressions={
            (10, "count(node_pair:twocans_segments_lost:low10m)"): [("{}", 2)],
            (19, "node_pair:twocans_segments_sent:increase10m"): [],
        },
    )


@case
def a_burst_of_loss() -> Case:
    world, _, _ = mesh(45, FIVE, path=losing(lambda a, b: b == 4, share=0.2, end=14))
    return Case(
        "a burst of four minutes wakes nobody",
        world,
        {minute: [] for minute in range(10, 45, 3)},
        near_miss=("TwocansSegmentsLost",),
        expressions={(20, "count(node_pair:twocans_segments_lost:low10m)"): [("{}", 4)]},
    )


@case
def a_path_that_loses_so_much_that_probes_fail() -> Case:
    # One loses in the forward direction, the other in the reverse direction.
    lossy = losing(lambda a, b: (a, b) in ((0, 1), (3, 2)), share=0.2)
    world, clients, servers = mesh(
        60,
        FIVE,
        path=lambda a, b: {
            **lossy(a, b),
            "fail": [Span(10, 35, 0.1)] if (a, b) in ((0, 1), (2, 3)) else [],
        },
    )
    alerts = [path_failing(clients[0], servers[1]), path_failing(clients[2], servers[3])]
    return Case(
        "a path whose probes fail for what it loses is one alert, whichever way loses",
        world,
        {9: [], 30: alerts, 34: alerts, 48: [], 59: []},
        near_miss=("TwocansSegmentsLost",),
    )


@case
def a_pair_of_zones_that_loses_probes_and_segments() -> Case:
    lossy = losing(lambda a, b: (a >= 3) != (b >= 3), share=0.1)
    world, _, _ = mesh(
        60,
        SIX,
        path=lambda a, b: {**lossy(a, b), "fail": [Span(10, 35, 0.03)] if a < 3 <= b else []},
    )
    alerts = [zone_pair("a", "b")]
    return Case(
        "a pair of zones whose probes fail for what is lost in either direction is one alert",
        world,
        {9: [], 30: alerts, 34: alerts, 48: [], 59: []},
        near_miss=("TwocansSegmentsLost",),
    )


@case
def pairs_that_are_slow_for_what_they_lose() -> Case:
    world = World(110)
    alerts = []
    for direction in ("forward", "reverse"):
        client, server = world.client(f"c-{direction}"), world.server(f"s-{direction}")
        slow = [Span(60, 99, 0.021)]
        world.path(client, server, lost={direction: [Span(60, 99, 0.02)]}, connect_s=slow)
        alerts.append(
            losing_pair(*((client, server) if direction == "forward" else (server, client)))
        )
    return Case(
        "a path that is slow because it loses, in either direction, is one alert of what is lost",
        world,
        {59: [], 72: [], 80: alerts, 98: alerts},
        near_miss=("TwocansConnectLatencyHigh",),
    )


@case
def an_accept_queue_that_drops_syns() -> Case:
    world = World(70)
    server = world.server("s", "n0", "a", overflows_a_minute=[Span(20, 60, 3)])
    for number in range(3):
        client = world.client(f"c{number}", f"m{number}", "a")
        world.path(client, server, lost={"forward": [Span(20, 60, 0.01)]})
    return Case(
        "SYNs that a full accept queue drops are the server's limit, and not the way's loss",
        world,
        {19: [], 30: [at_limits(server)], 59: [at_limits(server)], 69: []},
        near_miss=("TwocansSegmentsLost",),
    )


# --- Latency, and hosts that stall ------------------------------------------------------------

WAS = Span(0, 40, 0.001)


@case
def one_slow_server() -> Case:
    world, _, servers = mesh(
        80, FIVE, path=lambda a, b: {"connect_s": [Span(40, 60, 0.02)] if b == 4 else []}
    )
    return Case(
        "a server that all connect to slowly is one alert",
        world,
        {
            39: [],
            48: [],
            56: [slow_server(servers[4])],
            60: [slow_server(servers[4])],
            66: [],
            79: [],
        },
    )


@case
def slow_for_longer_than_its_hour() -> Case:
    world, _, server = pair(120, connect_s=[Span(60, 120, 0.05)])
    alerts = [slow_server(server)]
    return Case(
        "what stays slow is an alert for most of an hour, and then it is how the path is",
        world,
        {59: [], 75: alerts, 95: alerts, 110: alerts, 119: []},
    )


@case
def slow_by_less_than_the_floor() -> Case:
    # Twenty times slower, and still nothing that anybody feels.
    world, _, _ = mesh(
        70, FIVE, path=lambda a, b: {"connect_s": [Span(40, 70, 0.0105)] if b == 4 else []}
    )
    return Case(
        "half a millisecond that becomes ten wakes nobody",
        world,
        {minute: [] for minute in range(39, 70, 5)},
        near_miss=("TwocansConnectLatencyHigh",),
    )


@case
def slow_by_less_than_three_times() -> Case:
    far = [Span(0, 40, 0.1), Span(40, 70, 0.3)]
    world, _, _ = mesh(70, FIVE, path=lambda a, b: {"connect_s": far})
    return Case(
        "100 ms that become 300 wake nobody",
        world,
        {minute: [] for minute in range(39, 70, 5)},
        near_miss=("TwocansConnectLatencyHigh",),
    )


@case
def slow_for_nine_minutes() -> Case:
    # The mean of five minutes is over the limit from about 43 to 54.
    world, _, _ = mesh(
        70, FIVE, path=lambda a, b: {"connect_s": [Span(40, 48, 0.02)] if b == 4 else []}
    )
    return Case(
        "what is slow for eight minutes wakes nobody",
        world,
        {minute: [] for minute in range(39, 70)},
        near_miss=("TwocansConnectLatencyHigh",),
    )


@case
def one_client_that_is_slow_everywhere() -> Case:
    world, clients, _ = mesh(
        80, FIVE, path=lambda a, b: {"connect_s": [Span(40, 60, 0.05 + b / 1000)] if a == 1 else []}
    )
    alerts = [slow("client", node="n1", **source(clients[1]))]
    return Case(
        "a client that connects slowly everywhere is one alert",
        world,
        {39: [], 55: alerts, 60: alerts, 66: [], 79: []},
        texts={
            (56, "TwocansConnectLatencyHigh"): [
                (
                    alerts[0],
                    "Connecting from client n1 on node n1 takes far longer than an hour ago,"
                    " wherever to",
                    "On 100% of its paths or more, though its host lets it run. The slowest:"
                    " to n4, 54ms in the mean of 5 minutes.",
                )
            ]
        },
    )


@case
def a_pair_of_zones_is_slow() -> Case:
    world, _, _ = mesh(
        80,
        SIX,
        path=lambda a, b: {
            "connect_s": [Span(40, 60, 0.05 + (a + b) / 1000)] if a < 3 <= b else []
        },
    )
    alerts = [slow("zones", source_zone="a", target_zone="b")]
    return Case(
        "a pair of zones that has become slow is one alert",
        world,
        {39: [], 55: alerts, 60: alerts, 66: [], 79: []},
        texts={
            (56, "TwocansConnectLatencyHigh"): [
                (
                    alerts[0],
                    "Connecting from zone a to zone b takes far longer than an hour ago",
                    "On 100% of the paths, and no single server or client explains it. The"
                    " slowest: n2 to n5, 57ms in the mean of 5 minutes.",
                )
            ]
        },
    )


@case
def a_pair_of_zones_that_loses_is_slow_too() -> Case:
    # A SYN that is sent again costs a second.
    world, _, _ = mesh(
        65,
        SIX,
        path=lambda a, b: {
            "connect_s": [Span(40, 60, 0.5)] if a < 3 <= b else [],
            "fail": [Span(40, 60, 0.2)] if a < 3 <= b else [],
        },
    )
    return Case(
        "what is late because it is lost is one alert",
        world,
        {39: [], 47: [zone_pair("a", "b")], 58: [zone_pair("a", "b")]},
        near_miss=("TwocansConnectLatencyHigh",),
    )


@case
def two_slow_paths_of_nine() -> Case:
    world, _, _ = mesh(
        65,
        SIX,
        path=lambda a, b: {"connect_s": [Span(40, 65, 0.5)] if (a, b) in ((0, 3), (1, 4)) else []},
    )
    return Case(
        "two slow paths of nine are no pair of zones that is slow",
        world,
        {minute: [] for minute in range(39, 65, 5)},
        near_miss=("TwocansConnectLatencyHigh",),
    )


@case
def a_lone_client_that_is_slow_everywhere() -> Case:
    world = World(75)
    client = world.client("c")
    for number in range(3):
        world.path(client, world.server(f"s{number}"), connect_s=[Span(40, 60, 0.05)])
    alerts = [slow("client", node="c", **source(client))]
    return Case(
        "a lone client that connects to all of three servers slowly is one alert",
        world,
        {39: [], 56: alerts, 60: alerts, 66: []},
    )


@case
def a_client_that_is_slow_to_three_of_four() -> Case:
    slow_paths = [(0, 1), (0, 2), (0, 3)]
    world, _, _ = mesh(
        65,
        FIVE,
        path=lambda a, b: {"connect_s": [Span(40, 65, 0.05)] if (a, b) in slow_paths else []},
    )
    return Case(
        "a client that connects to one server of four as fast as ever is not slow",
        world,
        {minute: [] for minute in range(39, 65, 5)},
        near_miss=("TwocansConnectLatencyHigh",),
    )


@case
def one_slow_path() -> Case:
    world, _, _ = mesh(
        70, SIX, path=lambda a, b: {"connect_s": [Span(40, 70, 0.5)] if (a, b) == (0, 3) else []}
    )
    return Case(
        "one slow path among many is for the dashboard",
        world,
        {minute: [] for minute in range(39, 70, 5)},
        near_miss=("TwocansConnectLatencyHigh",),
    )


@case
def the_only_client_finds_it_slow() -> Case:
    world, _, server = pair(80, connect_s=[Span(40, 60, 0.05)])
    alerts = [slow_server(server)]
    return Case(
        "with one client and one server, the server is what is slow",
        world,
        {39: [], 55: alerts, 60: alerts, 66: [], 79: []},
        texts={
            (56, "TwocansConnectLatencyHigh"): [
                (
                    alerts[0],
                    "Connecting to server server on node server takes far longer than an hour ago",
                    "On 100% of its paths or more, from every zone. The slowest: client,"
                    " 50ms in the mean of 5 minutes; the best path's hour was 500us.",
                )
            ]
        },
    )


@case
def a_stalled_client_finds_all_slow() -> Case:
    world, clients, _ = mesh(
        80,
        FIVE,
        path=lambda a, b: {"connect_s": [Span(40, 60, 0.2)] if a == 1 else []},
        client=lambda a: {"lag_s": [Span(40, 60, 0.02)]} if a == 1 else {},
    )
    alerts = [stalled(clients[1])]
    text = (
        alerts[0],
        "Host n1 does not let twocans run in time",
        "The client, 1 can(s) in all: their loops run late, or a CPU limit stops them."
        " Their latencies are the host's and not the network's; latency alerts leave them out.",
    )
    mean = "zone_pair:twocans_connect_seconds:mean5m"
    return Case(
        "a client whose host stalls finds all slow, and only its host gives an alert",
        world,
        {39: [], 49: [], 53: alerts, 60: alerts, 66: [], 79: []},
        near_miss=("TwocansConnectLatencyHigh",),
        expressions={
            (55, f"round({mean} * 1e6)"): [("{}", 500)],
            (
                55,
                "round(node_pair:twocans_connect_seconds:mean5m"
                "{source_node='n1', target_node='n0'} * 1000)",
            ): [('{source_node="n1", target_node="n0"}', 200)],
        },
        texts={(55, "TwocansHostStalled"): [text]},
    )


@case
def a_stalled_pair() -> Case:
    world = World(80)
    server = world.server("s", "n0", "a", throttled=[Span(40, 60, 0.1)])
    world.client("c", "n0", "a", stalls_a_minute=[Span(40, 60, 6)])
    for number in range(3):
        client = world.client(f"c{number}", f"m{number}", "a")
        world.path(client, server, connect_s=[Span(40, 60, 0.2)])
    host = Can("n0", "n0", "a", {})
    text = (
        stalled(host),
        "Host n0 in zone a does not let twocans run in time",
        "The client, server, 2 can(s) in all: their loops run late, or a CPU limit stops them."
        " Mostly: throttled."
        " Their latencies are the host's and not the network's; latency alerts leave them out.",
    )
    return Case(
        "a host that stalls both its cans is one alert, and its server is not called slow",
        world,
        {39: [], 53: [stalled(host)], 60: [stalled(host)], 66: [], 79: []},
        near_miss=("TwocansConnectLatencyHigh",),
        texts={(55, "TwocansHostStalled"): [text]},
    )


@case
def hosts_that_stall_a_little() -> Case:
    world = World(40)
    world.server("s0", lag_s=[Span(10, 40, 0.0045)])
    world.server("s1", stalls_a_minute=[Span(10, 40, 1.8)])
    world.server("s2", throttled=[Span(10, 40, 0.04)])
    world.client("c0", lag_s=[Span(10, 40, 0.0045)])
    world.client("c1", stalls_a_minute=[Span(10, 40, 1.8)])
    world.client("c2", throttled=[Span(10, 40, 0.04)])
    world.client("c3", lag_s=[Span(10, 14, 0.02)])
    return Case(
        "what a busy machine does now and then is no stall, nor are four minutes of one",
        world,
        {minute: [] for minute in range(9, 40, 3)},
        near_miss=("TwocansHostStalled",),
    )


@case
def each_way_to_stall() -> Case:
    world = World(50)
    cans = [
        world.server("s0", lag_s=[Span(10, 30, 0.0055)]),
        world.server("s1", stalls_a_minute=[Span(10, 30, 2.4)]),
        world.server("s2", throttled=[Span(10, 30, 0.06)]),
        world.client("c0", lag_s=[Span(10, 30, 0.0055)]),
        world.client("c1", stalls_a_minute=[Span(10, 30, 2.4)]),
        world.client("c2", throttled=[Span(10, 30, 0.06)]),
    ]
    alerts = [stalled(can) for can in cans]
    return Case(
        "a late loop, long stalls and a CPU limit each are a stall, of either can",
        world,
        {9: [], 28: alerts, 36: []},
    )


# --- Names and targets ------------------------------------------------------------------------


def lookups(world: World, can: Can, bad: Spans, outcome: str = "dns_failure") -> None:
    """Six look-ups a minute, of which so large a share fails."""
    good = [Span(0, 1e9, 6), *(Span(s.start, s.end, 6 * (1 - s.value)) for s in bad)]
    failed = [Span(s.start, s.end, 6 * s.value) for s in bad]
    for name, spans in (("ok", good), (outcome, failed)):
        labels = {**can.scrape, "outcome": name}
        world.counter("twocans_client_resolutions_total", labels, spans)


def discovered(world: World, can: Can, spans: Spans, target: str = "dns:servers:5000") -> None:
    labels = {**can.scrape, "target": target}
    world.gauge("twocans_client_discovered_addresses", labels, spans, [Span(0, 1e9)])


def dns_failing(can: Can) -> Alert:
    return alert("DnsFailing", "warning", scope="client", node=can.host, **source(can))


@case
def one_client_cannot_resolve() -> Case:
    world, clients, _ = mesh(40, FIVE)
    for number, can in enumerate(clients):
        lookups(world, can, [Span(10, 25, 0.5)] if number == 1 else [])
    alerts = [dns_failing(clients[1])]
    text = (
        alerts[0],
        "Client n1 on node n1 cannot resolve 50% of its look-ups",
        "Of the last 5 minutes. Addresses that it knew before are probed for ten more minutes."
        " Mostly: dns_failure.",
    )
    return Case(
        "one client that cannot resolve is named",
        world,
        {9: [], 15: [], 19: alerts, 25: alerts, 31: [], 39: []},
        texts={(20, "TwocansDnsFailing"): [text]},
    )


@case
def a_flaky_resolver() -> Case:
    world, clients, _ = mesh(40, FIVE)
    for can in clients:
        lookups(world, can, [Span(10, 30, 0.25)])
    return Case(
        "a quarter of all look-ups that fail wake nobody",
        world,
        {minute: [] for minute in range(9, 40, 3)},
        near_miss=("TwocansDnsFailing",),
    )


@case
def the_resolver_is_down() -> Case:
    world, clients, _ = mesh(40, FIVE)
    for number, can in enumerate(clients):
        lookups(world, can, [Span(10, 25)] if number < 3 else [], "dns_timeout")
        # As the client has it: an answer that does not come gives no address.
        discovered(world, can, [Span(0, 99, 5), *([Span(10, 25, 0)] if number < 3 else [])])
    alerts = [alert("DnsFailing", "critical", scope="several")]
    text = (
        alerts[0],
        "3 clients cannot resolve the names of their targets",
        "Of 5 clients, among them n0 on node n0; n1 on node n1; n2 on node n2; so it is"
        " the resolver."
        " Addresses that they knew before are probed for ten more minutes.",
    )
    return Case(
        "a resolver that is silent for three clients is one alert",
        world,
        {9: [], 14: [], 19: alerts, 25: alerts, 31: [], 39: []},
        near_miss=("TwocansDiscoveryEmpty",),
        texts={(20, "TwocansDnsFailing"): [text]},
    )


@case
def one_wrong_name_among_many() -> Case:
    world, clients, _ = mesh(30, FIVE)
    lookups(world, clients[0], [Span(5, 20, 0.1)])
    world.path(
        clients[0],
        None,
        target="typo:5000",
        fail=[Span(5, 20)],
        reason="dns_failure",
    )
    return Case(
        "a name that does not resolve is the resolver's failure, and no server is down",
        world,
        {4: [], 14: [dns_failing(clients[0])], 20: [dns_failing(clients[0])], 27: []},
        near_miss=("TwocansServerDown", "TwocansPathFailing"),
    )


@case
def a_cut_off_client_cannot_resolve_either() -> Case:
    world, clients, _ = mesh(40, FIVE, path=lambda a, b: {"fail": [Span(10, 25)] if a == 2 else []})
    for number, can in enumerate(clients):
        lookups(world, can, [Span(10, 25)] if number == 2 else [])
        discovered(world, can, [Span(0, 99, 5), *([Span(10, 25, 0)] if number == 2 else [])])
    return Case(
        "a client that is cut off from its resolver too is one alert",
        world,
        {9: [], 14: [cut_off(clients[2])], 22: [cut_off(clients[2])], 29: [], 39: []},
        near_miss=("TwocansDnsFailing", "TwocansDiscoveryEmpty"),
    )


@case
def a_cut_off_client_waits_for_its_resolver() -> Case:
    world, clients, _ = mesh(40, FIVE, path=lambda a, b: {"fail": [Span(10, 25)] if a == 2 else []})
    for number, can in enumerate(clients):
        lookups(world, can, [Span(10, 25)] if number == 2 else [], "dns_timeout")
        discovered(world, can, [Span(0, 99, 5), *([Span(10, 25, 0)] if number == 2 else [])])
    return Case(
        "a client that is cut off, and whose resolver is silent, is one alert",
        world,
        {9: [], 14: [cut_off(clients[2])], 22: [cut_off(clients[2])], 29: [], 39: []},
        near_miss=("TwocansDnsFailing", "TwocansDiscoveryEmpty"),
    )


@case
def a_service_without_pods() -> Case:
    world, clients, _ = mesh(40, FIVE)
    for can in clients:
        lookups(world, can, [Span(10, 25)])
        discovered(world, can, [Span(0, 99, 5), Span(10, 25, 0)])
        discovered(world, can, [Span(0, 99, 1), Span(10, 13, 0)], "dns:others:5000")
    alerts = [alert("DiscoveryEmpty", "warning", target="dns:servers:5000")]
    text = (
        alerts[0],
        "Target dns:servers:5000 has no address",
        "5 of 5 clients that look it up find nothing to probe there.",
    )
    return Case(
        "an empty target is one alert, however many clients look at it",
        world,
        {9: [], 14: [], 16: alerts, 24: alerts, 26: [], 31: [], 39: []},
        near_miss=("TwocansDnsFailing",),
        texts={(20, "TwocansDiscoveryEmpty"): [text]},
    )


@case
def a_target_that_is_empty_for_four_minutes() -> Case:
    world, clients, _ = mesh(30, FIVE)
    for can in clients:
        discovered(world, can, [Span(0, 99, 1), Span(10, 14, 0)])
    return Case(
        "a target that is empty for four minutes, or has one address, wakes nobody",
        world,
        {minute: [] for minute in range(9, 30)},
        near_miss=("TwocansDiscoveryEmpty",),
    )


# --- Clients that do not probe ----------------------------------------------------------------


@case
def a_client_that_is_gone() -> Case:
    away = [Span(0, 10), Span(25, 99)]
    world, clients, _ = mesh(
        40,
        FIVE,
        path=lambda a, b: {"alive": away if a == 3 else [Span(0, 99)]},
        client=lambda a: {"alive": away} if a == 3 else {},
    )
    alerts = [not_probing(clients[3], "gone")]
    text = (
        alerts[0],
        "Client n3 on node n3 does not probe (gone)",
        "Its metrics cannot be scraped: it, its node or the way to it is gone."
        " What it would see fail is not seen.",
    )
    return Case(
        "a client that cannot be scraped is called by its name and its node",
        world,
        {9: [], 14: [], 16: alerts, 24: alerts, 26: [], 39: []},
        texts={(20, "TwocansClientNotProbing"): [text]},
    )


@case
def a_client_that_never_was() -> Case:
    world = World(15)
    world.client("c", alive=[Span(99, 100)])
    labels = {"job": "twocans-client", "instance": "c:5002", "client": "c:5002"}
    return Case(
        "a client that could never be scraped is called by its address",
        world,
        {4: [], 6: [alert("ClientNotProbing", "warning", reason="gone", **labels)]},
        expressions={
            (3, "client:twocans_client:info"): [],
        },
    )


@case
def a_client_that_restarts_slowly() -> Case:
    away = [Span(0, 10), Span(14, 99)]
    world, _, _ = mesh(
        30,
        FIVE,
        path=lambda a, b: {"alive": away if a == 3 else [Span(0, 99)]},
        client=lambda a: {"alive": away} if a == 3 else {},
    )
    return Case(
        "a client that is away for four minutes wakes nobody",
        world,
        {minute: [] for minute in range(9, 30)},
        near_miss=("TwocansClientNotProbing",),
    )


@case
def a_node_that_was_removed() -> Case:
    world, _, _ = mesh(
        30,
        FIVE,
        path=lambda a, b: {"alive": [Span(0, 10)] if 4 in (a, b) else [Span(0, 99)]},
        client=lambda a: {"alive": [Span(0, 10)], "listed": [Span(0, 10)]} if a == 4 else {},
    )
    return Case(
        "a node that was taken out is missed by nobody",
        world,
        {minute: [] for minute in range(9, 30)},
        near_miss=("TwocansClientNotProbing", "TwocansServerDown"),
    )


@case
def no_client_at_all() -> Case:
    world = World(90)
    present = [Span(0, 10), Span(80, 99)]
    world.client("c", alive=present, listed=present)
    labels = {"job": "twocans-client", "reason": "absent"}
    return Case(
        "a job whose last target has gone is missed for an hour",
        world,
        {
            9: [],
            14: [],
            16: [alert("ClientNotProbing", "warning", **labels)],
            65: [alert("ClientNotProbing", "warning", **labels)],
            72: [],
            85: [],
        },
        texts={
            (20, "TwocansClientNotProbing"): [
                (
                    alert("ClientNotProbing", "warning", **labels),
                    "Every client of job twocans-client does not probe (absent)",
                    "There was a target within the last hour, and now there is none."
                    " What it would see fail is not seen.",
                )
            ]
        },
    )


@case
def a_schedule_that_stands_still() -> Case:
    still = [Span(0, 99, 1), Span(10, 25, 0)]
    world, client, _ = pair(40, scheduled=still)
    one = [Span(0, 1e9, 1)]
    world.gauge("twocans_client_paths", client.scrape, one, one)
    other = world.client("idle")
    world.gauge("twocans_client_paths", other.scrape, [Span(30, 99)], one)
    # In a cluster of one node: the only server is its own node's, with an address of each family.
    alone = world.client("alone")
    world.gauge("twocans_client_paths", alone.scrape, [], one)
    discovered(world, alone, [Span(0, 1e9, 2)])
    # It finds servers, and cannot greet one of them.
    stuck = world.client("stuck")
    world.gauge("twocans_client_paths", stuck.scrape, [Span(30, 99)], one)
    discovered(world, stuck, [Span(0, 1e9, 3)])
    others = [not_probing(other, "idle"), not_probing(stuck, "idle")]
    idle = [not_probing(client, "idle"), *others]
    return Case(
        "a client without a due slot, or without a path, does not probe; one that is alone"
        " is content",
        world,
        {4: [], 8: others, 14: others, 21: idle, 24: idle, 28: others, 31: [], 39: []},
    )


@case
def a_client_that_is_blind() -> Case:
    world = World(40)
    server = world.server("s", "n0", "a")
    cans = [world.client(f"c{number}", f"m{number}", "a") for number in range(5)]
    span = [Span(10, 25, 0.3)]
    world.path(cans[0], server, missed=[Span(10, 25, 0.6)])
    world.path(cans[1], server, missed=span, void=span, void_reason="no_ports")
    world.path(cans[2], server, missed=[Span(10, 25, 0.45)])
    world.path(cans[3], server, missed=span, void=[Span(10, 25, 0.7)], void_reason="draining")
    world.path(cans[4], server, missed=[Span(10, 25, 0.9)])
    blind = [not_probing(cans[number], "blind") for number in (0, 1, 4)]
    return Case(
        "a client of whose slots most are missed or void by its own doing does not probe",
        world,
        {9: [], 21: blind, 25: blind, 31: [], 39: []},
    )


@case
def a_client_that_is_blind_for_its_host_stalls() -> Case:
    world = World(40)
    server = world.server("s", "n0", "a")
    can = world.client("c", "m", "a", lag_s=[Span(10, 25, 0.5)])
    world.path(can, server, missed=[Span(10, 25, 0.9)])
    return Case(
        "a client that is blind for its host stalls is the host's alert",
        world,
        {9: [], 22: [stalled(can)], 25: [stalled(can)], 31: [], 39: []},
        near_miss=("TwocansClientNotProbing",),
    )


# --- Limits -----------------------------------------------------------------------------------


@case
def servers_at_their_limits() -> Case:
    world = World(40)
    on = Span(10, 25)
    cans = [
        world.server("s0", limit_hits_a_minute={"max_connections": [on._replace(value=30)]}),
        world.server("s1", queue=[on._replace(value=81)]),
        world.server("s2", overflows_a_minute=[on._replace(value=4)]),
        world.server("s3", accept_errors_a_minute=[on._replace(value=4)]),
    ]
    alerts = [at_limits(can) for can in cans]
    said = [
        "In 5 minutes: limit max_connections 150 times; 0 wait to be accepted.",
        "In 5 minutes: 81 wait to be accepted.",
        "In 5 minutes: 20 dropped by a full accept queue; 0 wait to be accepted.",
        "In 5 minutes: accept() failed 20 times; 0 wait to be accepted.",
    ]
    texts = [
        (one, f"Server {can.name} on node {can.name} turns connections away", words)
        for one, can, words in zip(alerts, cans, said, strict=True)
    ]
    return Case(
        "a server that refuses, drops, or has a full queue is at its limits",
        world,
        {9: [], 14: [], 16: alerts, 24: alerts, 32: [], 39: []},
        texts={(20, "TwocansServerAtLimits"): texts},
    )


@case
def servers_near_their_limits() -> Case:
    world = World(40)
    hits = {
        "idle_s": [Span(10, 40, 99)],
        "frames_per_turn": [Span(10, 40, 99)],
        "accepts_per_turn": [Span(10, 40, 99)],
        "max_buffered_bytes": [Span(10, 40, 99)],
        "max_connections": [Span(10, 40, 0.8)],
    }
    world.server("s0", limit_hits_a_minute=hits)
    world.server("s1", queue=[Span(10, 40, 80)])
    world.server("s2", queue=[Span(10, 14, 100)])
    return Case(
        "limits that refuse nobody, a few refusals, and a queue of four fifths wake nobody",
        world,
        {minute: [] for minute in range(9, 40, 2)},
        near_miss=("TwocansServerAtLimits",),
    )


@case
def paths_left_out() -> Case:
    world = World(60)
    one = [Span(0, 1e9)]
    for number in range(3):
        can = world.client(f"c{number}", f"m{number}")
        over = [Span(10, 40, 7.0 * number)]
        world.gauge("twocans_client_paths_left_out", can.scrape, over, one)
    alerts = [alert("PathsLeftOut", "warning")]
    text = (
        alerts[0],
        "2 client(s) leave paths out: more than max_paths, or wrong in the targets file",
        "The most: client c2 on node m2 leaves 14 out. They are not probed, and nothing"
        " alarms for them.",
    )
    return Case(
        "paths that are left out are one alert for all clients",
        world,
        {9: [], 24: [], 26: alerts, 39: alerts, 41: [], 59: []},
        texts={(30, "TwocansPathsLeftOut"): [text]},
    )


@case
def targets_refused() -> Case:
    world = World(60)
    can = world.client("c", "m")
    world.gauge("twocans_client_paths_left_out", can.scrape, [], [Span(0, 1e9)])
    world.gauge("twocans_client_targets_refused", can.scrape, [Span(10, 40, 3)], [Span(0, 1e9)])
    alerts = [alert("PathsLeftOut", "warning")]
    text = (
        alerts[0],
        "1 client(s) leave paths out: more than max_paths, or wrong in the targets file",
        "The most: client c on node m leaves 3 out. They are not probed, and nothing alarms for"
        " them.",
    )
    return Case(
        "what is wrong in a targets file is an alert",
        world,
        {9: [], 24: [], 26: alerts, 39: alerts, 41: [], 59: []},
        texts={(30, "TwocansPathsLeftOut"): [text]},
    )


@case
def paths_left_out_for_a_while() -> Case:
    world = World(40)
    can = world.client("c")
    world.gauge("twocans_client_paths_left_out", can.scrape, [Span(10, 24, 5)], [Span(0, 1e9)])
    return Case(
        "paths that are left out for fourteen minutes wake nobody",
        world,
        {minute: [] for minute in range(9, 40)},
        near_miss=("TwocansPathsLeftOut",),
    )
