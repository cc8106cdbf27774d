import pytest
from hypothesis import given

from client.verdicts.evidence import (
    MS,
    STANDING,
    S,
    every,
    good,
    healthy,
    judge,
    probe,
    said,
    seen,
    told_by_server,
    window,
    windows,
)
from twocans_client.evidence.results import ProbeResult, Reason
from twocans_client.evidence.rows import HeldEnded
from twocans_client.evidence.testimony import Fate, Question, Seen
from twocans_client.evidence.window import Window
from twocans_client.verdicts import resets

BEFORE = [good(at) for at in every(100 * MS, 0, S)]


def broken(at_ns: int, reason: Reason = Reason.RESET, *, port: int = 40_000) -> ProbeResult:
    made = probe(reason, at_ns, 5 * MS, connect_ns=MS, greet_ns=MS, standing=STANDING)
    made.connection, made.local = at_ns, ("192.0.2.1", port)
    return made


BROKEN = [broken(at) for at in every(500 * MS, S, 4 * S)]


def told(*of: Seen, results: list[ProbeResult] | None = None) -> Window:
    made = window(*BEFORE, *(BROKEN if results is None else results))
    told_by_server(made, *of, asked_ns=4 * S)
    return made


def ended(of: ProbeResult, ending: str, reason: str = "") -> Seen:
    return seen(of, Fate.ENDED, greeted=True, ending=ending, reason=reason)


def test_a_reset_of_which_nobody_was_asked_has_no_name():
    assert said(resets, window(*BEFORE, *BROKEN)) == []


def test_a_connection_that_the_server_does_not_know_has_none_either():
    assert said(resets, told(*(seen(each) for each in BROKEN))) == []


@pytest.mark.parametrize(
    ("ending", "reason", "name"),
    [
        ("reset", "econnreset", "rst_injected"),
        ("left", "", "rst_injected"),
        ("reset", "econnaborted", "closed_by_server"),
        ("bug", "", "closed_by_server"),
        ("slow", "", "closed_by_server"),
        ("idle", "", "closed_by_server"),
    ],
)
def test_the_servers_own_account_tells_who_ended_it(ending, reason, name):
    culprit = "middlebox" if name == "rst_injected" else "server_app"
    found = told(*(ended(each, ending, reason) for each in BROKEN[:2]))
    assert said(resets, found) == [(name, culprit, "", "proven")]


def test_a_connection_that_is_open_there_was_reset_by_somebody_else():
    (finding,) = judge(resets, told(*(seen(each, Fate.OPEN) for each in BROKEN[:2])))
    assert finding.kind is resets.RST_INJECTED
    assert finding.figures == {"connections": 6, "open_at_server": 2}
    assert finding.explains == set(range(11, 17)), "also those not asked about"


def test_through_a_proxy_it_is_the_proxy_that_ended_ours():
    made = told(*(seen(each, Fate.OPEN) for each in BROKEN[:2]))
    made.proxy_sign = "nearer"
    assert said(resets, made) == []


def test_one_is_no_verdict():
    assert said(resets, told(ended(BROKEN[0], "bug"))) == []
    assert said(resets, told(seen(BROKEN[0], Fate.OPEN))) == []


def test_both_at_once_are_two_verdicts_and_each_explains_its_own():
    made = told(
        *(ended(each, "bug") for each in BROKEN[:2]),
        *(seen(each, Fate.OPEN) for each in BROKEN[2:4]),
    )
    injected, closed = judge(resets, made)
    assert (injected.kind, closed.kind) == (resets.RST_INJECTED, resets.CLOSED)
    assert (injected.explains, closed.explains) == ({13, 14}, {11, 12})


def test_held_connections_count_as_well():
    made = window(*BEFORE, broken(2 * S))
    for at_ns in (2 * S, 3 * S):
        made.held_ended(HeldEnded(at_ns, Reason.RESET, "", S, at_ns - S, at_ns, 50_000))
    of = [Seen(Question(at_ns, 50_000, 0), Fate.OPEN) for at_ns in (2 * S, 3 * S)]
    told_by_server(made, *of, asked_ns=4 * S)
    assert said(resets, made) == [("rst_injected", "middlebox", "", "proven")]


def test_a_port_that_is_used_again_is_another_connection():
    later = broken(30 * S)
    made = told(*(ended(each, "bug") for each in BROKEN[:1]), results=[BROKEN[0], later])
    assert said(resets, made) == []


def test_a_server_without_descriptors_says_so_itself():
    waited = [
        probe(Reason.GREETING_TIMEOUT, at, 5 * S, connect_ns=MS, standing=STANDING)
        for at in every(500 * MS, S, 3 * S)
    ]
    made = window(*BEFORE, *waited)
    told_by_server(made, asked_ns=7 * S, accept_errors=22)
    (finding,) = judge(resets, made)
    assert (finding.kind.name, finding.culprit) == ("descriptors_exhausted", "server_host")
    assert len(finding.explains) == 4
    made = window(*BEFORE, *waited)
    told_by_server(made, asked_ns=7 * S, accept_errors=0)
    assert judge(resets, made) == []


def test_what_it_said_long_ago_counts_no_more():
    made = window(*BEFORE)
    told_by_server(made, asked_ns=2 * S, accept_errors=22)
    made.forget(30 * S)
    assert judge(resets, made) == []


@given(windows())
def test_no_evidence_makes_it_raise(made):
    rows = [row for row in made.odd if row.result is not None]
    fates = [Fate.OPEN, Fate.ENDED, Fate.UNKNOWN]
    of = [seen(row.result, fates[at % 3], ending="reset") for at, row in enumerate(rows[:16])]
    told_by_server(made, *of, asked_ns=made.now_ns, accept_errors=None)
    for finding in judge(resets, made):
        assert finding.culprit in finding.kind.culprits


@given(healthy())
def test_a_good_path_with_noise_gives_no_verdict(made):
    told_by_server(made, asked_ns=made.now_ns, accept_errors=0)
    assert judge(resets, made) == []
