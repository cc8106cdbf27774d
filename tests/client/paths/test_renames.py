import pytest

from client.far_end import SERVER, ended, target
from twocans_client.discovery.specs import Who
from twocans_client.evidence.results import Outcome, Reason
from twocans_client.paths.path import Path
from twocans_client.paths.renames import OTHER, Renames
from twocans_client.paths.responder import Heard

MINUTE_NS = 60_000_000_000


def test_the_first_name_is_no_rename_and_neither_is_what_was_not_known():
    renames = Renames()
    for names in (Who(), Who(node="n"), Who("s", "n"), Who("s", "n", "z"), Who("s", "n", "z", "1")):
        for _ in range(100):
            assert renames.call(names, 0) == names
    assert renames.call(Who("s"), 0) == Who("s"), "nor is what it says no longer"
    assert not renames.is_over


@pytest.mark.parametrize("field", ["name", "node", "zone", "version"])
def test_three_renames_are_followed_and_no_more(field):
    renames = Renames()
    called = [renames.call(Who("s")._replace(**{field: str(n)}), n) for n in range(100)]
    assert [names == OTHER for names in called] == [False] * 4 + [True] * 96


def test_a_rename_every_ten_minutes_is_followed_for_ever_and_one_every_nine_is_not():
    slow, quick = Renames(), Renames()
    for number in range(100):
        assert slow.call(Who(str(number)), number * 10 * MINUTE_NS) != OTHER
        quick.call(Who(str(number)), number * 9 * MINUTE_NS)
    assert (slow.is_over, quick.is_over) == (False, True)
    assert quick.call(Who("1"), 10**18) == OTHER, "for good"


def test_a_name_that_flips_back_and_forth_is_a_rename_each_time():
    renames = Renames()
    assert [renames.call(Who("ab"[n % 2]), 0) == OTHER for n in range(6)] == [False] * 4 + [
        True
    ] * 2


def new_path(renames: Renames | None = None) -> Path:
    return Path(target(), drain_grace_ns=0, renames=renames)


def say(path: Path, name: str = SERVER.name, node: str = "", zone: str = "") -> Heard:
    server = SERVER._replace(name=name, node=node, zone=zone)
    path.begin()
    return path.record(ended(Reason.OK, 1, server=server)).heard


def test_a_path_keeps_the_name_that_its_series_have_and_is_in_no_zone_that_is_made_up():
    path = new_path()
    seen = set()
    for number in range(100):
        heard = say(path, zone=f"zone-{number}", node=f"node-{number}")
        assert heard.replaced_by is None
        seen.add(path.server[:3])
    assert seen == {
        *((SERVER.name, f"node-{number}", f"zone-{number}") for number in range(4)),
        (SERVER.name, "", "other"),
    }


def test_a_path_whose_server_is_called_anew_too_often_is_not_replaced_any_more():
    renames = Renames()
    names, path = [], new_path(renames)
    for number in range(100):
        for _ in range(20):
            other = say(path, name=f"name-{number}").replaced_by
            if other is not None:
                names.append(path.server.name)
                path = new_path(renames)
                path.responder.name(other, 1)
    assert names == [f"name-{number}" for number in range(4)]
    assert (path.server, path.outcomes[Outcome.OK] > 1_000) == (OTHER, True)


def test_a_path_that_comes_and_goes_does_not_begin_anew():
    renames = Renames()
    seen = set()
    for number in range(100):
        path = new_path(renames)
        path.responder.expect(Who(f"name-{number}", "", f"zone-{number}"), number)
        say(path, name=f"name-{number}", zone=f"zone-{number}")
        seen.add((path.server.name, path.server.zone))
    assert len(seen) == 5
