from lab.outcome import Name, Said
from lab.pair import Event, said_in


def began(at_s, verdict="loss", **more):
    fields = {
        "event.name": "verdict_began",
        "twocans.verdict.name": verdict,
        "twocans.verdict.culprit": "path_forward",
        "twocans.verdict.direction": "forward",
        "twocans.verdict.confidence": "high",
        **{f"twocans.verdict.{name}": value for name, value in more.items()},
    }
    return Event(at_s, fields)


def ended(at_s, verdict="loss", event="verdict_ended", **more):
    return Event(at_s, {**began(at_s, verdict, **more).fields, "event.name": event})


def test_a_verdict_is_read_with_its_figures():
    (said,) = said_in([began(4.2, figures={"lost": 12, "in": "words"}, proof="12 of 400")])
    name = Name("loss", "path_forward", "forward")
    assert said == Said(name, 4.2, "high", figures={"lost": 12.0}, proof="12 of 400")


def test_a_verdict_without_figures_or_direction_is_one():
    (said,) = said_in([began(1.0, direction=None, figures=None)])
    assert (said.name.direction, said.figures, said.proof) == ("", {}, "")


def test_other_lines_are_none():
    assert said_in([Event(1.0, {"event.name": "path_ok"}), Event(2.0, {"line": "Traceback"})]) == ()


def test_the_end_of_a_verdict_does_not_withdraw_it():
    (said,) = said_in([began(1.0), ended(3.0, lasted_s=2.0)])
    assert not said.is_withdrawn


def test_the_newest_of_that_name_is_withdrawn():
    events = [
        began(1.0),
        ended(2.0),
        began(3.0),
        began(3.5, "dns_slow"),
        ended(4.0, withdrawn=True),
    ]
    assert [said.is_withdrawn for said in said_in(events)] == [False, True, False]


def test_a_verdict_that_is_confirmed_has_its_newest_figures_and_was_said_at_first():
    confirmed = ended(7.0, event="verdict_confirmed", figures={"lost": 20}, confidence="proven")
    (said,) = said_in([began(1.0, confidence="provisional"), confirmed])
    assert (said.at_s, said.confidence, said.figures) == (1.0, "proven", {"lost": 20.0})


def test_an_end_without_a_beginning_is_none():
    assert said_in([ended(2.0, withdrawn=True)]) == ()


def test_what_is_worth_knowing_and_no_alarm_is_told_by_its_level():
    event = began(1.0)
    assert not said_in([event])[0].is_info
    event.fields["level"] = "INFO"
    assert said_in([event])[0].is_info
