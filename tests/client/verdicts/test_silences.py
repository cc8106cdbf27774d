import pytest
from hypothesis import given

from client.far_end import SERVER
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
    silent,
    told_by_server,
    window,
    windows,
)
from twocans_client.evidence.results import ProbeResult, Reason
from twocans_client.evidence.rows import Exchanged, HeldLook, Waiting
from twocans_client.evidence.window import Window
from twocans_client.verdicts import silences
from twocans_client.verdicts.case import Case

ANOTHER = SERVER._replace(instance=b"t" * 16)
BEFORE = [good(at) for at in every(100 * MS, 0, 2 * S)]
DARK = [silent(at) for at in every(100 * MS, 2 * S, 4 * S)]
"""Two seconds of probes that had no answer within five."""


def dark(until_ns: int = 9 * S, *more: ProbeResult) -> Window:
    made = window(*BEFORE, *DARK, *more)
    made.forget(until_ns)
    return made


def looks(made: Window, *, came: int, in_vain: int = 3, heard_ns: int = 1_900 * MS) -> Window:
    """Add how the held connection stood: asked at 3 s, looked at until 9 s."""
    for at, at_ns in enumerate(every(S, 3 * S, 10 * S)):
        segs_in = 40 + came * at // 6
        made.held_looked(
            HeldLook(at_ns, S, heard_ns, segs_in, in_vain if at else 0, probes_silence=True)
        )
    return made


def waiting(made: Window, from_ns: int, to_ns: int, *, connected: bool) -> Window:
    made.waiting = tuple(
        Waiting(at, at + MS if connected else None, 40_000, False)
        for at in every(100 * MS, from_ns, to_ns)
    )
    return made


# --- blackout ---------------------------------------------------------------------------------


def test_nothing_is_answered_and_nobody_can_be_asked():
    assert said(silences, dark()) == [("blackout", "path", "", "provisional")]


def test_it_is_seen_before_the_first_probe_has_timed_out():
    made = waiting(window(*BEFORE), 2 * S, 3 * S, connected=False)
    made.forget(4 * S)
    assert said(silences, made) == [("blackout", "path", "", "provisional")]


def test_a_few_are_no_outage():
    few = window(*BEFORE, *DARK[:1])
    few.forget(9 * S)
    assert said(silences, few) == []


def test_while_the_held_connection_goes_on_it_is_about_new_ones():
    made = looks(dark(), came=5, in_vain=0, heard_ns=8 * S)
    assert said(silences, made) == []


def test_a_held_connection_that_stands_is_asked_first():
    for in_vain, expected in ((0, []), (2, [("blackout", "path", "", "provisional")])):
        made = waiting(window(*BEFORE), 2 * S, 3 * S, connected=False)
        made.forget(4 * S)
        made.is_held = True
        made.held_looked(HeldLook(3_500 * MS, S, 1_900 * MS, 40, in_vain, probes_silence=True))
        assert said(silences, made) == expected


@pytest.mark.parametrize(("looked_ns", "names"), [(4_150 * MS, ["blackout"]), (4_400 * MS, [])])
def test_a_look_just_after_the_end_tells_what_was_sent_in_vain_before_it(looked_ns, names):
    # As the lab's blackout_reverse of 3.53 s: its only look that shows it is 0.06 s late.
    begun = [good(at, syns_lost=(5 * S - at) // S) for at in every(100 * MS, 2 * S, 3 * S)]
    made = window(*BEFORE, *begun, *(good(at) for at in every(100 * MS, 4_100 * MS, 6 * S)))
    made.is_held = True
    made.held_looked(HeldLook(looked_ns, S, 1_900 * MS, 40, 1, probes_silence=True))
    assert [name for name, *_ in said(silences, made)] == names


def test_what_still_comes_on_the_held_connection_shows_that_ours_does_not_arrive():
    (finding,) = judge(silences, looks(dark(), came=6))
    assert (finding.culprit, finding.direction) == ("path_forward", "forward")
    assert finding.confidence == "proven"
    assert finding.proof == (
        "100 SYNs got no answer in 7.0 s; 6 segments came on the held connection meanwhile, "
        "and none acknowledged ours"
    )


def test_nothing_that_comes_leaves_the_direction_open_until_the_server_can_be_asked():
    assert said(silences, looks(dark(), came=0)) == [("blackout", "path", "", "provisional")]


@pytest.mark.parametrize(
    ("syn_retrans", "came", "expected"),
    [
        (40, 0, ("blackout", "path_reverse", "reverse", "proven")),
        (0, 6, ("blackout", "path_forward", "forward", "proven")),
        (0, 0, ("blackout", "path", "", "proven")),
    ],
)
def test_afterwards_the_servers_memory_tells_the_direction(syn_retrans, came, expected):
    made = looks(dark(10 * S, *(good(at) for at in every(100 * MS, 9 * S, 10 * S))), came=came)
    told_by_server(made, since_ns=S, asked_ns=9_500 * MS, syn_retrans=syn_retrans)
    assert said(silences, made) == [expected]


def test_a_few_syn_acks_that_tell_no_direction_are_counted_in_the_proof():
    made = looks(dark(10 * S, *(good(at) for at in every(100 * MS, 9 * S, 10 * S))), came=0)
    told_by_server(made, since_ns=S, asked_ns=9_500 * MS, syn_retrans=3)
    (finding,) = judge(silences, made)
    assert finding.proof.endswith(
        "; the server sent 3 SYN-ACKs again, and nothing came on the held connection"
    )


def test_the_same_process_is_said_to_answer_again_only_when_it_has():
    made = waiting(dark(), 9 * S, 9_200 * MS, connected=True)
    made.forget(9_300 * MS)
    (finding,) = judge(silences, made)
    assert (finding.confidence, finding.direction) == ("provisional", "")
    assert finding.proof.endswith("; SYNs are answered again")
    after = dark(10 * S, *(good(at) for at in every(100 * MS, 9 * S, 10 * S)))
    assert judge(silences, after)[0].proof.endswith("; the same process answers again")


def short(came: int, *, seen_at_ns: int = 4_300 * MS) -> Window:
    """Return a blackout of 3 s, in which the held connection was looked at twice.

    As the lab's, of 3.0 to 4.0 s: the server's kernel sends one or two segments by then.
    """
    after = [good(at) for at in every(100 * MS, 5 * S, 8 * S)]
    begun = [silent(at) for at in every(100 * MS, 2 * S, 3 * S)]
    begun += [good(at, syns_lost=(7 * S - at) // S) for at in every(100 * MS, 3 * S, 5 * S)]
    made = window(*BEFORE, *begun, *after)
    for at_ns, segs_in in ((3_300 * MS, 40), (seen_at_ns, 40 + came)):
        made.held_looked(HeldLook(at_ns, S, 1_900 * MS, segs_in, 3, probes_silence=True))
    # The first that gets through again: that look is of another time.
    made.held_looked(HeldLook(4_980 * MS, S, 4_970 * MS, 50, 0, probes_silence=True))
    return made


def test_one_segment_that_came_tells_the_direction_if_more_of_ours_failed_after_it():
    (finding,) = judge(silences, short(1))
    assert (finding.culprit, finding.direction) == ("path_forward", "forward")
    assert "; 1 segment came on the held connection meanwhile" in finding.proof


def test_one_segment_as_the_path_came_back_tells_nothing():
    (finding,) = judge(silences, short(1, seen_at_ns=4_950 * MS))
    assert (finding.culprit, finding.direction) == ("path", "")


def test_syn_acks_of_the_last_that_got_through_do_not_make_it_the_way_back():
    # On a path of 80 ms the last ACK of one or two handshakes is lost, and their SYN-ACK sent again
    # at 1 and at 3 s.
    made = short(1)
    told_by_server(made, since_ns=S, asked_ns=5_500 * MS, syn_retrans=3)
    (finding,) = judge(silences, made)
    assert (finding.culprit, finding.direction) == ("path_forward", "forward")
    made.held_looks.clear()
    (finding,) = judge(silences, made)
    assert (finding.culprit, finding.direction) == ("path", "")
    told_by_server(made, since_ns=S, asked_ns=5_500 * MS, syn_retrans=45)
    (finding,) = judge(silences, made)
    assert (finding.culprit, finding.direction) == ("path_reverse", "reverse")


def test_connections_that_come_to_be_afterwards_tell_the_direction_as_well():
    after = [good(at, syns_lost=3) for at in every(100 * MS, 4 * S, 6 * S)]
    made = window(*BEFORE, *DARK, *after)
    assert said(silences, made)[0][:3] == ("blackout", "path", "")
    sent_again = after[0].server_greeted
    assert sent_again is not None
    for each in after:
        each.server_greeted = sent_again._replace(total_retrans=2)
    assert said(silences, window(*BEFORE, *DARK, *after))[0][:3] == (
        "blackout",
        "path_reverse",
        "reverse",
    )


def test_the_same_process_answers_again_or_another_that_began_since():
    after = every(100 * MS, 9 * S, 10 * S)
    same = dark(10 * S, *(good(at) for at in after))
    assert said(silences, same) == [("blackout", "path", "", "proven")]
    another = dark(10 * S, *(good(at, server=ANOTHER, server_began_ns=8 * S) for at in after))
    (finding,) = judge(silences, another)
    assert (finding.kind.name, finding.culprit) == ("peer_lost", "server_host")
    assert finding.proof.endswith(
        "a process answered that had started 6.0 s after the first of them"
    )
    older = dark(10 * S, *(good(at, server=ANOTHER, server_began_ns=-S) for at in after))
    assert said(silences, older) == [], "another that was there all the time proves neither"


def test_what_was_named_before_is_not_named_a_blackout():
    case = Case(dark())
    case.explain("rejected_midpath", set())
    assert list(silences.judge(case)) == []
    case = Case(dark())
    case.explain("something", {row.number for row in case.window.odd})
    assert list(silences.judge(case)) == []


def test_a_server_that_stood_still_meanwhile_is_left_to_others():
    made = dark(10 * S, *(good(at) for at in every(100 * MS, 9 * S, 10 * S)))
    told_by_server(made, since_ns=S, asked_ns=9_500 * MS, worst_ns=6 * S, cause="suspended")
    assert said(silences, made) == []


def test_it_ends_with_its_outage():
    made = dark(40 * S, *(good(at) for at in every(100 * MS, 9 * S, 10 * S)))
    assert said(silences, made) == []


# --- a program that hangs -------------------------------------------------------------------------


def ungreeted(at_ns: int, *, in_vain: int = 0) -> ProbeResult:
    standing = STANDING._replace(retransmits=in_vain, unacked=in_vain)
    return probe(
        Reason.GREETING_TIMEOUT,
        at_ns,
        5 * S,
        connect_ns=MS,
        handshake_ns=60_000,
        standing=standing,
        sent_in_vain=in_vain,
    )


HUNG = [ungreeted(at) for at in every(100 * MS, 2 * S, 4 * S)]


def test_a_kernel_that_acknowledges_for_a_program_that_does_not_greet():
    assert said(silences, window(*BEFORE, *HUNG)) == [("app_hung", "server_app", "", "provisional")]


def test_it_is_seen_while_connections_wait():
    made = waiting(window(*BEFORE), 2 * S, 3 * S, connected=True)
    made.forget(4 * S)
    assert said(silences, made) == []
    made.forget(6 * S)
    assert said(silences, made) == [("app_hung", "server_app", "", "provisional")]


def test_a_kernel_that_acknowledges_nothing_is_no_hung_program():
    made = window(*BEFORE, *(ungreeted(at, in_vain=3) for at in every(100 * MS, 2 * S, 4 * S)))
    assert said(silences, made) == []


def test_where_some_are_greeted_meanwhile_it_is_slow_and_not_hung():
    made = window(*BEFORE, *HUNG, *(good(at) for at in every(S, 2_050 * MS, 9 * S)))
    assert said(silences, made) == []


def test_where_the_held_connection_goes_on_the_program_lives():
    made = window(*BEFORE, *HUNG)
    for at_ns in every(S, 2 * S, 9 * S):
        made.held_looked(HeldLook(at_ns, S, at_ns - MS))
    assert said(silences, made) == []


def test_a_program_that_answers_others_has_too_much_to_do_and_does_not_hang():
    # As of the lab's ``bufferbloat_forward+slow_app``: nobody was greeted for 3.3 s, and replies
    # came all the time.
    late = [good(S + at * MS, greet_ns=400 * MS) for at in (10, 20, 30, 40)]
    for number, result in enumerate(late):
        result.ended_ns = (3 + 2 * number) * S
    assert said(silences, window(*late, *HUNG)) == []
    made = window(*BEFORE, *HUNG)
    for at_ns in every(2 * S, 2 * S, 9 * S):
        made.exchanged(Exchanged(at_ns, None, resent=False, duration_ns=S))
    assert said(silences, made) == []


@pytest.mark.parametrize("worst_ns", [0, 1_200 * MS, 3 * S])
def test_a_program_whose_loop_went_on_says_so_afterwards(worst_ns):
    made = window(*BEFORE, *HUNG, *(good(at) for at in every(100 * MS, 9 * S, 10 * S)))
    told_by_server(made, since_ns=S, asked_ns=9_500 * MS, worst_ns=worst_ns, cause="blocked")
    assert said(silences, made) == []


@pytest.mark.parametrize(("stalled_ms", "names"), [(730, []), (90, ["app_hung"])])
def test_a_server_that_was_short_of_cpu_before_is_asked_first(stalled_ms, names):
    # As the lab's slow_app on a machine that gave the server half of what it wanted.
    made = window(*BEFORE, *HUNG)
    told_by_server(
        made, since_ns=0, asked_ns=1_500 * MS, stalled_ns=stalled_ms * MS, cause="starved"
    )
    assert [name for name, *_ in said(silences, made)] == names


def test_it_is_not_said_beside_slow_app():
    case = Case(window(*BEFORE, *HUNG), {"slow_app"})
    assert list(silences.judge(case)) == []


def test_behind_a_proxy_it_is_the_proxy_that_answers():
    made = window(*BEFORE, *HUNG)
    made.proxy_sign = "segments"
    assert said(silences, made) == []


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        ("blocked", [("app_hung", "server_app", "", "proven")]),
        ("stopped", []),
        ("throttled", []),
    ],
)
def test_afterwards_the_server_says_whether_it_ran(cause, expected):
    made = window(*BEFORE, *HUNG, *(good(at) for at in every(100 * MS, 9 * S, 10 * S)))
    told_by_server(made, since_ns=S, asked_ns=9_500 * MS, worst_ns=7 * S, cause=cause)
    assert said(silences, made) == expected


@given(windows())
def test_no_evidence_makes_it_raise(made):
    for finding in judge(silences, made):
        assert finding.culprit in finding.kind.culprits
        assert finding.direction in finding.kind.directions


@given(healthy())
def test_a_good_path_with_noise_gives_no_verdict(made):
    assert judge(silences, made) == []
