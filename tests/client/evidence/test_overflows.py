import pytest

from client.far_end import SECOND_NS, SERVER, ended
from twocans_client.evidence.overflows import Overflows
from twocans_client.evidence.results import ProbeResult, Reason
from twocans_core.kernel.tcpinfo import HostCounts


def greeted(count: int | None, at_s: float, lasted_s: float = 0.1, **fields) -> ProbeResult:
    result = ended(Reason.OK, int(at_s * SECOND_NS), server=SERVER, **fields)
    result.ended_ns = result.started_ns + int(lasted_s * SECOND_NS)
    result.host_greeted = HostCounts(count, None)
    return result


def told(*results: ProbeResult) -> list[int]:
    overflows = Overflows()
    return [overflows.since(result) for result in results]


def test_what_grew_since_the_welcome_before_may_be_ones_own():
    assert told(greeted(7, 0), greeted(7, 1), greeted(9, 2), greeted(9, 3)) == [7, 0, 2, 0]


def test_a_host_that_never_overflowed_dropped_nothing_from_the_first():
    assert told(greeted(0, 0)) == [0]


def test_a_welcome_that_overlaps_ours_may_know_of_our_own():
    quick = greeted(8, 1.0, 0.1)
    slow = greeted(8, 0.5, 2.0)
    assert told(greeted(7, 0), quick, slow) == [7, 1, 1]


def test_another_process_counts_for_itself():
    other = SERVER._replace(instance=b"o" * 16)
    results = [greeted(7, 0), greeted(100, 1), greeted(7, 2)]
    results[1].server = other
    assert told(*results) == [7, 100, 0]


def test_counts_go_round():
    assert told(greeted(2**32 - 1, 0), greeted(1, 1)) == [2**32 - 1, 2]


@pytest.mark.parametrize("lacks", ["count", "host", "server"])
def test_where_nothing_is_told_nothing_overflowed(lacks):
    result = greeted(None if lacks == "count" else 7, 0)
    if lacks == "host":
        result.host_greeted = None
    if lacks == "server":
        result.server = None
    assert told(result) == [0]
