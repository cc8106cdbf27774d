"""Faults that have a name."""

from collections.abc import Callable
from typing import Any

from rules.case import (
    FIVE,
    SIX,
    Verdict,
    Which,
    a_to_b,
    case,
    cut_off,
    dns_failing,
    fault_of,
    losing_pair,
    mesh,
    of,
    on,
    only,
    path_failing,
    server_down,
    slow_server,
    source,
    stalled,
    target,
    to,
    zone_pair,
)
from rules.cases.names import lookups
from rules.world import Span, World

STANDS = Span(10, 25)
THROTTLED = ("cpu_throttled", "server_host", "")
NO_PORTS = ("local_ports_exhausted", "client_host", "")
DENIED = ("denied", "client_host", "")
LOSS = ("loss", "path_reverse", "reverse")
BLACKOUT = ("blackout", "path_forward", "forward")
DELAY = ("delay_increase", "path_forward", "forward")
SLOW_NAMES = ("dns_slow", "dns", "")
WHAT_NEXT = (
    "the proof is in these clients' logs (verdict_began), and docs/verdicts.md says where to look "
    "next."
)


def standing(which: Which, verdict: Verdict, *spans: Span) -> Callable[[int, int], Any]:
    """Return what a mesh takes for its paths: this verdict on those that are meant."""
    return lambda a, b: {verdict: spans or [STANDS]} if which(a, b) else {}


def two_of_one_client(world: World) -> None:
    client = world.client("c", "n0", "a")
    for name in ("s1", "s2"):
        verdicts = {NO_PORTS: [STANDS]} if name == "s1" else {}
        world.path(client, world.server(name, name, "b"), target=f"{name}:1", verdicts=verdicts)


def names(world: World) -> None:
    """Slow for two clients; later they fail for one."""
    server = world.server("s", "n0", "a")
    for name in ("c0", "c1"):
        client = world.client(name, name, "b")
        lookups(world, client, *[Span(40, 60, 0.5)] * (name == "c0"))
        spans = [STANDS, *[Span(40, 60)] * (name == "c0")]
        world.path(client, server, verdicts={SLOW_NAMES: spans})


CASES = [
    case(
        "a fault of a server is one alert, however many clients see it",
        mesh(SIX, verdicts=standing(to(4), THROTTLED)),
        quiet=(9, 11, 26, 39),
        fires={(13, 24): [fault_of("server", target("n4@n4/b"), THROTTLED)]},
    ),
    case(
        "a fault of a client is told of the client",
        two_of_one_client,
        quiet=(9, 11, 26, 39),
        fires={(13, 24): [fault_of("client", source("c@n0/a"), NO_PORTS)]},
        says=(
            20,
            "Client c on node n0 in zone a: local_ports_exhausted, culprit client_host",
            f"On 1 path(s), among them c to s1; {WHAT_NEXT}",
        ),
    ),
    case(
        "a fault of the network is one alert for each pair of zones, and says the direction",
        mesh(
            SIX,
            verdicts=standing(lambda a, b: a_to_b(a, b) and a < 2 and b == 3, LOSS),
        ),
        quiet=(9, 11, 26, 39),
        fires={
            (13, 24): [fault_of("zones", {"source_zone": "a", "target_zone": "b"}, LOSS)],
        },
        says=(
            20,
            "From zone a to zone b: loss, culprit path_reverse, reverse",
            f"On 2 path(s), among them n0 to n3; n1 to n3; {WHAT_NEXT}",
        ),
    ),
    case(
        "two faults at once are two alerts",
        mesh(FIVE, verdicts=lambda a, b: {THROTTLED: [STANDS], LOSS: [STANDS]} if b == 4 else {}),
        quiet=(9, 26),
        fires={
            (13, 24): [
                fault_of("server", target("n4"), THROTTLED),
                fault_of("zones", {}, LOSS),
            ]
        },
    ),
    case(
        "a resolver that is slow for several clients is one alert; that look-ups fail is another's",
        names,
        minutes=70,
        quiet=(9, 11, 26, 38),
        fires={
            (13, 24): [fault_of("resolver", {}, SLOW_NAMES)],
            (50, 58): [dns_failing("c0@c0/b")],
        },
    ),
    case(
        "a fault of a minute and a half wakes nobody, however often it comes",
        mesh(FIVE, verdicts=standing(to(4), THROTTLED, Span(10, 11.5), Span(20, 21.5))),
        quiet=range(9, 40),
        near_miss=["FaultNamed"],
    ),
    case(
        "what is only worth knowing wakes nobody",
        mesh(FIVE, verdicts=standing(to(4), THROTTLED, Span(10, 25, 0))),
        quiet=range(9, 40, 3),
        near_miss=["FaultNamed"],
    ),
    case(
        "a server that is down is one alert, which has the names of the faults",
        mesh(
            FIVE,
            fail=on(to(4), STANDS),
            verdicts=lambda a, b: {BLACKOUT: [STANDS], THROTTLED: [STANDS]} if b == 4 else {},
        ),
        quiet=(9, 31, 39),
        fires={(15, 24): [server_down("n4")]},
        near_miss=["FaultNamed"],
        says=(
            20,
            "Server n4 on node n4 cannot be reached",
            "100% of the paths to it fail at more than half of their probes, of 4 client(s), over "
            "IPv4. Mostly: connect_timeout. Verdict: blackout, culprit path_forward, forward. "
            "Verdict: cpu_throttled, culprit server_host.",
        ),
    ),
    case(
        "a client that is cut off is one alert, which has the name of the fault",
        mesh(FIVE, fail=on(of(2), STANDS), verdicts=standing(of(2), DENIED)),
        quiet=(9, 31, 39),
        fires={(15, 24): [cut_off("n2")]},
        near_miss=["FaultNamed"],
        says=(
            20,
            "Client n2 on node n2 reaches hardly any server",
            "100% of its paths fail, over IPv4, to servers that are otherwise up: the fault "
            "is on its own side. Mostly: connect_timeout. Verdict: denied, culprit "
            "client_host.",
        ),
    ),
    case(
        "a pair of zones that loses is one alert, which has the name of the fault",
        mesh(
            SIX,
            fail=lambda a, b: [Span(10, 25, (4 - a) / 10)] if b == a + 3 else (),
            verdicts=standing(a_to_b, BLACKOUT),
        ),
        quiet=(9, 31, 39),
        fires={(17, 24): [zone_pair("a", "b")]},
        near_miss=["FaultNamed", "PathFailing"],
        says=(
            20,
            "From zone a to zone b, 10% of all probes fail",
            "3 of 9 paths lose probes, and no server that is down explains it. The worst: n0 "
            "to n3 40%; n1 to n4 30%; n2 to n5 20%; Verdict: blackout, culprit path_forward, "
            "forward.",
        ),
    ),
    case(
        "a path that fails is one alert, which has the name of the fault",
        mesh(SIX, fail=on(only((0, 3)), STANDS), verdicts=standing(only((0, 3)), BLACKOUT)),
        quiet=(9, 31, 39),
        fires={(18, 24): [path_failing("n0@n0/a", "n3@n3/b")]},
        near_miss=["FaultNamed"],
        says=(
            20,
            "Path from n0 (node n0) to n3 (node n3) fails at 100% of its probes",
            "Others reach this server, and this client reaches others: the fault is between "
            "the two. From zone a to zone b. Mostly: connect_timeout. Verdict: blackout, "
            "culprit path_forward, forward.",
        ),
    ),
    case(
        "a host that stalls is one alert, which has the name of the fault",
        mesh(
            FIVE,
            servers={4: {"throttled": [Span(10, 25, 0.5)]}},
            verdicts=standing(to(4), THROTTLED),
        ),
        minutes=45,
        quiet=(9, 13, 18, 32, 40),
        fires={(23, 24): [stalled("n4")]},
        near_miss=["FaultNamed"],
        says=(
            24,
            "Host n4 does not run twocans in time",
            "The server, 1 process(es) in all: their loops run late, or a CPU limit stops "
            "them. Mostly: throttled. Their latencies are the host's and not the network's; "
            "latency alerts leave them out. Verdict: cpu_throttled, culprit server_host.",
        ),
    ),
    case(
        "lost segments are told with the name of the fault, by who should have received them",
        mesh(
            FIVE,
            lost=lambda a, b: {"reverse": [Span(5, 40, 0.01)]} if (a, b) == (1, 0) else {},
            verdicts=standing(only((1, 0)), LOSS, Span(28, 32)),
        ),
        minutes=45,
        fires={(31,): [losing_pair("n0", "n1"), fault_of("zones", {}, LOSS)]},
        says=(
            31,
            "0.5% of the segments from node n0 to node n1 are lost",
            "27 of 5400 in 10 minutes by both ends' counters; with 95 % certainty at least "
            "0.3439%. Direction: forward from client n0 to server n1; reverse from server n0 "
            "to client n1; TCP sends them again, so probes may still succeed. Verdict: loss, "
            "culprit path_reverse, reverse.",
            "1 path(s): loss, culprit path_reverse, reverse",
            f"On 1 path(s), among them n1 to n0; {WHAT_NEXT}",
        ),
    ),
    case(
        "a server that all connect to slowly is told with the name of the fault",
        mesh(
            FIVE,
            connect_s=lambda a, b: [Span(40, 60, 0.03 if a == 0 else 0.02)] if b == 4 else (),
            verdicts=standing(only((0, 4), (1, 4)), DELAY, Span(55, 60)),
        ),
        minutes=80,
        quiet=(39, 48, 66, 79),
        fires={(58,): [slow_server("n4"), fault_of("zones", {}, DELAY)]},
        says=(
            58,
            "Connecting to server n4 on node n4 takes far longer than an hour ago",
            "On at least 100% of its paths, from every zone. The slowest: n0, 30ms on average"
            " over 5 minutes; the best path took 500us in the hour before. Verdict: "
            "delay_increase, culprit path_forward, forward.",
            "2 path(s): delay_increase, culprit path_forward, forward",
            f"On 2 path(s), among them n0 to n4; n1 to n4; {WHAT_NEXT}",
        ),
    ),
]
