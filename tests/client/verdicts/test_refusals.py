import pytest
from hypothesis import given

from client.far_end import ADDRESS, LOCAL, SERVER
from client.verdicts.evidence import (
    MS,
    STANDING,
    US,
    S,
    every,
    good,
    healthy,
    judge,
    probe,
    refused,
    rejected,
    said,
    silent,
    window,
    windows,
)
from twocans_client.evidence.results import ProbeResult, Reason
from twocans_client.evidence.rows import HeldEnded, HeldLook
from twocans_client.evidence.window import Window
from twocans_client.verdicts import refusals, silences
from twocans_core.net.sockets import Address

ROUTER, OURS, THEIRS = "192.0.2.254", LOCAL[0], ADDRESS.host
PROHIBITED, PORT, HOST = 13, 3, 1
BEFORE = tuple(good(at) for at in every(100 * MS, 0, S))
OTHER = SERVER._replace(instance=b"t" * 16)


def held(made: Window, heard_ns: int, since_ns: int = 0) -> Window:
    made.held_looked(HeldLook(heard_ns, since_ns, heard_ns))
    return made


def resets(until_ns: int = 3 * S, took_ns: int = 100 * US) -> list[ProbeResult]:
    return [refused(at, took_ns) for at in every(100 * MS, S, until_ns)]


def test_a_reset_where_nothing_shows_that_the_server_lives_is_provisional():
    assert said(refusals, window(*BEFORE, *resets())) == [
        ("refused_by_server", "server_app", "", "provisional")
    ]


DENIED = ("denied_locally", "client_host", "", "proven")


@pytest.mark.parametrize("took_ns", [40 * US, 900 * US])
def test_a_reset_of_what_never_left_is_our_own_rule(took_ns):
    # As of `iptables -A OUTPUT -j REJECT --reject-with tcp-reset`: the counts of a connection are
    # those of one that was reset from afar.
    own = [refused(at, took_ns, own_unsent=1) for at in every(100 * MS, S, 3 * S)]
    assert said(refusals, held(window(*BEFORE, *own), 2_500 * MS)) == [DENIED]
    assert said(refusals, window(*own)) == [DENIED], "also where nobody ever answered"


def test_resets_beside_it_that_were_not_counted_are_our_own_rules_too():
    """Our host may count a probe's SYN just before or after the probe looks."""
    own = [
        refused(at, 40 * US, own_unsent=number % 3 == 0)
        for number, at in enumerate(every(100 * MS, S, 3 * S))
    ]
    assert said(refusals, held(window(*BEFORE, *own), 2_500 * MS)) == [DENIED]


def test_so_is_an_icmp_message_of_another_address_of_ours():
    own = [rejected(at, "192.0.2.77", own_unsent=1) for at in every(100 * MS, S, 3 * S)]
    assert said(refusals, window(*BEFORE, *own)) == [DENIED]


def test_what_came_later_than_the_least_round_trip_is_from_afar():
    far = [good(at, handshake_ns=20 * MS) for at in every(100 * MS, 0, S)]
    for took_ns, expected in ((19 * MS, DENIED), (21 * MS, ("rejected_midpath", "middlebox"))):
        # Our host drops something else meanwhile.
        told = [refused(at, took_ns, own_unsent=1) for at in every(100 * MS, S, 3 * S)]
        (found,) = said(refusals, held(window(*far, *told), 2_500 * MS))
        assert found[: len(expected)] == expected


def test_a_reset_that_is_too_soon_is_somebodys_on_the_way_only_if_ours_left():
    far = [good(at, handshake_ns=20 * MS) for at in every(100 * MS, 0, S)]
    for unsent, expected in ((0, ["rejected_midpath"]), (None, [])):
        told = [refused(at, 100 * US, own_unsent=unsent) for at in every(100 * MS, S, 3 * S)]
        assert [name for name, *_ in said(refusals, window(*far, *told))] == expected


def test_one_refusal_is_no_verdict():
    assert said(refusals, window(*BEFORE, refused(S))) == []


def test_where_the_held_connection_was_closed_at_the_same_time_the_process_has_ended():
    made = window(*BEFORE, *resets())
    made.held_ended(HeldEnded(S, Reason.CLOSED_EARLY, "", S))
    assert said(refusals, made) == [("refused_by_server", "server_app", "", "proven")]


def test_a_held_connection_that_was_reset_proves_nothing():
    made = window(*BEFORE, *resets())
    made.held_ended(HeldEnded(S, Reason.RESET, "", S))
    assert said(refusals, made) == [("refused_by_server", "server_app", "", "provisional")]


def test_where_the_held_connection_goes_on_somebody_else_refuses():
    made = held(window(*BEFORE, *resets()), heard_ns=2_500 * MS)
    assert said(refusals, made) == [("rejected_midpath", "middlebox", "", "proven")]


def test_a_held_connection_that_was_heard_before_or_opened_after_shows_nothing():
    for heard_ns, since_ns in ((S, 0), (1_900 * MS, 0), (2_500 * MS, 1_500 * MS)):
        made = held(window(*BEFORE, *resets()), heard_ns, since_ns)
        assert said(refusals, made)[0][0] == "refused_by_server"


def test_a_reset_that_came_sooner_than_the_server_can_answer_is_somebody_elses():
    before = [good(at, handshake_ns=20 * MS) for at in every(100 * MS, 0, S)]
    (finding,) = judge(refusals, window(*before, *resets(took_ns=MS)))
    assert (finding.kind, finding.culprit) == (refusals.REJECTED, "middlebox")
    assert finding.proof == (
        "20 probes were refused by a reset in 15 s; the quickest reset came after 0.001000 s, "
        "and the server never answered in less than 0.020000 s"
    )
    late = window(*before, *resets(took_ns=21 * MS))
    assert said(refusals, late)[0][0] == "refused_by_server"


def test_afterwards_the_process_that_answers_tells_which_it_was():
    same = window(*BEFORE, *resets(), good(4 * S))
    assert said(refusals, same) == [("rejected_midpath", "middlebox", "", "proven")]
    # It was begun before any reset came, and waited for the new process.
    late = good(900 * MS, syns_lost=3, server=OTHER)
    another = window(*BEFORE, *resets(), late, good(4 * S, server=OTHER))
    assert said(refusals, another) == [("refused_by_server", "server_app", "", "proven")]
    another = window(*BEFORE, *resets(), good(4 * S, server=OTHER))
    assert said(refusals, another) == [("refused_by_server", "server_app", "", "proven")]


def test_a_host_that_refuses_after_a_silence_was_gone_and_is_back():
    dark = [silent(at) for at in every(100 * MS, S, 3 * S)]
    back = [refused(at) for at in every(100 * MS, 8_100 * MS, 9 * S)]
    made = window(*BEFORE, *dark, *back)
    assert said(refusals, made) == []
    assert said(silences, made) == [("peer_lost", "server_host", "", "provisional")]
    made = window(*BEFORE, *dark, *back, good(10 * S, server=OTHER, server_began_ns=9 * S))
    assert said(silences, made) == [("peer_lost", "server_host", "", "proven")]


def test_some_that_are_refused_among_good_ones_are_left_to_others():
    mixed = [refused(at) for at in every(300 * MS, S, 4 * S)]
    mixed += [good(at) for at in every(300 * MS, S + 100 * MS, 4 * S)]
    assert said(refusals, window(*BEFORE, *mixed)) == []


@pytest.mark.parametrize(
    ("sender", "code", "took_ns", "verdict"),
    [
        (ROUTER, PROHIBITED, MS, ("rejected_midpath", "middlebox")),
        (ROUTER, PORT, MS, ("rejected_midpath", "middlebox")),
        (ROUTER, HOST, MS, ("rejected_midpath", "middlebox")),
        (ROUTER, HOST, 3_060 * MS, ("neighbour_unreachable", "path")),
        (THEIRS, PORT, MS, ("refused_by_server", "server_host")),
        (THEIRS, PROHIBITED, MS, ("refused_by_server", "server_host")),
        (OURS, PORT, MS, ("denied_locally", "client_host")),
        (OURS, PROHIBITED, MS, ("denied_locally", "client_host")),
        (OURS, HOST, MS, ("denied_locally", "client_host")),
        (OURS, HOST, 3_070 * MS, ("neighbour_unreachable", "path")),
    ],
)
def test_an_icmp_message_is_told_by_its_sender_and_by_when_it_came(sender, code, took_ns, verdict):
    told = [rejected(at, sender, code, took_ns) for at in every(100 * MS, S, 2 * S)]
    assert said(refusals, window(*BEFORE, *told)) == [(*verdict, "", "proven")]


def test_a_gateway_that_does_not_answer_is_told_by_what_never_left_without_any_icmp():
    standing = STANDING._replace(
        state=2, retransmits=2, total_retrans=0, segs_in=0, segs_out=1, unacked=1
    )
    waited = [
        probe(Reason.UNREACHABLE, at, 3_070 * MS, standing=standing)
        for at in every(100 * MS, S, 2 * S)
    ]
    assert said(refusals, window(*waited)) == [("neighbour_unreachable", "path", "", "proven")]


def test_time_outs_beside_limited_icmp_are_the_same_fault_named_once():
    told = [rejected(at, ROUTER) for at in every(S, S, 10 * S)]
    quiet = [silent(at + 50 * MS) for at in every(100 * MS, S, 9 * S)]
    later = silent(40 * S)
    (finding,) = judge(refusals, window(*BEFORE, *told, *quiet))
    assert len(finding.explains) == len(told) + len(quiet)
    assert finding.proof.endswith(f"; {len(quiet)} others lost a SYN")
    assert not judge(refusals, window(*BEFORE, *told, *quiet, later))


def test_two_who_say_no_are_two_faults():
    told = [rejected(at, ROUTER) for at in every(100 * MS, S, 2 * S)]
    ours = [rejected(at, OURS) for at in every(100 * MS, S, 2 * S)]
    assert sorted(said(refusals, window(*told, *ours))) == [
        ("denied_locally", "client_host", "", "proven"),
        ("rejected_midpath", "middlebox", "", "proven"),
    ]


def test_what_our_own_host_drops_is_told_by_what_never_left():
    standing = STANDING._replace(
        state=2, retransmits=3, total_retrans=3, retrans=0, unacked=1, segs_in=0
    )
    dropped = [silent(at, standing=standing) for at in every(100 * MS, S, 2 * S)]
    assert said(refusals, window(*dropped)) == [("denied_locally", "client_host", "", "proven")]
    assert said(refusals, window(*(silent(at) for at in every(100 * MS, S, 2 * S)))) == []


@pytest.mark.parametrize(
    ("result", "verdict"),
    [
        ({"reason": Reason.DENIED, "local": None}, ("denied_locally", "client_host")),
        ({"reason": Reason.UNREACHABLE, "local": None}, ("no_route", "client_host")),
        ({"reason": Reason.NO_ADDRESS, "local": None}, ("no_route", "client_host")),
        ({"reason": Reason.BUSY, "detail": "connections"}, ("server_full", "server_app")),
    ],
)
def test_what_leaves_no_doubt_is_named_after_two(result, verdict):
    made = [probe(at_ns=at, took_ns=MS, **result) for at in (S, 2 * S)]
    assert said(refusals, window(*made)) == [(*verdict, "", "proven")]


def test_unreachable_without_any_reason_is_not_guessed_at():
    made = [probe(Reason.UNREACHABLE, at, standing=STANDING) for at in (S, 2 * S)]
    assert said(refusals, window(*made)) == []


def test_the_sender_is_the_server_whatever_the_address_of_the_path_is():
    address = Address("192.0.2.77", 5000)
    told = [rejected(at, "192.0.2.77", PORT, address=address) for at in (S, 2 * S)]
    assert said(refusals, window(*told))[0][:2] == ("refused_by_server", "server_host")


@given(windows())
def test_no_evidence_makes_it_raise(made):
    for finding in judge(refusals, made):
        assert finding.culprit in finding.kind.culprits
        assert finding.proof


@given(healthy())
def test_a_good_path_with_noise_gives_no_verdict(made):
    assert judge(refusals, made) == []
