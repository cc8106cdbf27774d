import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from client.far_end import SECOND_NS, SERVER, SPLIT, UNSTAMPED, ended, target
from client.makers import connection, good
from fakes import COUNTERS
from twocans_client.evidence.blame import LEAVING, judge_probe
from twocans_client.evidence.loss import Cut, Segments
from twocans_client.evidence.results import OUTCOMES, Exchange, Outcome, Reason
from twocans_client.paths.path import News, Path, PathState
from twocans_core.kernel.tcpinfo import NO_COUNTERS, HostCounts

GRACE_NS = 30 * SECOND_NS


def new_path() -> Path:
    return Path(target(), drain_grace_ns=GRACE_NS)


def record(path: Path, reason: Reason, at_ns: int = 0, **fields) -> News:
    path.slots(1, 0)
    path.begin()
    result = ended(reason, at_ns, **fields)
    judge_probe(result, said_goodbye=path.responder.said_goodbye(result))
    news = path.record(result)
    path.measure(result)
    return news


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
        self.path.slots(slots, max(0, slots - probed))
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
        judge_probe(result, said_goodbye=self.path.responder.said_goodbye(result))
        judged = (result.reason, result.detail)
        change = self.path.record(result).change
        assert (result.reason, result.detail) == judged
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
    changes = [record(path, reason).change for reason in reasons]
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
        assert record(path, reason).change is None
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


def test_an_end_whose_kernel_does_not_count_has_no_count_of_nothing():
    path = new_path()
    record(path, Reason.REFUSED)
    assert path.resenders == {"client", "server"}
    record(path, Reason.OK, ended=COUNTERS, server_ended=NO_COUNTERS)
    assert path.resenders == {"client"}
    record(path, Reason.OK, ended=NO_COUNTERS, server_ended=COUNTERS)
    assert path.resenders == {"server"}


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


@pytest.mark.parametrize(("is_sized", "sign"), [(True, ""), (False, "segments")])
def test_a_sized_probe_whose_segments_were_merged_is_left_out_and_no_sign_of_a_proxy(
    is_sized, sign
):
    path, fields = Path(target(), drain_grace_ns=0), connection()
    bye = fields["bye"]
    # Eight segments that arrived as one.
    sent = bye.sent._replace(data_segs_out=3 + 8)
    merged = Cut(sent, bye.server._replace(data_segs_in=3 + 1), bye.read._replace(data_segs_out=11))
    for number in range(3):
        result = good(at_ns=number, is_sized=is_sized, bytes_sent=12_000, bytes_received=12_000)
        for name, value in {**fields, "bye": merged}.items():
            setattr(result, name, value)
        path.begin()
        path.record(result)
        assert path.measure(result).segments is None
    assert path.proxy.sign == sign
    assert path.segments == Segments()


def test_the_segments_of_a_sized_probe_are_counted_where_both_ends_agree():
    path = Path(target(), drain_grace_ns=0)
    result = good(is_sized=True, bytes_sent=12_000, bytes_received=12_000, **connection())
    path.begin()
    path.record(result)
    learnt = path.measure(result)
    assert learnt.segments is not None
    assert path.segments.forward.sent == learnt.segments.forward.sent == 3
