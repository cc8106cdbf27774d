import pytest

from twocans_client.evidence.loss import Fates, Segments
from twocans_client.evidence.proxy import Proxy
from twocans_core.kernel.tcpinfo import NO_COUNTERS, Counters

ROUND = 10
MEMORY = 100


def end(rtt_us: int | None = 1000, retrans: int | None = 0, options: int | None = 7) -> Counters:
    return NO_COUNTERS._replace(rtt_us=rtt_us, total_retrans=retrans, options=options)


def connect(
    proxy: Proxy,
    times: int = 1,
    ours: Counters | None = None,
    theirs: Counters | None = None,
    *,
    moved: bool = True,
    network_us: float | None = 1000,
) -> str:
    for _ in range(times):
        network_ns = None if network_us is None else int(network_us * 1000)
        proxy.connection(ours or end(), theirs or end(), moved=moved, network_ns=network_ns)
    return proxy.sign


@pytest.mark.parametrize("theirs", [6, 5, 3, 0])
def test_options_that_only_we_agreed_on_are_of_another_connection(theirs):
    assert connect(Proxy(), theirs=end(options=theirs), moved=False) == "options"


@pytest.mark.parametrize("ours", [6, 5, 3, 0])
def test_options_that_only_the_server_agreed_on_were_taken_out_on_the_way(ours):
    proxy = Proxy()
    assert connect(proxy, 2 * ROUND, end(options=ours), end(options=7)) == ""
    assert proxy.boxes == {"options_rewritten"}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(7, 7), (7, 7 | 8), (7 | 32, 7), (7, None), (None, 7), (None, None)],
    ids=str,
)
def test_options_that_one_end_may_have_alone_are_no_sign(ours, theirs):
    # ECN, and data in the SYN.
    proxy = Proxy()
    assert connect(proxy, ROUND, end(options=ours), end(options=theirs)) == ""
    assert proxy.boxes == frozenset()


@pytest.mark.parametrize(("heard", "is_box"), [(1, False), (2, True), (None, False)])
def test_who_hears_more_than_a_syn_ack_before_its_hello_hears_a_box(heard, is_box):
    proxy = Proxy()
    ours = end()._replace(segs_in=heard)
    connect(proxy, ROUND - 1, ours)
    assert proxy.boxes == frozenset()
    assert connect(proxy, 1, ours) == ""
    assert proxy.boxes == ({"handshake_answered"} if is_box else frozenset())


def test_a_syn_ack_that_came_twice_now_and_then_is_no_box():
    proxy = Proxy()
    connect(proxy, ROUND, end()._replace(segs_in=3), end(retrans=2))
    connect(proxy, ROUND // 2, end()._replace(segs_in=2))
    connect(proxy, ROUND // 2, end()._replace(segs_in=1))
    assert proxy.boxes == frozenset()


# Client's handshake, server's handshake, exchange; microseconds.
APART = [
    (16, 10_000, 10_400),  # a sidecar
    (20, 110, 220),  # and a near server
    (10_000, 16, 10_400),
    (5_000, 5_000, 10_100),  # half-way
    (30_000, 12_000, 42_100),
    (16, 10_000, None),  # no stamps
    (300, 300, 651),
    (100, 401, None),
    (1000, 2300, None),
]
TOGETHER = [
    (1000, 1000, 1000),
    (40, 18, 30),
    (250, 60, 90),
    (10_000, 19_000, 10_000),
    (10_000, 10_000, 14_000),
    (10_000, 10_000, 2_000),
    (10_000, 10_000, None),
    (None, 10_000, 10_000),
    (10_000, None, 10_000),
    (16, 100, 110),  # too near to tell
    (50, 110, 250),
    (300, 300, 650),
    (100, 400, None),
    (20_000, 100, 150),  # slow with the first packet
    (20_000, 100, None),
    (100, 20_000, 100),
]


@pytest.mark.parametrize(("ours", "theirs", "network"), APART)
def test_a_round_trip_that_is_not_the_exchanges_is_of_another_connection(ours, theirs, network):
    proxy = Proxy()
    assert connect(proxy, ROUND - 1, end(ours), end(theirs), network_us=network) == ""
    assert connect(proxy, 1, end(ours), end(theirs), network_us=network) == "nearer"


@pytest.mark.parametrize(("ours", "theirs", "network"), APART)
def test_a_server_that_sees_our_own_address_is_at_the_other_end(ours, theirs, network):
    proxy = Proxy()
    connect(proxy, 1, end(ours), end(theirs), network_us=network, moved=False)
    assert connect(proxy, ROUND - 1, end(ours), end(theirs), network_us=network) == ""


@pytest.mark.parametrize(("ours", "theirs", "network"), TOGETHER)
def test_one_connections_round_trips_agree(ours, theirs, network):
    assert connect(Proxy(), 2 * ROUND, end(ours), end(theirs), network_us=network) == ""


def test_only_the_smallest_round_trips_of_a_round_count():
    proxy = Proxy()
    connect(proxy, ROUND - 1, end(90_000), end(1000), network_us=50_000)
    assert connect(proxy, 1, end(1000), end(90_000), network_us=1000) == ""


@pytest.mark.parametrize("retrans", [1, None])
def test_a_handshake_that_was_not_smooth_measures_no_round_trip(retrans):
    spoilt = end(1, retrans=retrans)
    proxy = Proxy()
    connect(proxy, ROUND // 2, spoilt, end(10_000), network_us=10_000)
    connect(proxy, ROUND // 2, end(10_000), spoilt, network_us=10_000)
    assert proxy.sign == ""


LOST_MORE = Segments(Fates(sent=14, lost=13, resent=12), Fates())
ARRIVED_MORE = Segments(Fates(), Fates(sent=1, duplicated=1, dsacks=0))
# The server sent one again that its receiver had: that was the proxy, and we had one less.
LOST_AND_TWICE = Segments(Fates(), Fates(sent=6, lost=1, resent=1, dsacks=1))
BROKEN = [LOST_MORE, ARRIVED_MORE, LOST_AND_TWICE]


@pytest.mark.parametrize("broken", BROKEN)
def test_segments_that_no_one_connection_can_have_counted_are_a_sign(broken):
    proxy = Proxy()
    proxy.segments(broken)
    assert proxy.sign == ""
    proxy.segments(broken)
    assert proxy.sign == "segments"


@pytest.mark.parametrize(
    "direction",
    [
        Fates(sent=5, lost=2, resent=2),
        Fates(sent=5, lost=2, resent=3, spurious=1),
        Fates(sent=5, lost=2, resent=3, spurious=1, dsacks=1),
        Fates(sent=5, lost=2, resent=3, dsacks=None),
        Fates(sent=5, duplicated=2, dsacks=1),
        Fates(sent=5, duplicated=2, dsacks=3),
        Fates(sent=5, duplicated=2, dsacks=None),
        Fates(sent=5, unsent=3, lost=1, resent=1),
        Fates(sent=5, damaged=3, resent=3),
        Fates(acks_lost=3, syns=4, syns_lost=3),
        Fates(unanswered=3),
    ],
)
def test_what_a_bad_path_does_is_no_sign(direction):
    proxy = Proxy()
    for _ in range(ROUND):
        proxy.segments(Segments(direction, Fates()))
        proxy.segments(Segments(Fates(), direction))
    assert proxy.sign == ""


@pytest.mark.parametrize(("between", "sign"), [(MEMORY - 1, "segments"), (MEMORY, "")])
def test_two_strikes_far_from_each_other_are_no_sign(between, sign):
    proxy = Proxy()
    proxy.segments(LOST_MORE)
    connect(proxy, between)
    proxy.segments(LOST_MORE)
    assert proxy.sign == sign


@pytest.mark.parametrize("sign", ["options", "segments", "nearer"])
def test_a_sign_stands_until_a_hundred_connections_went_by_without_it(sign):
    proxy = Proxy()
    if sign == "options":
        connect(proxy, theirs=end(options=0))
    elif sign == "segments":
        proxy.segments(LOST_MORE)
        proxy.segments(LOST_MORE)
    else:
        connect(proxy, ROUND, end(16), end(10_000), network_us=10_016)
    connect(proxy, MEMORY - 1)
    assert proxy.sign == sign
    connect(proxy, 1)
    assert proxy.sign == ""


@pytest.mark.parametrize("box", ["options_rewritten", "handshake_answered"])
def test_so_does_a_box_that_is_no_proxy(box):
    proxy = Proxy()
    if box == "options_rewritten":
        connect(proxy, 1, end(options=0), end(options=7))
    else:
        connect(proxy, ROUND, end()._replace(segs_in=2))
    assert proxy.boxes == {box}
    connect(proxy, MEMORY - 1)
    assert proxy.boxes == {box}
    connect(proxy, 1)
    assert proxy.boxes == frozenset()


def test_a_path_that_contradicts_itself_now_and_then_does_not_flap():
    proxy = Proxy()
    signs = []
    for _ in range(20):
        connect(proxy, MEMORY // 2)
        proxy.segments(LOST_AND_TWICE)
        signs.append(proxy.sign)
    assert signs == [""] + ["segments"] * 19


def test_the_first_sign_is_the_one_that_stands():
    proxy = Proxy()
    connect(proxy, theirs=end(options=0))
    proxy.segments(LOST_MORE)
    proxy.segments(LOST_MORE)
    assert proxy.sign == "options"
