import itertools

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from client.far_end import SECOND_NS, SERVER, SPLIT, UNSTAMPED, ended, target
from client.makers import connection
from fakes import COUNTERS
from twocans_client.discovery.neighbours import Who
from twocans_client.evidence.blame import LEAVING, judge_probe
from twocans_client.evidence.results import OUTCOMES, Exchange, Outcome, Reason
from twocans_client.paths.path import Path, PathState
from twocans_core.kernel.tcpinfo import NO_COUNTERS, HostCounts

GRACE_NS = 30 * SECOND_NS


def new_path() -> Path:
    return Path(target(), drain_grace_ns=GRACE_NS)


def record(path: Path, reason: Reason, at_ns: int = 0, **fields):
    path.scheduled += 1
    path.begin()
    result = ended(reason, at_ns, **fields)
    judge_probe(result, said_goodbye=path.said_goodbye(result))
    change = path.record(result)
    path.measure(result)
    return change


class Life(RuleBasedStateMachine):
    """What the service does to a path, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.path = new_path()
        self.now_ns = 0
        self.started_ns: list[int] = []
        self.slots = 0

    @rule(slots=st.integers(0, 5), probed=st.booleans())
    def slots_come_due(self, slots, probed):
        self.now_ns += SECOND_NS
        self.slots += slots
        self.path.scheduled += slots
        self.path.missed += max(0, slots - probed)
        if slots and probed:
            self.path.begin()
            self.started_ns.append(self.now_ns)

    @precondition(lambda self: self.started_ns)
    @rule(
        data=st.data(),
        reason=st.sampled_from(Reason),
        draining=st.booleans(),
        instance=st.sampled_from([None, b"1" * 16, b"2" * 16]),
    )
    def a_probe_ends(self, data, reason, draining, instance):
        started_ns = data.draw(st.sampled_from(self.started_ns))
        self.started_ns.remove(started_ns)
        server = SERVER._replace(instance=instance) if instance else None
        before = self.path.state
        draining = draining and instance is not None
        result = ended(reason, started_ns, draining=draining, server=server)
        judge_probe(result, said_goodbye=self.path.said_goodbye(result))
        change = self.path.record(result)
        assert (change is None) == (before is self.path.state)
        if change is not None:
            assert (change.before, change.after) == (before, self.path.state)
            assert change.probes >= 0

    @invariant()
    def the_books_add_up(self):
        path = self.path
        assert path.scheduled == self.slots
        assert path.scheduled == sum(path.outcomes.values()) + path.missed + path.in_flight
        assert path.in_flight == len(self.started_ns)
        bad = path.outcomes[Outcome.FAIL] + path.outcomes[Outcome.VOID]
        assert sum(path.reasons.values()) == bad
        for outcome in (Outcome.FAIL, Outcome.VOID):
            of_it = [n for (_, of), n in path.reasons.items() if of is outcome]
            assert sum(of_it) == path.outcomes[outcome]


test_the_books_add_up_after_every_step = Life.TestCase


def test_a_path_says_once_that_it_fails_and_once_that_it_is_well():
    path = new_path()
    reasons = [Reason.OK, Reason.OK, Reason.REFUSED, Reason.RESET, Reason.REFUSED, Reason.OK]
    changes = [record(path, reason) for reason in reasons]
    assert changes == [
        (PathState.UNKNOWN, PathState.OK, 0),
        None,
        (PathState.OK, PathState.FAILING, 2),
        None,
        None,
        (PathState.FAILING, PathState.OK, 3),
    ]


@pytest.mark.parametrize("reason", [r for r in Reason if OUTCOMES[r] is Outcome.VOID])
def test_what_is_our_own_doing_changes_no_state(reason):
    path = new_path()
    record(path, Reason.OK)
    if reason is not Reason.DRAINING:
        assert record(path, reason) is None
        assert path.state is PathState.OK


@pytest.mark.parametrize("reason", sorted(LEAVING))
def test_a_server_that_said_goodbye_may_be_gone_for_the_grace(reason):
    path = new_path()
    gone_ns = 1_000_000  # when the probe ended that was told
    states = []
    for at_ns, is_told in ((0, True), (gone_ns + GRACE_NS - 1, False), (gone_ns + GRACE_NS, False)):
        if is_told:
            record(path, Reason.OK, at_ns, server=SERVER, draining=True)
        else:
            record(path, reason, at_ns)
        states.append(path.state)
    assert states == [PathState.DRAINING, PathState.DRAINING, PathState.FAILING]
    assert path.reasons == {
        (Reason.DRAINING, Outcome.VOID): 1,
        (reason, Outcome.FAIL): 1,
    }


def test_an_excuse_says_what_it_excuses():
    path = new_path()
    record(path, Reason.OK, server=SERVER, draining=True)
    record(path, Reason.RESET, 2)
    assert path.newest is not None
    assert path.newest.detail == "reset after the server's GOODBYE"


@pytest.mark.parametrize("reason", [Reason.WRONG_BYTES, Reason.PROTOCOL_ERROR, Reason.BUSY])
def test_a_goodbye_excuses_no_wrong_answer(reason):
    path = new_path()
    record(path, Reason.OK, server=SERVER, draining=True)
    record(path, reason, 2)
    assert path.outcomes[Outcome.FAIL] == 1


def test_a_server_that_never_drained_is_not_excused():
    path = new_path()
    record(path, Reason.OK, server=SERVER)
    record(path, Reason.REFUSED)
    assert path.state is PathState.FAILING


def test_sums_and_counts_are_of_what_was_measured():
    path = new_path()
    blind = Exchange.of(2, 70, UNSTAMPED._replace(t1u=1_000, t4u=1_070))
    retrans = COUNTERS._replace(total_retrans=2)
    record(path, Reason.OK, connect_ns=5, exchanges=[SPLIT, blind], retrans=2)
    record(path, Reason.OK, connect_ns=7, retrans=0, server_ended=retrans)
    record(path, Reason.REFUSED)
    assert path.phase_count == {"connect": 2, "network": 1, "server": 1, "client": 1}
    assert path.phase_ns == {"connect": 12, "network": 60, "server": 9, "client": 21}
    assert path.retrans == {"client": 2, "server": 2}


def test_the_last_success_is_when_it_started_and_a_failure_does_not_move_it():
    path = new_path()
    assert path.last_ok_real_ns == 0
    record(path, Reason.OK, 1_000)
    record(path, Reason.REFUSED, 2_000)
    assert path.last_ok_real_ns == 1_001


def test_the_first_greeting_names_the_server_and_a_move_is_followed():
    path = new_path()
    record(path, Reason.REFUSED)
    assert not path.is_named
    record(path, Reason.OK, server=SERVER)
    record(path, Reason.REFUSED)
    assert (path.server, path.node, path.zone, path.version) == SERVER[1:]
    record(path, Reason.OK, server=SERVER._replace(node="node-9", zone="zone-3"))
    assert (path.server, path.node, path.zone) == (SERVER.name, "node-9", "zone-3")


def test_a_server_that_makes_names_up_does_not_rename_the_path():
    path = new_path()
    names = set()
    for number in range(1_000):
        record(path, Reason.OK, server=SERVER._replace(name=f"name-{number}"))
        names.add(path.server)
    assert names == {"name-0"}


def test_two_servers_behind_one_address_keep_the_name_of_the_first():
    path = new_path()
    for name in itertools.islice(itertools.cycle("ab"), 100):
        record(path, Reason.OK, server=SERVER._replace(name=name))
    assert path.server == "a"
    assert path.replaced_by is None


def test_another_server_for_good_is_noticed_after_ten_answers():
    path = new_path()
    record(path, Reason.OK, server=SERVER)
    other = SERVER._replace(instance=b"o" * 16, name="other", zone="elsewhere")
    for _ in range(9):
        record(path, Reason.OK, server=other)
        assert path.replaced_by is None
    record(path, Reason.OK, server=other)
    assert path.replaced_by == other[1:]


def test_an_end_whose_kernel_does_not_count_has_no_count_of_nothing():
    path = new_path()
    record(path, Reason.REFUSED)
    assert path.resenders == {"client", "server"}
    record(path, Reason.OK, ended=COUNTERS, server_ended=NO_COUNTERS)
    assert path.resenders == {"client"}
    record(path, Reason.OK, ended=NO_COUNTERS, server_ended=COUNTERS)
    assert path.resenders == {"server"}


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
        record(path, Reason.OK, at_s * SECOND_NS, server=server, server_began_ns=began_ns)
        if path.restarted:
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
        record(path, Reason.OK, at_ns, server=server, server_began_ns=began_ns)
        said.append(path.restarted)
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
        record(path, Reason.OK, server=SERVER._replace(name=name))
        assert (path.server, path.replaced_by) == ("name-0", None)


def test_a_path_that_was_handed_over_begins_without_a_restart():
    path = new_path()
    path.name(Who(*SERVER[1:]), 0)
    record(path, Reason.OK, server=SERVER)
    assert not path.restarted


def test_a_path_is_named_before_its_first_answer_where_it_is_known_who_is_there():
    path = new_path()
    path.expect(Who("", "node-1", "zone-1"), 0)
    assert (path.is_named, path.node, path.zone) == (False, "node-1", "zone-1")
    path.expect(Who("web", "node-1", "zone-1"), 0)
    assert (path.is_named, path.server) == (True, "web")


def test_what_the_server_does_not_say_of_itself_is_as_the_watch_told():
    path = Path(target("dns:servers")._replace(who=Who("", "node-1", "zone-1")), drain_grace_ns=0)
    record(path, Reason.OK, server=SERVER._replace(node="", zone=""))
    assert (path.server, path.node, path.zone) == (SERVER.name, "node-1", "zone-1")
    for _ in range(20):
        record(path, Reason.OK, server=SERVER._replace(node="", zone=""))
    assert path.replaced_by is None


# --- what became of segments ---------------------------------------------------------------


def test_syns_that_nobody_answered_are_counted_apart_from_those_lost():
    path = new_path()
    record(path, Reason.OK, **connection())
    record(path, Reason.CONNECT_TIMEOUT, retrans=2)
    forward = path.segments.forward
    assert (forward.syns, forward.syns_lost, forward.unanswered) == (1, 0, 3)


def test_a_syn_that_may_have_found_the_accept_queue_full_is_not_lost():
    path = new_path()
    record(path, Reason.OK, server=SERVER, **connection())
    full = connection(syns_lost=2) | {"host_greeted": HostCounts(1, 0)}
    record(path, Reason.OK, SECOND_NS, server=SERVER, **full)
    forward = path.segments.forward
    assert (forward.syns_lost, forward.overflowed) == (1, 1)
