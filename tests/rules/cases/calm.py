"""Nothing is wrong, or only with labels: restarts, new paths, void probes, names."""

from rules.case import FIVE, case, mesh, on, only, pair, path_failing, recorded, to
from rules.world import Can, Span, World

NOW_AND_THEN = Span(5, 40, 0.04)
FAILED = "path:twocans_probes_failed:ratio_rate5m"
PAIR_FAILED = "pair:twocans_probes_failed:ratio_rate5m"
CONNECT = "connect_seconds:mean5m"
PROBED_BY = "server:twocans_probed_by:count"
LEAVING = "server:twocans_leaving:info"
INFO = "path:twocans_path:info"
N0_TO_N1 = (
    '{job="twocans-client", instance="n0:5002", client="n0", source_node="n0",'
    ' target="dns:servers:5000", server="n1", family="4", target_node="n1"}'
)
NEW = (
    'job="twocans-client", instance="c0:5002", client="c0", source_node="m0", source_zone="a",'
    ' family="4", target="dns:servers:5000"'
)
NEW_IS_KNOWN = f'{{{NEW}, server="s", target_node="n0", target_zone="a"}}'
PAIR = (
    '{job="twocans-client", instance="client:5002", client="client", source_node="client",'
    ' target="server.path:5000", server="server", family="4", target_node="server"}'
)
NODES = '{source_node="client", target_node="server"}'
SERVER = '{job="twocans-server", instance="server:5001", server="server", target_node="server"}'
CLIENT = '{job="twocans-client", instance="client:5002", client="client", source_node="client"}'
M_TO_N = '{source_node="m", source_zone="z", target_node="n", target_zone="y"}'
M0_TO_N0 = '{source_node="m0", source_zone="a", target_node="n0", target_zone="b"}'


def new_path(world: World) -> None:
    server = world.server("s", "n0", "a")
    client = world.client("c0", "m0", "a")
    # Not answered in its first minute; then known by its name.
    world.path(client, None, label="", alive=[Span(10, 11)], fail=[Span(0, 99)])
    world.path(client, server, alive=[Span(11, 99)])


def nobody_knows(world: World) -> None:
    client = world.client("c")
    world.path(client, None, label="")
    world.path(client, None, label="#2")
    world.path(client, Can("twin", "", "", {}), label="twin")
    world.path(client, Can("twin", "", "", {}), label="twin#2")


def namespace_of_the_can_only(world: World) -> None:
    """Without a PodMonitor nothing clashes: `namespace` is on the info and on nothing else."""
    scrape = {"job": "twocans-client", "instance": "c:5002"}
    one = [Span(0, 99)]
    info = {**scrape, "name": "c", "node": "m", "zone": "z", "namespace": "its-own"}
    world.gauge("twocans_client_info", info, one, one)
    world.path(Can("c", "m", "z", scrape), Can("s", "n", "y", {}))


def several_targets(world: World) -> None:
    server = world.server("s", "n0", "b")
    client = world.client("c", "m0", "a")
    world.path(client, server, target="dns:one:5000", fail=[Span(0, 99, 0.5)])
    world.path(client, server, target="dns:two:5000")


CASES = [
    case(
        "a rolling restart of servers that say goodbye, and then of clients, is no alert",
        # Each server in turn says that it leaves; its silence is void; it is back, its paths new.
        mesh(
            FIVE,
            servers={n: {"draining": [Span(5 + 2 * n, 5.5 + 2 * n)]} for n in range(5)},
            void=lambda a, b: [Span(5 + 2 * b, 6 + 2 * b)],
            restarts=lambda a, b: [16 + a],
        ),
        minutes=30,
        quiet=range(1, 30),
        near_miss=["ServerDown", "PathFailing", "ClientNotProbing"],
        expressions={
            # Two minutes' worth of the five were void; of the rest none failed.
            (8, f"max({FAILED})"): [("{}", 0)],
            (20, f"max({FAILED})"): [("{}", 0)],
            **recorded(6, {LEAVING: {'{server="n0", target_node="n0"}': 1}}),
            **recorded(20, {LEAVING: {}}),
        },
    ),
    case(
        "a server that drains for three minutes and is back two later is no alert",
        mesh(FIVE, servers={4: {"draining": [Span(9, 12)]}}, fail=on(to(4), Span(10, 15))),
        quiet=range(9, 40),
        near_miss=["ServerDown", "PathFailing", "ZonePairLosing"],
    ),
    case(
        "counters that begin anew change no ratio and resolve no alert",
        mesh(
            FIVE,
            fail=on(only((0, 1)), Span(5, 30, 0.25)),
            restarts=lambda a, b: [15, 18] if a == 0 else [],
        ),
        quiet=(4, 9, 36),
        fires={(12, 16, 19, 23, 30): [path_failing("n0", "n1")]},
        # A counter that begins from 0 is no jump back by thousands, and no gap.
        expressions={
            (minute, f"round({FAILED}{{source_node='n0',server='n1'}}, 0.001)"): [(N0_TO_N1, 0.25)]
            for minute in (12, 15, 16, 18, 20, 25)
        },
        says=(
            14,
            "Path from n0 (node n0) to n1 (node n1) fails at 25% of its probes",
            "Others reach this server, and this client reaches others: the fault is between the "
            "two. Mostly: connect_timeout.",
        ),
    ),
    case(
        "a path that fails at 4 probes in a hundred wakes nobody",
        mesh(FIVE, fail=on(only((0, 1)), NOW_AND_THEN)),
        quiet=range(5, 40, 5),
        near_miss=["PathFailing"],
    ),
    case(
        "a path that is new fails for a minute and wakes nobody",
        new_path,
        minutes=30,
        quiet=range(9, 30),
        near_miss=["ServerDown"],
        expressions={
            **recorded(9, {INFO: {}}),
            **recorded(10, {INFO: {f'{{{NEW}, target_node="dns:servers:5000"}}': 1}}),
            # What left is gone at once, although its rate is not; the new one has no rate yet.
            **recorded(11, {INFO: {NEW_IS_KNOWN: 1}, FAILED: {}}),
            **recorded(12, {FAILED: {NEW_IS_KNOWN: 0}}),
        },
    ),
    case(
        "a server's stand-in is its name, and before it has one its target",
        nobody_knows,
        minutes=10,
        quiet=[9],
        expressions={
            (9, "count by (server, target_node) (path:twocans_path:info)"): [
                ('{target_node="dns:servers:5000"}', 1),
                ('{server="#2", target_node="dns:servers:5000"}', 1),
                ('{server="twin", target_node="twin"}', 1),
                ('{server="twin#2", target_node="twin#2"}', 1),
            ]
        },
    ),
    case(
        "a path without a probe has no ratio and no mean, rather than NaN",
        pair(scheduled=[Span(0, 99, 0.0)]),
        minutes=20,
        quiet=[3],
        expressions={
            (10, "count(path:twocans_path:info)"): [("{}", 1)],
            (10, "{__name__=~'(path|node_pair|zone_pair):.*(ratio_rate5m|mean5m)'}"): [],
        },
    ),
    case(
        "a void probe is nobody's failure, and no success",
        pair(fail=[Span(0, 99, 0.015625)], void=[Span(0, 99, 0.5)]),
        minutes=15,
        quiet=[9],
        expressions=recorded(12, {f"zone_{PAIR_FAILED}": {"": 0.03125}}),
    ),
    case(
        "where a can has no node its name stands in, and no zone is none",
        pair(connect_s=[Span(0, 99, 0.25)], fail=[Span(0, 99, 0.125)]),
        minutes=20,
        quiet=[4],
        expressions=recorded(
            15,
            {
                **{
                    f"{level}:twocans_{rest}": {labels: value}
                    for level, labels in (("path", PAIR), ("node_pair", NODES), ("zone_pair", ""))
                    for rest, value in (("probes_failed:ratio_rate5m", 0.125), (CONNECT, 0.25))
                },
                PROBED_BY: {'{server="server", target_node="server"}': 1},
                "server:twocans_server:info": {SERVER: 1},
                "client:twocans_client:info": {CLIENT: 1},
            },
        ),
    ),
    case(
        "paths find their client, whatever label of it is called namespace",
        namespace_of_the_can_only,
        minutes=10,
        quiet=[9],
        expressions=recorded(9, {f"node_{PAIR_FAILED}": {M_TO_N: 0}}),
    ),
    case(
        "a server that two targets name is one server, and its client is one",
        several_targets,
        minutes=20,
        quiet=[4],
        fires={(15,): [path_failing("c@m0/a", "s@n0/b")]},
        expressions={
            (10, f"count({FAILED})"): [("{}", 2)],
            **recorded(
                10,
                {
                    PROBED_BY: {'{server="s", target_node="n0", target_zone="b"}': 1},
                    f"node_{PAIR_FAILED}": {M0_TO_N0: 0.25},
                },
            ),
        },
    ),
]
