"""Connecting takes long, and hosts that stall."""

from rules.case import (
    FIVE,
    SIX,
    a_to_b,
    alert,
    case,
    clients_of,
    mesh,
    of,
    on,
    only,
    pair,
    slow_client,
    slow_server,
    stalled,
    to,
    zone_pair,
)
from rules.world import Span, World

SLOW = Span(40, 60, 0.05)


def lone_client(world: World) -> None:
    client = world.client("c")
    for number in range(3):
        world.path(client, world.server(f"s{number}"), connect_s=[SLOW])


def both_cans_of_a_host_stall(world: World) -> None:
    server = world.server("s", "n0", "a", throttled=[Span(40, 60, 0.1)])
    world.client("c", "n0", "a", stalls_a_minute=[Span(40, 60, 6)])
    clients_of(world, server, 3, connect_s=[Span(40, 60, 0.2)])


def each_way_to_stall(world: World, end: float, lag_s: float, stalls: float, share: float) -> None:
    for name, add in (("s", world.server), ("c", world.client)):
        add(f"{name}0", lag_s=[Span(10, end, lag_s)])
        add(f"{name}1", stalls_a_minute=[Span(10, end, stalls)])
        add(f"{name}2", throttled=[Span(10, end, share)])


def nearly_stalled(world: World) -> None:
    each_way_to_stall(world, 40, 0.0045, 1.8, 0.04)
    world.client("c3", lag_s=[Span(10, 14, 0.02)])


CASES = [
    case(
        "a server that all connect to slowly is one alert",
        mesh(FIVE, connect_s=on(to(4), Span(40, 60, 0.02))),
        minutes=80,
        quiet=(39, 48, 66, 79),
        fires={(56, 60): [slow_server("n4")]},
    ),
    case(
        "what stays slow is an alert for most of an hour, and then it is how the path is",
        pair(connect_s=[Span(60, 120, 0.05)]),
        minutes=120,
        quiet=(59, 119),
        fires={(75, 95, 110): [slow_server("server")]},
    ),
    case(
        "half a millisecond that becomes ten wakes nobody",
        # Twenty times slower, and still nothing that anybody feels.
        mesh(FIVE, connect_s=on(to(4), Span(40, 70, 0.0105))),
        minutes=70,
        quiet=range(39, 70, 5),
        near_miss=["ConnectLatencyHigh"],
    ),
    case(
        "100 ms that become 300 wake nobody",
        mesh(FIVE, connect_s=lambda a, b: [Span(0, 40, 0.1), Span(40, 70, 0.3)]),
        minutes=70,
        quiet=range(39, 70, 5),
        near_miss=["ConnectLatencyHigh"],
    ),
    case(
        "what is slow for eight minutes wakes nobody",
        # The mean of five minutes is over the limit from about 43 to 54.
        mesh(FIVE, connect_s=on(to(4), Span(40, 48, 0.02))),
        minutes=70,
        quiet=range(39, 70),
        near_miss=["ConnectLatencyHigh"],
    ),
    case(
        "a client that connects slowly everywhere is one alert",
        mesh(FIVE, connect_s=lambda a, b: [Span(40, 60, 0.05 + b / 1000)] if a == 1 else []),
        minutes=80,
        quiet=(39, 66, 79),
        fires={(55, 60): [slow_client("n1")]},
        says=(
            56,
            "Connecting from client n1 on node n1 takes far longer than an hour ago, to any server",
            "On at least 100% of its paths, though its host does not stall. The slowest: to n4, "
            "54ms on average over 5 minutes.",
        ),
    ),
    case(
        "a pair of zones that has become slow is one alert",
        mesh(
            SIX,
            connect_s=lambda a, b: [Span(40, 60, 0.05 + (a + b) / 1000)] if a_to_b(a, b) else [],
        ),
        minutes=80,
        quiet=(39, 66, 79),
        fires={
            (55, 60): [
                alert(
                    "ConnectLatencyHigh",
                    "warning",
                    scope="zones",
                    source_zone="a",
                    target_zone="b",
                )
            ]
        },
        says=(
            56,
            "Connecting from zone a to zone b takes far longer than an hour ago",
            "On 100% of the paths, and no single server or client explains it. The slowest: n2 to "
            "n5, 57ms on average over 5 minutes.",
        ),
    ),
    case(
        "what is late because it is lost is one alert",
        # A SYN that is sent again costs a second.
        mesh(SIX, connect_s=on(a_to_b, Span(40, 60, 0.5)), fail=on(a_to_b, Span(40, 60, 0.2))),
        minutes=65,
        quiet=[39],
        fires={(47, 58): [zone_pair("a", "b")]},
        near_miss=["ConnectLatencyHigh"],
    ),
    case(
        "two slow paths of nine are no pair of zones that is slow",
        mesh(SIX, connect_s=on(only((0, 3), (1, 4)), Span(40, 65, 0.5))),
        minutes=65,
        quiet=range(39, 65, 5),
        near_miss=["ConnectLatencyHigh"],
    ),
    case(
        "a lone client that connects to all of three servers slowly is one alert",
        lone_client,
        minutes=75,
        quiet=(39, 66),
        fires={(56, 60): [slow_client("c")]},
    ),
    case(
        "a client that connects to one server of four as fast as ever is not slow",
        mesh(FIVE, connect_s=on(only((0, 1), (0, 2), (0, 3)), Span(40, 65, 0.05))),
        minutes=65,
        quiet=range(39, 65, 5),
        near_miss=["ConnectLatencyHigh"],
    ),
    case(
        "one slow path among many is for the dashboard",
        mesh(SIX, connect_s=on(only((0, 3)), Span(40, 70, 0.5))),
        minutes=70,
        quiet=range(39, 70, 5),
        near_miss=["ConnectLatencyHigh"],
    ),
    case(
        "with one client and one server, the server is what is slow",
        pair(connect_s=[SLOW]),
        minutes=80,
        quiet=(39, 66, 79),
        fires={(55, 60): [slow_server("server")]},
        says=(
            56,
            "Connecting to server server on node server takes far longer than an hour ago",
            "On at least 100% of its paths, from every zone. The slowest: client, 50ms on average "
            "over 5 minutes; the best path took 500us in the hour before.",
        ),
    ),
    case(
        "a client whose host stalls finds all slow, and only its host gives an alert",
        mesh(
            FIVE,
            clients={1: {"lag_s": [Span(40, 60, 0.02)]}},
            connect_s=on(of(1), Span(40, 60, 0.2)),
        ),
        minutes=80,
        quiet=(39, 49, 66, 79),
        fires={(53, 60): [stalled("n1")]},
        near_miss=["ConnectLatencyHigh"],
        expressions={
            (55, "round(zone_pair:twocans_connect_seconds:mean5m * 1e6)"): [("{}", 500)],
            (
                55,
                "round(node_pair:twocans_connect_seconds:mean5m"
                "{source_node='n1', target_node='n0'} * 1000)",
            ): [('{source_node="n1", target_node="n0"}', 200)],
        },
        says=(
            55,
            "Host n1 does not run twocans in time",
            "The client, 1 process(es) in all: their loops run late, or a CPU limit stops them. "
            "Their latencies are the host's and not the network's; latency alerts leave them out.",
        ),
    ),
    case(
        "a host that stalls both its cans is one alert, and its server is not called slow",
        both_cans_of_a_host_stall,
        minutes=80,
        quiet=(39, 66, 79),
        fires={(53, 60): [stalled("n0/a")]},
        near_miss=["ConnectLatencyHigh"],
        says=(
            55,
            "Host n0 in zone a does not run twocans in time",
            "The client, server, 2 process(es) in all: their loops run late, or a CPU limit stops "
            "them. Mostly: throttled. Their latencies are the host's and not the network's; "
            "latency alerts leave them out.",
        ),
    ),
    case(
        "what a busy machine does now and then is no stall, nor are four minutes of one",
        nearly_stalled,
        quiet=range(9, 40, 3),
        near_miss=["HostStalled"],
    ),
    case(
        "a late loop, long stalls and a CPU limit each are a stall, of either can",
        lambda world: each_way_to_stall(world, 30, 0.0055, 2.4, 0.06),
        minutes=50,
        quiet=(9, 36),
        fires={(28,): [stalled(name) for name in ("s0", "s1", "s2", "c0", "c1", "c2")]},
    ),
]
