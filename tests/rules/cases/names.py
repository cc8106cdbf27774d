"""Names do not resolve, and targets are empty."""

from rules.case import DOWN, FIVE, alert, case, cut_off, discovered, dns_failing, mesh, of, on
from rules.world import Can, Span, World

FIVE_ADDRESSES, NO_ADDRESS = Span(0, 99, 5), Span(10, 25, 0)
CUT_OFF = mesh(FIVE, fail=on(of(2), DOWN))


def lookups(world: World, can: Can, *bad: Span, outcome: str = "dns_failure") -> None:
    """Six look-ups a minute, of which so large a share fails."""
    good = [Span(0, 1e9, 6), *(Span(s.start, s.end, 6 * (1 - s.value)) for s in bad)]
    failed = [Span(s.start, s.end, 6 * s.value) for s in bad]
    for name, spans in (("ok", good), (outcome, failed)):
        labels = {**can.scrape, "outcome": name}
        world.counter("twocans_client_resolutions_total", labels, spans)


def half_of_one_clients(world: World) -> None:
    for number, can in enumerate(mesh(FIVE)(world)):
        lookups(world, can, *[Span(10, 25, 0.5)] * (number == 1))


def a_quarter_of_all(world: World) -> None:
    for can in mesh(FIVE)(world):
        lookups(world, can, Span(10, 30, 0.25))


def silent(world: World, clients: list[Can], whose: set[int], outcome: str) -> None:
    """As a client has it: an answer that does not come gives no address."""
    for number, can in enumerate(clients):
        if number in whose:
            lookups(world, can, DOWN, outcome=outcome)
            discovered(world, can, FIVE_ADDRESSES, NO_ADDRESS)
        else:
            lookups(world, can, outcome=outcome)
            discovered(world, can, FIVE_ADDRESSES)


def one_wrong_name(world: World) -> None:
    client = mesh(FIVE)(world)[0]
    lookups(world, client, Span(5, 20, 0.1))
    world.path(client, None, target="typo:5000", fail=[Span(5, 20)], reason="dns_failure")


def no_pods(world: World) -> None:
    for can in mesh(FIVE)(world):
        lookups(world, can, DOWN)
        discovered(world, can, FIVE_ADDRESSES, NO_ADDRESS)
        discovered(world, can, Span(0, 99, 1), Span(10, 13, 0), target="dns:others:5000")


def no_pods_for_four_minutes(world: World) -> None:
    for can in mesh(FIVE)(world):
        discovered(world, can, Span(0, 99, 1), Span(10, 14, 0))


CASES = [
    case(
        "one client that cannot resolve is named",
        half_of_one_clients,
        quiet=(9, 15, 31, 39),
        fires={(19, 25): [dns_failing("n1")]},
        says=(
            20,
            "Client n1 on node n1 fails at 50% of its look-ups",
            "In the last 5 minutes. Known addresses are probed for ten more minutes. Mostly: "
            "dns_failure.",
        ),
    ),
    case(
        "a quarter of all look-ups that fail wake nobody",
        a_quarter_of_all,
        quiet=range(9, 40, 3),
        near_miss=["DnsFailing"],
    ),
    case(
        "a resolver that is silent for three clients is one alert",
        lambda world: silent(world, mesh(FIVE)(world), {0, 1, 2}, "dns_timeout"),
        quiet=(9, 14, 31, 39),
        fires={(19, 25): [alert("DnsFailing", "critical", scope="several")]},
        near_miss=["DiscoveryEmpty"],
        says=(
            20,
            "3 clients cannot resolve the names of their targets",
            "Of 5 clients, among them n0 on node n0; n1 on node n1; n2 on node n2; so the cause "
            "is the resolver. Known addresses are probed for ten more minutes.",
        ),
    ),
    case(
        "a name that does not resolve is the resolver's failure, and no server is down",
        one_wrong_name,
        minutes=30,
        quiet=(4, 27),
        fires={(14, 20): [dns_failing("n0")]},
        near_miss=["ServerDown", "PathFailing"],
    ),
    case(
        "a client that is cut off from its resolver too is one alert",
        lambda world: silent(world, CUT_OFF(world), {2}, "dns_failure"),
        quiet=(9, 29, 39),
        fires={(14, 22): [cut_off("n2")]},
        near_miss=["DnsFailing", "DiscoveryEmpty"],
    ),
    case(
        "a client that is cut off, and whose resolver is silent, is one alert",
        lambda world: silent(world, CUT_OFF(world), {2}, "dns_timeout"),
        quiet=(9, 29, 39),
        fires={(14, 22): [cut_off("n2")]},
        near_miss=["DnsFailing", "DiscoveryEmpty"],
    ),
    case(
        "an empty target is one alert, however many clients look at it",
        no_pods,
        quiet=(9, 14, 26, 31, 39),
        fires={(16, 24): [alert("DiscoveryEmpty", "warning", target="dns:servers:5000")]},
        near_miss=["DnsFailing"],
        says=(
            20,
            "Target dns:servers:5000 has no address",
            "5 of 5 clients that look it up find nothing to probe there.",
        ),
    ),
    case(
        "a target that is empty for four minutes, or has one address, wakes nobody",
        no_pods_for_four_minutes,
        minutes=30,
        quiet=range(9, 30),
        near_miss=["DiscoveryEmpty"],
    ),
]
