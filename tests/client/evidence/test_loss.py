import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.makers import missing
from twocans_client.evidence.loss import (
    Cut,
    Hosts,
    Ledger,
    Segments,
    Sizes,
    Way,
    in_words,
    of_fresh,
    wilson,
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
    *("total_retrans", "segs_out", "segs_in", "data_segs_out", "data_segs_in"),
    *("reord_seen", "dsack_dups"),
)


class Pretended:
    """A connection whose every segment has a known fate.

    Attributes:
        lost: Data segments, there and back; less those that the path duplicated.
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

    def data(self, way: int, *, arrives: bool, again: bool = False, needed: bool = True) -> None:
        """Send one data segment there (0) or back (1), perhaps again, perhaps without need."""
        sender, receiver = self.ends[way], self.ends[1 - way]
        sender.count(segs_out=1, data_segs_out=1, total_retrans=int(again))
        if arrives:
            receiver.count(segs_in=1, data_segs_in=1)
            sender.count(dsack_dups=int(not needed))  # the receiver tells
        self.lost[way] += not arrives

    def deliver(self, way: int, fates: tuple[str, ...]) -> None:
        """Send one data segment as often as it is lost, and once more; it may come twice."""
        for number in range(fates.count("lost") + 1):
            self.data(way, arrives=number == fates.count("lost"), again=number > 0)
        for _ in range(fates.count("twice")):
            self.ends[1 - way].count(segs_in=1, data_segs_in=1)
            self.ends[way].count(dsack_dups=1)
            self.lost[way] -= 1

    def repeat(self, way: int, *, arrives: bool = True) -> None:
        """Send one data segment again without need."""
        self.data(way, arrives=arrives, again=True, needed=False)

    def ack(self, way: int, *, lost: bool = False) -> None:
        self.ends[way].count(segs_out=1)
        if lost:
            self.acks_lost[way] += 1
        else:
            self.ends[1 - way].count(segs_in=1)

    def ask(
        self,
        *,
        there: tuple[str, ...] = (),
        early: tuple[bool, ...] = (),
        back: tuple[str, ...] = (),
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
        self.deliver(0, there)
        for arrives in early:
            self.repeat(0, arrives=arrives)
        server = self.server.counters
        self.deliver(1, back)
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


def net(way: Way) -> int:
    return way.lost - way.duplicated


FATES = st.lists(st.sampled_from(["lost", "twice"]), max_size=2).map(tuple)
COPIES = st.lists(st.booleans(), max_size=2).map(tuple)
EXCHANGES = st.lists(
    st.fixed_dictionaries({"there": FATES, "early": COPIES, "back": FATES, "late": COPIES}),
    max_size=6,
)


@pytest.mark.parametrize("case", RECORDED, ids=[case["name"] for case in RECORDED])
def test_what_iptables_dropped_is_what_is_counted(case):
    counters = {name: Counters(**values) for name, values in case["counters"].items()}
    bye = Cut(counters["sent"], counters["server"], counters["read"])
    segments = of_fresh(counters["connected"], counters["greeted"], bye)
    assert segments is not None
    assert missing(segments) == {f"{case['kind']} {case['way']}": case["dropped"]}


def test_a_healthy_connection_has_nothing_to_account_for():
    connection = Pretended()
    connection.ask()
    there, back = connection.account(connection.bye())
    assert there == Way(sent=3, syns=1)
    assert back == Way(sent=2, syns=1)


@given(EXCHANGES, FATES, COPIES, COPIES)
def test_a_fresh_connection_is_accounted_for_exactly(exchanges, there, early, late):
    connection = Pretended()
    for fates in exchanges:
        connection.ask(**fates)
    bye = connection.bye(there=there, early=early, late=late)
    segments = connection.account(bye)
    assert [net(way) for way in segments] == connection.lost
    sent = [end.counters.data_segs_out for end in connection.ends]
    assert [way.sent for way in segments] == [sent[0], bye.server.data_segs_out]


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
    there, back = Way(), Way()
    for account in accounts:
        if account is not None:
            there, back = there + account.there, back + account.back
    assert [net(there), net(back)] == [a - b for a, b in zip(connection.lost, settled, strict=True)]
    # All but the newest reply, of which nothing is known yet.
    assert (there.resent, back.resent) == tuple(
        end.counters.total_retrans for end in connection.ends
    )


def test_what_was_not_needed_is_spurious():
    connection = Pretended()
    connection.ask(early=(True,))
    there, back = connection.account(connection.bye(there=("lost",)))
    assert (there.lost, there.resent, there.spurious, there.dsacks) == (1, 2, 1, 1)
    assert (back.resent, back.spurious) == (0, 0)


def test_a_goodbye_sent_again_after_the_server_counted_is_not_lost():
    connection = Pretended()
    there, _ = connection.account(connection.bye(late=(True,)))
    assert (there.lost, there.duplicated, there.spurious) == (0, 0, 1)


def test_reports_of_more_than_the_goodbye_do_not_settle_it():
    connection = Pretended()
    connection.ask(there=("lost", "lost"))
    connection.client.count(dsack_dups=3)  # the path brought reports more than once
    there, _ = connection.account(connection.bye(late=(True,)))
    assert there.lost == 2


def test_a_reply_that_comes_again_after_our_goodbye_is_not_lost():
    connection = Pretended()
    connection.ask()
    sent = connection.client.counters
    connection.repeat(1)  # its acknowledgement was in the GOODBYE, which was lost
    _, back = connection.account(connection.bye()._replace(sent=sent))
    assert (back.lost, back.resent, back.spurious) == (0, 1, 1)


def test_what_the_server_says_unasked_while_we_say_goodbye_is_not_lost():
    connection = Pretended()
    sent = connection.client.counters
    connection.data(1, arrives=True)
    _, back = connection.account(connection.bye()._replace(sent=sent))
    assert (back.lost, back.duplicated) == (0, 0)


@pytest.mark.parametrize("copies", [1, 3])
def test_a_follow_up_that_comes_again_is_in_no_account(copies):
    connection = Pretended()
    there, back = connection.account(connection.bye(back=("twice",) * copies))
    assert (there.duplicated, back.lost, back.duplicated) == (0, 0, 0)


def test_a_follow_up_that_comes_again_hides_no_reply_that_came_twice():
    connection = Pretended()
    connection.ask(back=("twice",))
    _, back = connection.account(connection.bye(back=("twice",)))
    assert (back.duplicated, back.dsacks) == (1, 1)


# --- what is neither lost nor sent again in vain ---------------------------------------------


def damage(connection: Pretended, way: int) -> None:
    """Send one segment that the receiver counts in and throws away, and then another."""
    connection.data(way, arrives=True)
    connection.data(way, arrives=True, again=True)


SIZES = Sizes(200, 200)


@pytest.mark.parametrize("way", [0, 1])
@pytest.mark.parametrize(("errors", "damaged"), [(None, None), (0, 0), (1, 1), (9, 2)])
def test_what_was_sent_again_and_not_received_twice_may_have_been_damaged(way, errors, damaged):
    connection = Pretended()
    damage(connection, way)
    damage(connection, way)
    connection.repeat(way)
    hosts = Hosts(errors_there=errors) if way == 0 else Hosts(errors_back=errors)
    segments = connection.account(connection.bye(), SIZES, hosts)
    # Without a host's word nothing more is said of the two: a report of them may be lost.
    assert (segments[way].damaged, segments[way].spurious, segments[way].lost) == (damaged, 1, 0)


def test_without_reports_of_segments_received_twice_the_hosts_count_tells_damage():
    connection = Pretended()
    damage(connection, 0)
    connection.repeat(0)
    bye = without(connection.bye(), options=5)
    there, _ = connection.account(bye, SIZES, Hosts(errors_there=1))
    assert (there.damaged, there.spurious, there.dsacks) == (1, 1, None)


@pytest.mark.parametrize("lacks", ["sent", "server"])
def test_nobody_reports_anything_twice_where_one_end_knows_no_sack(lacks):
    connection = Pretended()
    bye = connection.bye()
    bye = bye._replace(**{lacks: getattr(bye, lacks)._replace(options=5)})
    there, back = connection.account(bye)
    assert (there.dsacks, back.dsacks) == (None, None)


@pytest.mark.parametrize("way", [0, 1])
@pytest.mark.parametrize("is_held", [True, False])
def test_what_the_senders_own_host_dropped_never_left(way, is_held):
    connection, ledger = Pretended(), Ledger()
    for end in connection.ends:
        end.counters = end.counters._replace(snd_mss=1448)
    for _ in range(2):
        ledger.feed(connection.ask())
    before = [end.counters.data_segs_out or 0 for end in connection.ends]
    connection.data(way, arrives=False)  # and then once more, which is no second time
    connection.deliver(way, ("lost",))
    if is_held:
        ledger.feed(connection.ask())
        segments = ledger.feed(connection.ask())
        assert segments is not None
        assert segments[way].sent == 2 + 2
    else:
        segments = connection.account(connection.bye(), SIZES)
        assert segments[way].sent == before[way] + 2 + 1 - way
    assert (segments[way].unsent, segments[way].lost, segments[way].resent) == (1, 1, 1)
    assert segments[1 - way].unsent == 0


@pytest.mark.parametrize("mss", [None, 199])
def test_messages_of_several_segments_may_have_been_joined_by_a_proxy(mss):
    connection = Pretended()
    connection.data(0, arrives=False)
    bye = connection.bye()
    there, _ = connection.account(bye._replace(sent=bye.sent._replace(snd_mss=mss)), SIZES)
    assert (there.unsent, there.lost, there.resent) == (0, 1, 0)


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
    there, back = connection.account(connection.bye(), SIZES, Hosts(overflows))
    assert (there.syns, there.syns_lost, there.acks_lost, there.lost) == (3, syns, acks, lost)
    assert (there.overflowed, back.overflowed) == (overflowed, 0)
    assert (there.resent, there.spurious, there.unsent) == (1, 0, 0)


def test_a_box_that_answers_for_the_server_takes_our_acknowledgement():
    connection = Pretended()
    connection.ack(0, lost=True)  # kept by the box
    connection.client.count(segs_in=1)  # its own
    there, back = connection.account(connection.bye())
    assert (there.acks_lost, back.acks_lost) == (0, 0)


@pytest.mark.parametrize(("rtt_us", "lost"), [(300, 0), (1_000_000, 1), (None, 1)])
def test_a_syn_ack_that_we_did_not_wait_for_was_somebody_elses(rtt_us, lost):
    connection = Pretended(synacks_lost=1)
    connection.connected = connection.connected._replace(rtt_us=rtt_us)
    _, back = connection.account(connection.bye())
    assert (back.syns_lost, back.acks_lost) == (lost, 0)


def test_loss_and_duplication_cancel_each_other():
    connection = Pretended()
    connection.ask(there=("lost", "twice"))
    there, _ = connection.account(connection.bye())
    assert (there.lost, there.duplicated) == (0, 0)


@pytest.mark.parametrize(
    ("handshake", "there", "back"),
    [
        ({"syns_lost": 2}, (3, 2), (1, 0)),
        ({"synacks_lost": 1}, (1, 0), (2, 1)),
        # One was lost; the server's timer and our second SYN then brought two.
        ({"syns_lost": 1, "synacks_lost": 1, "spare": 1}, (2, 0), (3, 1)),
        # Nothing was: the round trip is longer than the timer.
        ({"syns_lost": 1, "spare": 1}, (2, 0), (2, 0)),
    ],
)
def test_a_handshake_tells_which_of_its_segments_were_lost(handshake, there, back):
    connection = Pretended(**handshake)
    segments = connection.account(connection.bye())
    assert (segments.there.syns, segments.there.syns_lost) == there
    assert (segments.back.syns, segments.back.syns_lost) == back
    assert [way.lost + way.acks_lost + way.resent for way in segments] == [0, 0]


@pytest.mark.parametrize("way", [0, 1])
def test_segments_without_data_are_accounted_for_in_fresh_connections(way):
    connection = Pretended()
    for lost in (True, False, True):
        connection.ack(way, lost=lost)
    segments = connection.account(connection.bye())
    assert segments[way].acks_lost == 2
    assert segments[1 - way].acks_lost == 0
    assert segments[way].lost == 0


def test_an_acknowledgement_of_the_goodbye_itself_is_not_lost():
    connection = Pretended()
    sent = connection.client.counters
    connection.ack(1)
    _, back = connection.account(connection.bye()._replace(sent=sent))
    assert back.acks_lost == 0


def test_a_fin_that_came_with_the_follow_up_is_no_loss():
    connection = Pretended()
    bye = connection.bye()
    connection.client.count(segs_in=-1)
    _, back = connection.account(bye._replace(read=connection.client.counters))
    assert back.acks_lost == 0


@pytest.mark.parametrize("way", [0, 1])
def test_segments_without_data_are_accounted_for_in_held_connections(way):
    connection, ledger = Pretended(), Ledger()
    for _ in range(2):
        ledger.feed(connection.ask())
    connection.ack(way, lost=True)
    connection.ack(way)
    account = ledger.feed(connection.ask())
    assert account is not None
    assert [each.acks_lost for each in account] == [1 - way, way]
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
    assert (account.back.acks_lost, after.back.acks_lost) == (0, 0)


@pytest.mark.parametrize("way", ["there", "back"])
def test_an_account_waits_until_nobody_has_sent_anything_again(way):
    connection, ledger = Pretended(), Ledger()
    for _ in range(2):
        ledger.feed(connection.ask())
    fates: dict[str, Any] = {way: ("lost",)}
    lossy = ledger.feed(connection.ask(**fates))
    if way == "back":
        # Only the next cut says that the server has sent its reply again.
        assert lossy is not None
        assert lossy.back.lost == 0
        lossy = ledger.feed(connection.ask())
    assert lossy is None
    account = ledger.feed(connection.ask())
    assert account is not None
    assert getattr(account, way).lost == 1
    assert getattr(account, way).spurious == 0


def test_a_ledger_leaves_what_happened_before_it_alone():
    connection, ledger = Pretended(), Ledger()
    connection.ask(there=("lost",))
    for _ in range(2):
        assert ledger.feed(connection.ask()) is None
    assert ledger.feed(connection.ask()) == Segments(Way(sent=1), Way(sent=1))


def test_reordering_is_what_the_sender_noticed_since():
    connection, ledger = Pretended(), Ledger()
    connection.client.count(reord_seen=5)
    for _ in range(2):
        ledger.feed(connection.ask())
    connection.client.count(reord_seen=2)
    connection.server.count(reord_seen=1)
    account = ledger.feed(connection.ask())
    assert account is not None
    assert (account.there.reordered, account.back.reordered) == (2, 1)
    there, back = connection.account(connection.bye())
    assert (there.reordered, back.reordered) == (7, 1)


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
    connection.ask(there=("lost",))
    calm = without(connection.bye(), **absent)
    there, back = connection.account(calm)
    assert (there.lost, there.dsacks, back.dsacks) == (1, None, None)
    resent = without(connection.bye(late=(True,)), **absent)
    assert of_fresh(connection.connected, connection.greeted, resent) is None
    for _ in range(2):
        ledger.feed(without(connection.ask(), **absent))
    account = ledger.feed(without(connection.ask(), **absent))
    assert account is not None
    assert account.there.dsacks is None


def test_without_a_count_of_reordering_there_is_none():
    connection = Pretended()
    there, back = connection.account(without(connection.bye(), reord_seen=None))
    assert (there.reordered, back.reordered) == (None, None)


def test_ways_add_up_field_by_field():
    count = len(Way())
    one, ten = range(1, count + 1), range(10, 10 * count + 1, 10)
    assert Way(*one) + Way(*ten) == Way(*range(11, 11 * count + 1, 11))
    assert sum([Way(lost=1), Way(lost=2)], Way()).lost == 3
    assert (Way(reordered=None) + Way(reordered=3)).reordered is None
    assert (Way(dsacks=3) + Way(dsacks=None)).dsacks is None
    assert (Way(damaged=3) + Way(damaged=None) + Way(damaged=4)).damaged == 7
    assert (Way() + Way(damaged=1)).damaged == 1
    assert (Way() + Way()).damaged is None


# Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
@pytest.mark.parametrize(
    ("lost", "sent", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (0, 1, 0, 0.7935),
        (1, 1, 0.2065, 1),
    ],
)
def test_intervals_are_those_of_the_literature(lost, sent, low, high):
    assert wilson(lost, sent) == pytest.approx((low, high), abs=0.00005)


def test_of_nothing_sent_everything_is_possible():
    assert wilson(0, 0) == (0.0, 1.0)


@given(st.integers(1, 10**9).flatmap(lambda sent: st.tuples(st.integers(0, sent), st.just(sent))))
def test_an_interval_holds_the_share_and_stays_within_bounds(numbers):
    lost, sent = numbers
    low, high = wilson(lost, sent)
    assert 0 <= low <= lost / sent <= high <= 1


@pytest.mark.parametrize(
    ("lost", "sent", "words"),
    [
        (0, 0, "nothing sent"),
        (0, 1, "none of 1: fewer than 100 %"),
        (0, 30_000_000, "none of 30,000,000: fewer than 0.00001 %"),
        (0, 1200, "none of 1,200: fewer than 0.25 %"),
        (3, 1200, "3 of 1,200: 0.085 % to 0.73 %"),
        (12, 20, "12 of 20: 39 % to 78 %"),
    ],
)
def test_a_share_is_said_with_what_is_certain_of_it(lost, sent, words):
    assert in_words(lost, sent) == words


@pytest.mark.parametrize(
    ("lost", "sent", "words"),
    [(0, 0, "nothing sent"), (0, 87, "none of 87"), (3, 1200, "3 of 1,200: 0.085 % or more")],
)
def test_where_loss_keeps_others_out_only_the_lower_end_is_certain(lost, sent, words):
    assert in_words(lost, sent, is_least=True) == words


def test_counters_that_fall_are_believed_by_nobody():
    connection, ledger = Pretended(), Ledger()
    for _ in range(3):
        cut = connection.ask()
        ledger.feed(cut)
    fallen = cut.server._replace(data_segs_out=0)
    assert ledger.feed(connection.ask()._replace(server=fallen)) is None
    greeted = connection.greeted._replace(total_retrans=4_000_000_000)
    assert of_fresh(connection.connected, greeted, connection.bye()) is None


def test_a_share_over_all_is_all():
    assert wilson(7, 5) == wilson(5, 5)
    assert wilson(-1, 5) == wilson(0, 5)
