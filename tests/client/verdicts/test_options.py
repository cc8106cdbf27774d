"""What stands between the two ends, and what only looks like it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.far_end import SERVER
from client.makers import good
from fakes import COUNTERS
from twocans_client.evidence.window import Window
from twocans_client.verdicts import options
from twocans_client.verdicts.case import Case

ALL, MSS = 7, 1_448


def agree(
    window: Window, count: int = 3, *, bits: int = ALL, theirs: int | None = None, **more: Any
):
    """Feed connections that agreed on these options."""
    mss = more.pop("mss", MSS if bits & 1 else MSS + 12)
    for _ in range(count):
        fields = {
            "connected": COUNTERS._replace(options=bits, snd_mss=mss),
            "server_greeted": COUNTERS._replace(options=bits),
            **more,
        }
        window.probed(good(**fields), None)


def names(window: Window) -> list[str]:
    return [found.kind.name for found in options.judge(Case(window))]


@pytest.mark.parametrize(
    ("bits", "name"), [(5, "SACK"), (6, "timestamps"), (3, "window scaling"), (1, "SACK and")]
)
def test_an_option_that_three_connections_in_a_row_lack_was_taken_out(bits, name):
    window = Window()
    agree(window)
    agree(window, 2, bits=bits)
    assert names(window) == []
    agree(window, 1, bits=bits)
    (found,) = options.judge(Case(window))
    assert found.kind.name == "option_stripped"
    assert name in found.proof


def test_an_mss_that_nobody_named_any_more_was_taken_out():
    window = Window()
    agree(window)
    agree(window, mss=536 - 12)
    (found,) = options.judge(Case(window))
    assert found.proof.endswith("no MSS, although earlier ones to the same server process had")


def test_an_mss_that_no_host_says_it_offers_is_compared_with_earlier_ones():
    window = Window()
    agree(window, offers=ALL, server_offers=ALL)
    agree(window, mss=536 - 12, offers=ALL, server_offers=ALL)
    (found,) = options.judge(Case(window))
    assert found.proof.endswith("no MSS, although earlier ones to the same server process had")


def test_an_mss_that_was_clamped_is_a_choice():
    window = Window()
    agree(window)
    agree(window, mss=1_348)
    assert names(window) == []


@pytest.mark.parametrize("offers", ["offers", "server_offers"])
def test_what_a_host_does_not_offer_any_more_was_not_taken_out(offers):
    told = {"offers": ALL, "server_offers": ALL}
    window = Window()
    agree(window, **told)
    agree(window, 10, bits=3, **{**told, offers: 3})
    assert names(window) == []
    agree(window, 3, bits=3, **told)
    assert names(window) == ["option_stripped"]


def test_what_both_hosts_offer_is_missed_though_it_never_was_there():
    window = Window()
    agree(window, 3, bits=5, offers=ALL, server_offers=ALL)
    (found,) = options.judge(Case(window))
    assert "no SACK, although both hosts offer it" in found.proof


def test_what_was_never_there_was_not_offered_perhaps():
    window = Window()
    agree(window, 10, bits=5)
    assert names(window) == []


def test_another_process_may_offer_something_else():
    window = Window()
    agree(window)
    agree(window, bits=5, server=SERVER._replace(instance=b"o" * 16))
    assert names(window) == []


def test_what_comes_back_is_no_verdict_any_more():
    window = Window()
    for bits in (ALL, 5, ALL):
        agree(window, bits=bits)
    assert names(window) == []


def test_an_option_that_only_the_server_agreed_on_was_taken_out_of_its_answer():
    window = Window()
    window.boxes = frozenset({"options_rewritten"})
    assert names(window) == ["option_stripped"]


@pytest.mark.parametrize("sign", ["options", "segments", "nearer"])
def test_a_proxy_is_worth_knowing_and_hides_what_it_did_to_options(sign):
    window = Window()
    agree(window)
    agree(window, bits=5)
    window.proxy_sign = sign
    (found,) = options.judge(Case(window))
    assert found.kind.name == "tcp_terminated"
    assert found.kind.is_info


@given(
    st.lists(
        st.tuples(st.none() | st.integers(0, 255), st.none() | st.integers(0, 255), st.integers())
    )
)
def test_no_evidence_makes_it_raise(rows):
    window = Window()
    for ours, theirs, mss in rows:
        connected = COUNTERS._replace(options=ours, snd_mss=mss)
        server = COUNTERS._replace(options=theirs)
        window.probed(good(connected=connected, server_greeted=server), None)
        names(window)
