import logging

import pytest

from client.far_end import SERVER, ended, target
from twocans_client.journal import Journal
from twocans_client.path import Path
from twocans_client.results import Reason

SECOND_NS = 1_000_000_000


class Life:
    """A path, its journal and a clock."""

    def __init__(self) -> None:
        self.path = Path(target("a:1"), drain_grace_ns=0)
        self.journal = Journal(self.path)
        self.now_ns = 1_000 * SECOND_NS

    def probe(self, reason: Reason, after_s: float = 1.0) -> None:
        self.now_ns += int(after_s * SECOND_NS)
        self.path.begin()
        change = self.path.record(ended(reason, self.now_ns, server=SERVER))
        if change is not None:
            self.journal.note(change)
        self.journal.write(self.now_ns)


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


def test_another_reason_is_said_while_the_path_goes_on_failing(said):
    life = Life()
    life.probe(Reason.REFUSED)
    life.probe(Reason.CONNECT_TIMEOUT)
    assert said()[1] == ("path_failing", "connect_timeout", 0)


def test_what_is_void_is_not_said(said):
    life = Life()
    life.probe(Reason.OK)
    life.probe(Reason.SELF_STALL)
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
    Life().journal.note_box("options_rewritten")
    (record,) = caplog.records
    assert (record.msg, vars(record)["twocans.box"]) == ("box_recognised", "options_rewritten")
