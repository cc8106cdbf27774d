from hypothesis import given
from hypothesis import strategies as st

from client.far_end import ended
from twocans_client.results import OUTCOMES, Exchange, Outcome, Reason, Split, Stamps

gaps = st.integers(0, 10**10)


@st.composite
def exchanges(draw):
    """Eight stamps as two hosts take them whose clocks differ by anything."""
    t1u = draw(st.integers(10**18, 2 * 10**18))
    offset = draw(st.integers(-(10**17), 10**17))
    moments = [t1u]
    for _ in range(7):
        moments.append(moments[-1] + draw(gaps))
    t1u, t1k, t2k, t2u, t3u, t3k, t4k, t4u = moments
    stamps = Stamps(t1u, t1k, t2k + offset, t2u + offset, t3u + offset, t3k + offset, t4k, t4u)
    skew_ns = draw(st.integers(-1_000_000, 1_000_000))
    return Exchange(1, t4u - t1u + skew_ns, stamps)


@given(exchanges())
def test_the_three_parts_add_up_to_what_the_application_felt_exactly(exchange):
    split = exchange.split
    assert split is not None
    assert sum(split) == exchange.stamps.t4u - exchange.stamps.t1u
    assert min(split) >= 0


@given(exchanges(), st.sampled_from(["t1k", "t2k", "t3k", "t4k"]))
def test_there_is_no_split_without_a_kernel_stamp(exchange, name):
    assert exchange._replace(stamps=exchange.stamps._replace(**{name: None})).split is None


@given(exchanges())
def test_user_stamps_of_the_server_are_not_needed(exchange):
    stamps = exchange.stamps._replace(t2u=None, t3u=None)
    assert exchange._replace(stamps=stamps).split == exchange.split


@given(exchanges(), st.integers(1, 10**12))
def test_there_is_no_split_where_stamps_contradict_each_other(exchange, by):
    stamps = exchange.stamps
    for wrong in (
        stamps._replace(t1k=stamps.t1u - by),  # sent before we sent
        stamps._replace(t4k=stamps.t4u + by),  # read before it came
        stamps._replace(t4k=stamps.t1k - by),  # answered before it left
        stamps._replace(t3k=stamps.t2k - by),  # the server answers before it is asked
        stamps._replace(t3k=stamps.t2k + (stamps.t4k - stamps.t1k) + by),  # longer than all
    ):
        assert exchange._replace(stamps=wrong).split is None


@given(exchanges(), st.integers(2_000_001, 10**15), st.booleans())
def test_there_is_no_split_across_a_clock_step(exchange, by, backward):
    moved = exchange.stamps._replace(t4u=exchange.stamps.t4u + (-by if backward else by))
    assert exchange._replace(stamps=moved).split is None


@given(exchanges(), st.tuples(*[st.none() | st.integers(0, 2**64 - 2)] * 4))
def test_a_liar_cannot_make_a_part_negative_or_larger_than_the_whole(exchange, lies):
    t2k, t2u, t3u, t3k = lies
    lied = exchange._replace(
        stamps=exchange.stamps._replace(t2k=t2k, t2u=t2u, t3u=t3u, t3k=t3k)
    ).split
    if lied is not None:
        whole_ns = exchange.stamps.t4u - exchange.stamps.t1u
        assert sum(lied) == whole_ns
        assert 0 <= min(lied) <= max(lied) <= whole_ns


def test_a_split_by_hand():
    stamps = Stamps(1_000, 1_010, 5_000, 5_003, 5_006, 5_009, 1_079, 1_090)
    assert Exchange(1, 90, stamps).split == Split(network_ns=60, server_ns=9, client_ns=21)


def test_every_reason_has_one_outcome():
    assert OUTCOMES.keys() == set(Reason)
    fails = {reason for reason, outcome in OUTCOMES.items() if outcome is Outcome.FAIL}
    assert {reason for reason, outcome in OUTCOMES.items() if outcome is Outcome.OK} == {Reason.OK}
    assert fails == {
        *(Reason.DNS_FAILURE, Reason.DNS_TIMEOUT, Reason.REFUSED, Reason.UNREACHABLE),
        *(Reason.CONNECT_TIMEOUT, Reason.GREETING_TIMEOUT, Reason.REPLY_TIMEOUT),
        *(Reason.CLOSE_TIMEOUT, Reason.RESET, Reason.CLOSED_EARLY, Reason.WRONG_BYTES),
        *(Reason.PROTOCOL_ERROR, Reason.BUSY),
    }


def test_the_response_is_measured_from_the_intended_start():
    result = ended(Reason.OK, 5_000)
    result.intended_ns = 2_000
    assert (result.total_ns, result.response_ns) == (1_000_000, 1_003_000)


def test_what_was_not_measured_is_no_phase_and_zero_is_one():
    assert list(ended(Reason.OK).phases()) == []
    assert list(ended(Reason.OK, connect_ns=0).phases()) == [("connect", "user", 0)]
