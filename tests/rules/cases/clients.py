"""Clients do not probe."""

from typing import Any

from rules.case import (
    FIVE,
    alert,
    case,
    discovered,
    mesh,
    not_probing,
    of,
    on,
    pair,
    stalled,
)
from rules.world import ALWAYS, Span, World

GONE = [Span(0, 10)]
FIFTEEN_MINUTES = [Span(0, 10), Span(25, 99)]
FOUR_MINUTES = [Span(0, 10), Span(14, 99)]
THIRD = [Span(10, 25, 0.3)]
ABSENT = alert("ClientNotProbing", "warning", job="twocans-client", reason="absent")
NEVER_SCRAPED = {"job": "twocans-client", "instance": "c:5002", "client": "c:5002"}


def gone_but_for_an_hour(world: World) -> None:
    present = [Span(0, 10), Span(80, 99)]
    world.client("c", alive=present, listed=present)


def schedules(world: World) -> None:
    """One that stands still, two that begin late, and one that is alone and content."""
    client = pair(scheduled=[Span(0, 99, 1), Span(10, 25, 0)])(world)
    idle, alone, stuck = (world.client(name) for name in ("idle", "alone", "stuck"))
    late = [Span(30, 99)]
    for can, paths in ((client, [ALWAYS]), (idle, late), (alone, []), (stuck, late)):
        world.gauge("twocans_client_paths", can.scrape, paths, [ALWAYS])
    # In a cluster of one node: the only server is its own node's, with an address of each family.
    discovered(world, alone, Span(0, 1e9, 2))
    # It finds servers, and cannot greet one of them.
    discovered(world, stuck, Span(0, 1e9, 3))


LATE = [not_probing("idle", "idle"), not_probing("stuck", "idle")]


def blind(world: World) -> None:
    server = world.server("s", "n0", "a")
    paths: tuple[dict[str, Any], ...] = (
        {"missed": [Span(10, 25, 0.6)]},
        {"missed": THIRD, "void": THIRD, "void_reason": "no_ports"},
        {"missed": [Span(10, 25, 0.45)]},
        {"missed": THIRD, "void": [Span(10, 25, 0.7)], "void_reason": "draining"},
        {"missed": [Span(10, 25, 0.9)]},
    )
    for n, path in enumerate(paths):
        world.path(world.client(f"c{n}", f"m{n}", "a"), server, **path)


def blind_for_its_host_stalls(world: World) -> None:
    server = world.server("s", "n0", "a")
    client = world.client("c", "m", "a", lag_s=[Span(10, 25, 0.5)])
    world.path(client, server, missed=[Span(10, 25, 0.9)])


CASES = [
    case(
        "a client that cannot be scraped is called by its name and its node",
        mesh(
            FIVE,
            clients={3: {"alive": FIFTEEN_MINUTES}},
            alive=on(of(3), *FIFTEEN_MINUTES, otherwise=[ALWAYS]),
        ),
        quiet=(9, 14, 26, 39),
        fires={(16, 24): [not_probing("n3", "gone")]},
        says=(
            20,
            "Client n3 on node n3 does not probe (gone)",
            "Its metrics cannot be scraped: the client, its node or the network to it is gone. "
            "Its paths are not watched.",
        ),
    ),
    case(
        "a client that could never be scraped is called by its address",
        lambda world: world.client("c", alive=[Span(99, 100)]),
        minutes=15,
        quiet=[4],
        fires={(6,): [alert("ClientNotProbing", "warning", reason="gone", **NEVER_SCRAPED)]},
        expressions={(3, "client:twocans_client:info"): []},
    ),
    case(
        "a client that is away for four minutes wakes nobody",
        mesh(
            FIVE,
            clients={3: {"alive": FOUR_MINUTES}},
            alive=on(of(3), *FOUR_MINUTES, otherwise=[ALWAYS]),
        ),
        minutes=30,
        quiet=range(9, 30),
        near_miss=["ClientNotProbing"],
    ),
    case(
        "a node that was taken out is missed by nobody",
        mesh(
            FIVE,
            clients={4: {"alive": GONE, "listed": GONE}},
            alive=on(lambda a, b: 4 in (a, b), *GONE, otherwise=[ALWAYS]),
        ),
        minutes=30,
        quiet=range(9, 30),
        near_miss=["ClientNotProbing", "ServerDown"],
    ),
    case(
        "a job whose last target has gone is missed for an hour",
        gone_but_for_an_hour,
        minutes=90,
        quiet=(9, 14, 72, 85),
        fires={(16, 65): [ABSENT]},
        says=(
            20,
            "Every client of job twocans-client does not probe (absent)",
            "There was a target within the last hour, and now there is none. Its paths are not "
            "watched.",
        ),
    ),
    case(
        "a client without a due slot, or without a path, does not probe; one that is alone is"
        " content",
        schedules,
        quiet=(4, 31, 39),
        fires={(8, 14, 28): LATE, (21, 24): [not_probing("client", "idle"), *LATE]},
    ),
    case(
        "a client of whose slots most are missed or void by its own doing does not probe",
        blind,
        quiet=(9, 31, 39),
        fires={(21, 25): [not_probing(f"c{n}@m{n}/a", "blind") for n in (0, 1, 4)]},
    ),
    case(
        "a client that is blind for its host stalls is the host's alert",
        blind_for_its_host_stalls,
        quiet=(9, 31, 39),
        fires={(22, 25): [stalled("c@m/a")]},
        near_miss=["ClientNotProbing"],
    ),
]
