"""A server is down, or a client is cut off."""

from rules.case import (
    DOWN,
    FIVE,
    TWO_AND_FOUR,
    case,
    cut_off,
    mesh,
    of,
    on,
    only,
    pair,
    path_failing,
    recorded,
    server_down,
    to,
)
from rules.world import ALWAYS, Span, World

GONE = {"alive": [Span(0, 10)]}
AWAY = {"alive": [Span(0, 10), Span(25, 99)]}
CRASHED = {"alive": [Span(0, 10), Span(50, 999)]}

PROBED_BY = "server:twocans_probed_by:count"
FAILED = "twocans_probes_failed:ratio_rate5m"
ON_M0 = (
    'job="twocans-client", instance="c0:5002", client="c0", source_node="m0", source_zone="a",'
    ' server="s", target_node="n0", target_zone="a"'
)


def by_name(n: int) -> str:
    return f'{{server="n{n}", target_node="n{n}"}}'


def from_m(n: int) -> str:
    return f'{{source_node="m{n}", source_zone="a", target_node="n0", target_zone="a"}}'


def broken_ipv6(world: World) -> None:
    server = world.server("s", "n0", "a")
    for number in range(3):
        client = world.client(f"c{number}", f"m{number}", "a")
        world.path(client, server)
        world.path(client, server, family="6", fail=[DOWN], reason="unreachable")


def never_there(world: World) -> None:
    fail = [Span(0, 99)]
    world.path(world.client("client"), None, target="nobody:5000", fail=fail, reason="refused")


def three_targets_of_one_client(world: World) -> None:
    server = world.server("s", "n0", "a")
    clients = [world.client(f"c{number}", f"m{number}", "a") for number in range(2)]
    for target in ("dns:one:5000", "dns:two:5000", "dns:three:5000"):
        world.path(clients[0], server, target=target, fail=[DOWN])
    world.path(clients[1], server)


def lone_client(world: World, servers: int) -> None:
    """One client and so many servers, of which the first three fail."""
    client = world.client("c")
    for n in range(servers):
        world.path(client, world.server(f"s{n}"), fail=[DOWN] if n < 3 else [])


def alive_until_given_up(a: int, b: int) -> list[Span]:
    """DNS drops a dead node within a minute; its clients give it up at 16."""
    return [Span(0, 10 if a == 4 else 16 if b == 4 else 999)]


CASES = [
    # --- A server is down ---------------------------------------------------------------------
    case(
        "a node that is dead for good gives one alert for good, though nobody probes it any more",
        mesh(FIVE, {4: GONE}, {4: GONE}, fail=on(to(4), Span(10, 999)), alive=alive_until_given_up),
        minutes=90,
        quiet=(9, 12),
        fires={tuple(range(14, 89, 3)): [server_down("n4")]},
        says=(
            60,
            "Server n4 on node n4 cannot be reached",
            "It was down when its clients gave it up, and its metrics still cannot be scraped.",
        ),
    ),
    case(
        "a server that goes on crashing is one alert until it is back",
        mesh(
            FIVE,
            servers={4: CRASHED},
            fail=on(to(4), Span(10, 50)),
            alive=on(to(4), Span(0, 16), Span(50, 999), otherwise=[ALWAYS]),
        ),
        minutes=70,
        quiet=(9, 12, 53, 56, 69),
        fires={(14, *range(16, 50, 2)): [server_down("n4")]},
    ),
    case(
        "a server that answers its clients is not down because it cannot be scraped",
        mesh(FIVE, servers={4: GONE}),
        quiet=(14, 20, 39),
        near_miss=["ServerDown"],
    ),
    case(
        "one dead node of five gives one alert, which names it",
        # Nobody can scrape it either, and its client does not probe.
        mesh(
            FIVE,
            {4: AWAY},
            {4: AWAY},
            fail=on(to(4), DOWN),
            alive=on(of(4), *AWAY["alive"], otherwise=[ALWAYS]),
        ),
        minutes=45,
        # Silent since 10:00, it is down at 11:30 at the latest.
        quiet=(9, 12, 28, 32, 44),
        fires={(14, 20, 25): [server_down("n4")]},
        expressions=recorded(20, {PROBED_BY: {by_name(n): 4 if n == 4 else 3 for n in range(5)}}),
        says=(
            20,
            "Server n4 on node n4 cannot be reached",
            "100% of the paths to it fail at more than half of their probes, of 4 client(s), over"
            " IPv4. Mostly: connect_timeout.",
        ),
    ),
    case(
        "a node that is cut off in both directions is one alert, its client's included",
        mesh(FIVE, fail=on(lambda a, b: 4 in (a, b), DOWN)),
        quiet=(9, 28, 32, 39),
        fires={(14, 24): [server_down("n4")]},
    ),
    case(
        "a server that half of its clients reach is not down",
        mesh(FIVE, fail=on(only((0, 4), (1, 4)), DOWN)),
        quiet=(9, 14, 31),
        fires={(17, 24): [path_failing("n0", "n4"), path_failing("n1", "n4")]},
        near_miss=["ServerDown"],
    ),
    case(
        "a server that is back after 90 seconds wakes nobody",
        mesh(FIVE, fail=on(to(4), Span(10, 11.5))),
        minutes=30,
        quiet=range(9, 30),
        near_miss=["ServerDown", "PathFailing"],
    ),
    case(
        "a server at which less than half of the probes fail is not down",
        mesh(FIVE, fail=on(to(4), Span(10, 25, 0.45))),
        quiet=(9, 14, 32),
        fires={(18,): [path_failing(f"n{n}", "n4") for n in range(4)]},
        near_miss=["ServerDown"],
    ),
    case(
        "with one client and one server, the server is down",
        pair(fail=[DOWN]),
        quiet=(9, 12, 28, 39),
        fires={(14, 25): [server_down("server")]},
    ),
    case(
        "a server that never answered is called as its target",
        never_there,
        minutes=20,
        quiet=[1],
        fires={(4, 19): [server_down("@nobody:5000")]},
        says=(
            10,
            "Server (no name) on node nobody:5000 cannot be reached",
            "100% of the paths to it fail at more than half of their probes, of 1 client(s), over"
            " IPv4. Mostly: refused.",
        ),
    ),
    case(
        "a server whose IPv6 is broken is one alert, which says so",
        broken_ipv6,
        quiet=(9, 29, 39),
        fires={(14, 25): [server_down("s@n0/a")]},
        says=(
            20,
            "Server s on node n0 in zone a cannot be reached",
            "100% of the paths to it fail at more than half of their probes, of 3 client(s), over"
            " IPv6. Mostly: unreachable.",
        ),
        expressions={
            (20, f"path:{FAILED}{{source_node='m0'}}"): [
                (f'path:{FAILED}{{{ON_M0}, family="{family}", target="dns:servers:5000"}}', value)
                for family, value in (("4", 0), ("6", 1))
            ],
            **recorded(20, {f"node_pair:{FAILED}": {from_m(n): 0.5 for n in range(3)}}),
        },
    ),
    case(
        "a server that most clients fail at is down, though its neighbour reaches it",
        # Reached from its own zone, so it does not fail from everywhere; but b's line to it alone.
        mesh(TWO_AND_FOUR, fail=on(lambda a, b: b == 0 and a >= 2, DOWN)),
        quiet=(9, 29, 39),
        fires={(14, 25): [server_down("n0/a")]},
    ),
    case(
        "eight dead servers of ten are eight alerts, and no client is blamed",
        mesh(FIVE * 2, fail=on(lambda a, b: b >= 2, DOWN)),
        quiet=(9, 29, 39),
        fires={(14, 25): [server_down(f"n{n}") for n in range(2, 10)]},
        near_miss=["ClientCutOff"],
    ),
    # --- A client is cut off ------------------------------------------------------------------
    case(
        "one client that is cut off gives one alert, and no path or server is blamed",
        mesh(FIVE, fail=on(of(2), DOWN)),
        minutes=45,
        quiet=(9, 12, 28, 32, 44),
        fires={(14, 20, 25): [cut_off("n2")]},
        says=(
            20,
            "Client n2 on node n2 reaches hardly any server",
            "100% of its paths fail, over IPv4, to servers that are otherwise up: the fault is on "
            "its own side. Mostly: connect_timeout.",
        ),
    ),
    case(
        "four clients of ten that are cut off are four alerts, and no server is blamed",
        mesh(FIVE * 2, fail=on(lambda a, b: a >= 6, DOWN)),
        quiet=(9, 29, 39),
        fires={(14, 25): [cut_off(f"n{n}") for n in range(6, 10)]},
        near_miss=["ServerDown", "ZonePairLosing", "PathFailing"],
    ),
    case(
        "a lone client that fails to all of three servers is cut off",
        lambda world: lone_client(world, 3),
        quiet=(9, 29, 39),
        fires={(14, 25): [cut_off("c")]},
        near_miss=["ServerDown"],
    ),
    case(
        "a client that reaches one of four servers is not cut off",
        lambda world: lone_client(world, 4),
        quiet=(9, 29),
        fires={(14, 25): [server_down(f"s{n}") for n in range(3)]},
        near_miss=["ClientCutOff"],
    ),
    case(
        "a server that one client of two fails at, over three targets, is not down",
        three_targets_of_one_client,
        quiet=(9, 14, 32),
        fires={(17, 24): [path_failing("c0@m0/a", "s@n0/a")]},
        near_miss=["ServerDown"],
    ),
    case(
        "a client that reaches one server of four, which others reach, is not cut off",
        mesh(FIVE, fail=on(only((0, 1), (0, 2), (0, 3)), DOWN)),
        quiet=(9, 14, 32),
        fires={(17, 24): [path_failing("n0", f"n{n}") for n in (1, 2, 3)]},
        near_miss=["ClientCutOff", "ServerDown"],
    ),
    case(
        "a client that reaches nothing but its neighbour is cut off",
        # Zone b is 4 servers of 5; the one of its own zone answers.
        mesh(TWO_AND_FOUR, fail=on(lambda a, b: a == 0 and b >= 2, DOWN)),
        quiet=(9, 29, 39),
        fires={(14, 25): [cut_off("n0/a")]},
    ),
]
