from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.far_end import ended
from twocans_client.evidence.loss import Cut
from twocans_client.evidence.results import Reason
from twocans_client.paths.purse import Cost, Purse, cost_of, exchange_bytes, probe_bytes
from twocans_core.kernel.tcpinfo import NO_COUNTERS
from twocans_core.net.sockets import Address

HOUR_NS = 3_600_000_000_000
BUDGET = 9_000_000
NOW_NS = 10**15


def drained(purse: Purse, kind: Cost, cost: int, now_ns: int = NOW_NS) -> int:
    """How many bytes it gives at once."""
    spent = 0
    while purse.takes(kind, cost, now_ns):
        spent += cost
    return spent


def test_a_tenth_may_be_spent_at_once_and_the_rest_flows_in_evenly():
    purse = Purse(BUDGET)
    assert drained(purse, Cost.PROBE, 1_000) == BUDGET // 10
    assert drained(purse, Cost.PROBE, 1_000, NOW_NS + HOUR_NS // 100) == BUDGET * 9 // 1_000
    assert drained(purse, Cost.PROBE, 1_000, NOW_NS + 9 * HOUR_NS) == BUDGET // 10


needs = st.tuples(st.sampled_from(Cost), st.integers(1, BUDGET // 5), st.integers(0, HOUR_NS // 20))


@given(st.lists(needs, max_size=200))
def test_in_no_hour_more_is_spent_than_the_budget(wants):
    purse, now_ns = Purse(BUDGET), NOW_NS
    spent = []
    for kind, cost, later_ns in wants:
        now_ns += later_ns
        if purse.takes(kind, cost, now_ns):
            spent.append((now_ns, cost))
    for begin_ns, _ in spent:
        within = [cost for at_ns, cost in spent if begin_ns <= at_ns < begin_ns + HOUR_NS]
        assert sum(within) <= BUDGET + len(within)  # a price is rounded down to a nanosecond


@pytest.mark.parametrize("extra", [Cost.SIZED, Cost.IDLE, Cost.WITNESS])
def test_extras_are_left_out_first(extra):
    left_out: Counter[Cost] = Counter()
    purse = Purse(BUDGET, lambda kind: left_out.update([kind]))
    assert drained(purse, extra, 1_000) == BUDGET // 20
    assert left_out == {extra: 1}
    assert purse.takes(Cost.PROBE, 1_000, NOW_NS)
    assert purse.takes(Cost.HELD, 1_000, NOW_NS)
    assert not purse.takes(extra, 1_000, NOW_NS)


def test_a_load_that_takes_all_leaves_nothing_to_extras_and_a_light_one_leaves_them_the_rest():
    for load, has_extras in ((1.0, False), (0.5, True)):
        purse, extras = Purse(BUDGET), 0
        each = int(BUDGET * 0.9 / 3_600 * load)
        for second in range(7_200):
            now_ns = NOW_NS + second * 1_000_000_000
            # What there was at the beginning is spent first.
            assert purse.takes(Cost.PROBE, each, now_ns)
            extras += purse.takes(Cost.SIZED, each, now_ns) and second > 3_600
        assert bool(extras) is has_extras


def test_what_was_taken_too_much_is_given_back_and_a_debt_has_to_be_waited_for():
    purse = Purse(BUDGET)
    drained(purse, Cost.PROBE, 1_000)
    purse.spend(-1_000, NOW_NS)
    assert drained(purse, Cost.PROBE, 1_000) == 1_000
    purse.spend(BUDGET * 9 // 10, NOW_NS)
    assert not purse.takes(Cost.PROBE, 1_000, NOW_NS + HOUR_NS)
    assert purse.takes(Cost.PROBE, 1_000, NOW_NS + HOUR_NS + HOUR_NS // 1_000)


def test_no_more_than_all_can_be_given_back():
    purse = Purse(BUDGET)
    purse.spend(-BUDGET, NOW_NS)
    assert drained(purse, Cost.PROBE, 1_000) == BUDGET // 10


# --- what things cost ----------------------------------------------------------------------

V4, V6 = Address("192.0.2.1", 5000), Address("2001:db8::1", 5000)
SEGMENTS = NO_COUNTERS._replace(segs_out=7, segs_in=6, snd_mss=1_448)


def test_an_estimate_counts_the_messages_both_ways_and_headers():
    message = 64 + 20 + 88
    assert exchange_bytes(64, "4") == 2 * message + 3 * 52
    assert exchange_bytes(64) == 2 * message + 3 * 72
    assert exchange_bytes(4_096) == 2 * (4_096 + 108) + 9 * 72
    assert probe_bytes(3, 64) - probe_bytes(1, 64) == 2 * exchange_bytes(64)


def test_what_was_never_dialled_costs_nothing():
    assert cost_of(ended(Reason.DNS_FAILURE)) == 0


@pytest.mark.parametrize(
    ("address", "fields", "cost"),
    [
        (V4, {"reason": Reason.CONNECT_TIMEOUT, "retrans": 2}, 3 * 52),
        (V6, {"reason": Reason.REFUSED}, 2 * 72),
        (V4, {"connected": SEGMENTS, "ended": SEGMENTS}, 700 + 15 * 52),
        (
            V6,
            {"connected": SEGMENTS, "bye": Cut(SEGMENTS, SEGMENTS, SEGMENTS._replace(segs_in=9))},
            700 + 18 * 72,
        ),
        (
            V4,
            {"connected": SEGMENTS, "ended": SEGMENTS, "payload_bytes": 11_676, "retrans": 4},
            700 + 15 * 52 + 4 * 1_448,
        ),
        (V4, {"connected": NO_COUNTERS}, 700 + 10 * 52),
    ],
)
def test_a_probe_costs_its_bytes_a_header_a_segment_and_what_was_sent_again(address, fields, cost):
    fields = {"reason": Reason.OK, "bytes_sent": 400, "bytes_received": 300, **fields}
    if fields["reason"] is not Reason.OK:
        fields |= {"bytes_sent": 0, "bytes_received": 0}
    assert cost_of(ended(address=address, dialled=True, **fields)) == cost
