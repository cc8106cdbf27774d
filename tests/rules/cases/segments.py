"""Segments are lost."""

from collections.abc import Callable
from typing import Any

from rules.case import (
    FIVE,
    SIX,
    Which,
    a_to_b,
    alert,
    at_limits,
    case,
    clients_of,
    losing_end,
    losing_pair,
    mesh,
    on,
    only,
    pair,
    path_failing,
    recorded,
    to,
    zone_pair,
)
from rules.world import Span, World

# When a loss that begins at 10 and ends at 35 is told, and when not.
FIRING, QUIET = (29, 34), (9, 24, 48, 59)

SOME = ((0, 1), (0, 2), (0, 3), (1, 5), (2, 5))
TO_ZONE_B_AND_BACK = ((0, 1), (0, 2), (0, 3), (1, 0), (2, 0), (3, 0))
RECEIVERS = "receiver:twocans_segments_lost:ratio"
N0_TO_N1 = '{source_node="n0", target_node="n1"}'


def losing(
    which: Which, share: float = 0.005, start: float = 10, end: float = 35
) -> Callable[[int, int], Any]:
    """Lose some of what some nodes send to others, as both cans of either see it.

    The farther from the first node the more of it, so that one pair is the worst.
    """

    def of(sender: int, receiver: int) -> list[Span]:
        worse = 1 + (3 * sender + receiver) / 10
        return [Span(start, end, share * worse)] if which(sender, receiver) else []

    return lambda a, b: {"forward": of(a, b), "reverse": of(b, a)}


def of_which_some_cannot_say(world: World) -> None:
    server = world.server("s", "n0", "a")
    few = {"forward": 90, "reverse": 90}
    for number in range(5):
        client = world.client(f"c{number}", f"m{number}", "a")
        if number < 2:
            world.path(client, server, lost={"forward": [Span(10, 35, 0.01)]})
        else:
            world.path(client, server, lost={}, segments_a_minute=few)


def proxies(world: World) -> None:
    client = world.client("client")
    bad = {"forward": [Span(5, 99, 0.3)], "reverse": [Span(5, 99, 0.3)]}
    world.path(client, world.server("s0"), lost=bad, proxied=[Span(0, 99)])
    # Recognised when three minutes of nonsense were counted.
    world.path(client, world.server("s1"), lost=bad, proxied=[Span(8, 99)])


def slow_for_what_they_lose(world: World) -> None:
    for direction in ("forward", "reverse"):
        client, server = world.client(f"c-{direction}"), world.server(f"s-{direction}")
        lost = {direction: [Span(60, 99, 0.02)]}
        world.path(client, server, lost=lost, connect_s=[Span(60, 99, 0.021)])


def full_accept_queue(world: World) -> None:
    server = world.server("s", "n0", "a", overflows_a_minute=[Span(20, 60, 3)])
    clients_of(world, server, 3, lost={"forward": [Span(20, 60, 0.01)]})


CASES = [
    case(
        "one node that loses what it sends to one other is one alert, which says the direction",
        mesh(FIVE, lost=losing(only((0, 1)))),
        minutes=60,
        quiet=QUIET,
        fires={FIRING: [losing_pair("n0", "n1")]},
        expressions={
            (30, f"round(node_pair:twocans_segments_{fate}:increase10m{N0_TO_N1})"): [
                (N0_TO_N1, value)
            ]
            for fate, value in (("sent", 5400), ("lost", 30))
        },
        says=(
            30,
            "0.55% of the segments from node n0 to node n1 are lost",
            "30 of 5400 in 10 minutes by both ends' counters; with 95 % certainty at least "
            "0.3849%. Direction: forward from client n0 to server n1; reverse from server n0 to "
            "client n1; TCP sends them again, so probes may still succeed.",
        ),
    ),
    case(
        "with one client and one server, what is lost in the reverse direction is the server's",
        pair(
            lost={"reverse": [Span(5, 99, 0.01)]},
            segments_a_minute={"forward": 300, "reverse": 270},
        ),
        minutes=60,
        quiet=[15],
        fires={(30, 59): [losing_pair("server", "client")]},
        says=(
            40,
            "1% of the segments from node server to node client are lost",
            "27 of 2700 in 10 minutes by both ends' counters; with 95 % certainty at least "
            "0.6882%. Direction: reverse from server server to client client; TCP sends them "
            "again, so probes may still succeed.",
        ),
    ),
    case(
        "a node that loses what everybody sends to it is one alert for both its cans",
        mesh(FIVE, lost=losing(to(4))),
        minutes=60,
        quiet=QUIET,
        fires={FIRING: [losing_end("receiver", "target", "n4")]},
        expressions=recorded(
            30, {"receiver:twocans_segments_lost:ratio": {'{target_node="n4"}': 1}}
        ),
        says=(
            30,
            "0.925% of the segments sent to node n4 are lost",
            "From both ends' counters over 10 minutes, from at least 100% of the nodes in every "
            "zone. The worst: from node n3 at least 0.8983%; from node n2 at least 0.7673%; from "
            "node n1 at least 0.6377%; TCP sends them again, so probes may still succeed.",
        ),
    ),
    case(
        "a node that loses what it sends to everybody is one alert for both its cans",
        mesh(SIX, lost=losing(lambda a, b: a == 0)),
        minutes=60,
        quiet=QUIET,
        fires={FIRING: [losing_end("sender", "source", "n0/a")]},
        says=(
            30,
            "0.65% of the segments that node n0 in zone a sends are lost",
            "From both ends' counters over 10 minutes, to at least 100% of the nodes in every "
            "zone. The worst: to node n5 at least 0.5523%; to node n4 at least 0.51%; to node n3 "
            "at least 0.468%; TCP sends them again, so probes may still succeed.",
        ),
    ),
    case(
        "five pairs of thirty that lose are five alerts, though some have a node in common",
        mesh(("",) * 6, lost=losing(only(*SOME))),
        minutes=60,
        quiet=QUIET,
        fires={FIRING: [losing_pair(f"n{a}", f"n{b}") for a, b in SOME]},
    ),
    case(
        "one node that loses to and from a zone, and not to another, is its pairs",
        mesh(("a", "b", "b", "b", "c"), lost=losing(only(*TO_ZONE_B_AND_BACK))),
        minutes=60,
        quiet=QUIET,
        fires={
            FIRING: [
                losing_pair(f"n{a}/{'b' if a else 'a'}", f"n{b}/{'b' if b else 'a'}")
                for a, b in TO_ZONE_B_AND_BACK
            ]
        },
    ),
    case(
        "of what is sent to a node, only those count who sent enough to say something",
        of_which_some_cannot_say,
        minutes=60,
        quiet=QUIET,
        fires={FIRING: [losing_end("receiver", "target", "n0/a")]},
    ),
    case(
        "what is lost between two zones in one direction is one alert",
        mesh(SIX, lost=losing(a_to_b)),
        minutes=60,
        quiet=QUIET,
        fires={
            FIRING: [
                alert("SegmentsLost", "warning", scope="zones", source_zone="a", target_zone="b")
            ]
        },
        says=(
            30,
            "0.85% of the segments from zone a to zone b are lost",
            "From both ends' counters over 10 minutes, between 100% of their nodes, and no node "
            "alone explains it. The worst: from node n2 to node n5 at least 0.8108%; from node n2 "
            "to node n4 at least 0.7673%; from node n2 to node n3 at least 0.7239%; TCP sends "
            "them again, so probes may still succeed.",
        ),
    ),
    case(
        "two nodes that lose in both directions are no zones, and each direction is said",
        pair(lost={"forward": [Span(10, 35, 0.01)], "reverse": [Span(10, 35, 0.01)]}),
        minutes=60,
        quiet=QUIET,
        fires={FIRING: [losing_pair("client", "server"), losing_pair("server", "client")]},
    ),
    case(
        "two lost in a thousand of so few segments may be chance",
        # 5.4 of 2,700: it may well be less than one in a thousand.
        pair(lost={"forward": [Span(5, 99, 0.002)]}),
        minutes=60,
        quiet=range(5, 60, 5),
        near_miss=["SegmentsLost"],
        expressions={
            (40, "round(node_pair:twocans_segments_lost:increase10m * 10)"): [
                ('{source_node="client", target_node="server"}', 54),
                ('{source_node="server", target_node="client"}', 0),
            ],
            (40, "node_pair:twocans_segments_lost:low10m"): [],
        },
    ),
    case(
        "of fewer than a thousand segments nothing is said",
        pair(
            lost={"forward": [Span(5, 99, 0.05)]},
            segments_a_minute={"forward": 95, "reverse": 200},
        ),
        minutes=60,
        quiet=range(5, 60, 5),
        near_miss=["SegmentsLost"],
    ),
    case(
        "where a proxy is recognised no loss is claimed",
        proxies,
        minutes=60,
        quiet=range(5, 60, 5),
        near_miss=["SegmentsLost"],
        expressions={
            (10, "count(node_pair:twocans_segments_lost:low10m)"): [("{}", 2)],
            (19, "node_pair:twocans_segments_sent:increase10m"): [],
        },
    ),
    case(
        "a burst of four minutes wakes nobody",
        mesh(FIVE, lost=losing(to(4), share=0.2, end=14)),
        minutes=45,
        quiet=range(10, 45, 3),
        near_miss=["SegmentsLost"],
        expressions={(20, "count(node_pair:twocans_segments_lost:low10m)"): [("{}", 4)]},
    ),
    case(
        "a path whose probes fail for what it loses is one alert, whichever direction loses",
        # One loses in the forward direction, the other in the reverse direction.
        mesh(
            FIVE,
            lost=losing(only((0, 1), (3, 2)), share=0.2),
            fail=on(only((0, 1), (2, 3)), Span(10, 35, 0.1)),
        ),
        minutes=60,
        quiet=(9, 48, 59),
        fires={(30, 34): [path_failing("n0", "n1"), path_failing("n2", "n3")]},
        near_miss=["SegmentsLost"],
    ),
    case(
        "a pair of zones whose probes fail for what is lost in either direction is one alert",
        mesh(
            SIX,
            lost=losing(lambda a, b: (a >= 3) != (b >= 3), share=0.1),
            fail=on(a_to_b, Span(10, 35, 0.03)),
        ),
        minutes=60,
        quiet=(9, 48, 59),
        fires={(30, 34): [zone_pair("a", "b")]},
        near_miss=["SegmentsLost"],
    ),
    case(
        "a path that is slow because it loses, in either direction, is one alert of what is lost",
        slow_for_what_they_lose,
        minutes=110,
        quiet=(59, 72),
        fires={
            (80, 98): [
                losing_pair("c-forward", "s-forward"),
                losing_pair("s-reverse", "c-reverse"),
            ]
        },
        near_miss=["ConnectLatencyHigh"],
    ),
    case(
        "SYNs that a full accept queue drops are the server's limit, and not the path's loss",
        full_accept_queue,
        minutes=70,
        quiet=(19, 69),
        fires={(30, 59): [at_limits("s@n0/a")]},
        near_miss=["SegmentsLost"],
    ),
]
