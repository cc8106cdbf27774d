import itertools
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twocans_client.discovery.neighbours import Neighbourhood, Server
from twocans_client.discovery.specs import Who
from twocans_core.net.sockets import Address

GRACE_NS = 30_000_000_000
LINGER_NS = 300_000_000_000
S = 1_000_000_000


def address(number: int) -> Address:
    return Address(f"10.{number // 62_500}.{number // 250 % 250}.{number % 250}", 5000)


def who(number: int, zones: int = 1) -> Who:
    return Who(f"node-{number}", f"node-{number}", f"zone-{number % zones}" if zones else "")


def neighbourhood(
    client: str = "node-0", node: str | None = None, limit: int = 10, probe_self: bool = False
) -> Neighbourhood:
    return Neighbourhood(
        client=client,
        node=client if node is None else node,
        limit=limit,
        probe_self=probe_self,
        leaving_ns=GRACE_NS,
        linger_ns=LINGER_NS,
    )


def watched(numbers, zones: int = 1) -> list[Server]:
    """Servers as a watch tells them: node and zone at once."""
    return [Server(address(n), who(n, zones)._replace(name=""), f"node-{n}") for n in numbers]


def found(numbers) -> list[Server]:
    """Servers as a look-up finds them: addresses."""
    return [Server.at(address(n)) for n in numbers]


def numbers_of(servers) -> list[int]:
    return sorted(int(server.who.node.removeprefix("node-")) for server in servers)


def choices(nodes: int, zones: int = 1, limit: int = 10) -> dict[int, list[int]]:
    """What the client of each node chooses."""
    servers = watched(range(nodes), zones)
    found = {}
    for number in range(nodes):
        hood = neighbourhood(f"node-{number}", limit=limit)
        hood.update(servers, 0)
        found[number] = numbers_of(hood.chosen(0))
    return found


def greetings(hood: Neighbourhood, zones: int = 1, now_ns: int = 0) -> Iterator[list[Server]]:
    """Greet everybody, and yield the choice after each greeting."""
    by_address = {address(n): n for n in range(500)}
    while (stranger := hood.stranger(now_ns)) is not None:
        hood.met(stranger, who(by_address[stranger], zones), now_ns)
        yield hood.chosen(now_ns)


def explore(hood: Neighbourhood) -> list[list[Server]]:
    return list(greetings(hood))


# --- who is chosen --------------------------------------------------------------------------


@pytest.mark.parametrize("nodes", [1, 2, 5, 11])
def test_few_servers_are_a_full_mesh_without_our_own(nodes):
    for number, chosen in choices(nodes).items():
        assert chosen == [n for n in range(nodes) if n != number]


@pytest.mark.parametrize(("nodes", "zones"), [(12, 1), (40, 3), (100, 6), (300, 4)])
def test_every_server_is_probed_by_three_and_nobody_probes_more_than_the_limit(nodes, zones):
    chosen = choices(nodes, zones)
    assert {len(targets) for targets in chosen.values()} == {10}
    probed_by = Counter(itertools.chain.from_iterable(chosen.values()))
    assert min(probed_by[n] for n in range(nodes)) >= 3
    assert all(number not in targets for number, targets in chosen.items())


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_with_fewer_places_the_ring_still_reaches_every_server(limit):
    chosen = choices(50, zones=0, limit=limit)
    probed_by = Counter(itertools.chain.from_iterable(chosen.values()))
    assert probed_by == dict.fromkeys(range(50), limit), "each by the ones before it"


@pytest.mark.parametrize("zones", [2, 3, 6])
def test_every_zone_is_reached(zones):
    for targets in choices(120, zones).values():
        assert {n % zones for n in targets} == set(range(zones))


def test_a_zone_of_one_server_is_reached_by_all():
    servers = [*watched(range(100)), Server(address(100), Who("", "far", "far"), "far")]
    for number in range(100):
        hood = neighbourhood(f"node-{number}")
        hood.update(servers, 0)
        assert "far" in {server.who.zone for server in hood.chosen(0) if server.who}


def test_with_as_many_zones_as_places_each_is_reached():
    for number in range(40):
        hood = neighbourhood(f"node-{number}", limit=4)
        hood.update(watched(range(40), zones=4), 0)
        assert len({server.who.zone for server in hood.chosen(0) if server.who}) == 4


def test_with_more_zones_than_places_the_limit_holds():
    hood = neighbourhood(limit=4)
    hood.update(watched(range(40), zones=8), 0)
    zones = {server.who.zone for server in hood.chosen(0) if server.who}
    assert len(hood.chosen(0)) == len(zones) == 4


def test_clients_choose_differently_and_the_load_is_even():
    chosen = choices(200)
    probed_by = Counter(itertools.chain.from_iterable(chosen.values()))
    assert max(probed_by.values()) < 25
    assert len({tuple(targets) for targets in chosen.values()}) == 200


def test_our_own_is_the_first_one_chosen_if_that_is_wanted():
    hood = neighbourhood(limit=3, probe_self=True)
    hood.update(watched(range(50)), 0)
    assert 0 in numbers_of(hood.chosen(0))
    assert len(hood.chosen(0)) == 3


@pytest.mark.parametrize("probe_self", [False, True])
def test_it_knows_when_there_is_nobody_but_our_own(probe_self):
    hood = neighbourhood(probe_self=probe_self)
    assert not hood.is_only_ours
    hood.update(watched([0]), 0)
    assert hood.is_only_ours is not probe_self
    hood.update(watched([0, 1]), 0)
    assert not hood.is_only_ours


def test_without_a_node_nobody_is_our_own():
    hood = neighbourhood(node="")
    hood.update([Server(address(n), Who(f"s{n}"), str(n)) for n in range(3)], 0)
    assert len(hood.chosen(0)) == 3


# --- others come and go ---------------------------------------------------------------------


@pytest.mark.parametrize("zones", [1, 3])
def test_when_one_leaves_only_those_who_had_it_change_anything_and_only_one_target(zones):
    before = choices(100, zones)
    without = [server for server in watched(range(100), zones) if server.key != "node-7"]
    for number, targets in before.items():
        if number == 7:
            continue
        hood = neighbourhood(f"node-{number}")
        hood.update(without, 0)
        after = numbers_of(hood.chosen(0))
        if 7 in targets:
            assert len(set(after) - set(targets)) == 1
        else:
            assert after == targets


def test_a_pod_made_anew_on_its_node_keeps_its_place_where_a_watch_tells_nodes():
    hood = neighbourhood()
    hood.update(watched(range(60)), 0)
    before = numbers_of(hood.chosen(0))
    moved = [
        server._replace(address=Address(f"192.0.2.{n}", 5000))
        for n, server in enumerate(watched(range(60)))
    ]
    hood.update(moved, 0)
    assert numbers_of(hood.chosen(0)) == before
    assert {server.address.host[:5] for server in hood.chosen(0)} == {"192.0"}


@given(
    st.lists(st.sets(st.integers(0, 40), max_size=30), min_size=1, max_size=6),
    st.integers(1, 12),
    st.integers(1, 5),
)
def test_the_choice_depends_on_who_is_there_and_not_on_who_was(history, limit, zones):
    through = neighbourhood(limit=limit)
    for present in history:
        through.update(watched(present, zones), 0)
    # The one thing that is kept is where home was, after it has gone.
    if 0 in history[-1] or not any(0 in present for present in history):
        fresh = neighbourhood(limit=limit)
        fresh.update(watched(history[-1], zones), 0)
        assert through.chosen(0) == fresh.chosen(0)
    assert len(through.chosen(0)) == min(limit, len(history[-1] - {0}))


# --- strangers ------------------------------------------------------------------------------


def test_a_stranger_is_not_chosen_and_each_is_handed_out_once():
    hood = neighbourhood()
    hood.update(found(range(30)), 0)
    assert hood.chosen(0) == []
    asked = [hood.stranger(0) for _ in range(31)]
    assert len(set(asked)) == 31
    assert asked[-1] is None
    assert hood.chosen(0) == [], "asked, and no answer yet"


def test_the_best_are_greeted_first_so_that_the_first_ten_are_those_to_stay():
    hood = neighbourhood(node="")
    hood.update(found(range(500)), 0)
    seen = explore(hood)
    assert [len(chosen) for chosen in seen[:11]] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10]
    assert seen[9] == seen[-1]


def test_once_our_own_is_found_those_after_it_take_three_places_and_nothing_else_changes():
    for number in range(60):
        hood = neighbourhood(f"node-{number}")
        hood.update(found(range(60)), 0)
        seen = explore(hood)
        changes = sum(set(a) != set(b) for a, b in itertools.pairwise(seen[10:]))
        assert changes <= 4, "three for the ring, one for our own if it was among the first"


def test_in_the_end_the_ring_reaches_every_server_without_a_watch_too():
    probed_by: Counter[int] = Counter()
    for number in range(60):
        hood = neighbourhood(f"node-{number}", limit=3)
        hood.update(found(range(60)), 0)
        probed_by.update(numbers_of(list(greetings(hood, zones=0))[-1]))
    assert probed_by == dict.fromkeys(range(60), 3)


def test_those_after_our_own_are_greeted_next_and_not_chosen_before():
    servers = [*found(range(1, 100)), watched([0], 0)[0]._replace(key=address(0).host)]
    known = neighbourhood(limit=3)
    known.update(servers, 0)
    list(greetings(known, zones=0))
    hood = neighbourhood(limit=3)
    hood.update(servers, 0)
    next_three = [hood.stranger(0) for _ in range(3)]
    assert hood.chosen(0) == []
    assert next_three == [server.address for server in known.chosen(0)]


def test_whoever_was_never_greeted_goes_before_whoever_is_to_be_asked_again():
    hood = neighbourhood()
    hood.update(found([1]), 0)
    assert hood.stranger(0) == address(1)
    hood.silent(address(1), 0)
    hood.update(found([1, 2, 3]), 0)
    later = [hood.stranger(90 * S) for _ in range(4)]
    assert set(later[:2]) == {address(2), address(3)}
    assert later[2:] == [address(1), None]


def test_a_zone_is_reached_as_soon_as_it_is_heard_of():
    hood = neighbourhood()
    hood.update(found(range(200)), 0)
    steps = 0
    for chosen in greetings(hood, zones=6):
        steps += 1
        assert {server.who.zone for server in chosen if server.who} == hood.zones
    assert (steps, len(hood.zones)) == (200, 6)


def test_who_does_not_answer_is_asked_again_soon_and_chosen_when_announced_for_long_enough():
    hood = neighbourhood()
    hood.update(found([1]), 0, told_ns=0)
    assert hood.stranger(0) == address(1)
    hood.silent(address(1), 10 * S)
    assert (hood.chosen(10 * S), hood.stranger(14 * S)) == ([], None)
    assert hood.stranger(15 * S) == address(1)
    assert hood.stranger(16 * S) is None, "it was asked just now"
    hood.silent(address(1), 20 * S)
    hood.update(found([1]), 40 * S, told_ns=10 * S + GRACE_NS)
    assert hood.chosen(1_000 * S) == [], "the newest list may be as old as that"
    hood.update(found([1]), 41 * S, told_ns=10 * S + GRACE_NS + 1)
    assert chosen_of(hood, 41 * S) == [1]
    assert hood.stranger(41 * S) == address(1)
    hood.silent(address(1), 41 * S)
    assert hood.stranger(100 * S) is None
    assert hood.stranger(101 * S) == address(1), "after a minute, now that it is probed"


def test_who_was_silent_and_away_from_the_list_is_a_stranger_again():
    hood = neighbourhood()
    hood.update(found([1]), 0, told_ns=0)
    hood.stranger(0)
    hood.silent(address(1), 0)
    hood.update([], S, told_ns=S)
    hood.update(found([1]), 60 * S, told_ns=60 * S)
    assert (hood.chosen(60 * S), hood.stranger(60 * S)) == ([], address(1))
    hood.silent(address(1), 60 * S)
    assert hood.chosen(60 * S) == []


def whose_chosen_one_left():
    """A neighbourhood of two that answered long ago, of which the one that was chosen leaves."""
    hood = neighbourhood(node="", limit=1)
    hood.update(found([1, 2]), 0)
    explore(hood)
    (first,) = chosen_of(hood, 0)
    (second,) = {1, 2} - {first}
    hood.leaves(address(first), 100 * S)
    assert chosen_of(hood, 100 * S) == []
    return hood, first, second


def test_who_answered_long_ago_shows_that_it_is_still_there_before_it_is_chosen():
    hood, _, second = whose_chosen_one_left()
    assert hood.stranger(100 * S) == address(second)
    assert chosen_of(hood, 101 * S) == []
    assert hood.stranger(101 * S) is None, "it is being asked"
    hood.met(address(second), who(second), 102 * S)
    assert chosen_of(hood, 102 * S) == [second]
    assert chosen_of(hood, 120 * S) == [second], "and stays, for it is probed"


def test_who_answered_long_ago_and_does_no_more_is_away():
    hood, first, second = whose_chosen_one_left()
    assert hood.stranger(100 * S) == address(second)
    hood.silent(address(second), 105 * S)
    assert chosen_of(hood, 105 * S + GRACE_NS) == [first]
    hood.met(address(first), who(first), 106 * S + GRACE_NS)
    hood.leaves(address(first), 106 * S + GRACE_NS)
    assert chosen_of(hood, 106 * S + GRACE_NS) == [second]


def test_a_greeting_in_vain_says_nothing_where_a_probe_was_answered_meanwhile():
    hood = neighbourhood(node="", limit=1)
    hood.update(found([1]), 0)
    for in_vain in (hood.silent, hood.unasked):
        assert hood.stranger(0) in (address(1), None)
        hood.met(address(1), who(1), 50 * S)
        in_vain(address(1), 51 * S)
        assert chosen_of(hood, 51 * S) == [1]
        assert hood.stranger(900 * S) is None


def test_what_a_watch_tells_needs_no_answer_until_it_is_out_of_date():
    hood = neighbourhood(limit=1)
    hood.update(watched([1, 2]), 0)
    (first,) = chosen_of(hood, 0)
    hood.leaves(address(first), 900 * S)
    (second,) = chosen_of(hood, 900 * S)
    assert {first, second} == {1, 2}
    hood.met(address(first), who(first), 910 * S)
    hood.out_of_date(910 * S)
    hood.leaves(address(second), 920 * S)
    assert chosen_of(hood, 920 * S) == []
    assert hood.stranger(920 * S) == address(first)
    hood.silent(address(first), 920 * S)
    assert chosen_of(hood, 9_000 * S) == [], "the list was from before it was missed"
    hood.out_of_date(9_000 * S)
    assert chosen_of(hood, 9_000 * S) == [], "it was out of date already"
    hood.update(watched([1, 2]), 9_000 * S)
    assert len(chosen_of(hood, 9_000 * S)) == 1, "now that the watch tells of them again"


def test_a_greeting_that_came_to_nothing_by_our_fault_leaves_a_stranger():
    hood = neighbourhood()
    hood.update(found([1]), 0)
    assert hood.stranger(0) == address(1)
    hood.unasked(address(1), 0)
    assert hood.chosen(0) == []
    assert hood.stranger(4 * S) is None
    assert hood.stranger(5 * S) == address(1)


def test_one_that_we_cannot_greet_keeps_nobody_waiting_and_in_the_end_is_probed_to_show_it():
    hood = neighbourhood()
    hood.update(found(range(1, 20)), 0)
    first = hood.stranger(0)
    assert first is not None
    hood.unasked(first, 0)
    assert first not in [hood.stranger(S) for _ in range(18)]
    assert hood.stranger(S) is None
    for now_ns in (5 * S, 10 * S):
        assert first not in [server.address for server in hood.chosen(now_ns)]
        assert hood.stranger(now_ns) == first
        hood.unasked(first, now_ns)
    assert hood.chosen(10 * S) == []
    assert [server.address for server in hood.chosen(11 * S + GRACE_NS)] == [first]


def test_those_who_did_not_answer_are_asked_again_in_turn():
    hood = neighbourhood()
    hood.update(found(range(100)), 0)
    asked: Counter[Address] = Counter()
    for second in range(400):
        stranger = hood.stranger(second * S)
        if stranger is not None:
            asked[stranger] += 1
            hood.silent(stranger, second * S)
    assert len(asked) == 100
    assert max(asked.values()) - min(asked.values()) <= 1


def test_a_zone_is_only_known_while_somebody_says_so():
    hood = neighbourhood()
    hood.update(found([1, 2]), 0)
    explore(hood)
    for number in range(1_000):
        hood.met(address(1), Who("x", "x", f"zone-{number}"), 0)
    assert hood.zones == {"zone-999", "zone-0"}
    hood.met(address(1), Who("x", "x", "zone-0"), 0)
    assert hood.zones == {"zone-0"}


def test_of_two_servers_on_our_own_node_the_same_one_is_home_whatever_the_order():
    ours = [Server(address(n), Who("", "node-0"), f"pod-{n}") for n in (200, 201)]
    chosen = []
    for first, second in (ours, reversed(ours)):
        hood = neighbourhood(limit=3)
        hood.update([first, second, *watched(range(1, 60), zones=0)], 0)
        chosen.append(hood.chosen(0))
    assert chosen[0] == chosen[1]


def test_a_goodbye_is_remembered_though_one_answer_lacks_the_address():
    hood = neighbourhood()
    hood.update(found([1, 2]), 0)
    explore(hood)
    hood.leaves(address(1), 0)
    hood.update(found([2]), S)
    assert (hood.stranger(10 * S), chosen_of(hood, 10 * S)) == (None, [2])
    hood.update(found([1, 2]), 11 * S)
    assert hood.stranger(11 * S) == address(1)
    hood.silent(address(1), 11 * S)
    assert chosen_of(hood, 11 * S) == [2]
    hood.update(found([2]), GRACE_NS + 2)
    assert chosen_of(hood, GRACE_NS + 2) == [2]
    hood.update([], GRACE_NS + 3)
    hood.update(found([1]), GRACE_NS + 4)
    assert 1 not in chosen_of(hood, GRACE_NS + 4), "nobody remembers it: it is a stranger"
    assert hood.stranger(GRACE_NS + 4) == address(1)


def test_what_was_learned_stays_while_the_address_does():
    hood = neighbourhood(node="", limit=1)
    hood.update(found(range(3)), 0)
    explore(hood)
    hood.update(found(range(4)), 0)
    assert hood.stranger(0) == address(3)
    hood.met(address(3), who(3), 0)
    (target,) = chosen_of(hood, 0)
    others = [n for n in range(4) if n != target]
    hood.update(found([target]), 0)
    hood.update(found(range(4)), 0)
    asked = {hood.stranger(0) for _ in range(4)} - {None}
    assert asked == {address(n) for n in others}, "they were away: they may be others"


def test_what_a_server_does_not_know_a_watch_may_tell_and_the_other_way_round():
    hood = neighbourhood()
    hood.update(watched([1], zones=1), 0)
    assert hood.met(address(1), Who("pod-x", "", "", "9.9"), 0) is True
    (server,) = hood.chosen(0)
    assert server.who == Who("pod-x", "node-1", "zone-0", "9.9")
    hood.update([Server(address(1), Who("", "node-1", "zone-9"), "node-1")], 0)
    assert hood.chosen(0)[0].who == Who("pod-x", "node-1", "zone-9", "9.9")
    assert hood.met(address(1), Who("pod-x"), 0) is False, "no news"


# --- goodbye --------------------------------------------------------------------------------


def test_who_leaves_is_replaced_by_who_answers_and_asked_again_every_five_seconds():
    hood = neighbourhood()
    hood.update(found(range(1, 30)), 0)
    explore(hood)
    before = hood.chosen(0)
    hood.leaves(before[0].address, 100 * S)
    assert hood.chosen(100 * S) == before[1:]
    successor = hood.stranger(100 * S)
    assert successor is not None
    hood.met(successor, who(int(successor.host.rpartition(".")[2])), 100 * S)
    after = hood.chosen(100 * S)
    assert len(after) == 10
    assert set(before) - set(after) == {before[0]}
    assert hood.stranger(104 * S) is None
    assert hood.stranger(105 * S) == before[0].address
    hood.silent(before[0].address, 105 * S)
    assert hood.chosen(105 * S) == after, "it is away, as it said"
    assert hood.stranger(109 * S) is None
    assert hood.stranger(110 * S) == before[0].address
    hood.met(before[0].address, who(1), 110 * S)
    assert before[0].address in [server.address for server in hood.chosen(110 * S)]


def test_a_goodbye_excuses_for_as_long_as_the_grace_and_no_longer():
    hood = neighbourhood()
    hood.update(found([1]), 0)
    explore(hood)
    hood.leaves(address(1), 0)
    assert hood.chosen(GRACE_NS) == []
    assert [server.address for server in hood.chosen(GRACE_NS + 1)] == [address(1)]


def test_the_ring_goes_on_past_who_leaves():
    for number in range(20):
        hood = neighbourhood(f"node-{number}", limit=1)
        hood.update(watched(range(20)), 0)
        (first,) = hood.chosen(0)
        hood.leaves(first.address, 0)
        without = neighbourhood(f"node-{number}", limit=1)
        rest = [server for server in watched(range(20)) if server.key != first.key]
        without.update(rest, 0)
        assert hood.chosen(0) == without.chosen(0)


# --- gone without a word --------------------------------------------------------------------


def chosen_of(hood: Neighbourhood, now_ns: int) -> list[int]:
    return sorted(int(server.address.host.rpartition(".")[2]) for server in hood.chosen(now_ns))


def test_a_target_that_is_gone_without_a_goodbye_stays_one_for_five_minutes():
    hood = neighbourhood(limit=3)
    hood.update(found(range(1, 9)), 0)
    explore(hood)
    before = chosen_of(hood, 0)
    missed = before[0]
    hood.update(found(n for n in range(1, 9) if n != missed), 100 * S)
    assert len(hood) == 7
    hood.met(address(before[1]), who(before[1])._replace(version="2"), 0)
    assert chosen_of(hood, 100 * S + LINGER_NS - 1) == before
    chosen_of(hood, 100 * S + LINGER_NS)
    list(greetings(hood, now_ns=100 * S + LINGER_NS))
    after = chosen_of(hood, 100 * S + LINGER_NS)
    assert (missed in after, len(after)) == (False, 3)


def test_who_is_missed_and_answers_all_the_same_stays_as_long_and_no_longer():
    hood = neighbourhood()
    hood.update(found([1, 2]), 0)
    explore(hood)
    hood.update(found([2]), 0)
    hood.met(address(1), who(1), 0)
    assert chosen_of(hood, LINGER_NS - 1) == [1, 2]
    assert chosen_of(hood, LINGER_NS) == [2]


def test_the_five_minutes_begin_once_and_end_when_it_is_announced_again():
    hood = neighbourhood()
    hood.update(found([1, 2]), 0)
    explore(hood)
    hood.chosen(0)
    hood.update(found([2]), 100 * S)
    hood.chosen(100 * S)
    hood.update(found([2, 3]), 200 * S)
    assert 1 in chosen_of(hood, 100 * S + LINGER_NS - 1)
    assert 1 not in chosen_of(hood, 100 * S + LINGER_NS)
    hood.update(found([1, 2]), 500 * S)
    chosen_of(hood, 9_000 * S)
    list(greetings(hood, now_ns=9_000 * S))
    assert 1 in chosen_of(hood, 9_000 * S)


def test_whoever_was_no_target_or_said_goodbye_or_never_answered_is_gone_at_once():
    hood = neighbourhood(limit=3)
    hood.update(found(range(1, 9)), 0)
    explore(hood)
    silent = neighbourhood()
    silent.update(found([1]), 0)
    silent.stranger(0)
    silent.silent(address(1), 0)
    assert chosen_of(silent, 2 * GRACE_NS) == [1]
    silent.update([], 2 * GRACE_NS)
    assert chosen_of(silent, 2 * GRACE_NS) == []
    before = chosen_of(hood, 0)
    hood.leaves(address(before[0]), 0)
    hood.update(found(before[1:]), 0)
    assert chosen_of(hood, 0) == before[1:]
    assert chosen_of(hood, GRACE_NS + 1) == before[1:]


def test_a_server_that_is_back_elsewhere_is_missed_nowhere():
    hood = neighbourhood()
    hood.update(found([1, 2]), 0)
    explore(hood)
    hood.chosen(0)
    hood.update(found([2, 3]), S)
    assert chosen_of(hood, S) == [1, 2]
    hood.met(address(3), who(1), 0)
    assert chosen_of(hood, S) == [2, 3]
    watch = neighbourhood()
    watch.update(watched([1, 2]), 0)
    watch.chosen(0)
    watch.update([watched([2])[0], Server(address(9), Who("", "node-1"), "node-1")], S)
    assert chosen_of(watch, S) == [2, 9]


def test_on_the_ring_nobody_stands_in_for_a_server_that_is_gone_for_good():
    hood = neighbourhood(limit=1)
    hood.update(watched(range(20)), 0)
    (first,) = hood.chosen(0)
    rest = [server for server in watched(range(20)) if server.key != first.key]
    hood.update(rest, 0)
    assert hood.chosen(0) == [first]
    fresh = neighbourhood(limit=1)
    fresh.update(rest, 0)
    assert hood.chosen(LINGER_NS) == fresh.chosen(0)


def test_of_addresses_that_have_gone_nothing_is_heard():
    hood = neighbourhood()
    hood.update(found([1]), 0)
    hood.update([], 0)
    hood.leaves(address(1), 0)
    hood.silent(address(1), 0)
    hood.unasked(address(1), 0)
    assert hood.met(address(1), who(1), 0) is False
    assert (len(hood), hood.chosen(0), hood.stranger(0), hood.zones) == (0, [], None, frozenset())
