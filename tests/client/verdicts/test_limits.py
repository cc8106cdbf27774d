"""What holds up large exchanges at the ends, by what kernels said of such in the lab."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.far_end import ended
from client.makers import exchange, good
from client.verdicts.evidence import STANDING
from client.verdicts.path_evidence import SECOND, found
from fakes import COUNTERS
from twocans_client.evidence.results import ProbeResult, Reason
from twocans_client.evidence.window import Window
from twocans_client.verdicts import limits
from twocans_client.verdicts.verdict import Culprit
from twocans_core.kernel.tcpinfo import Limited

# Recorded over 40 ms: 65,536 bytes of payload, 262,144 where nothing was scaled.
WELL: dict[str, Any] = {"limited": Limited(204_000, 0, 0), "send_buffer": 267_264}
RECEIVER = {**WELL, "limited": Limited(524_000, 404_000, 0), "snd_wnd": 7_240}
SENDER = {"limited": Limited(568_000, 0, 0), "send_buffer": 7_168}
WINDOW = {
    "limited": Limited(324_000, 80_000, 0),
    "send_buffer": 433_152,
    "snd_wnd": 65_535,
    "options": 3,
    "bytes_sent": 262_405,
}


def large(at_ns: int, reason: Reason = Reason.OK, **of: Any) -> ProbeResult:
    standing = STANDING._replace(snd_wnd=of.pop("snd_wnd", 162_400), min_rtt_us=40_100)
    connected = COUNTERS._replace(options=of.pop("options", 7))
    fields: dict[str, Any] = {"bytes_sent": 65_797, "exchanges": [exchange()], **of}
    return ended(reason, at_ns, standing=standing, connected=connected, **fields)


def window(*kinds: dict[str, Any]) -> Window:
    made = Window()
    for turn, kind in enumerate(kinds):
        made.probed(large(turn * SECOND, **kind), None)
        made.probed(good(exchange(), at_ns=turn * SECOND), None)
    return made


@pytest.mark.parametrize(
    ("kind", "name", "culprit", "limit"),
    [
        (RECEIVER, "receiver_limited", Culprit.SERVER_HOST, 7_240),
        (SENDER, "sender_limited", Culprit.CLIENT_HOST, 7_168),
        (WINDOW, "window_limited", Culprit.CONFIGURATION, 65_535),
    ],
)
def test_three_in_a_row_name_what_held_them_up(kind, name, culprit, limit):
    assert found(limits, window(WELL, kind, kind)) == []
    (finding,) = found(limits, window(WELL, kind, kind, kind))
    assert (finding.kind.name, finding.culprit) == (name, culprit)
    assert finding.figures["limit_bytes"] == limit
    assert (finding.explains, finding.began_ns) == ({3, 5, 7}, SECOND)
    assert f"of {limit} bytes" in finding.proof
    assert found(limits, window(kind, kind, kind, WELL)) == []


@pytest.mark.parametrize(
    "kind",
    [
        WELL,
        # A window that was waited for once, while it grew.
        {**WELL, "limited": Limited(204_000, 36_000, 0)},
        # Two ticks of a kernel's clock.
        {**WELL, "limited": Limited(12_000, 4_000, 0)},
        # Not scaled, and never waited for: little was under way.
        {**WINDOW, "limited": Limited(324_000, 0, 0)},
        # A buffer smaller than what was sent, of which all left in one round trip the same.
        {**WELL, "send_buffer": 46_080, "limited": Limited(80_000, 0, 0)},
        # Something else held it up: a quarter of a small buffer a round trip.
        {**SENDER, "limited": Limited(2_000_000, 0, 0)},
        # What was sent again is loss, whatever the window was.
        {**RECEIVER, "retrans": 1},
        {**RECEIVER, "reason": Reason.REPLY_TIMEOUT},
        {**RECEIVER, "limited": None},
        {**RECEIVER, "limited": Limited(None, None, None)},
    ],
)
def test_what_held_up_nothing_is_not_named(kind):
    assert found(limits, window(*[kind] * 5)) == []


def test_small_exchanges_say_nothing_and_take_nothing_back():
    evidence = window(RECEIVER, RECEIVER, RECEIVER)
    for turn in range(100):
        evidence.probed(good(exchange(), at_ns=(3 + turn) * SECOND), None)
    assert [each.kind.name for each in found(limits, evidence)] == ["receiver_limited"]


COUNT = st.none() | st.integers(0, 1 << 32)


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "limited": st.none() | st.builds(Limited, COUNT, COUNT, COUNT),
                "send_buffer": COUNT,
                "snd_wnd": COUNT,
                "options": st.none() | st.integers(0, 255),
                "bytes_sent": st.integers(0, 1 << 24),
            }
        ),
        max_size=12,
    )
)
def test_no_evidence_makes_it_raise(kinds):
    found(limits, window(*kinds))
