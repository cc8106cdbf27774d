import random

import pytest
from hypothesis import given

from client.far_end import LOCAL
from client.makers import connection
from client.verdicts.evidence import (
    MS,
    US,
    S,
    every,
    good,
    healthy,
    judge,
    probe,
    said,
    silent,
    told_by_server,
    window,
    windows,
)
from twocans_client.evidence.results import ProbeResult, Reason
from twocans_client.evidence.rows import HeldLook, Waiting
from twocans_client.evidence.window import Window
from twocans_client.verdicts import witnessed
from twocans_client.verdicts.case import Case
from twocans_client.verdicts.verdict import Confidence

BEFORE = [good(at) for at in every(100 * MS, 0, 4 * S)]
SYN_LOSS = ("syn_loss", "path_forward", "forward")
SYNACK_LOSS = ("synack_loss", "path_reverse", "reverse")


def synack_lost(at_ns: int) -> ProbeResult:
    """Both the SYN and the SYN-ACK were sent again."""
    made = good(at_ns, syns_lost=1)
    assert made.server_greeted is not None
    assert made.server_ended is not None
    made.server_greeted = made.server_greeted._replace(total_retrans=1)
    made.server_ended = made.server_ended._replace(total_retrans=1)
    return made


def held(made: Window, *, since_ns: int = 0, until_ns: int) -> Window:
    """Let the held connection have gone on, looked at once a second."""
    for at_ns in every(S, since_ns + S, until_ns):
        made.held_looked(HeldLook(at_ns, since_ns, at_ns - 100 * MS))
    made.is_held = True
    made.forget(until_ns)
    return made


# --- one by one ---------------------------------------------------------------------------------


def some(lost_every: int, lose, until_ns: int = 10 * S) -> list[ProbeResult]:
    return [
        lose(at) if number % lost_every == 0 else good(at)
        for number, at in enumerate(every(100 * MS, 4 * S, until_ns))
    ]


def a_syn_lost(at_ns: int) -> ProbeResult:
    return good(at_ns, syns_lost=1)


def test_lost_syns_and_lost_synacks_are_told_by_what_the_server_sent_again():
    made = window(*BEFORE, *some(5, a_syn_lost))
    assert said(witnessed, made) == [(*SYN_LOSS, "statistical")]
    made = window(*BEFORE, *some(5, synack_lost))
    assert said(witnessed, made) == [(*SYNACK_LOSS, "statistical")]


def test_the_proof_has_the_figures_of_both_kinds_of_segments():
    (finding,) = judge(witnessed, window(*BEFORE, *some(5, a_syn_lost)))
    assert finding.proof == (
        "12 of 112 SYNs were lost by connections that got through, and 0 of 300 segments with "
        "data; 0 connections never got through"
    )
    assert finding.figures == {"lost": 12, "sent": 112, "share": 12 / 112}
    assert len(finding.explains) == 12


def test_a_few_lost_syns_are_chance():
    assert said(witnessed, window(*BEFORE, *some(30, a_syn_lost))) == []


def test_where_other_segments_are_lost_as_often_it_is_not_about_syns():
    def both(at_ns: int) -> ProbeResult:
        return good(at_ns, **connection(lost_forward=2, syns_lost=1), connect_ns=S)

    made = window(*BEFORE, *some(5, both))
    assert made.odd[0].segments is not None
    assert said(witnessed, made) == []


def test_it_ends_with_its_fault():
    after = [good(at) for at in every(100 * MS, 10 * S, 32 * S)]
    assert said(witnessed, window(*BEFORE, *some(5, a_syn_lost), *after)) == []


# --- the accept queue ----------------------------------------------------------------------------


def test_syns_that_a_full_accept_queue_dropped_are_not_lost_on_the_way():
    made = window(*BEFORE, *some(5, lambda at: good(at, syns_lost=1, overflows=3)))
    (finding,) = judge(witnessed, made)
    assert (finding.kind.name, finding.culprit) == ("backlog_overflow", "server_app")
    assert finding.confidence == "proven"


def test_one_overflow_is_no_verdict():
    assert said(witnessed, window(*BEFORE, good(5 * S, syns_lost=1, overflows=1))) == []


def test_the_servers_count_tells_it_before_any_probe_ends():
    made = held(window(*BEFORE), until_ns=6 * S)
    made.waiting = tuple(Waiting(at, None, 40_000, False) for at in every(100 * MS, 4 * S, 5 * S))
    assert said(witnessed, made) == [(*SYN_LOSS, "provisional")]
    told_by_server(made, since_ns=4 * S, asked_ns=5_900 * MS, listen_overflows=7)
    assert said(witnessed, made) == [("backlog_overflow", "server_app", "", "proven")]


# --- none gets through ----------------------------------------------------------------------------


def none(until_ns: int = 12 * S) -> Window:
    return held(
        window(*BEFORE, *(silent(at) for at in every(100 * MS, 4 * S, 7 * S))), until_ns=until_ns
    )


@pytest.mark.parametrize(
    ("tcp", "expected"),
    [
        ({"syn_retrans": 0}, (*SYN_LOSS, "provisional")),
        ({"syn_retrans": 60}, (*SYNACK_LOSS, "proven")),
        ({"syn_retrans": 0, "half_open": 9}, (*SYNACK_LOSS, "proven")),
        (
            {"syn_retrans": 0, "listen_overflows": 8},
            ("backlog_overflow", "server_app", "", "proven"),
        ),
    ],
)
def test_the_server_is_asked_over_the_held_connection(tcp, expected):
    made = none()
    told_by_server(made, since_ns=3 * S, asked_ns=11 * S, **tcp)
    assert said(witnessed, made) == [expected]


def test_what_it_counted_long_before_is_not_of_this():
    made = none()
    told_by_server(made, since_ns=-60 * S, asked_ns=11 * S, syn_retrans=60)
    assert said(witnessed, made) == [(*SYN_LOSS, "provisional")]


def test_where_the_held_connection_is_silent_too_it_is_left_to_others():
    made = window(*BEFORE, *(silent(at) for at in every(100 * MS, 4 * S, 7 * S)))
    made.held_looked(HeldLook(11 * S, 0, 3_900 * MS, in_vain=5))
    assert said(witnessed, made) == []
    # The path is back, and on one of 80 ms the held connection is the first that is answered.
    made.held_looked(HeldLook(12_000 * MS, 0, 11_960 * MS, in_vain=0))
    made.forget(12_000 * MS)
    assert said(witnessed, made) == []
    # At 7 s it is over: the next SYN of each gets through.
    caught_up = [good(at, syns_lost=1 + (7 * S - at) // S) for at in every(100 * MS, 4 * S, 7 * S)]
    back = window(*BEFORE, *caught_up, *(good(at) for at in every(100 * MS, 7 * S, 12 * S)))
    assert said(witnessed, back) == [], "nor is it loss of SYNs afterwards"


def test_what_somebody_refused_is_not_lost():
    case = Case(none())
    case.explain("rejected_midpath", set())
    assert list(witnessed.judge(case)) == []


# --- a NAT, and a table -----------------------------------------------------------------------


def seen_as(at_ns: int, theirs: int, ours: int, **fields) -> ProbeResult:
    return good(at_ns, local=("192.0.2.1", ours), seen_as=("192.0.2.9", theirs), **fields)


def behind_nat(ports: int) -> list[ProbeResult]:
    """The NAT has so few ports, and half of the connections do not get through."""
    made = [
        seen_as(at, 20_000 + at // MS % 9_973, 40_000 + at // MS)
        for at in every(100 * MS, 0, 4 * S)
    ]
    for number, at in enumerate(every(100 * MS, 4 * S, 10 * S)):
        if number % 2:
            made.append(silent(at))
        else:
            made.append(seen_as(at, 60_000 + number % ports, 41_000 + number * 97))
    return made


def test_a_nat_that_gives_the_same_few_ports_again_and_again_has_no_more():
    (finding,) = judge(witnessed, window(*behind_nat(10)))
    assert (finding.kind.name, finding.culprit) == ("nat_port_exhaustion", "middlebox")
    assert finding.figures["ports"] == 5
    assert len(finding.explains) == 30


def test_a_nat_with_many_ports_is_not_out_of_them():
    spread = [
        seen_as(at, 20_000 + number * 997 % 30_000, 41_000 + number * 97)
        if number % 2
        else silent(at)
        for number, at in enumerate(every(100 * MS, 4 * S, 10 * S))
    ]
    assert said(witnessed, window(*BEFORE, *spread)) == []


def test_without_a_nat_nobody_has_too_few_ports():
    plain = [
        good(at, local=LOCAL, seen_as=LOCAL) if at // MS % 200 else silent(at)
        for at in every(100 * MS, 4 * S, 10 * S)
    ]
    assert said(witnessed, window(*plain)) == []


def test_a_nat_that_nothing_gets_past_is_out_of_ports_by_the_servers_word():
    before = [seen_as(at, 20_000 + at // MS, 40_000 + at // MS) for at in every(100 * MS, 0, 4 * S)]
    made = held(
        window(*before, *(silent(at) for at in every(100 * MS, 4 * S, 7 * S))), until_ns=12 * S
    )
    told_by_server(made, since_ns=3 * S, asked_ns=11 * S, syn_retrans=0)
    assert said(witnessed, made) == [("nat_port_exhaustion", "middlebox", "", "statistical")]


def limited(most: int, linger_ns: int, lasts_ns: int, until_ns: int) -> Window:
    """A box drops the SYNs of more than so many connections, from 4 s on."""
    ends = [at + 5 * MS for at in every(100 * MS, 0, 4 * S)]
    results = [
        good(at, local=(LOCAL[0], 40_000 + at // (100 * MS))) for at in every(100 * MS, 0, 4 * S)
    ]
    begun: list[tuple[int, int, int]] = [(at, at, 0) for at in every(100 * MS, 4 * S, lasts_ns)]
    while begun:
        begun.sort(reverse=True)
        at, began_ns, resent = begun.pop()
        ours = LOCAL[0], 40_000 + began_ns // (100 * MS)
        if sum(end + linger_ns > at for end in ends) < most:
            ends.append(at + 5 * MS)
            took_ns = at - began_ns + 100 * US
            results.append(good(began_ns, syns_lost=resent, connect_ns=took_ns, local=ours))
        elif resent == 4:
            results.append(silent(began_ns, local=ours))
        else:
            begun.append((at + 1_022 * MS, began_ns, resent + 1))
    made = window(*(each for each in results if each.ended_ns <= until_ns))
    made.forget(until_ns)
    made.waiting = tuple(
        Waiting(each.started_ns, None, each.local[1] if each.local else None, greeted=False)
        for each in results
        if each.started_ns < until_ns - S and each.ended_ns > until_ns
    )
    return made


def test_a_table_that_is_full_is_told_from_lost_syns_by_how_many_connections_there_are():
    (finding,) = judge(witnessed, limited(20, 5 * S, 18 * S, 18 * S))
    assert (finding.kind.name, finding.culprit) == ("new_connection_limit", "middlebox")
    assert finding.figures["connections"] == pytest.approx(20, abs=2)
    assert finding.figures["linger_s"] == pytest.approx(5, rel=0.05)


@pytest.mark.parametrize("most", [15, 25, 37])
@pytest.mark.parametrize("linger_ns", [5 * S, 6_460 * MS, 9 * S])
def test_until_that_is_told_lost_syns_are_not_certain(most, linger_ns):
    for until_s in range(6, 20):
        made = held(limited(most, linger_ns, 20 * S, until_s * S), until_ns=until_s * S)
        for finding in judge(witnessed, made):
            if finding.kind.name == "syn_loss":
                assert finding.confidence is Confidence.PROVISIONAL, until_s


def test_much_loss_by_chance_is_no_table():
    draw = random.Random(4)
    results = []
    for at in every(100 * MS, 4 * S, 14 * S):
        lost = next(number for number in range(6) if number == 5 or draw.random() > 0.8)
        ours = LOCAL[0], 41_000 + at // (100 * MS)
        made = silent(at, local=ours) if lost == 5 else good(at, syns_lost=lost, local=ours)
        results.append(made)
    assert said(witnessed, window(*BEFORE, *results))[0][:3] == SYN_LOSS


@given(windows())
def test_no_evidence_makes_it_raise(made):
    for finding in judge(witnessed, made):
        assert finding.culprit in finding.kind.culprits
        assert finding.direction in finding.kind.directions


@given(healthy())
def test_a_good_path_with_noise_gives_no_verdict(made):
    assert judge(witnessed, made) == []


def test_a_probe_that_we_ended_ourselves_is_no_handshake():
    assert said(witnessed, window(*(probe(Reason.SHUTDOWN, at) for at in every(S, 0, 9 * S)))) == []
