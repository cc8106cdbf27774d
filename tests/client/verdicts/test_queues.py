"""Delay and loss that come with load, or without it."""

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.makers import exchange, good
from client.verdicts.path_evidence import MS, SECOND, Tape, found
from fakes import COUNTERS
from twocans_client.evidence.delays import Delays
from twocans_client.evidence.direction import Direction, Growth, OneWay
from twocans_client.evidence.loads import Loads, Surge
from twocans_client.evidence.loss import Cut
from twocans_client.evidence.rows import Exchanged
from twocans_client.evidence.window import Window
from twocans_client.verdicts import losses, queues
from twocans_core.kernel.tcpinfo import NO_TCP_COUNTS, TcpCounts

HOUR_NS = 3_600 * SECOND


class Path:
    """Feeds a window with exchanges, ten a second, and looks at our host's load once a second."""

    def __init__(self, rtt_ns: int = 20 * MS, jitter: float = 0.1, *, seed: int = 1) -> None:
        self.tape = Tape()
        self.window = self.tape.window
        self._one_way = OneWay()
        self._half_ns, self._jitter = rtt_ns // 2, jitter
        self._random = Random(seed)
        self._segments = 0

    def run(
        self,
        count: int,
        *,
        forward_ns: int = 0,
        reverse_ns: int = 0,
        load: int = 0,
        **fates: Any,
    ) -> None:
        """Feed so many exchanges.

        Args:
            count: How many.
            forward_ns: By how much that direction is slower; likewise the next.
            reverse_ns: Likewise.
            load: Segments a second of our own host beside our own.
            fates: As of ``Tape.probe``.
        """
        for turn in range(count):
            made = exchange(
                forward_ns=self._one(forward_ns),
                reverse_ns=self._one(reverse_ns),
                offset_ns=7 * MS,
            )
            assert made.split is not None
            self.window.growth = self._one_way.observe(
                self.tape.at_ns, made.split.forward_ns, made.split.reverse_ns
            )
            self.tape.probe(good(made, at_ns=self.tape.at_ns), **fates if turn % 5 == 0 else {})
            self._segments += load // 10
            if self.tape.at_ns % SECOND == 0:
                self.look()

    def look(self) -> None:
        counts = NO_TCP_COUNTS._replace(in_segs=0, out_segs=self._segments, retrans_segs=0)
        self.window.loads.look(self.tape.at_ns, counts)

    def _one(self, more_ns: int) -> int:
        return int(self._half_ns * (1 + self._random.random() * self._jitter)) + more_ns


def names(window: Window) -> list[tuple[str, str]]:
    return [(each.kind.name, each.direction) for each in found(queues, window)]


@pytest.mark.parametrize("rtt_ns", [100_000, 2 * MS, 20 * MS, 80 * MS])
@pytest.mark.parametrize("way", ["forward", "reverse"])
def test_a_path_that_became_slower_in_one_direction(way, rtt_ns):
    path = Path(rtt_ns)
    path.run(60)
    assert names(path.window) == []
    path.run(40, **{f"{way}_ns": 15 * MS})
    (finding,) = found(queues, path.window)
    assert (finding.kind.name, finding.direction) == ("delay_increase", way)
    assert finding.culprit == f"path_{way}"
    assert finding.figures["delay_s"] == pytest.approx(0.015, rel=0.1)
    assert finding.began_ns is not None
    assert 6 * SECOND <= finding.began_ns < 7 * SECOND
    assert f"in the {way} direction" in finding.proof


def test_both_directions_have_no_single_culprit():
    path = Path()
    path.run(60)
    path.run(40, forward_ns=10 * MS, reverse_ns=10 * MS)
    (finding,) = found(queues, path.window)
    assert (finding.culprit, finding.direction) == ("path", "")
    assert "in both directions" in finding.proof


def test_a_lasting_change_is_not_forgotten_while_it_lasts():
    path = Path()
    path.run(60)
    for _ in range(20):
        path.run(300, forward_ns=30 * MS)
        (finding,) = found(queues, path.window)
        assert finding.figures["usual_s"] == pytest.approx(0.021, rel=0.05)
    path.run(30)
    assert names(path.window) == []


def test_after_a_day_it_is_what_the_path_is():
    delays = Delays()

    def feed(at_ns: int, network_ns: int) -> None:
        split = exchange(forward_ns=network_ns // 2, reverse_ns=network_ns // 2).split
        assert split is not None
        delays.feed(at_ns, split, None)

    for at in range(60):
        feed(at * SECOND, 20 * MS)
    for at in range(25 * 60):
        feed(60 * SECOND * (1 + at), 50 * MS)
    assert not delays.is_late
    for at in range(60):
        feed(90_000 * SECOND + at * SECOND, 80 * MS)
    late = delays.late(91_000 * SECOND)
    assert late is not None
    assert late.usual_ns == 50 * MS


def test_an_instant_is_no_slower_path():
    path = Path()
    path.run(60)
    path.run(15, forward_ns=30 * MS)
    assert path.window.delays.is_late
    assert names(path.window) == []
    path.run(30)
    assert names(path.window) == []


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("jitter", [0.0, 0.02, 0.1, 0.3])
@pytest.mark.parametrize("rtt_ns", [100_000, 2 * MS, 80 * MS])
def test_a_path_that_varies_is_not_slower(rtt_ns, jitter, seed):
    path = Path(rtt_ns, jitter, seed=seed)
    for _ in range(20):
        path.run(30)
        assert names(path.window) == []


def test_a_few_late_ones_are_no_slower_path():
    path = Path()
    for _ in range(60):
        path.run(9)
        path.run(1, forward_ns=200 * MS)
        assert names(path.window) == []


def test_one_in_four_that_is_late_is_no_slower_path():
    """As where some packets are held back, and others overtake them."""
    path = Path(100_000)
    path.run(60)
    for _ in range(20):
        path.run(3)
        path.run(1, forward_ns=11 * MS)
        assert names(path.window) == []


def test_what_the_server_or_we_take_is_not_the_path():
    tape = Tape()
    for turn in range(120):
        slow_ns = 50 * MS if turn > 60 else 0
        tape.probe(good(exchange(wakeup_ns=slow_ns, client_wakeup_ns=slow_ns), at_ns=tape.at_ns))
    assert names(tape.window) == []


@pytest.mark.parametrize("way", ["forward", "reverse"])
def test_delay_that_comes_with_our_hosts_load_is_a_queue(way):
    path = Path()
    path.run(100, load=20)
    path.run(40, load=2_000, **{f"{way}_ns": 80 * MS})
    (finding,) = found(queues, path.window)
    assert (finding.kind.name, finding.direction) == ("bufferbloat", way)
    assert "traffic rose from 20 to 2000 segments a second" in finding.proof


def test_what_a_full_queue_drops_is_the_queues_doing():
    path = Path()
    path.run(100, load=20)
    lost = {"lost": 1, "resent": 1, "sent": 4}
    path.run(40, load=2_000, forward_ns=80 * MS, forward=lost)
    assert path.window.forward.missing.is_alarmed
    assert names(path.window) == [("bufferbloat", "forward")]
    assert found(losses, path.window) == []


def test_what_is_dropped_by_a_queue_that_just_filled_is_no_policing_either():
    path = Path()
    path.run(100, load=20)
    lost = {"lost": 1, "resent": 1, "sent": 4}
    for _ in range(5):
        path.run(6, load=2_000, forward_ns=80 * MS, forward=lost)
        assert ("policing", "forward") not in names(path.window)
    assert names(path.window) == [("bufferbloat", "forward")]


@pytest.mark.parametrize("well", range(5, 80, 5))
@pytest.mark.parametrize("load", [20, 2_000])
def test_what_a_full_queue_dropped_has_no_other_name_when_it_has_drained(well, load):
    path = Path()
    path.run(100, load=20)
    for _ in range(6):  # rarely, so what was lost is remembered for longer than the queue
        path.run(1, load=2_000, forward_ns=80 * MS, forward={"lost": 1, "resent": 1, "sent": 4})
        path.run(19, load=2_000, forward_ns=80 * MS)
    path.run(well, load=load)
    assert path.window.forward.missing.is_alarmed
    assert ("policing", "forward") not in names(path.window)
    assert found(losses, path.window) == []


@pytest.mark.parametrize("well", range(0, 120, 10))
@pytest.mark.parametrize("forward_ns", [0, 80 * MS])
def test_what_was_lost_under_a_load_that_ended_is_no_loss_of_the_path(forward_ns, well):
    path = Path()
    path.run(100, load=20)
    for _ in range(6):
        path.run(1, load=2_000, forward_ns=forward_ns, forward={"lost": 1, "resent": 1, "sent": 4})
        path.run(9, load=2_000, forward_ns=forward_ns)
    path.run(well, load=20)
    assert path.window.forward.missing.is_alarmed
    assert found(losses, path.window) == []


def test_loss_that_goes_on_without_the_load_is_loss():
    path = Path()
    path.run(100, load=20)
    lost = {"lost": 1, "resent": 1, "sent": 4}
    path.run(40, load=2_000, forward=lost)
    path.run(60, load=20, forward=lost)
    assert names(path.window) == []
    assert [each.kind.name for each in found(losses, path.window)] == ["loss"]


def test_a_queue_of_another_time_does_not_hide_policing():
    path = Path()
    path.run(100, load=20)
    path.run(60, load=2_000, forward_ns=80 * MS)
    path.run(250, load=20)
    path.run(60, load=2_000, forward={"lost": 1, "resent": 1, "sent": 4})
    assert names(path.window) == [("policing", "forward")]


@pytest.mark.parametrize("before", [0, 500])
def test_load_of_another_time_has_nothing_to_do_with_it(before):
    path = Path()
    path.run(60, load=20)
    path.run(100, load=before)
    path.run(40, load=before, forward_ns=80 * MS)
    assert names(path.window) == [("delay_increase", "forward")]


@pytest.mark.parametrize("way", ["forward", "reverse"])
def test_loss_that_comes_with_load_and_without_delay_is_policing(way):
    path = Path()
    path.run(100, load=20)
    lost: dict[str, Any] = {way: {"lost": 1, "resent": 1, "sent": 4}}
    path.run(60, load=300, **lost)
    (finding,) = found(queues, path.window)
    assert (finding.kind.name, finding.direction) == ("policing", way)
    assert finding.culprit == f"path_{way}"
    assert found(losses, path.window) == []


@pytest.mark.parametrize("well", [60, 140])
def test_a_loss_by_chance_before_does_not_hide_when_it_began(well):
    path = Path()
    path.run(100, load=20)
    lost = {"lost": 1, "resent": 1, "sent": 4}
    path.run(1, load=20, forward=lost)
    path.run(well, load=20)
    path.run(60, load=300, forward=lost)
    (finding,) = found(queues, path.window)
    assert finding.kind.name == "policing"
    assert finding.began_ns == pytest.approx(path.tape.at_ns - 6 * SECOND, abs=SECOND)
    assert finding.figures["lost"] == 12
    assert finding.figures["sent"] == 60 * 5 + 12


def test_acknowledgements_that_are_missing_are_no_rate_that_is_limited():
    """As behind a proxy, which acknowledges large messages as it likes."""
    tape = Tape()
    for number in range(120):
        is_large = number % 12 == 0
        tape.probe(is_large=is_large, reverse={"acks_lost": 2} if is_large else {})
    assert tape.window.reverse.missing.is_alarmed
    assert names(tape.window) == []


def test_loss_is_not_named_while_a_load_may_have_begun():
    path = Path()
    path.run(100, load=20)
    lost: dict[str, Any] = {"lost": 1, "resent": 1, "sent": 4}
    path.run(10, load=20, forward=lost)
    path.run(10, load=300, forward=lost)
    assert names(path.window) == []
    assert found(losses, path.window) == []
    path.run(10, load=300, forward=lost)
    assert names(path.window) == [("policing", "forward")]
    assert found(losses, path.window) == []


def test_loss_without_load_is_loss():
    path = Path()
    path.run(100, load=20)
    path.run(60, load=20, forward={"lost": 1, "resent": 1, "sent": 4})
    assert names(path.window) == []
    assert [each.kind.name for each in found(losses, path.window)] == ["loss"]


def test_loss_of_large_exchanges_alone_is_policing():
    tape = Tape()
    for number in range(120):
        is_large = number % 12 == 0
        tape.probe(is_large=is_large, forward={"lost": 2, "resent": 2} if is_large else {})
    (finding,) = found(queues, tape.window)
    assert (finding.kind.name, finding.direction) == ("policing", "forward")
    assert "all of them were lost in sized exchanges" in finding.proof


def test_our_own_probes_are_no_load():
    loads = Loads()
    for at in range(20):
        own = 500 * at if at > 10 else 0
        loads.own(own)
        total = sum(500 * turn for turn in range(11, at + 1)) + 20 * at
        loads.look(at * SECOND, TcpCounts(0, 0, 0, 0, total, 0, 0, 0))
    assert loads.surge(11 * SECOND) is None


def test_a_load_of_one_look_may_be_probes_that_have_not_ended():
    """It is neither named policing nor loss: the next look shows whose it was."""
    path = Path()
    path.run(100, load=20)
    path.run(10, load=2_000, forward={"lost": 2, "resent": 2, "sent": 4})
    path.run(5, load=20, forward={"lost": 2, "resent": 2, "sent": 4})
    assert path.window.forward.missing.is_alarmed
    assert names(path.window) == []
    assert found(losses, path.window) == []
    path.window.loads.own(1_990)  # of probes that had begun before
    path.run(5, load=20)
    assert names(path.window) == []
    assert [each.kind.name for each in found(losses, path.window)] == ["loss"]


@pytest.mark.parametrize("late", range(1, 5))
def test_a_probe_is_our_own_that_ended_in_a_later_look_than_its_segments_were_sent(late):
    """As a sized one does that has to send again what was lost."""
    loads, total = Loads(), 0
    for at in range(20):
        total += 160 + 120 * (at in (12, 13))
        loads.own(160 + 120 * (at - late in (12, 13)))
        loads.look(at * SECOND, TcpCounts(0, 0, 0, 0, total, 0, 0, 0))
    assert loads.surge(12 * SECOND, 13 * SECOND) is None


def test_a_probe_is_our_own_to_its_last_segment():
    window, total = Window(), 0
    whole = COUNTERS._replace(segs_out=8, segs_in=7)  # then our FIN, and its acknowledgement

    for at in range(20):
        for _ in range(10):
            result = good(exchange(), at_ns=at * SECOND)
            result.bye = Cut(COUNTERS, COUNTERS, whole)
            window.probed(result, None)
        total += 10 * 17 + (90 if at > 12 else 0)
        window.loads.look(at * SECOND, TcpCounts(0, 0, 0, 0, total, 0, 0, 0))
    assert window.loads.surge(12 * SECOND) == Surge(12 * SECOND, 0.0, 90.0)


def test_probes_that_were_not_counted_at_the_first_look_are_no_load_before():
    loads, total = Loads(), 0
    for at in range(9):
        total += 170 if at in (1, 2) else 180 if at > 5 else 0
        loads.look(at * SECOND, TcpCounts(0, 0, 0, 0, total, 0, 0, 0))
        loads.own(170 if at == 1 else 0)
    assert loads.surge(5 * SECOND) == Surge(5 * SECOND, 0.0, 180.0)


def test_a_kernel_that_does_not_count_has_no_load():
    loads = Loads()
    for at in range(20):
        loads.look(at * SECOND, NO_TCP_COUNTS)
    assert loads.surge(10 * SECOND) is None


GROWTHS = st.none() | st.builds(
    Growth,
    st.none() | st.integers(0, 1 << 40),
    st.none() | st.integers(0, 1 << 40),
    st.none() | st.integers(0, 1 << 40),
    st.sampled_from(Direction),
)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 1 << 40), st.integers(0, 1 << 34), GROWTHS, st.integers(0, 1 << 33)
        ),
        max_size=120,
    )
)
def test_no_evidence_makes_it_raise(seen):
    window = Window()
    for at_ns, network_ns, growth, count in seen:
        window.growth = growth
        split = exchange(forward_ns=network_ns).split
        window.exchanged(Exchanged(at_ns, split, resent=False, duration_ns=0))
        window.loads.look(at_ns, TcpCounts(0, 0, 0, count, count, count, 0, 0))
        window.loads.own(count)
        found(queues, window)
        window.loads.surge(at_ns)
