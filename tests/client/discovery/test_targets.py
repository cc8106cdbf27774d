import asyncio
import functools
import itertools
import json
import logging
from random import Random

import pytest

from client.timeless import TimelessLoop, run_timeless
from twocans_client.discovery.explorer import Greeting
from twocans_client.discovery.neighbours import Neighbourhood
from twocans_client.discovery.resolver import Resolution, Resolver
from twocans_client.discovery.slices import Endpoint
from twocans_client.discovery.specs import Target, Who, parse_spec
from twocans_client.discovery.targets import Found, Policy, Targets
from twocans_client.evidence.results import Outcome, Reason
from twocans_core.net.sockets import Address

FAILED = Resolution((), 1_000, Reason.DNS_FAILURE, "no such name")


def found(*hosts: str) -> Resolution:
    return Resolution(tuple(Address(host, 5000) for host in hosts), 1_000)


class Names(Resolver):
    """Answers at once what a test wants it to."""

    def __init__(self, loop: TimelessLoop, **names: Resolution) -> None:
        super().__init__()
        self.names = names
        self.asked: list[tuple[float, str, bool]] = []
        self._loop = loop

    async def resolve(
        self, host: str, port: int, *, slow: bool = False, timeout_s: float = 5.0
    ) -> Resolution:
        self.asked.append((self._loop.time(), host, slow))
        return self.names[host]


class FakeWatch:
    """Says what a test wants it to."""

    def __init__(self, service, *, port, on_change, on_problem):
        self.about = (service, port)
        self.tell = on_change
        self.fail = on_problem
        self.ended = False

    async def run(self):
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.ended = True


class World:
    """Targets at work.

    Attributes:
        now: The newest list, as it was announced.
    """

    def __init__(
        self,
        loop,
        *texts,
        file=None,
        interval_s=10.0,
        seed=1,
        per_s=1_000.0,
        max_paths=1_000,
        limit=10,
        node="",
        linger_s=0,
        servers=None,
        no_route="",
        family="any",
        **names,
    ):
        self.names = Names(loop, **names)
        self.servers: dict[str, Greeting] = {} if servers is None else servers
        self.greeted: list[tuple[float, str]] = []
        self.now: list[Target] = []
        self.left_out = 0
        self.never = False
        self.watches: list[FakeWatch] = []
        self.problems: list[tuple[str, str]] = []
        self.no_route = no_route
        self._loop = loop
        self.announced = 0
        self.resolutions: list[Resolution] = []
        self.targets = Targets(
            [parse_spec(text) for text in texts],
            file,
            Policy(
                interval_s,
                per_s,
                max_paths,
                functools.partial(
                    Neighbourhood,
                    client="us",
                    node=node,
                    limit=limit,
                    probe_self=False,
                    leaving_ns=30_000_000_000,
                    linger_ns=int(linger_s * 1e9),
                ),
                family,
            ),
            resolver=self.names,
            introduce=self._introduce,
            rng=Random(seed),
            changed=self._changed,
            resolved=lambda _, resolution: self.resolutions.append(resolution),
            watch=self._watch,
            watch_failed=lambda spec, problem: self.problems.append((spec.text, problem)),
            has_route=lambda address: address.family not in self.no_route,
            clock=loop.clock,
        )
        self.task = loop.create_task(self.targets.run())

    async def _introduce(self, address: Address) -> Greeting:
        self.greeted.append((self._loop.time(), address.host))
        if self.never:
            await self._loop.create_future()
        await asyncio.sleep(0)
        return self.servers.get(address.host, Greeting(Outcome.OK, Who(address.host)))

    def _watch(self, service, **kwargs) -> "FakeWatch":
        self.watches.append(FakeWatch(service, **kwargs))
        return self.watches[-1]

    def _changed(self, found: Found) -> None:
        self.now = found.targets
        self.left_out = found.left_out
        self.announced += 1

    @property
    def hosts(self):
        return sorted(
            target.address.host if target.address else target.problem for target in self.now
        )


def test_addresses_need_no_resolver_and_are_there_at_once():
    async def main(loop):
        world = World(loop, "192.0.2.1:7", "[2001:db8::1]:7", "dns:192.0.2.3:7")
        await asyncio.sleep(0.001)
        assert world.hosts == ["192.0.2.1", "192.0.2.3", "2001:db8::1"]
        await asyncio.sleep(3_600)
        assert (world.names.asked, world.announced) == ([], 1)

    run_timeless(main)


def test_a_name_has_one_path_and_stays_with_its_address_while_that_is_there():
    async def main(loop):
        world = World(loop, "a", a=found("192.0.2.2", "192.0.2.1"))
        await asyncio.sleep(1)
        assert world.hosts == ["192.0.2.2"]
        world.names.names["a"] = found("192.0.2.1", "192.0.2.2")
        await asyncio.sleep(60)
        assert world.hosts == ["192.0.2.2"], "a resolver rotates its answers"
        world.names.names["a"] = found("192.0.2.1", "192.0.2.3")
        await asyncio.sleep(60)
        assert world.hosts == ["192.0.2.1"]

    run_timeless(main)


def test_every_address_of_a_dns_name_is_a_path_and_they_come_and_go():
    async def main(loop):
        world = World(loop, "dns:a", a=found("192.0.2.2", "192.0.2.1"))
        await asyncio.sleep(1)
        assert world.hosts == ["192.0.2.1", "192.0.2.2"]
        announced = world.announced
        await asyncio.sleep(60)
        assert world.announced == announced, "nothing changed"
        world.names.names["a"] = found("192.0.2.3", "192.0.2.2")
        await asyncio.sleep(60)
        assert world.hosts == ["192.0.2.2", "192.0.2.3"]

    run_timeless(main)


def test_a_name_that_never_resolved_is_a_path_that_says_why():
    async def main(loop):
        world = World(loop, "a", "dns:b", a=FAILED, b=FAILED)
        await asyncio.sleep(1)
        assert world.hosts == [Reason.DNS_FAILURE] * 2
        world.names.names |= {"a": found("192.0.2.1"), "b": found("192.0.2.2")}
        await asyncio.sleep(60)
        assert world.hosts == ["192.0.2.1", "192.0.2.2"]

    run_timeless(main)


def test_an_address_that_was_right_is_kept_for_ten_minutes_and_then_dropped():
    async def main(loop):
        world = World(loop, "a", a=found("192.0.2.1"))
        await asyncio.sleep(0.1)
        world.names.names["a"] = FAILED
        await asyncio.sleep(590)
        assert world.hosts == ["192.0.2.1"]
        await asyncio.sleep(180)
        assert world.hosts == [Reason.DNS_FAILURE]

    run_timeless(main)


def test_back_off_doubles_to_15_seconds_with_jitter_and_ends_with_the_first_answer():
    async def main(loop):
        world = World(loop, "a", a=FAILED)
        await asyncio.sleep(1_000)
        times = [at for at, _, _ in world.names.asked]
        waits = [after - before for before, after in itertools.pairwise(times)]
        for wait, nominal in zip(waits, [1, 2, 4, 8, *[15] * 99], strict=False):
            assert 0.8 * nominal <= wait <= 1.2 * nominal
        assert len({round(wait / 15, 4) for wait in waits[4:]}) > 3, "no jitter"
        world.names.names["a"] = found("192.0.2.1")
        await asyncio.sleep(100)
        before = len(world.names.asked)
        await asyncio.sleep(100)
        assert 8 <= len(world.names.asked) - before <= 13

    run_timeless(main)


def test_a_late_answer_is_asked_for_again_four_times_soon_once_a_minute():
    async def main(loop):
        late = Resolution(found("192.0.2.1").addresses, 200_000_000)
        world = World(loop, "a", a=found("192.0.2.1"))
        await asyncio.sleep(30)
        world.names.asked.clear()
        world.names.names["a"] = late
        await asyncio.sleep(130)
        times = [at for at, _, _ in world.names.asked]
        waits = [after - before for before, after in itertools.pairwise(times)]
        assert [wait < 1.3 for wait in waits[:5]] == [True, True, True, True, False]
        assert sum(wait < 1.3 for wait in waits) == 8

    run_timeless(main)


def test_two_clients_do_not_look_up_in_step():
    async def main(loop):
        worlds = [World(loop, "a", seed=seed, a=found("192.0.2.1")) for seed in (1, 2)]
        await asyncio.sleep(100)
        return [[at for at, _, _ in world.names.asked[1:]] for world in worlds]

    one, other = run_timeless(main)
    assert not set(one) & set(other)


def test_only_a_name_that_was_slow_is_looked_up_as_one():
    async def main(loop):
        world = World(
            loop, "quick", "slow", quick=FAILED, slow=Resolution((), None, Reason.DNS_TIMEOUT)
        )
        await asyncio.sleep(30)
        assert {(host, slow) for _, host, slow in world.names.asked} == {
            ("quick", False),
            ("slow", False),
            ("slow", True),
        }
        world.names.names["slow"] = found("192.0.2.1")
        await asyncio.sleep(120)
        assert world.names.asked[-1][2] is False

    run_timeless(main)


# --- the file ------------------------------------------------------------------------------


def write(file, *texts, **labels):
    file.write_text(json.dumps([{"targets": texts, "labels": labels}]))


def events(caplog, name):
    return [record for record in caplog.records if record.msg == name]


@pytest.fixture
def file(tmp_path):
    return tmp_path / "targets.json"


def test_a_file_is_read_at_the_start_and_again_when_it_changed(file, caplog):
    caplog.set_level(logging.INFO)
    write(file, "192.0.2.1:7", zone="z")

    async def main(loop):
        world = World(loop, "192.0.2.9:7", file=file)
        await asyncio.sleep(0.5)
        assert world.hosts == ["192.0.2.1", "192.0.2.9"]
        assert world.now[1].spec.labels == (("zone", "z"),)
        await asyncio.sleep(60)
        assert len(events(caplog, "targets_file_read")) == 1
        write(file, "192.0.2.2:7")
        await asyncio.sleep(2)
        assert world.hosts == ["192.0.2.2", "192.0.2.9"]

    run_timeless(main)


def test_a_file_is_read_again_when_asked_and_what_is_wrong_is_said_again(file, caplog):
    caplog.set_level(logging.INFO)
    write(file, "192.0.2.1:7")

    async def main(loop):
        world = World(loop, file=file)
        await asyncio.sleep(2)
        world.targets.file.reread()
        await asyncio.sleep(2)
        assert len(events(caplog, "targets_file_read")) == 2
        file.write_text("[")
        await asyncio.sleep(60)
        world.targets.file.reread()
        await asyncio.sleep(60)
        assert len(events(caplog, "targets_file_refused")) == 2
        assert (world.hosts, world.targets.file.refused) == (["192.0.2.1"], 1)

    run_timeless(main)


def test_an_empty_list_is_a_list(file):
    write(file, "192.0.2.1:7")

    async def main(loop):
        world = World(loop, file=file)
        await asyncio.sleep(0.5)
        file.write_text("[]")
        await asyncio.sleep(2)
        assert world.hosts == []

    run_timeless(main)


def test_other_labels_do_not_end_a_path(file):
    write(file, "a", zone="x")

    async def main(loop):
        world = World(loop, file=file, a=found("192.0.2.1"))
        await asyncio.sleep(0.5)
        seen = []
        world.targets._changed = lambda found: seen.append(found.targets)
        world.names.names["a"] = FAILED
        write(file, "a", zone="yy")
        await asyncio.sleep(2)
        for targets in seen[:1]:
            assert [target.address for target in targets] == [Address("192.0.2.1", 5000)]
            assert targets[0].spec.labels == (("zone", "yy"),)
        assert seen

    run_timeless(main)


def test_a_name_that_is_no_target_any_longer_is_not_looked_up(file):
    write(file, "a")

    async def main(loop):
        world = World(loop, file=file, a=found("192.0.2.1"))
        await asyncio.sleep(30)
        file.write_text("[]")
        await asyncio.sleep(2)
        before = len(world.names.asked)
        await asyncio.sleep(600)
        assert len(world.names.asked) == before
        assert world.hosts == []

    run_timeless(main)


def test_there_is_a_most_of_paths_and_what_is_left_out_is_counted(caplog):
    async def main(loop):
        world = World(loop, *(f"192.0.2.{n}" for n in range(9)), max_paths=5)
        await asyncio.sleep(1)
        assert (len(world.now), world.left_out) == (5, 4)
        (record,) = events(caplog, "too_many_paths")
        assert vars(record)["twocans.paths"] == 9

    run_timeless(main)


def test_where_not_all_may_be_probed_each_name_has_its_turn_and_its_best_come_first():
    async def main(loop):
        names = {"a": many(20), "b": found("192.0.2.1", "192.0.2.2")}
        world = World(loop, "dns:a", "dns:b", **names)
        await asyncio.sleep(2)
        best = [target.address for target in world.now if target.spec.text == "dns:a"]
        few = World(loop, "dns:a", "dns:b", max_paths=5, **names)
        await asyncio.sleep(2)
        probed: dict[str, list[Address | None]] = {"dns:a": [], "dns:b": []}
        for target in few.now:
            probed[target.spec.text].append(target.address)
        assert (probed["dns:a"], len(probed["dns:b"])) == (best[:3], 2)
        assert few.left_out == 7

    run_timeless(main)


# --- names with many servers ----------------------------------------------------------------


def many(count: int) -> Resolution:
    return found(*(f"10.0.{n // 250}.{n % 250}" for n in range(count)))


def test_new_addresses_are_greeted_at_the_rate_and_no_faster():
    async def main(loop):
        world = World(loop, "dns:a", a=many(300), per_s=2.0)
        await asyncio.sleep(100)
        times = [at for at, _ in world.greeted]
        assert len(set(world.greeted)) == len(times) == len({host for _, host in world.greeted})
        assert times[0] - 1_000 < 0.1, "the first one at once"
        waits = [after - before for before, after in itertools.pairwise(times)]
        assert 0.4 <= min(waits) < max(waits) <= 0.6
        await asyncio.sleep(100)
        assert len(world.greeted) == 300, "each of them once"

    run_timeless(main)


def test_no_more_greetings_are_under_way_than_there_may_be_descriptors_for():
    async def main(loop):
        world = World(loop, "dns:a", a=many(300))
        world.never = True
        await asyncio.sleep(20)
        assert len(world.greeted) == 64

    run_timeless(main)


def test_names_take_turns_at_the_one_rate():
    async def main(loop):
        world = World(loop, "dns:a", "dns:b", a=many(50), b=found("192.0.2.1"), per_s=1.0)
        await asyncio.sleep(5)
        assert "192.0.2.1" in [host for _, host in world.greeted]
        assert 4 <= len(world.greeted) <= 7

    run_timeless(main)


def test_no_address_is_probed_before_it_was_greeted():
    async def main(loop):
        world = World(loop, "dns:a", a=many(20), per_s=1.0)
        for _ in range(30):
            await asyncio.sleep(1)
            assert set(world.hosts) <= {host for _, host in world.greeted}
        assert len(world.hosts) == 10

    run_timeless(main)


def test_the_server_on_our_own_node_is_never_probed_and_of_the_rest_all_while_they_are_few():
    servers = {"192.0.2.2": Greeting(Outcome.OK, Who("mine", "node-a"))}

    async def main(loop):
        a = found("192.0.2.1", "192.0.2.2", "192.0.2.3")
        world = World(loop, "dns:a", a=a, servers=servers, node="node-a")
        seen = set()
        for _ in range(100):
            await asyncio.sleep(0.05)
            seen |= set(world.hosts)
        assert seen == {"192.0.2.1", "192.0.2.3"} == set(world.hosts)
        assert {target.who for target in world.now} == {Who("192.0.2.1"), Who("192.0.2.3")}

    run_timeless(main)


def test_with_no_server_but_our_own_it_says_once_why_nothing_is_probed(caplog):
    servers = {"192.0.2.1": Greeting(Outcome.OK, Who("mine", "node-a"))}

    async def main(loop):
        a = found("192.0.2.1")
        world = World(loop, "dns:a", a=a, servers=servers, node="node-a")
        await asyncio.sleep(100)
        assert (world.hosts, len(events(caplog, "only_own_server"))) == ([], 1)
        world.names.names["a"] = found("192.0.2.1", "192.0.2.2")
        await asyncio.sleep(20)
        world.names.names["a"] = a
        await asyncio.sleep(20)
        assert len(events(caplog, "only_own_server")) == 2, "it was another for a while"

    run_timeless(main)


def test_who_does_not_answer_is_probed_once_it_is_announced_for_longer_than_a_cache_lives():
    servers = {"192.0.2.1": Greeting(Outcome.FAIL)}

    async def main(loop):
        world = World(loop, "dns:a", a=found("192.0.2.1"), servers=servers)
        await asyncio.sleep(29)
        assert (world.hosts, len(world.greeted)) == ([], 6), "every five seconds"
        await asyncio.sleep(20)
        assert (world.hosts, world.now[0].who) == (["192.0.2.1"], None)
        servers["192.0.2.1"] = Greeting(Outcome.OK, Who("back"))
        greeted = len(world.greeted)
        await asyncio.sleep(70)
        assert len(world.greeted) == greeted + 1, "after a minute"
        assert world.now[0].who == Who("back")

    run_timeless(main)


def test_a_greeting_that_failed_by_our_own_fault_is_made_again():
    servers = {"192.0.2.1": Greeting(Outcome.VOID)}

    async def main(loop):
        world = World(loop, "dns:a", a=found("192.0.2.1"), servers=servers, per_s=1.0)
        await asyncio.sleep(8)
        assert (world.hosts, len(world.greeted)) == ([], 2)
        del servers["192.0.2.1"]
        await asyncio.sleep(5)
        assert world.hosts == ["192.0.2.1"]

    run_timeless(main)


def test_who_says_goodbye_leaves_at_once_and_comes_back_when_it_answers_again():
    servers: dict[str, Greeting] = {}

    async def main(loop):
        world = World(loop, "dns:a", a=found("192.0.2.1", "192.0.2.2"), servers=servers)
        await asyncio.sleep(1)
        servers["192.0.2.1"] = Greeting(Outcome.OK, Who("192.0.2.1"), draining=True)
        (leaving,) = [one for one in world.now if one.address == Address("192.0.2.1", 5000)]
        world.targets.saw(leaving, Who("192.0.2.1"), leaving=True)
        assert world.hosts == ["192.0.2.2"]
        await asyncio.sleep(20)
        assert world.hosts == ["192.0.2.2"]
        assert 3 <= len(world.greeted) - 2 <= 5, "every five seconds"
        del servers["192.0.2.1"]
        await asyncio.sleep(6)
        assert world.hosts == ["192.0.2.1", "192.0.2.2"]

    run_timeless(main)


def test_who_said_goodbye_and_is_still_announced_after_the_grace_is_probed_to_show_it():
    servers: dict[str, Greeting] = {}

    async def main(loop):
        world = World(loop, "dns:a", a=found("192.0.2.1"), servers=servers)
        await asyncio.sleep(1)
        servers["192.0.2.1"] = Greeting(Outcome.FAIL)
        world.targets.saw(world.now[0], Who("192.0.2.1"), leaving=True)
        await asyncio.sleep(29)
        assert world.hosts == []
        await asyncio.sleep(1 + 12)  # a resolve interval later the name is looked up again
        assert world.hosts == ["192.0.2.1"]

    run_timeless(main)


def test_a_target_that_is_gone_without_a_word_is_probed_on_for_as_long_as_it_may_linger():
    async def main(loop):
        world = World(loop, "dns:a", a=found("192.0.2.1", "192.0.2.2"), linger_s=60)
        await asyncio.sleep(5)
        world.names.names["a"] = found("192.0.2.2")
        await asyncio.sleep(60)
        assert world.hosts == ["192.0.2.1", "192.0.2.2"]
        assert world.targets.discovered == {"dns:a": 1}
        await asyncio.sleep(20)
        assert world.hosts == ["192.0.2.2"]

    run_timeless(main)


def test_both_families_of_a_name_have_neighbours_of_their_own():
    async def main(loop):
        both = [f"192.0.2.{n}" for n in range(20)] + [f"2001:db8::{n}" for n in range(1, 21)]
        world = World(loop, "dns:a", a=found(*both), limit=4)
        await asyncio.sleep(2)
        assert sorted(target.family for target in world.now) == ["4"] * 4 + ["6"] * 4
        assert world.targets.discovered == {"dns:a": 40}

    run_timeless(main)


def test_a_family_that_the_machine_has_no_route_to_is_left_out_and_counted(caplog):
    servers = {"2001:db8::7": Greeting(Outcome.FAIL)}

    async def main(loop):
        a = found("192.0.2.7", "2001:db8::7")
        world = World(loop, "dns:a", "a", a=a, servers=servers, no_route="6")
        await asyncio.sleep(100)
        assert world.hosts == ["192.0.2.7"] * 2
        assert world.targets.crowds.unusable == {("dns:a", "6"): 1}
        assert world.targets.discovered == {"dns:a": 2}
        assert [host for _, host in world.greeted] == ["192.0.2.7"], "nor is it greeted"
        (record,) = events(caplog, "family_unusable")
        names = ("target", "family", "addresses")
        assert [vars(record)[f"twocans.{name}"] for name in names] == ["dns:a", "6", 1]
        world.no_route = ""
        del servers["2001:db8::7"]
        await asyncio.sleep(10)
        assert world.hosts == ["192.0.2.7", "192.0.2.7", "2001:db8::7"]
        assert world.targets.crowds.unusable == {}
        world.no_route = "6"
        await asyncio.sleep(100)
        assert world.hosts[-1] == "2001:db8::7", "it answered once: now that is a fault"

    run_timeless(main)


@pytest.mark.parametrize("hosts", [("2001:db8::7",), ("2001:db8::7", "192.0.2.7")])
def test_where_there_is_no_route_at_all_that_shows(hosts):
    servers = dict.fromkeys(hosts, Greeting(Outcome.FAIL))

    async def main(loop):
        world = World(loop, "dns:a", "a", a=found(*hosts), servers=servers, no_route="46")
        await asyncio.sleep(100)
        assert world.hosts == sorted([*hosts, "2001:db8::7"])
        assert world.targets.crowds.unusable == {}

    run_timeless(main)


def test_a_name_with_one_path_goes_where_there_is_a_route():
    async def main(loop):
        world = World(loop, "a", a=found("2001:db8::7", "192.0.2.7"), no_route="46")
        await asyncio.sleep(30)
        assert world.hosts == ["2001:db8::7"]
        world.no_route = "6"
        await asyncio.sleep(30)
        assert world.hosts == ["192.0.2.7"]
        world.no_route = ""
        await asyncio.sleep(30)
        assert world.hosts == ["192.0.2.7"], "and stays there"

    run_timeless(main)


def test_of_a_service_only_the_family_that_is_wanted_is_taken():
    async def main(loop):
        world = World(loop, "endpointslices:s", family="ipv4")
        await asyncio.sleep(0.1)
        v6 = endpoint(2)._replace(address=Address("2001:db8::2", 7))
        world.watches[0].tell([endpoint(1), v6])
        assert world.hosts == ["192.0.2.1"]

    run_timeless(main)


def test_a_name_that_does_not_resolve_has_no_address_and_literals_are_not_counted():
    async def main(loop):
        world = World(loop, "dns:a", "dns:192.0.2.1", "192.0.2.2", a=FAILED)
        await asyncio.sleep(1)
        assert world.targets.discovered == {"dns:a": 0}

    run_timeless(main)


def test_a_name_that_resolves_no_more_has_no_servers_after_ten_minutes_until_it_does_again():
    async def main(loop):
        world = World(loop, "dns:a", a=many(3))
        await asyncio.sleep(5)
        world.names.names["a"] = FAILED
        await asyncio.sleep(590)
        assert len(world.hosts) == 3
        await asyncio.sleep(60)
        assert world.hosts == [Reason.DNS_FAILURE]
        assert world.targets.discovered == {"dns:a": 0}
        world.names.names["a"] = many(2)
        await asyncio.sleep(30)
        assert world.hosts == ["10.0.0.0", "10.0.0.1"]

    run_timeless(main)


def test_the_last_server_of_a_name_or_of_a_family_lingers_as_others_do():
    async def main(loop):
        world = World(
            loop, "endpointslices:s", "dns:a", linger_s=60, a=found("192.0.2.7", "2001:db8::7")
        )
        await asyncio.sleep(0.1)
        world.watches[0].tell([endpoint(1)])
        await asyncio.sleep(5)
        everybody = ["192.0.2.1", "192.0.2.7", "2001:db8::7"]
        assert world.hosts == everybody
        world.watches[0].tell([])
        world.names.names["a"] = found("192.0.2.7")
        await asyncio.sleep(30)
        assert world.hosts == everybody
        await asyncio.sleep(60)
        assert world.hosts == ["192.0.2.7"]

    run_timeless(main)


def test_nothing_that_it_began_goes_on_after_its_end():
    async def main(loop):
        world = World(loop, "dns:a", a=many(30))
        world.never = True
        await asyncio.sleep(1)
        world.task.cancel()
        await asyncio.wait([world.task])
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_timeless(main)


def test_of_a_target_that_has_gone_nothing_is_remembered(file):
    write(file, "dns:a")
    servers = {"192.0.2.1": Greeting(Outcome.OK, Who("s", "n", "z"))}

    async def main(loop):
        world = World(loop, file=file, a=found("192.0.2.1"), servers=servers)
        await asyncio.sleep(2)
        assert (world.targets.crowds.zones, len(world.greeted)) == ({"z"}, 1)
        file.write_text("[]")
        await asyncio.sleep(2)
        assert (world.targets.crowds.zones, world.targets.discovered) == (set(), {})
        world.targets.saw(
            Target(parse_spec("dns:a"), Address("192.0.2.1", 5000)), Who("s"), leaving=False
        )
        assert world.hosts == []

    run_timeless(main)


def test_the_zones_that_were_heard_of_are_known():
    async def main(loop):
        servers = {
            f"192.0.2.{n}": Greeting(Outcome.OK, Who(f"s{n}", f"n{n}", f"z{n % 3}"))
            for n in range(9)
        }
        world = World(loop, "dns:a", a=found(*servers), servers=servers)
        assert world.targets.crowds.zones == set()
        await asyncio.sleep(2)
        assert world.targets.crowds.zones == {"z0", "z1", "z2"}

    run_timeless(main)


def endpoint(number: int, node: str | None = None, zone: str = "") -> Endpoint:
    name = f"node-{number}" if node is None else node
    return Endpoint(Address(f"192.0.2.{number}", 7), name, zone)


def test_where_a_watch_tells_nodes_nobody_is_greeted_and_our_own_is_left_out():
    async def main(loop):
        world = World(loop, "endpointslices:servers:7", node="node-2")
        await asyncio.sleep(0.1)
        (watch,) = world.watches
        assert (watch.about, world.hosts) == (("servers", 7), [])
        assert not world.targets.is_settled
        watch.tell([endpoint(n, zone=f"z{n}") for n in range(1, 4)])
        assert world.hosts == ["192.0.2.1", "192.0.2.3"]
        assert world.now[0].who == Who("", "node-1", "z1")
        assert (world.targets.crowds.zones, world.targets.is_settled) == ({"z1", "z3"}, True)
        assert world.targets.crowds.own_zone == "z2"
        await asyncio.sleep(100)
        assert (world.greeted, world.names.asked) == ([], [])
        watch.tell([endpoint(4)])
        assert world.hosts == ["192.0.2.4"]
        assert [len(resolution.addresses) for resolution in world.resolutions] == [3, 1]

    run_timeless(main)


def test_a_pod_that_is_made_anew_on_its_node_keeps_its_place():
    async def main(loop):
        world = World(loop, "endpointslices:servers:7", limit=3)
        await asyncio.sleep(0.1)
        (watch,) = world.watches
        watch.tell([endpoint(n) for n in range(1, 100)])
        before = {target.who.node for target in world.now if target.who}
        watch.tell(
            [endpoint(n)._replace(address=Address(f"198.51.100.{n}", 7)) for n in range(1, 100)]
        )
        assert {target.who.node for target in world.now if target.who} == before
        assert all(host.startswith("198.51.100.") for host in world.hosts)

    run_timeless(main)


def test_an_endpoint_without_a_node_is_greeted_as_a_stranger_is():
    async def main(loop):
        world = World(loop, "endpointslices:servers:7", node="node-2")
        await asyncio.sleep(0.1)
        world.watches[0].tell([endpoint(1, node="")])
        assert world.hosts == []
        await asyncio.sleep(2)
        assert world.hosts == ["192.0.2.1"]

    run_timeless(main)


def test_while_a_watch_fails_the_last_good_list_stays():
    async def main(loop):
        world = World(loop, "endpointslices:servers:7")
        await asyncio.sleep(0.1)
        (watch,) = world.watches
        watch.tell([endpoint(1)])
        watch.fail("forbidden")
        await asyncio.sleep(10_000)
        assert world.hosts == ["192.0.2.1"]
        assert world.problems == [("endpointslices:servers:7", "forbidden")]

    run_timeless(main)


def test_a_watch_that_fails_from_the_start_is_an_answer_with_no_address():
    async def main(loop):
        world = World(loop, "endpointslices:servers:7")
        await asyncio.sleep(0.1)
        world.watches[0].fail("forbidden")
        assert (world.hosts, world.targets.is_settled) == ([], True)
        assert world.targets.discovered == {"endpointslices:servers:7": 0}

    run_timeless(main)


def test_a_watch_ends_with_its_target(file):
    write(file, "endpointslices:servers:7")

    async def main(loop):
        world = World(loop, file=file)
        await asyncio.sleep(0.5)
        world.watches[0].tell([endpoint(1)])
        assert world.hosts == ["192.0.2.1"]
        file.write_text("[]")
        await asyncio.sleep(2)
        assert (world.hosts, world.watches[0].ended) == ([], True)

    run_timeless(main)


def test_it_is_settled_once_every_name_was_looked_up():
    async def main(loop):
        world = World(loop, "192.0.2.1", "a", a=FAILED)
        assert not world.targets.is_settled
        await asyncio.sleep(1)
        assert world.targets.is_settled
        nothing = World(loop)
        await asyncio.sleep(1)
        assert not nothing.targets.is_settled, "nothing to probe"

    run_timeless(main)


def test_a_watcher_that_dies_of_a_bug_is_logged(caplog):
    async def main(loop):
        world = World(loop, "a")  # the fake does not know it: a KeyError, which no resolver raises
        await asyncio.sleep(1)
        assert world.now == []

    run_timeless(main)
    (record,) = events(caplog, "bug")
    assert record.exc_info[0] is KeyError
