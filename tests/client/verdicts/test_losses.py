"""What becomes of segments has a name, and its neighbours' evidence has another."""

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.far_end import SERVER, ended
from client.makers import exchange, good
from client.verdicts.path_evidence import LARGE, SECOND, SMALL, Tape, found
from fakes import COUNTERS
from twocans_client.evidence.lanes import Hit
from twocans_client.evidence.loss import Cut, Fates, Segments
from twocans_client.evidence.results import Reason
from twocans_client.evidence.rows import HeldEnded
from twocans_client.evidence.window import Window
from twocans_client.verdicts import losses
from twocans_client.verdicts.case import Case
from twocans_client.verdicts.verdict import Culprit, Direction
from twocans_core.kernel.tcpinfo import HostCounts

WAYS = ("forward", "reverse")


def names(window: Window) -> list[tuple[str, str]]:
    return [(each.kind.name, each.direction) for each in found(losses, window)]


def every(count: int, of: int, tape: Tape, is_large: bool = False, **fates: Any) -> None:
    """Feed probes of which each ``of``-th has these fates, in one direction."""
    for number in range(count):
        tape.probe(is_large=is_large, **(fates if number % of == 0 else {}))


@pytest.mark.parametrize("way", WAYS)
def test_random_loss_has_its_direction_and_its_share(way):
    tape = Tape()
    tape.well(60)
    tape.lossy(200, 0.03, way)
    (finding,) = found(losses, tape.window)
    assert (finding.kind.name, finding.direction) == ("loss", way)
    assert finding.culprit == f"path_{way}"
    assert finding.figures["share_low"] < 0.03 < finding.figures["share_high"]
    assert finding.began_ns is not None
    assert finding.began_ns > 6 * SECOND
    total = sum(hit.fates.lost + hit.fates.acks_lost for hit in _lane(tape, way).missing.hits)
    assert finding.figures["lost"] == total
    assert f"in the {way} direction" in finding.proof


def _lane(tape: Tape, way: str):
    return tape.window.forward if way == "forward" else tape.window.reverse


def test_one_loss_and_then_none_is_none():
    tape = Tape()
    for _ in range(5):
        tape.probe(forward={"lost": 1, "resent": 1})
        tape.well(400)
        assert names(tape.window) == []


def test_a_loss_is_over_when_nothing_was_lost_for_long_at_that_rate():
    tape = Tape()
    tape.lossy(100, 0.1)
    assert names(tape.window) == [("loss", "forward")]
    tape.well(20)
    assert names(tape.window) == []
    assert tape.window.forward.missing.events == 0


def test_one_connection_that_loses_all_it_sends_is_one_event():
    tape = Tape()
    tape.probe(forward={"sent": 30, "lost": 27, "resent": 27})
    assert names(tape.window) == []


@pytest.mark.parametrize("way", WAYS)
def test_losses_in_clumps_are_a_burst(way):
    tape = Tape()
    every(
        150,
        15,
        tape,
        is_large=False,
        **dict[str, Any]({way: {"sent": 8, "lost": 4, "resent": 5, "acks_lost": 1}}),
    )
    assert names(tape.window) == [("burst_loss", way)]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("share", [0.01, 0.05, 0.2])
def test_losses_that_come_one_by_one_are_no_burst(share, seed):
    tape = Tape()
    for _ in range(6):
        tape.lossy(50, share, seed=seed)
        assert ("burst_loss", "forward") not in names(tape.window)
        seed += 100
    assert names(tape.window) == [("loss", "forward")]


@pytest.mark.parametrize("way", WAYS)
def test_acknowledgements_are_not_compared_where_a_proxy_may_make_its_own(way):
    tape = Tape()
    tape.translated = True
    every(60, 6, tape, is_large=False, **dict[str, Any]({way: {"acks_lost": 1}}))
    every(5, 6, tape, is_large=True)
    for number in range(10):  # nobody says any more where it sees us
        tape.window.probed(ended(Reason.CLOSED_EARLY, tape.at_ns + number), None)
    assert names(tape.window) == []


@pytest.mark.parametrize("way", WAYS)
def test_acknowledgements_that_are_lost_alone_are_told_from_loss(way):
    tape = Tape()
    every(60, 6, tape, is_large=False, **dict[str, Any]({way: {"acks_lost": 1}}))
    assert names(tape.window) == [], "they may have been overtaken"
    assert tape.window.wants_sized
    every(5, 6, tape, is_large=True)
    assert not tape.window.wants_sized
    assert names(tape.window) == [("ack_loss", way)]
    figures = found(losses, tape.window)[0].figures
    assert (figures["lost"], figures["lost_data"]) == (10, 0)


@pytest.mark.parametrize("way", WAYS)
def test_acknowledgements_that_were_overtaken_were_not_lost(way):
    tape = Tape()
    every(60, 6, tape, is_large=False, **dict[str, Any]({way: {"acks_lost": 1}}))
    every(20, 5, tape, is_large=True, **dict[str, Any]({way: {"reordered": 1}}))
    assert names(tape.window) == [("reordering", way)]


def test_few_lost_acknowledgements_say_nothing_yet():
    tape = Tape()
    every(18, 6, tape, forward={"acks_lost": 1})
    assert tape.window.forward.missing.is_alarmed
    assert names(tape.window) == []


def test_lost_data_among_lost_acknowledgements_is_loss():
    tape = Tape()
    for number in range(60):
        lost = {"acks_lost": 1} if number % 12 else {"lost": 1, "resent": 1}
        tape.probe(forward=lost if number % 6 == 0 else {})
    assert names(tape.window) == [("loss", "forward")]


@pytest.mark.parametrize("way", WAYS)
def test_segments_that_arrive_twice(way):
    tape = Tape()
    every(60, 10, tape, is_large=False, **dict[str, Any]({way: {"duplicated": 1, "dsacks": 1}}))
    (finding,) = found(losses, tape.window)
    assert (finding.kind.name, finding.direction) == ("duplication", way)
    assert finding.figures["count"] == 6


def test_what_tcp_sent_again_in_vain_did_not_arrive_twice():
    tape = Tape()
    every(60, 5, tape, forward={"sent": 4, "resent": 1, "spurious": 1, "dsacks": 1})
    assert names(tape.window) == []


@pytest.mark.parametrize("way", WAYS)
def test_segments_that_are_overtaken(way):
    tape = Tape()
    every(60, 5, tape, is_large=True, **{way: {"reordered": 2}})
    (finding,) = found(losses, tape.window)
    assert (finding.kind.name, finding.direction) == ("reordering", way)
    assert finding.figures["sent"] == LARGE.sent * 60
    assert finding.figures["count"] == 24


def test_a_fin_out_of_order_asks_for_several_segments_in_a_row():
    tape = Tape()
    tape.well(5)
    assert not tape.window.wants_sized
    result = good(exchange(), at_ns=tape.at_ns)
    result.bye = Cut(COUNTERS, COUNTERS, COUNTERS._replace(rcv_ooopack=1))
    assert COUNTERS.rcv_ooopack == 0
    tape.probe(result)
    assert tape.window.wants_sized
    assert names(tape.window) == []
    tape.well(31)
    assert not tape.window.wants_sized


def test_one_segment_at_a_time_has_nothing_that_could_overtake_it():
    tape = Tape()
    every(60, 5, tape, forward={"reordered": 2})
    assert names(tape.window) == []


def counted(errors: int, **of):
    """A probe whose server's host has counted so many segments with a wrong checksum."""
    told = HostCounts(0, errors)
    return ended(Reason.OK, host_ended=told, server=SERVER, csum_errors=of.get("own", 0))


@pytest.mark.parametrize("lost", [{"lost": 1, "resent": 1}, {"acks_lost": 1}])
def test_what_the_receiver_dropped_for_its_checksum_is_damaged_and_not_lost(lost):
    tape, errors = Tape(), 0
    for number in range(60):
        errors += number % 6 == 0
        tape.probe(counted(errors), forward=lost if number % 6 == 0 else {})
    assert names(tape.window) == [("corruption", "forward")]


def test_damage_on_the_way_back_is_counted_by_our_own_host():
    tape, errors = Tape(), 0
    for number in range(60):
        tape.probe(counted(0, own=errors), reverse={"acks_lost": 1} if number % 6 == 0 else {})
        errors += number % 6 == 0
    assert names(tape.window) == [("corruption", "reverse")]


def test_damage_that_the_connections_saw_themselves():
    tape = Tape()
    every(60, 6, tape, forward={"resent": 1, "damaged": 1})
    assert names(tape.window) == [("corruption", "forward")]


def test_loss_beside_few_errors_of_others_is_loss():
    tape = Tape()
    for number in range(60):
        tape.probe(counted(number // 20), forward={"lost": 1} if number % 6 == 0 else {})
    assert names(tape.window) == [("loss", "forward")]


@pytest.mark.parametrize("way", ["", *WAYS])
@pytest.mark.parametrize("reason", [Reason.WRONG_BYTES, Reason.DAMAGED])
def test_one_changed_byte_is_enough(way, reason):
    tape = Tape()
    tape.well(3)
    tape.window.probed(ended(reason, tape.at_ns, damaged_in=way, detail="at 7"), None)
    (finding,) = found(losses, tape.window)
    assert (finding.kind.name, finding.direction) == ("silent_corruption", way)
    assert finding.culprit is Culprit.path(Direction(way))
    assert finding.explains == {4}
    assert finding.proof.endswith("at 7")


def test_a_held_connection_that_was_damaged():
    tape = Tape()
    tape.well(3)
    ending = HeldEnded(tape.at_ns, Reason.DAMAGED, "a frame", 5, damaged_in="reverse")
    tape.window.held_ended(ending)
    assert names(tape.window) == [("silent_corruption", "reverse")]
    tape.well(200)
    assert names(tape.window) == []


@pytest.mark.parametrize(
    ("way", "culprit"), [("forward", Culprit.CLIENT_HOST), ("reverse", Culprit.SERVER_HOST)]
)
def test_what_never_left_a_host_is_that_hosts_loss(way, culprit):
    tape = Tape()
    every(60, 10, tape, is_large=False, **dict[str, Any]({way: {"unsent": 1}}))
    (finding,) = found(losses, tape.window)
    assert (finding.kind.name, finding.culprit) == ("loss", culprit)


def test_losses_of_large_exchanges_alone_are_left_to_those_who_know_of_sizes():
    tape = Tape()
    for number in range(120):
        is_large = number % 12 == 0
        tape.probe(is_large=is_large, forward={"lost": 2, "resent": 2} if is_large else {})
    assert tape.window.forward.missing.is_alarmed
    assert names(tape.window) == []


def test_losses_that_have_another_name_are_no_loss():
    tape = Tape()
    every(60, 6, tape, forward={"lost": 1, "resent": 1})
    case = Case(tape.window)
    case.explain("mtu_blackhole", {hit.number for hit in tape.window.forward.missing.hits})
    assert list(losses.judge(case)) == []


def test_both_directions_at_once_are_two_verdicts():
    tape = Tape()
    for seed in range(10):
        tape.lossy(5, 0.05, seed=seed)
        tape.lossy(5, 0.05, "reverse", seed=seed)
    assert names(tape.window) == [("loss", "forward"), ("loss", "reverse")]


def test_probes_that_so_much_loss_makes_fail_need_no_other_explanation():
    tape = Tape()
    tape.lossy(60, 0.4)
    failed = ended(Reason.REPLY_TIMEOUT, tape.at_ns, sent_in_vain=2)
    tape.window.probed(failed, None)
    (finding,) = found(losses, tape.window)
    assert 61 in finding.explains
    tape.window.probed(ended(Reason.REPLY_TIMEOUT, tape.at_ns, sent_in_vain=9), None)
    assert 62 not in found(losses, tape.window)[0].explains


FATES = st.builds(
    Fates,
    **{
        name: st.integers(0, 200)
        for name in Fates._fields
        if name not in ("damaged", "reordered", "dsacks")
    },
    **{
        name: st.none() | st.integers(0, 200)
        for name in Fates._fields
        if name in ("damaged", "reordered", "dsacks")
    },
)


@given(st.lists(st.tuples(FATES, FATES, st.booleans(), st.integers(0, 1 << 32)), max_size=40))
def test_no_evidence_makes_it_raise(accounts):
    window = Window()
    for at, (forward, reverse, is_large, errors) in enumerate(accounts):
        result = counted(errors, own=errors)
        result.payload_bytes = 5_000 * is_large
        result.started_ns = result.ended_ns = at
        window.probed(result, Segments(forward, reverse))
        window.counted(Segments(forward, reverse))
        found(losses, window)


@pytest.mark.parametrize("seed", range(12))
def test_a_path_that_loses_one_in_ten_thousand_gets_no_verdict(seed):
    """An hour of ten probes a second, with large exchanges and spurious copies among them."""
    random, tape = Random(seed), Tape()
    lanes = tape.window.forward, tape.window.reverse
    for number in range(36_000):
        usual = LARGE if number % 20 == 0 else SMALL
        lost = [sum(random.random() < 1e-4 for _ in range(usual.sent)) for _ in lanes]
        if any(lost) or random.random() < 1e-4:
            for lane, count in zip(lanes, lost, strict=True):
                fates = usual._replace(lost=count, resent=count + 1, spurious=1)
                lane.feed(_hit(number, fates))
        else:
            for lane in lanes:
                lane.feed(_hit(number, usual))
        assert not any(lane.missing.is_alarmed for lane in lanes)


def _hit(number: int, fates: Fates):
    return Hit(number * SECOND // 10, number, fates, fates.sent > 6)


def test_what_a_lossy_path_makes_it_keep_is_bounded():
    tape = Tape()
    tape.lossy(5_000, 0.3)
    rare = tape.window.forward.missing
    assert len(rare.hits) <= 64
    assert len(rare._bins) <= 256
    assert len(tape.window.probes) <= 601  # a minute of them, at most
