"""A pair of zones loses probes."""

from rules.case import (
    DOWN,
    SIX,
    TWO_AND_FOUR,
    a_to_b,
    case,
    mesh,
    on,
    only,
    path_failing,
    server_down,
    to,
    zone_pair,
)
from rules.world import Span, World

TWO_AND_SIX = (*TWO_AND_FOUR, "b", "b")


def in_turn(number: int) -> list[Span]:
    """Each for 90 seconds, and the next as soon as one is back: five minutes know of three."""
    start = 10 + 1.5 * (number - 2)
    return [Span(start, start + 1.5)] if number >= 2 else []


def a_dead_server_and_losing_zones(world: World) -> None:
    servers = [world.server(f"s{number}", f"n{number}", "b") for number in range(4)]
    for number in range(4):
        client = world.client(f"c{number}", f"m{number}", "a")
        for server in servers:
            world.path(client, server, fail=[Span(10, 25, 1.0 if server is servers[0] else 0.2)])


CASES = [
    case(
        "a pair of zones that loses is one alert, by direction",
        # Each path a little otherwise, so that the worst are the worst.
        mesh(
            SIX,
            fail=lambda a, b: (
                [Span(10, 25, 0.2 + 0.03 * a + 0.01 * (b - 3))] if a_to_b(a, b) else []
            ),
        ),
        quiet=(9, 13, 31, 39),
        fires={(17, 20, 25): [zone_pair("a", "b")]},
        expressions={
            (20, "round(zone_pair:twocans_probes_failed:ratio_rate5m * 100)"): [
                (f'{{source_zone="{a}", target_zone="{b}"}}', 24 if a + b == "ab" else 0)
                for a in "ab"
                for b in "ab"
            ]
        },
        says=(
            20,
            "From zone a to zone b, 24% of all probes fail",
            "9 of 9 paths lose probes, and no server that is down explains it. The worst: n2 to "
            "n5 28%; n2 to n4 27%; n2 to n3 26%;",
        ),
    ),
    case(
        "two zones that are parted are two alerts, and no server or client is blamed",
        mesh(TWO_AND_FOUR, fail=on(lambda a, b: (a < 2) != (b < 2), DOWN)),
        quiet=(9, 31, 39),
        fires={(17, 25): [zone_pair("a", "b"), zone_pair("b", "a")]},
        near_miss=["ServerDown", "ClientCutOff", "PathFailing"],
    ),
    case(
        "servers of a zone that crash one after the other are no pair of zones that loses",
        mesh(TWO_AND_SIX, fail=lambda a, b: in_turn(b)),
        quiet=range(9, 40),
        near_miss=["ZonePairLosing", "ServerDown", "PathFailing"],
    ),
    case(
        "clients of a zone that are cut off one after the other are no pair of zones that loses",
        mesh(TWO_AND_SIX, fail=lambda a, b: in_turn(a)),
        quiet=range(9, 40),
        near_miss=["ZonePairLosing", "ClientCutOff", "PathFailing"],
    ),
    case(
        "a dead server behind a pair of zones that loses has an alert of its own",
        a_dead_server_and_losing_zones,
        quiet=(9, 32, 39),
        fires={
            (14,): [server_down("s0@n0/b")],
            (17, 25): [server_down("s0@n0/b"), zone_pair("a", "b")],
        },
    ),
    case(
        "two dead servers of a zone explain what its pairs lose",
        mesh(SIX, fail=on(to(3, 4), DOWN)),
        quiet=(9, *range(28, 40)),
        fires={(14, 20, 25): [server_down("n3/b"), server_down("n4/b")]},
        near_miss=["ZonePairLosing", "PathFailing"],
    ),
    case(
        "one bad path of nine is a path, and not a pair of zones",
        mesh(SIX, fail=on(only((0, 3)), Span(10, 25, 0.3), otherwise=[Span(10, 25, 0.009)])),
        quiet=(9, 31),
        fires={(17, 25): [path_failing("n0/a", "n3/b")]},
        near_miss=["ZonePairLosing"],
    ),
    case(
        "what one server alone loses is no pair of zones",
        mesh(SIX, fail=on(lambda a, b: a < 3 and b == 3, Span(10, 25, 0.3))),
        quiet=(9, 31),
        fires={(20,): [path_failing(f"n{n}/a", "n3/b") for n in range(3)]},
        near_miss=["ZonePairLosing"],
    ),
    case(
        "what one client alone loses is no pair of zones",
        mesh(SIX, fail=on(lambda a, b: a == 0 and b >= 3, Span(10, 25, 0.3))),
        quiet=(9, 31),
        fires={(20,): [path_failing("n0/a", f"n{n}/b") for n in (3, 4, 5)]},
        near_miss=["ZonePairLosing"],
    ),
    case(
        "a pair of zones that loses 9 probes in a thousand wakes nobody",
        mesh(SIX, fail=on(a_to_b, Span(10, 30, 0.009))),
        quiet=range(10, 40, 3),
        near_miss=["ZonePairLosing"],
    ),
    case(
        "two bad paths of nine are two paths: less than a quarter",
        mesh(SIX, fail=on(only((0, 3), (1, 4)), DOWN)),
        quiet=(9, 31),
        fires={(17, 25): [path_failing("n0/a", "n3/b"), path_failing("n1/a", "n4/b")]},
        near_miss=["ZonePairLosing", "ServerDown"],
    ),
]
