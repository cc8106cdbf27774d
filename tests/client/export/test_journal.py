import logging

import pytest

from client.far_end import SERVER, ended, target
from twocans_client.evidence.results import OUTCOMES, Outcome, Reason
from twocans_client.export.journal import Journal, OwnTrouble
from twocans_client.paths.path import Learnt, Path
from twocans_client.probes.endings import Ending

SECOND_NS = 1_000_000_000
# Our own stop is no trouble.
VOIDS = {reason for reason in Reason if OUTCOMES[reason] is Outcome.VOID} - {Reason.SHUTDOWN}


class Life:
    """A path, its journal and a clock."""

    def __init__(self) -> None:
        self.path = Path(target("a:1"), drain_grace_ns=0)
        self.journal = Journal(self.path)
        self.now_ns = 1_000 * SECOND_NS

    def probe(self, reason: Reason, after_s: float = 1.0) -> None:
        self.now_ns += int(after_s * SECOND_NS)
        self.path.begin()
        news = self.path.record(ended(reason, self.now_ns, server=SERVER))
        self.journal.take(news, self.now_ns)


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.INFO)
    return lambda: [
        (record.msg, vars(record).get("error.type", ""), vars(record)["twocans.path.changes"])
        for record in caplog.records
    ]


def test_a_change_is_said_at_once_and_sameness_is_not(said):
    life = Life()
    for reason in (Reason.OK, Reason.OK, Reason.REFUSED, Reason.REFUSED, Reason.OK):
        life.probe(reason)
    assert said() == [("path_ok", "", 1), ("path_failing", "refused", 1), ("path_ok", "", 1)]


def test_a_failure_names_both_ends_and_what_its_series_are_called(caplog):
    life = Life()
    life.path.label = "a"
    life.path.begin()
    life.path.record(ended(Reason.REFUSED, local=("192.0.2.1", 40_000)))
    life.journal.write(life.now_ns)
    fields = vars(caplog.records[0])
    assert (fields["server.address"], fields["server.port"]) == ("192.0.2.2", 1)
    assert (fields["network.local.address"], fields["network.local.port"]) == ("192.0.2.1", 40_000)
    assert fields["twocans.path.series"] == "a"


def test_an_outage_is_said_once_whatever_it_looks_like_meanwhile(said, caplog):
    life = Life()
    life.probe(Reason.OK)
    for reason in (Reason.RESET, Reason.REFUSED, Reason.CONNECT_TIMEOUT, Reason.UNREACHABLE):
        for _ in range(5):
            life.probe(reason)
    life.probe(Reason.OK)
    assert said() == [("path_ok", "", 1), ("path_failing", "reset", 1), ("path_ok", "", 1)]
    assert vars(caplog.records[-1])["twocans.path.before"] == "unreachable"


@pytest.mark.parametrize("void", [why for why in Reason if OUTCOMES[why] is Outcome.VOID])
@pytest.mark.parametrize("state", [Reason.OK, Reason.REFUSED, Reason.DRAINING])
def test_what_is_void_is_not_said_and_is_in_no_line(said, state, void):
    life = Life()
    life.probe(state)
    if void is not Reason.DRAINING:  # which tells of the path
        life.probe(void)
        life.probe(void)
    assert len(said()) == 1


def test_a_line_that_was_held_back_has_the_failure_and_not_what_was_void_since(said):
    life = Life()
    for number in range(50):
        life.probe(Reason.OK if number % 2 else Reason.REFUSED, after_s=0.1)
    life.probe(Reason.CONNECT_TIMEOUT)
    for _ in range(20):
        life.probe(Reason.SELF_STALL)
    assert said()[-1][:2] == ("path_failing", "connect_timeout")
    assert not [line for line in said() if line[1] == "self_stall"]


def test_nothing_is_said_of_a_path_after_it_was_removed(said):
    life = Life()
    life.probe(Reason.OK)
    life.journal.close()
    life.probe(Reason.REFUSED)
    life.journal.learn(Learnt(None, 0, proxy_changed=True, boxes={"options_rewritten"}))
    life.journal.note_held(Ending(Reason.RESET, "", 1, 1))
    assert len(said()) == 1


def test_a_path_that_flaps_is_said_rarely_and_its_last_state_always(said):
    life = Life()
    for number in range(101):
        life.probe(Reason.REFUSED if number % 2 else Reason.OK, after_s=0.1)
    assert 6 <= len(said()) <= 8
    life.probe(Reason.REFUSED)
    for _ in range(30):
        life.now_ns += SECOND_NS
        life.journal.write(life.now_ns)
    event, reason, _ = said()[-1]
    assert (event, reason) == ("path_failing", "refused")
    assert sum(changes for _, _, changes in said()) == 102


def test_a_box_on_the_way_is_said(caplog):
    caplog.set_level(logging.INFO)
    learnt = Learnt(None, 0, proxy_changed=False, boxes={"options_rewritten"})
    Life().journal.learn(learnt)
    (record,) = caplog.records
    assert (record.msg, vars(record)["twocans.box"]) == ("box_recognised", "options_rewritten")


@pytest.mark.parametrize("reason", sorted(VOIDS))
def test_own_trouble_that_lasts_is_said_once_a_period_whatever_it_is(reason, caplog):
    trouble = OwnTrouble()
    for number in range(250):
        mine = reason if number % 5 == 0 else Reason.OK
        now_ns = number * SECOND_NS // 10
        trouble.note(ended(mine, now_ns, server=SERVER), now_ns)
    said = [(record.msg, vars(record)["error.type"]) for record in caplog.records]
    assert said == [("probes_void", reason)] * 2


def test_little_own_trouble_is_not_said(caplog):
    trouble = OwnTrouble()
    for number in range(250):
        mine = Reason.SELF_STALL if number % 50 == 0 else Reason.SHUTDOWN
        now_ns = number * SECOND_NS // 10
        trouble.note(ended(mine, now_ns, server=SERVER), now_ns)
    assert caplog.records == []


def test_a_rare_probe_that_is_always_void_is_said(caplog):
    trouble = OwnTrouble()
    for number in range(10):
        trouble.note(ended(Reason.DENIED, 0, server=SERVER), number * 60 * SECOND_NS)
    assert [vars(record)["twocans.probes.void"] for record in caplog.records] == [5, 5]
