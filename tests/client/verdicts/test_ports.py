"""Whether it is the local port that decides which connections come to be, and where they end."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.far_end import LOCAL, SERVER, ended
from client.makers import good
from client.verdicts.path_evidence import MS, SECOND, found
from client.verdicts.test_hosts import WELL
from fakes import COUNTERS
from twocans_client.evidence import lots, testimony
from twocans_client.evidence.results import Reason
from twocans_client.evidence.rows import Waiting
from twocans_client.evidence.window import Window
from twocans_client.verdicts import ports
from twocans_client.verdicts.verdict import Confidence, Culprit

TIMEOUT_NS = 5 * SECOND


def fed(
    fates: list[tuple[int, bool]], *, waits: bool = False, resent: int = 0, synacks_resent: int = 0
) -> Window:
    """Ten connections a second, (port, failed) each; those that fail ended or ``waits``."""
    window, waiting = Window(), []
    for turn, (port, failed) in enumerate(fates):
        at_ns = (turn + 1) * SECOND // 10
        local = (LOCAL[0], port)
        if failed and waits:
            waiting.append(Waiting(at_ns, None, port, greeted=False))
        elif failed:
            result = ended(Reason.CONNECT_TIMEOUT, at_ns, local=local, retrans=4)
            result.ended_ns = at_ns + MS
            window.probed(result, None)
        else:
            connected = COUNTERS._replace(total_retrans=resent)
            greeted = COUNTERS._replace(total_retrans=synacks_resent)
            window.probed(
                good(at_ns=at_ns, local=local, connected=connected, server_greeted=greeted), None
            )
    window.forget(len(fates) * SECOND // 10 + 2 * SECOND)
    window.waiting = tuple(waiting)
    return window


def by_class(count: int, of: int, remainder: int, seed: int = 1) -> list[tuple[int, bool]]:
    random = Random(seed)
    drawn = [random.randrange(32_768, 60_999) for _ in range(count)]
    return [(port, port % of == remainder) for port in drawn]


def told(
    window: Window, again: int | None, *, half_open: int | None = None, at_ns: int = 6 * SECOND
) -> None:
    """Let the server say how many SYN-ACKs it sent again, and what is half open."""
    tcp = WELL.tcp._replace(syn_retrans=again)
    host = WELL._replace(since_ns=SECOND // 10, tcp=tcp, half_open=half_open)
    window.testified(
        testimony.Testimony(SERVER, None, at_ns, at_ns + MS, 0, 0, (), host),
    )


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize(("of", "count"), [(2, 30), (4, 60), (8, 80), (16, 150)])
def test_one_class_of_ports_that_fails_whole(of, count, waits):
    fates = by_class(count, of, 1)
    (finding,) = found(ports, fed(fates, waits=waits))
    assert (finding.kind.name, finding.culprit) == ("path_subset_loss", Culprit.PATH)
    assert finding.confidence is Confidence.PROVISIONAL
    assert f"1 modulo {of}" in finding.proof
    assert finding.figures["share"] == 1 / of
    assert finding.figures["failed"] == sum(failed for _, failed in fates)
    assert len(finding.explains) == (0 if waits else finding.figures["failed"])


@pytest.mark.parametrize(
    ("again", "direction", "culprit"),
    [(0, "forward", "path_forward"), (40, "reverse", "path_reverse"), (5, "", "path")],
)
def test_the_server_tells_the_direction(again, direction, culprit):
    window = fed(by_class(40, 2, 1))
    told(window, again)
    (finding,) = found(ports, window)
    assert (finding.direction, finding.culprit) == (direction, culprit)
    is_known = finding.confidence is Confidence.STATISTICAL
    assert is_known is bool(direction)


@pytest.mark.parametrize(
    ("half_open", "culprit"), [(0, "path_forward"), (18, "path_reverse"), (6, "path")]
)
def test_half_open_connections_tell_it_better(half_open, culprit):
    window = fed(by_class(40, 2, 1))
    told(window, 20 - half_open, half_open=half_open)
    assert found(ports, window)[0].culprit == culprit


def test_syn_acks_of_connections_that_came_to_be_are_not_of_those_that_did_not():
    window = fed(by_class(40, 2, 1), synacks_resent=1)
    told(window, 20)
    assert sum(probe.synacks_resent or 0 for probe in window.probes) in range(18, 22)
    assert found(ports, window)[0].culprit == "path_forward"


@pytest.mark.parametrize("at_ns", [0, SECOND])
def test_what_the_server_said_before_it_could_know_tells_nothing(at_ns):
    window = fed(by_class(40, 2, 1))
    told(window, 0, at_ns=at_ns)
    assert found(ports, window)[0].culprit is Culprit.PATH


def test_a_kernel_that_does_not_count_tells_nothing():
    window = fed(by_class(40, 2, 1))
    told(window, None)
    assert found(ports, window)[0].culprit is Culprit.PATH


def test_the_same_ports_that_fail_again_and_again_need_be_no_class():
    bad = [40_001, 40_102, 40_203, 40_309]
    fates = [(port, port in bad) for turn in range(8) for port in (*bad, *range(50_000, 50_006))]
    (finding,) = found(ports, fed(fates))
    assert "from 4 local ports" in finding.proof


@pytest.mark.parametrize("seed", range(10))
def test_connections_that_fail_by_chance_have_ports_of_all_kinds(seed):
    """As behind a balancer one of whose servers is dead: also when ports are tried again."""
    random = Random(seed)
    fates = [(port, random.random() < 0.3) for port, _ in by_class(100, 2, 0, seed)]
    again = [(port, random.random() < 0.3) for port, failed in fates if failed]
    assert found(ports, fed(fates)) == []
    assert found(ports, fed(fates + again)) == []


def test_few_failures_of_one_class_may_be_chance():
    fates = [(50_000 + turn, turn % 16 == 1) for turn in range(34)]
    assert sum(failed for _, failed in fates) == 3
    assert found(ports, fed(fates)) == []


def test_an_outage_of_all_is_not_by_port():
    fates = [(50_000 + turn, 40 <= turn < 60) for turn in range(100)]
    assert found(ports, fed(fates)) == []
    # Even if we happened to use one class in it.
    fates = [(50_000 + 2 * turn + (40 <= turn < 60), 40 <= turn < 60) for turn in range(100)]
    assert found(ports, fed(fates)) == []


def test_a_port_of_the_class_that_got_through_disproves_it():
    fates = by_class(60, 2, 1)
    fates[30] = (50_001, False)
    assert found(ports, fed(fates)) == []


def test_a_healthy_path_has_nothing_to_ask():
    window = fed([(port, False) for port, _ in by_class(60, 2, 1)])
    assert found(ports, window) == []
    assert list(lots.ports_to_try(window, 0)) == []


def test_ports_are_tried_again_and_so_are_neighbours_of_good_ones():
    fates = [(50_000, False), (50_001, True), (50_002, False)]
    assert list(lots.ports_to_try(fed(fates), 0)) == [50_001, 50_000 ^ 32, 50_002 ^ 32]
    # One that is still in use cannot be had; its neighbour can, and is of the same class.
    assert next(lots.ports_to_try(fed(fates, waits=True), 0)) == 50_001 ^ 32
    assert list(lots.ports_to_try(fed([(50_001, True)]), 0)) == []
    assert all(port % 16 == 50_001 % 16 for port in lots.ports_like(50_001))
    assert lots.ports_like(None) == ()


def test_connections_that_came_once_it_was_over_need_no_other_explanation():
    window = fed(by_class(40, 2, 1))
    late = good(
        at_ns=38 * SECOND // 10,
        local=(LOCAL[0], 50_001),
        connected=COUNTERS._replace(total_retrans=2),
        server_greeted=COUNTERS,
        retrans=2,
    )
    window.probed(late, None)
    (finding,) = found(ports, window)
    assert 41 in finding.explains


@given(
    st.lists(st.tuples(st.integers(0, 65_535), st.booleans()), max_size=60),
    st.booleans(),
    st.integers(0, 3),
)
def test_no_evidence_makes_it_raise(fates, waits, resent):
    window = fed(fates, waits=waits, resent=resent)
    found(ports, window)
    list(lots.ports_to_try(window, 0))
