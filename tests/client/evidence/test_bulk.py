import pytest

from client.far_end import ended
from client.makers import connection, exchange, good
from twocans_client.evidence.bulk import load_of
from twocans_client.evidence.results import Exchange, Reason
from twocans_client.evidence.split import Stamps
from twocans_core.kernel.tcpinfo import Limited

MS = 1_000_000
SIZE = 65_536


def at(start_ns: int, forward_ns: int, reverse_ns: int, offset_ns: int = 0) -> Exchange:
    """An exchange whose last segments came so long after its first byte was sent."""
    t2k = start_ns + forward_ns + offset_ns
    t3u = t2k + MS
    t4k = t3u - offset_ns + reverse_ns
    return Exchange.of(
        1, t4k - start_ns, Stamps(start_ns, start_ns, start_ns, t2k, t2k, t3u, t3u, t4k, t4k)
    )


def a_load(large: list[Exchange], **fields):
    small = [at(0, MS, 2 * MS, 5_000 * MS)] * 3
    slower = [at(0, 11 * MS, 2 * MS, 5_000 * MS)] * 3
    bulk = good(*large, payload_bytes=SIZE, **fields)
    return load_of(good(*small), good(*slower), bulk)


def test_a_burst_is_as_fast_as_the_rest_of_it_came_whatever_the_clocks_say():
    load = a_load([at(n * 100 * MS, 41 * MS, 22 * MS, 5_000 * MS) for n in range(8)])
    assert load.forward.burst_bits_per_s == pytest.approx(SIZE * 8 / 0.040)
    assert load.reverse.burst_bits_per_s == pytest.approx(SIZE * 8 / 0.020)
    assert load.exchanges == 8


def test_what_is_carried_for_long_is_not_more_than_was_sent():
    load = a_load([at(n * 100 * MS, 2 * MS, 3 * MS, 5_000 * MS) for n in range(8)])
    assert load.sustained_bits_per_s == pytest.approx(8 * SIZE * 8 / (0.7 + 0.006))


def test_small_messages_tell_in_which_direction_a_load_is_felt():
    load = a_load([at(0, 41 * MS, 22 * MS)])
    assert (load.forward.grew_ns, load.reverse.grew_ns) == (10 * MS, 0)


def test_before_and_under_load_are_times_of_the_network():
    quiet, loud = exchange(forward_ns=MS), exchange(forward_ns=5 * MS)
    load = load_of(good(quiet), good(loud), good(exchange(), payload_bytes=SIZE))
    assert (load.idle_ns, load.loaded_ns) == (1_030_000, 5_030_000)


def test_who_limits_is_told_in_shares_of_the_time_in_which_there_was_something_to_send():
    load = a_load([at(0, 41 * MS, 22 * MS)], limited=Limited(2_000_000, 500_000, 0))
    assert (load.busy_s, load.receiver_share, load.buffer_share) == (2.0, 0.25, 0.0)


def test_of_a_load_that_failed_at_once_nothing_is_known_but_how_it_ended():
    bulk = ended(Reason.REPLY_TIMEOUT, payload_bytes=SIZE, detail="late")
    load = load_of(ended(Reason.RESET), ended(Reason.RESET), bulk)
    assert load.problem == "reply_timeout late"
    assert (load.sustained_bits_per_s, load.busy_s, load.idle_ns, load.segments) == (None,) * 4
    assert load.forward == load.reverse == (None, None)


def test_through_a_proxy_nothing_is_claimed_of_segments():
    bulk = good(at(0, MS, MS), payload_bytes=SIZE, **connection())
    one = good(at(0, MS, MS))
    assert load_of(one, one, bulk).segments is not None
    assert load_of(one, one, bulk, is_proxied=True).segments is None
