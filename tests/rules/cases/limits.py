"""Servers at their limits, and paths that are left out."""

from rules.case import alert, at_limits, case
from rules.world import ALWAYS, Span, World

LEFT_OUT = alert("PathsLeftOut", "warning")
SAID = [
    "In 5 minutes: limit max_connections 150 times; 0 wait to be accepted.",
    "In 5 minutes: 81 wait to be accepted.",
    "In 5 minutes: 20 dropped by a full accept queue; 0 wait to be accepted.",
    "In 5 minutes: accept() failed 20 times; 0 wait to be accepted.",
]


def at_limit(world: World) -> None:
    world.server("s0", limit_hits_a_minute={"max_connections": [Span(10, 25, 30)]})
    world.server("s1", queue=[Span(10, 25, 81)])
    world.server("s2", overflows_a_minute=[Span(10, 25, 4)])
    world.server("s3", accept_errors_a_minute=[Span(10, 25, 4)])


def near_limit(world: World) -> None:
    harmless = ("idle_s", "frames_per_turn", "accepts_per_turn", "max_buffered_bytes")
    hits = {limit: [Span(10, 40, 99)] for limit in harmless}
    world.server("s0", limit_hits_a_minute={**hits, "max_connections": [Span(10, 40, 0.8)]})
    world.server("s1", queue=[Span(10, 40, 80)])
    world.server("s2", queue=[Span(10, 14, 100)])


def left_out(world: World, name: str, node: str, *spans: Span) -> dict[str, str]:
    scrape = world.client(name, node).scrape
    world.gauge("twocans_client_paths_left_out", scrape, spans, [ALWAYS])
    return scrape


def left_out_by_two_of_three(world: World) -> None:
    for number in range(3):
        left_out(world, f"c{number}", f"m{number}", Span(10, 40, 7.0 * number))


def refused(world: World) -> None:
    scrape = left_out(world, "c", "m")
    world.gauge("twocans_client_targets_refused", scrape, [Span(10, 40, 3)], [ALWAYS])


CASES = [
    case(
        "a server that refuses, drops, or has a full queue is at its limits",
        at_limit,
        quiet=(9, 14, 32, 39),
        fires={(16, 24): [at_limits(f"s{n}") for n in range(4)]},
        says=[
            20,
            *(
                text
                for n, said in enumerate(SAID)
                for text in (f"Server s{n} on node s{n} turns connections away", said)
            ),
        ],
    ),
    case(
        "limits that refuse nobody, a few refusals, and a queue of four fifths wake nobody",
        near_limit,
        quiet=range(9, 40, 2),
        near_miss=["ServerAtLimits"],
    ),
    case(
        "paths that are left out are one alert for all clients",
        left_out_by_two_of_three,
        minutes=60,
        quiet=(9, 24, 41, 59),
        fires={(26, 39): [LEFT_OUT]},
        says=(
            30,
            "2 client(s) leave paths out: more than max_paths, or wrong in the targets file",
            "The most: client c2 on node m2 leaves 14 out. They are not probed, and no alert "
            "covers them.",
        ),
    ),
    case(
        "what is wrong in a targets file is an alert",
        refused,
        minutes=60,
        quiet=(9, 24, 41, 59),
        fires={(26, 39): [LEFT_OUT]},
        says=(
            30,
            "1 client(s) leave paths out: more than max_paths, or wrong in the targets file",
            "The most: client c on node m leaves 3 out. They are not probed, and no alert covers "
            "them.",
        ),
    ),
    case(
        "paths that are left out for fourteen minutes wake nobody",
        lambda world: left_out(world, "c", "", Span(10, 24, 5)),
        quiet=range(9, 40),
        near_miss=["PathsLeftOut"],
    ),
]
