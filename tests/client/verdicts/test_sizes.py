"""What only large packets meet, in which direction, and to the byte."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.far_end import ADDRESS, SERVER, ended
from client.makers import exchange, good
from client.verdicts.evidence import STANDING
from client.verdicts.path_evidence import SECOND, found
from fakes import COUNTERS
from twocans_client.evidence.results import ProbeResult, Reason
from twocans_client.evidence.sizes import FRAME_BYTES, Gate, Sizes, Tried, headers_of, stuck_in
from twocans_client.evidence.window import Window
from twocans_client.verdicts import sizes
from twocans_client.verdicts.verdict import Confidence
from twocans_core.kernel.standing import NO_STANDING, Standing

WAYS = ("forward", "reverse")
SMALL = FRAME_BYTES + 52
FULL = 1_448
OURS = COUNTERS._replace(snd_mss=FULL, options=7, rcv_ooopack=0)
# As recorded in the lab 1.2 s into the exchange: 8 full segments and a tail, of which that alone
# was acknowledged; the timer has run twice. And a reply of which the tail came, twice.
HANGS = STANDING._replace(unacked=9, sacked=1, lost=8, retransmits=2, total_retrans=12)
CAME = OURS._replace(rcv_ooopack=2)


def sized(
    at_ns: int,
    reason: Reason = Reason.OK,
    standing: Standing | None = None,
    counted: Any = OURS,
    **fields: Any,
) -> ProbeResult:
    fields = {"connected": OURS, "server_greeted": OURS, "server_ended": OURS, **fields}
    result = ended(reason, at_ns, is_sized=True, standing=standing, ended=counted, **fields)
    result.address, result.server, result.payload_bytes = ADDRESS, SERVER, 11_676
    if reason is Reason.OK:
        result.sized = exchange()
    return result


def hanging(at_ns: int, way: str) -> ProbeResult:
    if way == "forward":
        return sized(at_ns, Reason.REPLY_TIMEOUT, HANGS)
    return sized(at_ns, Reason.REPLY_TIMEOUT, STANDING, CAME)


def well(at_ns: int) -> ProbeResult:
    return good(exchange(), at_ns=at_ns)


def window(*results: ProbeResult) -> Window:
    made = Window()
    for result in results:
        made.probed(result, None)
    return made


def names(evidence: Window) -> list[tuple[str, str]]:
    return [(each.kind.name, each.direction) for each in found(sizes, evidence)]


def vanish(evidence: Window, way: str) -> None:
    """A full packet was tried alone, and did not pass."""
    evidence.sizes.tried(Tried(1_500, way == "reverse", False if way == "reverse" else None))


@pytest.mark.parametrize("way", WAYS)
def test_a_sized_exchange_that_hangs_beside_good_probes_is_a_black_hole(way):
    evidence = window(well(1), hanging(SECOND, way), well(2 * SECOND))
    assert names(evidence) == []
    vanish(evidence, way)
    (finding,) = found(sizes, evidence)
    assert (finding.kind.name, finding.direction) == ("mtu_blackhole", way)
    assert finding.culprit == f"path_{way}"
    assert finding.confidence is Confidence.PROVISIONAL
    assert finding.figures == {"mtu_low": SMALL, "mtu_high": 1_500}
    assert (finding.explains, finding.began_ns) == ({2}, SECOND)


@pytest.mark.parametrize("way", WAYS)
def test_it_shows_while_the_probe_is_still_under_way(way):
    evidence = window(well(1), well(2 * SECOND))
    under_way = hanging(SECOND, way)
    under_way.reason = Reason.OK
    evidence.sizes.look(under_way)
    vanish(evidence, way)
    assert names(evidence) == [("mtu_blackhole", way)]
    evidence.probed(hanging(SECOND, way), None)  # the same, when it has ended
    (finding,) = found(sizes, evidence)
    assert (finding.confidence, finding.explains) == (Confidence.PROVISIONAL, {3})


@pytest.mark.parametrize("way", WAYS)
def test_a_second_one_proves_it(way):
    evidence = window(hanging(1, way), hanging(SECOND, way), well(2 * SECOND))
    assert found(sizes, evidence)[0].confidence is Confidence.PROVEN


@pytest.mark.parametrize("way", WAYS)
def test_without_a_good_probe_beside_it_the_size_may_have_nothing_to_do_with_it(way):
    assert names(window(well(1), hanging(SECOND, way))) == []


@pytest.mark.parametrize(
    "result",
    [
        # Some of the request was acknowledged, in order or not: something else is lost as well.
        sized(1, Reason.REPLY_TIMEOUT, HANGS._replace(sacked=3)),
        # Not even the tail was: nothing passes.
        sized(1, Reason.REPLY_TIMEOUT, HANGS._replace(sacked=0)),
        # It was sent again once: a second is too short, or the path too long.
        sized(1, Reason.REPLY_TIMEOUT, HANGS._replace(retransmits=1)),
        # The server has the request, and says nothing: it is its program that hangs.
        sized(1, Reason.REPLY_TIMEOUT, STANDING),
        # Most of the reply came, but not its first segment.
        sized(1, Reason.REPLY_TIMEOUT, STANDING, OURS._replace(rcv_ooopack=8)),
        # Our own send buffer has the rest.
        sized(1, Reason.REPLY_TIMEOUT, STANDING._replace(notsent_bytes=9), CAME),
        sized(1, Reason.REPLY_TIMEOUT, NO_STANDING, OURS),
        sized(1, Reason.REPLY_TIMEOUT),
        ended(Reason.REPLY_TIMEOUT, 1, standing=HANGS, ended=OURS, address=ADDRESS),
    ],
)
def test_what_hangs_for_another_reason_is_no_black_hole(result):
    assert stuck_in(result) == ""
    assert names(window(well(0), result, well(SECOND))) == []


@pytest.mark.parametrize("way", WAYS)
def test_a_sized_exchange_that_passes_ends_it(way):
    evidence = window(hanging(1, way), well(SECOND))
    evidence.probed(sized(2 * SECOND), None)
    assert names(evidence) == []
    assert evidence.sizes.candidates() == []


@given(st.integers(SMALL, 1_499), st.sampled_from(WAYS))
def test_two_rounds_find_the_mtu_to_the_byte(mtu, way):
    evidence = window(hanging(1, way), well(SECOND))
    for _ in range(2):
        for size in evidence.sizes.candidates():
            passed = size <= mtu
            other = True if way == "reverse" or passed else None
            tried = {way: passed, **({} if way == "forward" else {"forward": other})}
            evidence.sizes.tried(Tried(size, tried.get("forward"), tried.get("reverse")))
    (finding,) = found(sizes, evidence)
    assert finding.figures == {"mtu": mtu}
    assert finding.confidence is Confidence.PROVEN
    assert f"packets of {mtu} bytes pass, and none of {mtu + 1} bytes does" in finding.proof
    assert evidence.sizes.candidates() == []


@pytest.mark.parametrize("way", WAYS)
def test_a_full_packet_that_passes_alone_shows_that_it_was_not_its_size(way):
    """As where a rate is limited: many packets in a row are dropped, and one is not."""
    evidence = window(hanging(1, way), well(SECOND))
    while candidates := evidence.sizes.candidates():
        for size in candidates:
            evidence.sizes.tried(Tried(size, passed_forward=True, passed_reverse=True))
            assert evidence.sizes.gate(way).mtu is None
    assert names(evidence) == []


def test_a_size_that_was_lost_by_chance_is_put_right_by_one_that_passes():
    gate = Gate()
    gate.hang(1, 1_500, SMALL)
    gate.tried(900, passed=False)
    gate.tried(1_000, passed=True)
    assert (gate.passed, gate.dropped) == (1_000, None)
    gate.hang(2, 1_500, SMALL)
    assert (gate.passed, gate.dropped) == (1_000, 1_500)


def test_nothing_is_tried_while_nothing_hangs():
    found_out = Sizes()
    found_out.tried(Tried(900, passed_forward=False, passed_reverse=None))
    assert found_out.candidates() == []


def test_what_headers_take():
    assert headers_of("4", 7) == 52
    assert headers_of("4", 6) == 40
    assert headers_of("6", 7) == 72


def narrowed(at_ns: int, pmtu: int) -> ProbeResult:
    return sized(at_ns, standing=STANDING._replace(pmtu=pmtu))


def test_a_path_mtu_that_fell_is_worth_knowing():
    evidence = window(narrowed(1, 1_500), narrowed(2, 1_300), narrowed(3, 1_231))
    (finding,) = found(sizes, evidence)
    assert (finding.kind.name, finding.direction) == ("mtu_reduced", "forward")
    assert finding.kind.is_info
    assert finding.figures == {"mtu": 1_231, "before": 1_500}
    evidence.probed(narrowed(4, 1_500), None)
    assert names(evidence) == []


def test_the_servers_segments_tell_of_the_way_back():
    less = OURS._replace(snd_mss=1_248)
    evidence = window(sized(1), sized(2, server_ended=less))
    (finding,) = found(sizes, evidence)
    assert (finding.kind.name, finding.direction) == ("mtu_reduced", "reverse")
    assert finding.figures == {"mtu": 1_300, "before": 1_500}
    # The server's kernel remembers it: the next connection begins with it.
    evidence.probed(sized(3, server_greeted=less, server_ended=less), None)
    assert names(evidence) == [("mtu_reduced", "reverse")]
    evidence.probed(sized(4), None)
    assert names(evidence) == []


def test_a_path_that_was_always_narrow_did_not_become_so():
    less = OURS._replace(snd_mss=1_348)
    narrow = [
        sized(at, standing=STANDING._replace(pmtu=1_400), server_greeted=less, server_ended=less)
        for at in range(3)
    ]
    assert names(window(*narrow)) == []


STANDINGS = st.builds(
    Standing, **{name: st.none() | st.integers(0, 20) for name in Standing._fields}
)


@given(
    st.lists(
        st.tuples(
            STANDINGS,
            st.sampled_from([Reason.OK, Reason.REPLY_TIMEOUT, Reason.RESET]),
            st.sampled_from([OURS, CAME, OURS._replace(snd_mss=None, options=None)]),
            st.integers(0, 70_000),
        ),
        max_size=20,
    )
)
def test_no_evidence_makes_it_raise(seen):
    evidence = Window()
    for at, (standing, reason, counted, size) in enumerate(seen):
        evidence.probed(sized(at, reason, standing, counted, connected=counted), None)
        evidence.sizes.look(sized(at, reason, standing, counted, connected=counted))
        evidence.sizes.tried(Tried(size, passed_forward=bool(at % 2), passed_reverse=None))
        evidence.probed(well(at), None)
        found(sizes, evidence)
        assert all(SMALL < size <= 70_000 for size in evidence.sizes.candidates())
