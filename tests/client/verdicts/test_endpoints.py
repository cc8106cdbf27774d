from typing import Any

import pytest
from hypothesis import given

from client.verdicts.evidence import (
    MS,
    S,
    every,
    good,
    healthy,
    judge,
    probe,
    said,
    seen,
    silent,
    told_by_server,
    window,
    windows,
)
from twocans_client.evidence.results import ProbeResult, Reason, Unfinished
from twocans_client.evidence.rows import Waiting
from twocans_client.evidence.testimony import Fate, Unanswered
from twocans_client.evidence.window import Window
from twocans_client.verdicts import endpoints
from twocans_client.verdicts.case import Case

BEFORE = [good(at) for at in every(100 * MS, 0, S)]


def local(port: int) -> tuple[str, int]:
    return "192.0.2.1", port


# --- something that accepts, and then closes -------------------------------------------------


def closed(at_ns: int, reason: Reason = Reason.CLOSED_EARLY) -> ProbeResult:
    return probe(reason, at_ns, 2 * MS, connect_ns=MS, unfinished=Unfinished("greet", MS))


CLOSED = [
    closed(at, (Reason.CLOSED_EARLY, Reason.RESET)[at // S % 2]) for at in every(500 * MS, S, 4 * S)
]


def test_however_it_closes_it_has_one_name():
    assert said(endpoints, window(*BEFORE, *CLOSED)) == [
        ("backend_dead", "server_app", "", "provisional")
    ]


def test_the_server_that_never_saw_them_proves_it_and_one_that_did_denies_it():
    made = window(*BEFORE, *CLOSED)
    told_by_server(made, *(seen(each) for each in CLOSED), asked_ns=4 * S)
    assert said(endpoints, made) == [("backend_dead", "server_app", "", "proven")]
    made = window(*BEFORE, *CLOSED)
    told_by_server(made, seen(CLOSED[0], Fate.ENDED, ending="reset"), asked_ns=4 * S)
    assert said(endpoints, made) == []


def test_behind_a_proxy_that_is_known_silence_is_the_same():
    waited = [closed(at, Reason.GREETING_TIMEOUT) for at in every(500 * MS, S, 4 * S)]
    made = window(*BEFORE, *waited)
    assert said(endpoints, made) == []
    made.proxy_sign = "segments"
    assert said(endpoints, made) == [("backend_dead", "server_app", "", "statistical")]


def test_where_no_server_of_ours_ever_was_nothing_is_dead():
    assert said(endpoints, window(*CLOSED)) == []


def test_where_some_are_greeted_meanwhile_the_back_end_lives():
    assert said(endpoints, window(*BEFORE, *CLOSED, good(2_250 * MS))) == []


def test_one_that_was_greeted_and_then_closed_is_another_matter():
    later = [
        probe(Reason.CLOSED_EARLY, at, 2 * MS, connect_ns=MS, unfinished=Unfinished("exchange", 1))
        for at in every(500 * MS, S, 4 * S)
    ]
    assert said(endpoints, window(*BEFORE, *later)) == []


# --- one of the servers behind an address ---------------------------------------------------------


def mixed(*, dead_of: int = 3, classes: int = 16, retried: int = 0) -> list[ProbeResult]:
    """Every third connection is dead, whatever its port, unless that is told."""
    made: list[ProbeResult] = []
    for number, at in enumerate(every(100 * MS, S, 7 * S)):
        port = 40_000 + number * 7 % classes
        if number % dead_of == 0:
            made.append(silent(at, local=local(port)))
        else:
            lost = int(number % 10 < retried)
            made.append(good(at, local=local(port), syns_lost=lost))
    return made


def asked(made: Window, **host: Any) -> Window:
    """Let a server of those that answer have told of its host."""
    told_by_server(made, since_ns=S, asked_ns=6 * S, **host)
    return made


def test_connections_that_fail_whole_among_good_ones_whatever_their_port():
    (finding,) = judge(endpoints, asked(window(*BEFORE, *mixed())))
    assert (finding.kind, finding.culprit) == (endpoints.STALE, "configuration")
    assert finding.figures["share"] == pytest.approx(1 / 3, abs=0.02)
    assert len(finding.explains) == 20


def test_it_is_seen_while_they_wait():
    made = window(*BEFORE, *(each for each in mixed() if each.reason is Reason.OK))
    made.waiting = tuple(
        Waiting(each.started_ns, None, each.local[1] if each.local else None, False)
        for each in mixed()
        if each.reason is not Reason.OK
    )
    made.forget(7 * S)
    assert said(endpoints, asked(made)) == [("stale_endpoint", "configuration", "", "statistical")]


def test_until_the_server_has_been_asked_it_may_be_its_accept_queue():
    made = window(*BEFORE, *mixed())
    assert said(endpoints, made) == []
    assert said(endpoints, asked(made, listen_overflows=3)) == []


def test_where_nobody_says_what_he_saw_it_is_provisional():
    made = window(*BEFORE, *mixed())
    made.testified(Unanswered(None, "", 5 * S, 6 * S))
    assert said(endpoints, made) == [("stale_endpoint", "configuration", "", "provisional")]
    made.unanswered = Unanswered(None, "", 0, S // 2)  # of another fault, before this one
    assert said(endpoints, made) == []


def test_once_it_stands_nobody_need_be_asked_again():
    case = Case(window(*BEFORE, *mixed()), {"stale_endpoint"})
    (finding,) = endpoints.judge(case)
    assert finding.confidence == "statistical"


def test_some_ports_alone_are_a_lane_of_the_path():
    lanes = [
        silent(at, local=local(40_000 + number % 16))
        if number % 16 % 4 == 1
        else good(at, local=local(40_000 + number % 16))
        for number, at in enumerate(every(100 * MS, S, 7 * S))
    ]
    assert said(endpoints, asked(window(*BEFORE, *lanes))) == []


def test_where_second_syns_get_through_syns_are_lost():
    assert said(endpoints, asked(window(*BEFORE, *mixed(retried=3)))) == []


def test_an_outage_of_all_is_no_matter_of_one_server():
    dark = [silent(at, local=local(40_000 + at // MS % 16)) for at in every(100 * MS, S, 3 * S)]
    after = [good(at, local=local(40_000 + at // MS % 16)) for at in every(100 * MS, 3 * S, 6 * S)]
    late = silent(6 * S, local=local(40_000))
    assert said(endpoints, asked(window(*BEFORE, *dark, *after))) == []
    assert said(endpoints, asked(window(*BEFORE, *dark, *after, late))) == []


def test_what_was_named_before_is_not_named_again():
    case = Case(asked(window(*BEFORE, *mixed())))
    case.explain("path_subset_loss", set())
    assert list(endpoints.judge(case)) == []
    assert list(endpoints.judge(Case(window(*BEFORE, *mixed()), {"new_connection_limit"}))) == []


@given(windows())
def test_no_evidence_makes_it_raise(made):
    for finding in judge(endpoints, made):
        assert finding.culprit in finding.kind.culprits


@given(healthy())
def test_a_good_path_with_noise_gives_no_verdict(made):
    assert judge(endpoints, made) == []
