import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.makers import missing
from twocans_client.evidence.loss import (
    Cut,
    Fates,
    Hosts,
    Ledger,
    Segments,
    Sizes,
    of_fresh,
)
from twocans_core.kernel.tcpinfo import NO_COUNTERS, Counters

# What real kernels counted while iptables dropped packets; README.md there says how.
RECORDED = json.loads((Path(__file__).parent / "lost_segments" / "recorded.json").read_text())


class End:
    """One end of a pretended connection, counting as its kernel would."""

    def __init__(self) -> None:
        self.counters = NO_COUNTERS._replace(options=7, **dict.fromkeys(COUNTED, 0))

    def count(self, **more: int) -> None:
        now = self.counters._asdict()
        self.counters = self.counters._replace(**{key: now[key] + more[key] for key in more})


COUNTED = (
    "total_retrans",
    "segs_out",
    "segs_in",
    "data_segs_out",
    "data_segs_in",
    "reord_seen",
    "dsack_dups",
)


class Pretended:
    """A connection whose every segment has a known fate.

    Attributes:
        lost: Data segments, forward and reverse; less those that the path duplicated.
        acks_lost: Segments without data, there and back.
    """

    def __init__(self, *, syns_lost: int = 0, synacks_lost: int = 0, spare: int = 0) -> None:
        self.client, self.server = End(), End()
        self.lost = [0, 0]
        self.acks_lost = [0, 0]
        resent = synacks_lost + spare
        # A SYN-ACK too many is answered as well.
        self.client.count(
            total_retrans=syns_lost, segs_out=2 + syns_lost + spare, segs_in=1 + spare
        )
        self.server.count(total_retrans=resent, segs_in=2 + spare)
        self.connected = self.client.counters
        self.cut = self.ask()
        self.greeted = self.cut.server

    @property
    def ends(self) -> tuple[End, End]:
        return self.client, self.server

    def data(
        self, direction: int, *, arrives: bool, again: bool = False, needed: bool = True
    ) -> None:
        """Send one data segment there (0) or back (1), perhaps again, perhaps without need."""
        sender, receiver = self.ends[direction], self.ends[1 - direction]
        sender.count(segs_out=1, data_segs_out=1, total_retrans=int(again))
        if arrives:
            receiver.count(segs_in=1, data_segs_in=1)
            sender.count(dsack_dups=int(not needed))  # the receiver tells
        self.lost[direction] += not arrives

    def deliver(self, direction: int, fates: tuple[str, ...]) -> None:
        """Send one data segment as often as it is lost, and once more; it may come twice."""
        for number in range(fates.count("lost") + 1):
            self.data(direction, arrives=number == fates.count("lost"), again=number > 0)
        for _ in range(fates.count("twice")):
            self.ends[1 - direction].count(segs_in=1, data_segs_in=1)
            self.ends[direction].count(dsack_dups=1)
            self.lost[direction] -= 1

    def repeat(self, direction: int, *, arrives: bool = True) -> None:
        """Send one data segment again without need."""
        self.data(direction, arrives=arrives, again=True, needed=False)

    def ack(self, direction: int, *, lost: bool = False) -> None:
        self.ends[direction].count(segs_out=1)
        if lost:
            self.acks_lost[direction] += 1
        else:
            self.ends[1 - direction].count(segs_in=1)

    def ask(
        self,
        *,
        forward: tuple[str, ...] = (),
        early: tuple[bool, ...] = (),
        reverse: tuple[str, ...] = (),
        late: tuple[bool, ...] = (),
    ) -> Cut:
        """One exchange.

        Args:
            there: Whether the request is ``lost`` or comes ``twice``, once for each time.
            early: Requests sent again without need before the server counts: do they arrive?
            back: As ``there``, of the reply.
            late: As ``early``, after the server has counted.
        """
        sent = self.client.counters
        self.deliver(0, forward)
        for arrives in early:
            self.repeat(0, arrives=arrives)
        server = self.server.counters
        self.deliver(1, reverse)
        for arrives in late:
            self.repeat(0, arrives=arrives)
        return Cut(sent, server, self.client.counters)

    def bye(self, **fates: tuple[Any, ...]) -> Cut:
        """The last exchange, read to the end of the stream."""
        cut = self.ask(**fates)
        self.client.count(segs_in=1)  # FIN
        return cut._replace(read=self.client.counters)

    def account(self, bye: Cut, *more: Any) -> Segments:
        segments = of_fresh(self.connected, self.greeted, bye, *more)
        assert segments is not None
        return segments


def net(fates: Fates) -> int:
    return fates.lost - fates.duplicated


FATES = st.lists(st.sampled_from(["lost", "twice"]), max_size=2).map(tuple)
COPIES = st.lists(st.booleans(), max_size=2).map(tuple)
EXCHANGES = st.lists(
    st.fixed_dictionaries({"forward": FATES, "early": COPIES, "reverse": FATES, "late": COPIES}),
    max_size=6,
)


@pytest.mark.parametrize("case", RECORDED, ids=[case["name"] for case in RECORDED])
def test_what_iptables_dropped_is_what_is_counted(case):
    counters = {name: Counters(**values) for name, values in case["counters"].items()}
    bye = Cut(counters["sent"], counters["server"], counters["read"])
    segments = of_fresh(counters["connected"], counters["greeted"], bye)
    assert segments is not None
    assert missing(segments) == {f"{case['kind']} {case['direction']}": case["dropped"]}


def test_a_healthy_connection_has_nothing_to_account_for():
    connection = Pretended()
    connection.ask()
    forward, reverse = connection.account(connection.bye())
    assert forward == Fates(sent=3, syns=1, acks=1)  # the ACK that ends the handshake
    assert reverse == Fates(sent=2, syns=1)


@given(EXCHANGES, FATES, COPIES, COPIES)
def test_a_fresh_connection_is_accounted_for_exactly(exchanges, forward, early, late):
    connection = Pretended()
    for fates in exchanges:
        connection.ask(**fates)
    bye = connection.bye(forward=forward, early=early, late=late)
    segments = connection.account(bye)
    assert [net(direction) for direction in segments] == connection.lost
    sent = [end.counters.data_segs_out for end in connection.ends]
    assert [fates.sent for fates in segments] == [sent[0], bye.server.data_segs_out]


@given(EXCHANGES)
def test_a_held_connection_is_accounted_for_exactly(exchanges):
    connection, ledger = Pretended(), Ledger()
    assert ledger.feed(connection.ask()) is None
    assert ledger.feed(connection.ask()) is None
    settled = list(connection.lost)
    # Two quiet exchanges later all is known, whatever was in between.
    cuts = [connection.ask(**fates) for fates in exchanges]
    accounts = [ledger.feed(cut) for cut in (*cuts, connection.ask(), connection.ask())]
    assert accounts[-1] is not None
    forward, reverse = Fates(), Fates()
    for account in accounts:
        if account is not None:
            forward, reverse = forward + account.forward, reverse + account.reverse
    assert [net(forward), net(reverse)] == [
        a - b for a, b in zip(connection.lost, settled, strict=True)
    ]
    # All but the newest reply, of which nothing is known yet.
    assert (forward.resent, reverse.resent) == tuple(
        end.counters.total_retrans for end in connection.ends
    )


def test_what_was_not_needed_is_spurious():
    connection = Pretended()
    connection.ask(early=(True,))
    forward, reverse = connection.account(connection.bye(forward=("lost",)))
    assert (forward.lost, forward.resent, forward.spurious, forward.dsacks) == (1, 2, 1, 1)
    assert (reverse.resent, reverse.spurious) == (0, 0)


def test_a_goodbye_sent_again_after_the_server_counted_is_not_lost():
    connection = Pretended()
    forward, _ = connection.account(connection.bye(late=(True,)))
    assert (forward.lost, forward.duplicated, forward.spurious) == (0, 0, 1)


def test_reports_of_more_than_the_goodbye_do_not_settle_it():
    connection = Pretended()
    connection.ask(forward=("lost", "lost"))
    connection.client.count(dsack_dups=3)  # the path brought reports more than once
    forward, _ = connection.account(connection.bye(late=(True,)))
    assert forward.lost == 2


def test_a_reply_that_comes_again_after_our_goodbye_is_not_lost():
    connection = Pretended()
    connection.ask()
    sent = connection.client.counters
    connection.repeat(1)  # its acknowledgement was in the GOODBYE, which was lost
    _, reverse = connection.account(connection.bye()._replace(sent=sent))
    assert (reverse.lost, reverse.resent, reverse.spurious) == (0, 1, 1)


def test_what_the_server_says_unasked_while_we_say_goodbye_is_not_lost():
    connection = Pretended()
    sent = connection.client.counters
    connection.data(1, arrives=True)
    _, reverse = connection.account(connection.bye()._replace(sent=sent))
    assert (reverse.lost, reverse.duplicated) == (0, 0)


@pytest.mark.parametrize("copies", [1, 3])
def test_a_follow_up_that_comes_again_is_in_no_account(copies):
    connection = Pretended()
    forward, reverse = connection.account(connection.bye(reverse=("twice",) * copies))
    assert (forward.duplicated, reverse.lost, reverse.duplicated) == (0, 0, 0)


def test_a_follow_up_that_comes_again_hides_no_reply_that_came_twice():
    connection = Pretended()
    connection.ask(reverse=("twice",))
    _, reverse = connection.account(connection.bye(reverse=("twice",)))
    assert (reverse.duplicated, reverse.dsacks) == (1, 1)


# --- what is neither lost nor sent again in vain ---------------------------------------------


def damage(connection: Pretended, direction: int) -> None:
    """Send one segment that the receiver counts in and throws away, and then another."""
    connection.data(direction, arrives=True)
    connection.data(direction, arrives=True, again=True)


SIZES = Sizes(200, 200)


@pytest.mark.parametrize("direction", [0, 1])
@pytest.mark.parametrize(("errors", "damaged"), [(None, None), (0, 0), (1, 1), (9, 2)])
def test_what_was_sent_again_and_not_received_twice_may_have_been_damaged(
    direction, errors, damaged
):
    connection = Pretended()
    damage(connection, direction)
    damage(connection, direction)
    connection.repeat(direction)
    hosts = Hosts(errors_forward=errors) if direction == 0 else Hosts(errors_reverse=errors)
    segments = connection.account(connection.bye(), SIZES, hosts)
    # Without a host's word nothing more is said of the two: a report of them may be lost.
    assert (
        segments[direction].damaged,
        segments[direction].spurious,
        segments[direction].lost,
    ) == (damaged, 1, 0)


def test_without_reports_of_segments_received_twice_the_hosts_count_tells_damage():
    connection = Pretended()
    damage(connection, 0)
    connection.repeat(0)
    bye = without(connection.bye(), options=5)
    forward, _ = connection.account(bye, SIZES, Hosts(errors_forward=1))
    assert (forward.damaged, forward.spurious, forward.dsacks) == (1, 1, None)


@pytest.mark.parametrize("lacks", ["sent", "server"])
def test_nobody_reports_anything_twice_where_one_end_knows_no_sack(lacks):
    connection = Pretended()
    bye = connection.bye()
    bye = bye._replace(**{lacks: getattr(bye, lacks)._replace(options=5)})
    forward, reverse = connection.account(bye)
    assert (forward.dsacks, reverse.dsacks) == (None, None)


@pytest.mark.parametrize("direction", [0, 1])
@pytest.mark.parametrize("is_held", [True, False])
def test_what_the_senders_own_host_dropped_never_left(direction, is_held):
    connection, ledger = Pretended(), Ledger()
    for end in connection.ends:
        end.counters = end.counters._replace(snd_mss=1448)
    for _ in range(2):
        ledger.feed(connection.ask())
    before = [end.counters.data_segs_out or 0 for end in connection.ends]
    connection.data(direction, arrives=False)  # and then once more, which is no second time
    connection.deliver(direction, ("lost",))
    if is_held:
        ledger.feed(connection.ask())
        segments = ledger.feed(connection.ask())
        assert segments is not None
        assert segments[direction].sent == 2 + 2
    else:
        segments = connection.account(connection.bye(), SIZES)
        assert segments[direction].sent == before[direction] + 2 + 1 - direction
    assert (segments[direction].unsent, segments[direction].lost, segments[direction].resent) == (
        1,
        1,
        1,
    )
    assert segments[1 - direction].unsent == 0


@pytest.mark.parametrize("mss", [None, 199])
def test_messages_of_several_segments_may_have_been_joined_by_a_proxy(mss):
    connection = Pretended()
    connection.data(0, arrives=False)
    bye = connection.bye()
    forward, _ = connection.account(bye._replace(sent=bye.sent._replace(snd_mss=mss)), SIZES)
    assert (forward.unsent, forward.lost, forward.resent) == (0, 1, 0)


@pytest.mark.parametrize(
    ("overflows", "syns", "acks", "lost", "overflowed"),
    [(0, 2, 1, 1, 0), (1, 1, 1, 1, 1), (3, 0, 0, 1, 3), (4, 0, 0, 0, 4), (9, 0, 0, 0, 4)],
)
def test_what_a_full_accept_queue_may_have_dropped_is_not_lost(
    overflows, syns, acks, lost, overflowed
):
    connection = Pretended(syns_lost=2)
    connection.ack(0, lost=True)
    connection.deliver(0, ("lost",))
    forward, reverse = connection.account(connection.bye(), SIZES, Hosts(overflows))
    assert (forward.syns, forward.syns_lost, forward.acks_lost, forward.lost) == (
        3,
        syns,
        acks,
        lost,
    )
    assert (forward.overflowed, reverse.overflowed) == (overflowed, 0)
    assert (forward.resent, forward.spurious, forward.unsent) == (1, 0, 0)


def test_a_box_that_answers_for_the_server_takes_our_acknowledgement():
    connection = Pretended()
    connection.ack(0, lost=True)  # kept by the box
    connection.client.count(segs_in=1)  # its own
    forward, reverse = connection.account(connection.bye())
    assert (forward.acks_lost, reverse.acks_lost) == (0, 0)


@pytest.mark.parametrize(("rtt_us", "lost"), [(300, 0), (1_000_000, 1), (None, 1)])
def test_a_syn_ack_that_we_did_not_wait_for_was_somebody_elses(rtt_us, lost):
    connection = Pretended(synacks_lost=1)
    connection.connected = connection.connected._replace(rtt_us=rtt_us)
    _, reverse = connection.account(connection.bye())
    assert (reverse.syns_lost, reverse.acks_lost) == (lost, 0)


def test_loss_and_duplication_cancel_each_other():
    connection = Pretended()
    connection.ask(forward=("lost", "twice"))
    forward, _ = connection.account(connection.bye())
    assert (forward.lost, forward.duplicated) == (0, 0)


@pytest.mark.parametrize(
    ("handshake", "forward", "reverse"),
    [
        ({"syns_lost": 2}, (3, 2), (1, 0)),
        ({"synacks_lost": 1}, (1, 0), (2, 1)),
        # One was lost; the server's timer and our second SYN then brought two.
        ({"syns_lost": 1, "synacks_lost": 1, "spare": 1}, (2, 0), (3, 1)),
        # Nothing was: the round trip is longer than the timer.
        ({"syns_lost": 1, "spare": 1}, (2, 0), (2, 0)),
    ],
)
def test_a_handshake_tells_which_of_its_segments_were_lost(handshake, forward, reverse):
    connection = Pretended(**handshake)
    segments = connection.account(connection.bye())
    assert (segments.forward.syns, segments.forward.syns_lost) == forward
    assert (segments.reverse.syns, segments.reverse.syns_lost) == reverse
    assert [fates.lost + fates.acks_lost + fates.resent for fates in segments] == [0, 0]


@pytest.mark.parametrize("direction", [0, 1])
def test_segments_without_data_are_accounted_for_in_fresh_connections(direction):
    connection = Pretended()
    for lost in (True, False, True):
        connection.ack(direction, lost=lost)
    segments = connection.account(connection.bye())
    assert segments[direction].acks_lost == 2
    assert segments[1 - direction].acks_lost == 0
    assert segments[direction].lost == 0


def test_an_acknowledgement_of_the_goodbye_itself_is_not_lost():
    connection = Pretended()
    sent = connection.client.counters
    connection.ack(1)
    _, reverse = connection.account(connection.bye()._replace(sent=sent))
    assert reverse.acks_lost == 0


def test_a_fin_that_came_with_the_follow_up_is_no_loss():
    connection = Pretended()
    bye = connection.bye()
    connection.client.count(segs_in=-1)
    _, reverse = connection.account(bye._replace(read=connection.client.counters))
    assert reverse.acks_lost == 0


@pytest.mark.parametrize("direction", [0, 1])
def test_segments_without_data_are_accounted_for_in_held_connections(direction):
    connection, ledger = Pretended(), Ledger()
    for _ in range(2):
        ledger.feed(connection.ask())
    connection.ack(direction, lost=True)
    connection.ack(direction)
    account = ledger.feed(connection.ask())
    assert account is not None
    assert [each.acks_lost for each in account] == [1 - direction, direction]
    account = ledger.feed(connection.ask())
    assert account is not None
    assert [each.acks_lost for each in account] == [0, 0]


def test_an_acknowledgement_that_crosses_a_cut_is_forgiven():
    connection, ledger = Pretended(), Ledger()
    for _ in range(2):
        ledger.feed(connection.ask())
    cut = connection.ask()
    # Sent after the server had counted, and here before we did.
    crossed = cut.read._replace(segs_in=(cut.read.segs_in or 0) + 1)
    account = ledger.feed(cut._replace(read=crossed))
    connection.ack(1)
    after = ledger.feed(connection.ask())
    assert account is not None
    assert after is not None
    assert (account.reverse.acks_lost, after.reverse.acks_lost) == (0, 0)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_an_account_waits_until_nobody_has_sent_anything_again(direction):
    connection, ledger = Pretended(), Ledger()
    for _ in range(2):
        ledger.feed(connection.ask())
    fates: dict[str, Any] = {direction: ("lost",)}
    lossy = ledger.feed(connection.ask(**fates))
    if direction == "reverse":
        # Only the next cut says that the server has sent its reply again.
        assert lossy is not None
        assert lossy.reverse.lost == 0
        lossy = ledger.feed(connection.ask())
    assert lossy is None
    account = ledger.feed(connection.ask())
    assert account is not None
    assert getattr(account, direction).lost == 1
    assert getattr(account, direction).spurious == 0


def test_a_ledger_leaves_what_happened_before_it_alone():
    connection, ledger = Pretended(), Ledger()
    connection.ask(forward=("lost",))
    for _ in range(2):
        assert ledger.feed(connection.ask()) is None
    assert ledger.feed(connection.ask()) == Segments(Fates(sent=1), Fates(sent=1))


def _came_late(connection: Pretended, direction: int, count: int) -> None:
    receiver = connection.ends[1 - direction]
    receiver.counters = receiver.counters._replace(rcv_ooopack=count)


@pytest.mark.parametrize("direction", [0, 1])
@pytest.mark.parametrize("again", [False, True])
def test_segments_that_came_out_of_order_with_none_missing_were_overtaken(direction, again):
    connection = Pretended()
    connection.data(direction, arrives=True)
    if again:  # the copy was quicker than what had been overtaken, which then came twice
        connection.repeat(direction)
    _came_late(connection, direction, 3)
    assert connection.account(connection.bye())[direction].reordered == 3


@pytest.mark.parametrize("direction", [0, 1])
@pytest.mark.parametrize("was_lost", [False, True])
def test_behind_a_gap_that_a_lost_or_damaged_segment_left_nothing_was_overtaken(
    direction, was_lost
):
    connection = Pretended()
    connection.data(direction, arrives=not was_lost)
    connection.data(direction, arrives=True, again=True)
    _came_late(connection, direction, 3)
    assert connection.account(connection.bye())[direction].reordered == 0


def test_a_fin_behind_a_follow_up_that_was_lost_overtook_nothing():
    connection = Pretended()
    bye = connection.bye()
    late = bye.read._replace(rcv_ooopack=1)
    sent = bye.sent._replace(rcv_ooopack=0)
    _, reverse = connection.account(bye._replace(sent=sent, read=late))
    assert reverse.reordered == 0


def test_reordering_is_what_the_sender_noticed_since():
    connection, ledger = Pretended(), Ledger()
    connection.client.count(reord_seen=5)
    for _ in range(2):
        ledger.feed(connection.ask())
    connection.client.count(reord_seen=2)
    connection.server.count(reord_seen=1)
    account = ledger.feed(connection.ask())
    assert account is not None
    assert (account.forward.reordered, account.reverse.reordered) == (2, 1)
    forward, reverse = connection.account(connection.bye())
    assert (forward.reordered, reverse.reordered) == (7, 1)


NEEDED = ("total_retrans", "segs_out", "segs_in", "data_segs_out", "data_segs_in")


@pytest.mark.parametrize("name", NEEDED)
@pytest.mark.parametrize("whose", ["sent", "server", "read"])
def test_what_a_kernel_did_not_count_is_not_accounted_for(whose, name):
    connection, ledger = Pretended(), Ledger()
    cuts = [connection.ask() for _ in range(3)]
    bye = connection.bye()
    bye = bye._replace(**{whose: getattr(bye, whose)._replace(**{name: None})})
    assert of_fresh(connection.connected, connection.greeted, bye) is None
    for cut in cuts:
        ledger.feed(cut)
    assert ledger.feed(bye) is None


def test_a_handshake_that_was_not_counted_is_not_accounted_for():
    connection = Pretended()
    bye = connection.bye()
    assert of_fresh(NO_COUNTERS, connection.greeted, bye) is None
    assert of_fresh(connection.connected, NO_COUNTERS, bye) is None


def without(cut: Cut, **values: int | None) -> Cut:
    return Cut(*(counters._replace(**values) for counters in cut))


@pytest.mark.parametrize("absent", [{"dsack_dups": None}, {"options": 5}, {"options": None}])
def test_without_dsacks_only_what_is_settled_without_them_is_said(absent):
    connection, ledger = Pretended(), Ledger()
    connection.ask(forward=("lost",))
    calm = without(connection.bye(), **absent)
    forward, reverse = connection.account(calm)
    assert (forward.lost, forward.dsacks, reverse.dsacks) == (1, None, None)
    resent = without(connection.bye(late=(True,)), **absent)
    assert of_fresh(connection.connected, connection.greeted, resent) is None
    for _ in range(2):
        ledger.feed(without(connection.ask(), **absent))
    account = ledger.feed(without(connection.ask(), **absent))
    assert account is not None
    assert account.forward.dsacks is None


def test_without_a_count_of_reordering_there_is_none():
    connection = Pretended()
    forward, reverse = connection.account(without(connection.bye(), reord_seen=None))
    assert (forward.reordered, reverse.reordered) == (None, None)


def test_ways_add_up_field_by_field():
    count = len(Fates())
    one, ten = range(1, count + 1), range(10, 10 * count + 1, 10)
    assert Fates(*one) + Fates(*ten) == Fates(*range(11, 11 * count + 1, 11))
    assert sum([Fates(lost=1), Fates(lost=2)], Fates()).lost == 3
    assert (Fates(reordered=None) + Fates(reordered=3)).reordered is None
    assert (Fates(dsacks=3) + Fates(dsacks=None)).dsacks is None
    assert (Fates(damaged=3) + Fates(damaged=None) + Fates(damaged=4)).damaged == 7
    assert (Fates() + Fates(damaged=1)).damaged == 1
    assert (Fates() + Fates()).damaged is None


def test_counters_that_fall_are_believed_by_nobody():
    connection, ledger = Pretended(), Ledger()
    for _ in range(3):
        cut = connection.ask()
        ledger.feed(cut)
    fallen = cut.server._replace(data_segs_out=0)
    assert ledger.feed(connection.ask()._replace(server=fallen)) is None
    greeted = connection.greeted._replace(total_retrans=4_000_000_000)
    assert of_fresh(connection.connected, greeted, connection.bye()) is None
