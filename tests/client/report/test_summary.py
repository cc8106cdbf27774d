from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.far_end import SECOND_NS, SERVER, ended
from client.makers import connection, exchange, good
from fakes import COUNTERS
from twocans_client.evidence.direction import Direction
from twocans_client.evidence.results import Reason
from twocans_client.evidence.split import PARTS, Refusal
from twocans_client.report.summary import Report
from twocans_core.kernel.tcpinfo import NO_COUNTERS, HostCounts


def report_of(*results):
    report = Report()
    for result in results:
        report.add(result)
    return report


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=300), st.sampled_from([0.5, 0.99, 1]))
def test_a_quantile_is_the_smallest_sample_with_that_share_at_or_below_it(values, q):
    report = report_of(*(ended(Reason.OK, connect_ns=value) for value in values))
    found = report.quantile("connect", "user", q)

    def share(limit):
        return sum(value <= limit for value in values) / len(values)

    assert found in values
    assert share(found) >= q
    assert all(share(value) < q for value in values if value < found)


def test_there_is_no_quantile_without_samples():
    assert Report().quantile("connect", "user", 0.5) is None


def test_only_the_newest_samples_are_kept():
    report = report_of(*(ended(Reason.OK, connect_ns=n) for n in range(10_100)))
    assert report.quantile("connect", "user", 0.0) == 100


def test_exit_codes_are_those_of_monitoring_plugins():
    ok, fail, void = (ended(reason) for reason in (Reason.OK, Reason.REFUSED, Reason.SELF_STALL))
    resent = ended(Reason.OK, retrans=1)
    assert report_of(ok, ok).exit_code == 0
    assert report_of(ok, void).exit_code == 0
    assert report_of(ok, fail).exit_code == 1
    assert report_of(resent).exit_code == 1
    assert report_of(fail, void).exit_code == 2
    assert report_of(void).exit_code == 3
    assert Report().exit_code == 3


@pytest.mark.parametrize(
    "what",
    ["lost_forward", "lost_reverse", "acks_lost", "in_vain", "damaged", "unsent", "syns_lost"],
)
def test_a_segment_that_was_lost_or_sent_again_is_degraded(what):
    assert report_of(good(exchange(), **connection())).exit_code == 0
    spoiled: dict[str, Any] = {what: 1}
    assert report_of(good(exchange(), **connection(**spoiled))).exit_code == 1


def test_retransmits_are_of_both_ends_and_unknown_where_ours_does_not_count():
    far = COUNTERS._replace(total_retrans=2)
    assert report_of(ended(Reason.OK, retrans=1, server_ended=far)).retransmits == 3
    assert report_of(ended(Reason.OK, retrans=0)).retransmits == 0
    assert report_of(ended(Reason.OK, retrans=1, server_ended=NO_COUNTERS)).retransmits == 1
    assert report_of(ended(Reason.OK, server_ended=far)).retransmits is None


# --- where the time went -------------------------------------------------------------------


def test_each_part_of_an_exchange_is_a_row_and_by_whose_clock():
    report = report_of(good(exchange(stall_ns=None)), good(exchange(stall_ns=4_000)))
    rows = report.rows()
    assert {rows[part, clock] for part, clock in rows if part in PARTS} == {1, 2}
    assert rows["server_stall", "user"] == 1, "one server did not measure it"
    assert rows["server_app", "user"] == rows["server_send", "both"] == 2
    assert report.quantile("client_qdisc", "kernel", 1) == 1_000
    assert report.quantile("network", "kernel", 1) == 60_000


def test_samples_of_two_clocks_are_never_one_row():
    report = report_of(good(exchange()), good(exchange(stamped=False)))
    assert report.rows()["network", "kernel"] == report.rows()["network", "user"] == 1
    assert report.quantile("network", "kernel", 1) == 60_000
    assert report.quantile("network", "user", 1) == 100_000, "wake-ups and send paths are in it"
    assert report.splits == {"split": 1, Refusal.UNSTAMPED: 1}


def test_time_in_which_a_segment_was_sent_again_is_recovery():
    rows = report_of(good(exchange(resent=True))).rows()
    assert ("network", "kernel") not in rows
    assert rows["recovery", "kernel"] == 1


@given(
    st.lists(
        st.builds(
            exchange,
            send_ns=st.integers(0, 10**9),
            forward_ns=st.integers(0, 10**9),
            stall_ns=st.none() | st.integers(0, 10**9),
            app_ns=st.integers(0, 10**9),
            client_wakeup_ns=st.integers(0, 10**9),
            resent=st.booleans(),
        ),
        max_size=5,
    )
)
def test_what_everybody_has_spent_adds_up_to_the_exchanges(exchanges):
    report = report_of(good(*exchanges))
    assert report.spent_on["kernel"] == len(exchanges)
    spent_ns = sum(ns for (clock, _), ns in report.spent_ns.items() if clock == "kernel")
    assert spent_ns == sum(each.duration_ns for each in exchanges)


def test_by_our_own_clock_the_server_has_its_programs_time_only():
    report = report_of(good(exchange(stamped=False, stall_ns=0, app_ns=5_000)))
    assert report.spent_ns == {("user", "network"): 100_000, ("user", "server"): 5_000}


def test_stamps_that_contradict_each_other_are_no_measurement_by_any_clock():
    report = report_of(good(exchange(client_wakeup_ns=-1)))
    assert report.splits == {Refusal.CONTRADICTION: 1}
    assert not report.spent_on


def test_our_own_share_of_connect_is_what_the_handshake_leaves():
    report = report_of(good(connect_ns=100_000, handshake_ns=40_000))
    assert report.quantile("client_connect", "user", 1) == 60_000
    assert ("client_connect", "user") not in report_of(good(handshake_ns=None)).rows()


def test_the_accept_delay_is_a_row_also_when_it_is_nothing():
    assert report_of(good(accept_ns=0)).quantile("accept", "both", 1) == 0
    assert ("accept", "both") not in report_of(good(accept_ns=None)).rows()


def test_what_our_own_stall_has_spoiled_is_counted_and_left_out():
    spoiled: dict[str, Any] = {"tainted": "starved", "greet_ns": 1, "close_ns": 1, "accept_ns": 1}
    report = report_of(
        good(exchange(), **spoiled),
        good(exchange(stamped=False), **spoiled),
        good(),
        ended(Reason.REFUSED, tainted="starved"),
        ended(Reason.SELF_STALL, tainted="stopped"),
    )
    assert report.tainted == {"starved": 2}, "those that are ok"
    programs = {"server_app", "server_stall"}  # the server's, which did not stand still
    user = {what: n for (what, clock), n in report.rows().items() if clock == "user"}
    assert user == {"connect": 1, "client_connect": 1, **dict.fromkeys(programs, 1)}
    assert report.rows()["network", "kernel"] == report.rows()["accept", "both"] // 2 == 1
    assert report.spent_on == {"kernel": 1}


# --- in which direction delays grew --------------------------------------------------------------


def after(quiet, *slow, **fields):
    """Return a report of quiet exchanges, one a second, and slow ones after them."""
    exchanges = [exchange(**fields) for _ in range(quiet)]
    exchanges += [exchange(**fields, **each) for each in slow]
    return report_of(*(good(each, at_ns=n * SECOND_NS) for n, each in enumerate(exchanges)))


def test_a_delay_that_grew_has_a_direction():
    slow = [{"forward_ns": 5_000_000}, {"forward_ns": 6_000_000}, {"reverse_ns": 5_000_000}]
    slow += [{"forward_ns": 5_000_000, "reverse_ns": 5_000_000}]
    report = after(20, *slow, offset_ns=-123_456_789)
    assert report.directions == {
        Direction.NONE: 16,
        Direction.FORWARD: 2,
        Direction.REVERSE: 1,
        Direction.BOTH: 1,
    }
    assert report.unjudged == 4
    offset = report.offset
    assert abs(offset.ns + 123_456_789) <= offset.bound_ns < 10_000_000


def test_too_few_exchanges_are_not_judged():
    report = after(2, {"forward_ns": 5_000_000})
    assert (report.directions, report.unjudged) == ({}, 3)


def test_an_exchange_in_which_a_segment_was_sent_again_says_nothing_of_delays():
    report = after(20, {"forward_ns": 200_000_000, "resent": True})
    assert report.directions == {Direction.NONE: 16}


def test_every_server_has_a_clock_of_its_own():
    other = SERVER._replace(instance=b"o" * 16)
    report = Report()
    for n in range(20):
        report.add(good(exchange(), at_ns=n * SECOND_NS))
        report.add(good(exchange(offset_ns=10**15), at_ns=n * SECOND_NS, server=other))
    assert report.directions == {Direction.NONE: 32}
    assert report.offset is None, "of two there is no one offset"


def test_a_step_of_our_own_clock_is_no_growth():
    report = after(20)
    report.add(ended(Reason.CLOCK_STEP, 20 * SECOND_NS))
    report.add(good(exchange(offset_ns=-30_000), at_ns=21 * SECOND_NS))
    assert report.unjudged == 4
    assert report.directions == {Direction.NONE: 17}


# --- what was lost -------------------------------------------------------------------------


def test_segments_are_added_up_over_connections():
    report = report_of(
        good(**connection(lost_forward=1)),
        good(**connection(lost_reverse=2, syns_lost=1)),
        good(**connection(in_vain=3, acks_lost=1)),
        good(bye=None),
    )
    forward, reverse = report.segments
    assert report.accounts == 3
    assert (forward.sent, forward.lost, forward.spurious, forward.acks_lost) == (3 * 3 + 4, 1, 3, 1)
    assert (reverse.sent, reverse.lost) == (3 * 2 + 2, 2)
    assert (forward.syns, forward.syns_lost, reverse.syns, reverse.syns_lost) == (4, 1, 3, 0)


def test_without_both_ends_counts_nothing_is_said_of_loss():
    uncounted = dict.fromkeys(("connected", "server_greeted"), NO_COUNTERS)
    assert report_of(good(), good(**(connection() | uncounted))).segments is None


def test_loss_is_not_claimed_of_a_server_behind_a_proxy():
    proxied = good(**connection(lost_forward=1, proxied=True))
    # Connections of which nothing looks like a proxy take a sign back; not what was counted.
    plain = [good(**connection()) for _ in range(110)]
    report = report_of(proxied, *plain)
    assert (report.segments, report.proxies) == (None, ["options"])
    other = SERVER._replace(instance=b"o" * 16)
    report.add(good(**connection(lost_reverse=1), server=other))
    assert report.segments.reverse.lost == 1
    assert report.segments.forward.lost == 0


def unheard(retrans: int | None = 1):
    return ended(Reason.CONNECT_TIMEOUT, dialled=True, retrans=retrans)


def test_probes_without_an_account_are_counted_by_reason_and_their_syns():
    own = ended(Reason.SELF_STALL, dialled=True)
    report = report_of(
        *(good(**connection()), unheard(2), unheard(None), own),
        ended(Reason.REPLY_TIMEOUT, dialled=True, retrans=9),
        ended(Reason.DNS_FAILURE),
    )
    assert report.unaccounted == {"connect_timeout": 2, "reply_timeout": 1}
    assert report.unanswered == 3 + 1
    assert report.accounts == 1


def test_a_full_accept_queue_is_told_by_the_server_that_has_it():
    full = good(**(connection(syns_lost=2) | {"host_greeted": HostCounts(5, 0)}))
    full.started_ns = SECOND_NS
    other = good(**connection(syns_lost=1), server=SERVER._replace(instance=b"o" * 16))
    forward, _ = report_of(good(**connection()), full, other).segments
    assert (forward.syns_lost, forward.overflowed) == (1, 2)


def test_our_own_clock_says_nothing_of_a_probe_in_whose_time_it_was_stepped():
    stepped = good(exchange(stamped=False), connect_ns=9, handshake_ns=1)
    stepped.reason = Reason.CLOCK_STEP
    report = report_of(stepped)
    assert {what for (what, clock) in report.rows() if clock == "user"} == set()
    assert not report.spent_on


def test_counts_that_break_twice_are_a_proxys():
    broken = connection(lost_forward=1)
    read = broken["bye"].read
    more = read._replace(data_segs_out=read.data_segs_out + 5)
    fields = broken | {"bye": broken["bye"]._replace(read=more)}
    probe = good(bytes_sent=100_000, **fields)
    once = report_of(probe)
    assert once.proxies == []
    assert once.segments is None, "and once they say nothing of loss either"
    assert report_of(probe, probe).proxies == ["segments"]


@pytest.mark.parametrize("seen_as", [("192.0.2.1", 40_000), ("192.0.2.9", 1_024)])
@pytest.mark.parametrize("forward_ns", [10_000, 10_000_000])
def test_handshakes_that_are_nearer_than_the_exchanges_are_a_proxys(seen_as, forward_ns):
    local = ("192.0.2.1", 40_000)
    probe = good(exchange(forward_ns=forward_ns), local=local, seen_as=seen_as, **connection())
    is_nearer = seen_as != local and forward_ns > 1_000_000
    assert report_of(*[probe] * 10).proxies == (["nearer"] if is_nearer else [])


def test_of_a_server_that_is_always_another_the_oldest_are_forgotten():
    instances = [n.to_bytes(16, "big") for n in range(1_010)]
    servers = [SERVER._replace(instance=instance) for instance in instances]
    report = report_of(*(good(server=server, **connection()) for server in servers))
    assert report.accounts == 1_000
