import pytest
from hypothesis import given
from hypothesis import strategies as st

from twocans_client.evidence.split import PARTS, Refusal, Split, Stamps, split

gaps = st.integers(0, 10**10)
STAMPS = Stamps._fields[:9]


@st.composite
def samples(draw):
    """Nine stamps as two hosts take them whose clocks differ by anything, and what was felt."""
    offset = draw(st.integers(-(10**17), 10**17))
    moments = [draw(st.integers(10**18, 2 * 10**18))]
    for _ in range(8):
        moments.append(moments[-1] + draw(gaps))
    theirs = [ns + offset for ns in moments[3:7]]
    stalled_ns = draw(st.none() | st.integers(0, theirs[2] - theirs[1]))
    stamps = Stamps._make([*moments[:3], *theirs, *moments[7:], stalled_ns])
    return stamps, stamps.t4u - stamps.t1u + draw(st.integers(-1_000_000, 1_000_000))


def measured(parts: Split) -> dict[str, int]:
    return dict(parts.parts())


def whole_ns(parts: Split) -> int:
    """The sum of all parts; the queue's share is in the send path."""
    return sum(ns for part, ns in parts.parts() if part != "client_qdisc")


@given(samples())
def test_the_parts_add_up_to_what_the_application_felt_exactly(sample):
    stamps, duration_ns = sample
    parts = split(stamps, duration_ns)
    assert isinstance(parts, Split)
    assert whole_ns(parts) == stamps.t4u - stamps.t1u
    assert parts.client_ns + parts.network_ns + parts.server_ns == stamps.t4u - stamps.t1u
    assert parts.server_ns == stamps.t3k - stamps.t2k
    assert parts.forward_ns + parts.reverse_ns == parts.network_ns
    assert min(measured(parts).values()) >= 0
    assert parts.client_qdisc_ns is not None
    assert parts.client_qdisc_ns <= parts.client_send_ns


numbers = st.none() | st.integers(0, 2**64 - 2)


@given(st.tuples(*[st.integers(0, 2**63)] * 2), st.tuples(*[numbers] * 8), st.integers(0, 2**63))
def test_of_any_stamps_either_the_identity_holds_or_the_sample_is_refused(own, others, duration):
    stamps = Stamps._make([own[0], *others[:7], own[1], others[7]])
    parts = split(stamps, duration)
    if isinstance(parts, Refusal):
        return
    assert whole_ns(parts) == stamps.t4u - stamps.t1u
    assert min(measured(parts).values()) >= 0
    assert abs(whole_ns(parts) - duration) <= 1_000_000


@given(samples(), st.tuples(*[numbers] * 5))
def test_a_liar_cannot_make_a_part_negative_or_larger_than_the_whole(sample, lies):
    stamps, duration_ns = sample
    t2k, t2u, t3u, t3k, stalled_ns = lies
    lied = stamps._replace(t2k=t2k, t2u=t2u, t3u=t3u, t3k=t3k, stalled_ns=stalled_ns)
    parts = split(lied, duration_ns)
    if isinstance(parts, Split):
        felt_ns = stamps.t4u - stamps.t1u
        assert whole_ns(parts) == felt_ns
        assert all(0 <= ns <= felt_ns for ns in measured(parts).values())


@pytest.mark.parametrize("name", ["t1k", "t2k", "t2u", "t3u", "t3k", "t4k"])
@given(samples())
def test_without_one_of_the_stamps_there_is_no_split(name, sample):
    stamps, duration_ns = sample
    assert split(stamps._replace(**{name: None}), duration_ns) is Refusal.UNSTAMPED


@given(samples())
def test_what_was_not_measured_is_no_part_and_the_rest_stands(sample):
    stamps, duration_ns = sample
    bare = split(stamps._replace(t1s=None, stalled_ns=None), duration_ns)
    assert isinstance(bare, Split)
    assert set(measured(bare)) == set(PARTS) - {"client_qdisc", "server_stall"}
    full = split(stamps, duration_ns)
    assert isinstance(full, Split)
    assert (bare.network_ns, bare.server_ns) == (full.network_ns, full.server_ns)


@given(samples(), st.integers(1, 10**12))
def test_stamps_that_contradict_each_other_are_refused(sample, by):
    stamps, duration_ns = sample
    for wrong in (
        stamps._replace(t1s=stamps.t1u - by),  # queued before we sent
        stamps._replace(t1k=stamps.t1s - by),  # left before it was queued
        stamps._replace(t4k=stamps.t4u + by),  # read before it came
        stamps._replace(t4k=stamps.t1k - by),  # answered before it left
        stamps._replace(t2u=stamps.t2k - by),  # the server reads before it receives
        stamps._replace(t3u=stamps.t2u - by),  # answers before it has read
        stamps._replace(t3k=stamps.t3u - by),  # and the reply leaves before it is sent
        stamps._replace(t3k=stamps.t2k + (stamps.t4k - stamps.t1k) + by),  # longer than all
    ):
        assert split(wrong, duration_ns) is Refusal.CONTRADICTION


@given(samples(), st.integers(2_000_001, 10**15))
def test_a_clock_step_is_refused(sample, by):
    stamps, duration_ns = sample
    assert split(stamps._replace(t4u=stamps.t4u + by), duration_ns) is Refusal.CLOCK
    reverse = split(stamps._replace(t4u=stamps.t4u - by), duration_ns)
    assert reverse in (Refusal.CLOCK, Refusal.CONTRADICTION)


def test_a_split_by_hand():
    stamps = Stamps(1_000, 1_004, 1_010, 5_000, 5_003, 5_008, 5_010, 1_080, 1_091, stalled_ns=2)
    assert split(stamps, 91) == Split(
        client_send_ns=10,
        client_qdisc_ns=6,
        network_ns=60,
        server_wakeup_ns=3,
        server_stall_ns=2,
        server_app_ns=3,
        server_send_ns=2,
        client_wakeup_ns=11,
        forward_ns=3_990,
        reverse_ns=-3_930,
    )


def test_parts_are_named_as_their_fields():
    assert tuple(f"{part}_ns" for part in PARTS) == Split._fields[: len(PARTS)]
