"""Verdicts begin, are confirmed, withdrawn and end, and one fault has one name."""

from collections.abc import Iterator

import pytest

from client.far_end import ended
from twocans_client.evidence.results import Reason
from twocans_client.evidence.sequential import Rise
from twocans_client.evidence.window import Window
from twocans_client.verdicts import engine
from twocans_client.verdicts.case import Case
from twocans_client.verdicts.engine import Began, Confirmed, Ended, Engine
from twocans_client.verdicts.verdict import Confidence, Culprit, Direction, Finding, Kind

SECOND = 1_000_000_000


def kind(name: str) -> Kind:
    return Kind(name, name, (Culprit.PATH,), "", "", "", "")


def finding(name: str = "loss", **more) -> Finding:
    return Finding(kind(name), Culprit.PATH, "because", **more)


class Family:
    """Finds what it is told to."""

    KINDS = ()

    def __init__(self, *found: Finding) -> None:
        self.found = list(found)

    def judge(self, case: Case) -> Iterator[Finding]:
        yield from self.found


class TakesFailures:
    """Finds one fault in all failures that are left, and explains them."""

    KINDS = ()

    def __init__(self, name: str) -> None:
        self.name = name

    def judge(self, case: Case) -> Iterator[Finding]:
        numbers = {probe.number for probe in case.failures()}
        if numbers:
            yield finding(self.name, explains=numbers)


@pytest.fixture
def family(monkeypatch):
    made = Family()
    monkeypatch.setattr(engine, "FAMILIES", (made,))
    return made


def test_a_verdict_begins_once_and_ends_ten_seconds_after_it_was_last_seen(family):
    judged = Engine(Window())
    family.found = [finding(began_ns=3 * SECOND)]
    (began,) = judged.look(5 * SECOND)
    assert isinstance(began, Began)
    assert began.verdict.began_ns == 3 * SECOND
    assert judged.look(6 * SECOND) == []
    family.found = []
    assert judged.look(15 * SECOND) == []
    (ended,) = judged.look(16 * SECOND)
    assert isinstance(ended, Ended)
    assert not ended.withdrawn
    assert ended.verdict.seen_ns == 6 * SECOND
    assert judged.standing == {}


def test_one_that_comes_and_goes_is_one_verdict(family):
    judged = Engine(Window())
    changes = []
    for at in range(60):
        family.found = [finding()] if at % 9 == 0 else []
        changes += judged.look(at * SECOND)
    assert [type(change) for change in changes] == [Began]


def test_a_provisional_one_is_confirmed_by_the_same_verdict(family):
    judged = Engine(Window())
    family.found = [finding(confidence=Confidence.PROVISIONAL)]
    judged.look(SECOND)
    family.found = [finding(confidence=Confidence.PROVEN)]
    (confirmed,) = judged.look(2 * SECOND)
    assert isinstance(confirmed, Confirmed)
    assert judged.look(3 * SECOND) == []


def test_a_provisional_one_is_withdrawn_for_what_explains_the_same_probes_better(family):
    judged = Engine(Window())
    hung = finding("app_hung", confidence=Confidence.PROVISIONAL, explains={1, 2})
    family.found = [hung]
    judged.look(SECOND)
    family.found = [finding("process_paused", explains={2}, confidence=Confidence.PROVEN)]
    ended, began = judged.look(2 * SECOND)
    assert isinstance(ended, Ended)
    assert ended.withdrawn
    assert ended.verdict.finding is hung
    assert isinstance(began, Began)
    assert [key[0] for key in judged.standing] == ["process_paused"]


def test_the_same_name_in_a_direction_replaces_the_provisional_one_without(family):
    judged = Engine(Window())
    family.found = [finding("blackout", confidence=Confidence.PROVISIONAL)]
    judged.look(SECOND)
    family.found = [finding("blackout", direction=Direction.FORWARD)]
    ended, began = judged.look(2 * SECOND)
    assert isinstance(ended, Ended)
    assert ended.withdrawn
    assert isinstance(began, Began)


def test_of_two_provisional_ones_that_one_is_confirmed_withdraws_the_other(family):
    judged = Engine(Window())
    guess = finding("blackout", confidence=Confidence.PROVISIONAL, explains={1, 2})
    other = finding("peer_lost", confidence=Confidence.PROVISIONAL, explains={2})
    family.found = [guess, other]
    assert [type(change) for change in judged.look(SECOND)] == [Began, Began]
    family.found = [other._replace(confidence=Confidence.PROVEN)]
    ended, confirmed = judged.look(2 * SECOND)
    assert isinstance(ended, Ended)
    assert ended.withdrawn
    assert ended.verdict.finding.kind.name == "blackout"
    assert isinstance(confirmed, Confirmed)


def test_one_that_nothing_confirms_is_withdrawn_in_the_end(family):
    judged = Engine(Window())
    family.found = [finding("blackout", confidence=Confidence.PROVISIONAL)]
    judged.look(SECOND)
    family.found = []
    (ended,) = judged.look(12 * SECOND)
    assert isinstance(ended, Ended)
    assert ended.withdrawn


def test_a_certain_one_is_not_withdrawn(family):
    judged = Engine(Window())
    family.found = [finding("loss", explains={1}), finding("dns_slow", explains={1})]
    assert [type(change) for change in judged.look(SECOND)] == [Began, Began]


def test_no_more_than_four_stand_at_once(family):
    judged = Engine(Window())
    family.found = [finding(f"kind_{number}") for number in range(6)]
    assert len(judged.look(SECOND)) == 4
    assert len(judged.standing) == 4


def test_what_one_family_explains_no_later_one_sees(monkeypatch):
    families = (TakesFailures("first"), TakesFailures("second"))
    monkeypatch.setattr(engine, "FAMILIES", families)
    window = Window()
    window.probed(ended(Reason.REFUSED), None)
    assert [found.kind.name for found in engine.judge(window)] == ["first"]


def test_every_kind_has_one_name_and_says_everything():
    declared = [kind for family in engine.FAMILIES for kind in family.KINDS]
    assert len({kind.name for kind in declared}) == len(declared) == len(engine.KINDS)
    for kind in declared:
        assert all((kind.title, kind.needs, kind.apart, kind.threshold, kind.look)), kind.name
        assert kind.culprits
        assert kind.directions


# --- the sequential test ----------------------------------------------------------------------


def test_four_losses_in_fifteen_hundred_segments_alarm_and_three_do_not():
    rise = Rise()
    for _ in range(3):
        rise.feed(0, 370)
        rise.feed(1, 1)
    assert not rise.is_alarmed
    rise.feed(1, 1)
    assert rise.is_alarmed


def test_losses_as_rare_as_on_a_good_path_never_alarm():
    rise = Rise()
    for _ in range(1_000):
        rise.feed(0, 9_999)
        rise.feed(1, 1)
        assert not rise.is_alarmed


def test_a_long_fault_is_forgotten_as_soon_as_a_short_one():
    short, long = Rise(), Rise()
    short.feed(10, 100)
    long.feed(10_000, 100_000)
    for rise in (short, long):
        rise.feed(0, 10_000)
    assert not short.is_alarmed
    assert not long.is_alarmed
    assert (long.events, long.trials) == (0, 0)
