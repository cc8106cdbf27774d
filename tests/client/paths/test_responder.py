import itertools

import pytest

from client.far_end import SECOND_NS, SERVER, target
from client.paths.test_path import new_path, record
from twocans_client.discovery.specs import Who
from twocans_client.evidence.results import Reason
from twocans_client.paths.path import Path


def test_the_first_greeting_names_the_server_and_a_move_is_followed():
    path = new_path()
    record(path, Reason.REFUSED)
    assert not path.responder.is_named
    record(path, Reason.OK, server=SERVER)
    record(path, Reason.REFUSED)
    assert path.server == SERVER[1:]
    record(path, Reason.OK, server=SERVER._replace(node="node-9", zone="zone-3"))
    assert path.server[:3] == (SERVER.name, "node-9", "zone-3")


def test_a_server_that_makes_names_up_does_not_rename_the_path():
    path = new_path()
    names = set()
    for number in range(1_000):
        record(path, Reason.OK, server=SERVER._replace(name=f"name-{number}"))
        names.add(path.server.name)
    assert names == {"name-0"}


def test_two_servers_behind_one_address_keep_the_name_of_the_first():
    path = new_path()
    for name in itertools.islice(itertools.cycle("ab"), 100):
        news = record(path, Reason.OK, server=SERVER._replace(name=name))
        assert news.heard.replaced_by is None
    assert path.server.name == "a"


def test_another_server_for_good_is_noticed_after_ten_answers():
    path = new_path()
    record(path, Reason.OK, server=SERVER)
    other = SERVER._replace(instance=b"o" * 16, name="other", zone="elsewhere")
    for _ in range(9):
        assert record(path, Reason.OK, server=other).heard.replaced_by is None
    assert record(path, Reason.OK, server=other).heard.replaced_by == other[1:]


def restarts(answers: str, began_s: dict[str, float]) -> list[int]:
    """Let processes answer, one a second from second 1 on; returns after which a restart is sure.

    Args:
        answers: A letter for each answer: of whom.
        began_s: When each process began; who is not in it does not say.
    """
    path, found = new_path(), []
    for at_s, letter in enumerate(answers, 1):
        began = began_s.get(letter)
        began_ns = None if began is None else int(began * SECOND_NS)
        server = SERVER._replace(instance=letter.encode() * 16)
        at_ns = at_s * SECOND_NS
        news = record(path, Reason.OK, at_ns, server=server, server_began_ns=began_ns)
        if news.heard.restarted:
            found.append(at_s)
    return found


@pytest.mark.parametrize(
    ("answers", "began_s", "found"),
    [
        ("aaabbbbbb", {"a": 0, "b": 3.5}, [6]),  # b in the place of a
        ("aaabb", {"a": 0, "b": 3.5}, []),  # not sure yet
        ("aaabbbbbb", {"a": 0, "b": 2.5}, []),  # they lived side by side
        ("aaabbbbbb", {"a": 0, "b": -60}, []),  # the balancer turned to another
        ("abababababab", {"a": 0, "b": -60}, []),
        ("aaababbbbb", {"a": 0, "b": 3.5}, []),  # one more server of the same name
        ("abcabcabcacbcab", {"a": 0, "b": -1, "c": -2}, []),
        ("abcabcddabcd", {"a": 0, "b": -1, "c": -2, "d": 6.5}, []),  # one of three, or a fourth
        ("aaabbbccc", {"a": 0, "b": 3.5, "c": 6.5}, [6, 9]),
        ("aaabcdddd", {"a": 0, "b": 3.5, "c": 4.5, "d": 5.5}, [5, 6, 8]),  # it crashes at once
        ("aaabbbbbb", {}, []),  # who does not say is not said to
        ("aaa", {"a": 0}, []),
    ],
)
def test_a_restart_is_said_when_it_is_certain_and_once(answers, began_s, found):
    assert restarts(answers, began_s) == found


def test_an_older_answer_that_comes_late_takes_no_restart_back():
    path = new_path()
    old, new = (SERVER._replace(instance=letter * 16) for letter in (b"a", b"b"))
    record(path, Reason.OK, SECOND_NS, server=old)
    said = []
    for at_ns, server in ((4, new), (2, old), (5, new), (6, new)):
        began_ns = 3 * SECOND_NS if server is new else None
        at_ns *= SECOND_NS
        news = record(path, Reason.OK, at_ns, server=server, server_began_ns=began_ns)
        said.append(news.heard.restarted)
    assert said == [False, False, False, True]


@pytest.mark.parametrize(("began_s", "reason"), [(-60, Reason.DRAINING), (2, Reason.RESET)])
def test_a_goodbye_is_over_when_one_that_began_after_it_answers_and_no_other(began_s, reason):
    path = new_path()
    other = SERVER._replace(instance=b"o" * 16)
    record(path, Reason.OK, SECOND_NS, server=SERVER, draining=True)
    began_ns = began_s * SECOND_NS
    record(path, Reason.OK, 3 * SECOND_NS, server=other, server_began_ns=began_ns)
    record(path, Reason.RESET, 4 * SECOND_NS)
    assert path.newest is not None
    assert path.newest.reason is reason


@pytest.mark.parametrize("servers", [2, 3, 20, 1_000])
def test_many_servers_behind_one_address_do_not_replace_each_other(servers):
    # A load balancer; and with a new name each time, a server that makes them up.
    path = new_path()
    names = itertools.cycle(f"name-{number}" for number in range(servers))
    for name in itertools.islice(names, 2_000):
        news = record(path, Reason.OK, server=SERVER._replace(name=name))
        assert (path.server.name, news.heard.replaced_by) == ("name-0", None)


def test_a_path_that_was_handed_over_begins_without_a_restart():
    path = new_path()
    path.responder.name(Who(*SERVER[1:]), 0)
    assert not record(path, Reason.OK, server=SERVER).heard.restarted


def test_a_path_is_named_before_its_first_answer_where_it_is_known_who_is_there():
    path = new_path()
    path.responder.expect(Who("", "node-1", "zone-1"), 0)
    assert (path.responder.is_named, path.server) == (False, ("", "node-1", "zone-1", ""))
    path.responder.expect(Who("web", "node-1", "zone-1"), 0)
    assert (path.responder.is_named, path.server.name) == (True, "web")


def test_what_the_server_does_not_say_of_itself_is_as_the_watch_told():
    path = Path(target("dns:servers")._replace(who=Who("", "node-1", "zone-1")), drain_grace_ns=0)
    record(path, Reason.OK, server=SERVER._replace(node="", zone=""))
    assert path.server[:3] == (SERVER.name, "node-1", "zone-1")
    for _ in range(20):
        news = record(path, Reason.OK, server=SERVER._replace(node="", zone=""))
        assert news.heard.replaced_by is None
