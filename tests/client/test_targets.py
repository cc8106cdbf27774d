import asyncio
import itertools
import json
import logging
import os
from random import Random

import pytest

from client.timeless import TimelessLoop, run_timeless
from twocans_client import targets as module
from twocans_client.resolver import Resolution, Resolver
from twocans_client.results import Reason
from twocans_client.specs import Target, parse_spec
from twocans_client.targets import Targets
from twocans_core.sockets import Address

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


class World:
    """Targets at work.

    Attributes:
        now: The newest list, as it was announced.
    """

    def __init__(self, loop, *texts, file=None, interval_s=10.0, seed=1, **names):
        self.names = Names(loop, **names)
        self.now: list[Target] = []
        self.announced = 0
        self.resolutions: list[Resolution] = []
        self.targets = Targets(
            [parse_spec(text) for text in texts],
            file,
            resolver=self.names,
            interval_s=interval_s,
            rng=Random(seed),
            changed=self._changed,
            resolved=lambda _, resolution: self.resolutions.append(resolution),
            clock=loop.clock,
        )
        self.task = loop.create_task(self.targets.run())

    def _changed(self, targets):
        self.now = targets
        self.announced += 1

    @property
    def hosts(self):
        return [target.address.host if target.address else target.problem for target in self.now]


def test_addresses_need_no_resolver_and_are_there_at_once():
    async def main(loop):
        world = World(loop, "192.0.2.1:7", "[2001:db8::1]:7", "dns:192.0.2.3:7")
        await asyncio.sleep(0.001)
        assert world.hosts == ["192.0.2.1", "2001:db8::1", "192.0.2.3"]
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
        assert world.hosts == ["192.0.2.9", "192.0.2.1"]
        assert world.now[1].spec.labels == (("zone", "z"),)
        await asyncio.sleep(60)
        assert len(events(caplog, "targets_file_read")) == 1
        write(file, "192.0.2.2:7")
        await asyncio.sleep(2)
        assert world.hosts == ["192.0.2.9", "192.0.2.2"]

    run_timeless(main)


@pytest.mark.parametrize("spoil", ["half", "gone", "huge", "deep", "fifo", "folder", "binary"])
def test_a_bad_file_keeps_the_last_good_list_and_says_so(file, caplog, spoil, monkeypatch):
    monkeypatch.setattr(module, "_MAX_FILE_BYTES", 300_000)
    write(file, "192.0.2.1:7")

    async def main(loop):
        world = World(loop, file=file)
        await asyncio.sleep(0.5)
        good = file.read_text()
        file.unlink()
        match spoil:
            case "half":
                file.write_text(good[: len(good) // 2])
            case "huge":
                file.write_text(good + " " * 300_000)
            case "deep":
                file.write_text("[" * 100_000)
            case "fifo":
                os.mkfifo(file)
            case "folder":
                file.mkdir()
            case "binary":
                file.write_bytes(b"\xff\xfe[]")
        await asyncio.sleep(30)
        assert world.hosts == ["192.0.2.1"]
        refusals = events(caplog, "targets_file_refused")
        assert refusals
        assert all(record.limited and record.error for record in refusals)
        file.rmdir() if spoil == "folder" else file.unlink(missing_ok=True)
        write(file, "192.0.2.2:7")
        await asyncio.sleep(2)
        assert world.hosts == ["192.0.2.2"], "it recovers"
        assert not world.task.done()

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
        world.targets._changed = lambda targets: seen.append(list(targets))
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


def test_there_is_a_most_of_paths(monkeypatch, caplog):
    monkeypatch.setattr(module, "_MAX_PATHS", 5)

    async def main(loop):
        world = World(loop, "dns:a", a=found(*(f"192.0.2.{n}" for n in range(9))))
        await asyncio.sleep(1)
        assert len(world.now) == 5
        (record,) = events(caplog, "too_many_paths")
        assert record.paths == 9

    run_timeless(main)


def test_a_watcher_that_dies_of_a_bug_is_logged(caplog):
    async def main(loop):
        world = World(loop, "a")  # the fake does not know it: a KeyError, which no resolver raises
        await asyncio.sleep(1)
        assert world.now == []

    run_timeless(main)
    (record,) = events(caplog, "bug")
    assert record.exc_info[0] is KeyError
