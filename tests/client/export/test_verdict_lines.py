import logging
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.far_end import SECOND_NS, target
from twocans_client.export.verdict_lines import VerdictLines
from twocans_client.paths.path import Path
from twocans_client.verdicts.engine import KINDS, Began, Confirmed, Ended, Verdict
from twocans_client.verdicts.verdict import Confidence, Finding
from twocans_core.process.jsonlog import RateLimit

NAMES = sorted(KINDS)[:5]
BEGIN, CONFIRM, END = "verdict_began", "verdict_confirmed", "verdict_ended"


class Lines(logging.Handler):
    """What passes the rate limit that every line of ours goes through."""

    def __init__(self) -> None:
        super().__init__()
        self.addFilter(RateLimit(now=lambda: 0.0))  # so that nothing limited passes twice
        self.fields: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.fields.append({"event": record.msg, "level": record.levelname, **vars(record)})

    def of(self, event: str) -> Counter[str]:
        return Counter(
            line["twocans.verdict.name"] for line in self.fields if line["event"] == event
        )


class Life:
    """A path whose verdicts come and go, and what is logged of them."""

    def __init__(self) -> None:
        self.path = Path(target("a:1"), drain_grace_ns=0)
        self.lines = VerdictLines(self.path)
        self.now_ns = 1_000 * SECOND_NS

    def stand(self, names: set[str], *, confidence: Confidence = Confidence.PROVEN) -> None:
        """Let these stand now, and no others; what changed is logged."""
        changes: list[Began | Confirmed | Ended] = []
        for key, old in list(self.path.verdicts.items()):
            if key[0] not in names:
                del self.path.verdicts[key]
                changes.append(Ended(old._replace(seen_ns=self.now_ns), withdrawn=False))
        for name in sorted(names):
            kind = KINDS[name]
            finding = Finding(kind, kind.culprits[0], "proof", confidence=confidence)
            before = self.path.verdicts.get(finding.key)
            verdict = Verdict(finding, before.began_ns if before else self.now_ns, self.now_ns)
            self.path.verdicts[finding.key] = verdict
            if before is None:
                changes.append(Began(verdict))
            elif before.finding.confidence is Confidence.PROVISIONAL is not confidence:
                changes.append(Confirmed(verdict))
        self.lines.take(changes, self.now_ns)

    def wait(self, seconds: float = 1) -> None:
        self.now_ns += int(seconds * SECOND_NS)


@pytest.fixture
def said():
    handler = Lines()
    logger = logging.getLogger("twocans_client.export.verdict_lines")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


def test_a_verdict_is_said_when_it_begins_and_when_it_ends(said):
    life = Life()
    for _ in range(5):
        life.stand({NAMES[0]})
        life.wait()
    life.stand(set())
    began, ended = said.fields
    assert (began["event"], began["level"], ended["event"]) == (BEGIN, "WARNING", END)
    assert began["twocans.verdict.name"] == ended["twocans.verdict.name"] == NAMES[0]
    assert ended["twocans.verdict.lasted_s"] == 5
    assert ended["twocans.verdict.withdrawn"] is False
    assert began["twocans.target"] == "a:1"


def test_what_is_only_worth_knowing_is_no_warning(said, monkeypatch):
    monkeypatch.setitem(KINDS, NAMES[0], KINDS[NAMES[0]]._replace(is_info=True))
    Life().stand(set(NAMES[:2]))
    assert [line["level"] for line in said.fields] == ["INFO", "WARNING"]


def test_four_verdicts_that_begin_at_once_are_four_lines(said):
    life = Life()
    life.stand(set(NAMES[:4]))
    assert said.of(BEGIN) == dict.fromkeys(NAMES[:4], 1)
    life.stand(set())
    assert said.of(END) == dict.fromkeys(NAMES[:4], 1)


def test_a_provisional_verdict_is_confirmed_once(said):
    life = Life()
    for confidence in [Confidence.PROVISIONAL, Confidence.PROVEN] * 5:
        life.stand({NAMES[0]}, confidence=confidence)
    assert [line["event"] for line in said.fields] == [BEGIN, CONFIRM]


def test_a_verdict_that_could_not_be_said_at_once_is_said_later_if_it_still_stands(said):
    life = Life()
    for number in range(40):
        life.stand({NAMES[1]} if number % 2 else set())
        life.wait()
    life.stand({NAMES[2]})
    assert said.of(BEGIN)[NAMES[2]] == 0, "no line is due"
    for _ in range(20):
        life.wait()
        life.stand({NAMES[2]})
    assert said.of(BEGIN)[NAMES[2]] == 1
    left_out = sum(line.get("twocans.suppressed", 0) for line in said.fields)
    assert said.of(BEGIN)[NAMES[1]] + left_out == 20


def test_a_path_that_is_no_more_ends_its_verdicts(said):
    life = Life()
    life.stand(set(NAMES[:2]))
    life.wait(7)
    life.stand(set(NAMES[:2]))
    life.lines.close()
    life.lines.close()
    assert said.of(END) == dict.fromkeys(NAMES[:2], 1)
    assert [line["twocans.verdict.lasted_s"] for line in said.fields[2:]] == [7, 7]


@given(st.lists(st.tuples(st.sets(st.sampled_from(NAMES), max_size=4), st.floats(0, 8))))
def test_lines_come_in_pairs_however_verdicts_flap_and_are_not_many(steps):
    handler, life = Lines(), Life()
    logger = logging.getLogger("twocans_client.export.verdict_lines")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        for names, seconds in steps:
            life.stand(names)
            life.wait(seconds)
            open_now = handler.of(BEGIN) - handler.of(END)
            assert set(open_now) <= names, "an end is missing"
            assert not handler.of(END) - handler.of(BEGIN), "an end without a beginning"
            assert max(open_now.values(), default=0) <= 1
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    lasted_s = sum(seconds for _, seconds in steps)
    assert handler.of(BEGIN).total() <= 6 + lasted_s / 10 + 1
