import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.evidence import missing
from twocans_client.conservation import Cut, Ledger, Segments, Way, in_words, of_fresh, wilson
from twocans_core.tcpinfo import NO_COUNTERS, Counters

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

    def account(self, bye: Cut) -> Segments:
        segments = of_fresh(self.connected, self.greeted, bye)
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


def test_a_follow_up_that_comes_twice_is_a_duplicate():
    connection = Pretended()
    there, back = connection.account(connection.bye(back=("twice",)))
    assert (there.duplicated, back.duplicated) == (0, 1)


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
    assert Way() == Way(*[0] * 10)
    assert Way(*range(1, 11)) + Way(*range(10, 101, 10)) == Way(*range(11, 111, 11))
    assert sum([Way(lost=1), Way(lost=2)], Way()).lost == 3
    assert (Way(reordered=None) + Way(reordered=3)).reordered is None
    assert (Way(dsacks=3) + Way(dsacks=None)).dsacks is None


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
