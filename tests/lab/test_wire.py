"""Every setting of the wire does what it says: its log, and what the kernels at its ends saw."""

import itertools
import os
import select
import time

import pytest
from lab.errors import LabError
from lab.scene import Base, scene
from lab.wire import SETTINGS, Fate, compiled

from lab_ends import (
    Log,
    carry,
    connected,
    counter,
    dial,
    listening,
    options,
    path_mtu,
    send_mss,
    shots,
    until,
)

WAYS = ["forward", "reverse"]
SYN, ACK = 2, 16


def numbers(packets, fate):
    """The numbers of our own count, from the order of arrival, of those with a fate."""
    order = {number: at for at, number in enumerate(sorted({p.number for p in packets}))}
    return [order[packet.number] for packet in packets if packet.fate is fate]


def took(packet):
    assert packet.out_ns is not None
    return packet.out_ns - packet.in_ns


@pytest.mark.parametrize("way", WAYS)
def test_a_wire_that_was_told_nothing_passes_all_in_order(its, way):
    with shots(its, way) as these:
        assert these.fire(200) == list(range(200))
        assert {packet.fate for packet in these.packets()} == {Fate.PASSED}
        assert all(took(packet) >= 0 for packet in these.packets())


@pytest.mark.parametrize("way", WAYS)
def test_delay_is_in_one_direction(its, way):
    other = WAYS[1 - WAYS.index(way)]
    with its.wire.fault(way, delay_s=0.02), shots(its, way) as these, shots(its, other) as those:
        assert these.fire(20) == list(range(20))
        assert all(took(packet) >= 20_000_000 for packet in these.packets())
        those.fire(20)
        assert min(took(packet) for packet in those.packets()) < 20_000_000


def test_jitter_differs_and_keeps_the_order(its):
    with its.wire.fault("forward", delay_s=0.005, jitter_s=0.005), shots(its) as these:
        assert these.fire(100) == list(range(100))
        times = [took(packet) for packet in these.packets()]
        assert min(times) >= 5_000_000
        assert max(times) - min(times) > 1_000_000


@pytest.mark.parametrize("way", WAYS)
def test_loss_is_what_did_not_come(its, way):
    with its.wire.fault(way, loss=0.2), shots(its, way) as these:
        came = these.fire(1000)
        assert came == numbers(these.packets(), Fate.PASSED)
        lost = numbers(these.packets(), Fate.LOST)
        assert sorted(came + lost) == list(range(1000))
        assert 120 < len(lost) < 280  # 200, give or take six standard deviations


def test_bursts_are_as_long_as_they_should_be(its):
    with its.wire.fault("forward", burst_enter=0.02, burst_leave=0.2), shots(its) as these:
        came = these.fire(4000)
        lost = numbers(these.packets(), Fate.BURST)
        assert sorted(came + lost) == list(range(4000))
        runs = [1]
        for before, after in itertools.pairwise(lost):
            runs[-1:] = [runs[-1] + 1] if after == before + 1 else [runs[-1], 1]
        assert 3 < sum(runs) / len(runs) < 8  # 5
        assert 30 < len(runs) < 130  # 73


def test_what_is_held_back_is_overtaken(its):
    with its.wire.fault("forward", reorder=0.05, reorder_s=0.005), shots(its) as these:
        came = these.fire(400)
        assert sorted(came) == list(range(400))
        held = set(numbers(these.packets(), Fate.REORDERED))
        assert held
        # In the order of arrival, all that stand behind a higher number were held back.
        highest = itertools.accumulate(came, max)
        assert {at for at, top in zip(came, highest, strict=True) if at < top} <= held
        assert came != sorted(came)


def test_duplicates_come_twice(its):
    with its.wire.fault("forward", duplicate=0.1), shots(its) as these:
        came = these.fire(500)
        twice = sorted(at for at in set(came) if came.count(at) == 2)
        assert twice
        assert twice == sorted(numbers(these.packets(), Fate.DUPLICATED))
        assert len(came) == 500 + len(twice)


@pytest.mark.parametrize("way", WAYS)
def test_corruption_reaches_the_program_and_no_counter(its, way):
    host = its.server if way == "forward" else its.client
    with connected(its) as ends:
        source, target = ends if way == "forward" else reversed(ends)
        log, before = Log(its), counter(host, "snmp", "Tcp", "InCsumErrors")
        data = os.urandom(300_000)
        with its.wire.fault(way, corrupt=0.1):
            got = carry(source, target, data)
        wrong = int.from_bytes(got) ^ int.from_bytes(data)
        # A bit of each; of one that TCP sent twice, on a busy machine, the first to come counts.
        corrupted = log.packets(way, fate=Fate.CORRUPTED)
        again = sum(packet.payload for packet in log.packets(way)) - len(data)
        assert 0 < wrong.bit_count() <= len(corrupted)
        assert again or wrong.bit_count() == len(corrupted)
        assert counter(host, "snmp", "Tcp", "InCsumErrors") == before


@pytest.mark.parametrize("way", WAYS)
def test_damage_is_dropped_by_the_receivers_kernel(its, way):
    host = its.server if way == "forward" else its.client
    with connected(its) as ends:
        source, target = ends if way == "forward" else reversed(ends)
        log, before = Log(its), counter(host, "snmp", "Tcp", "InCsumErrors")
        data = os.urandom(300_000)
        with its.wire.fault(way, damage=0.05):
            assert carry(source, target, data) == data
        damaged = len(log.packets(way, fate=Fate.DAMAGED))
        assert counter(host, "snmp", "Tcp", "InCsumErrors") - before == damaged > 0


def test_a_rate_spaces_packets_and_its_queue_is_bounded(its):
    with its.wire.fault("forward", rate=8e6, queue_bytes=20_000), shots(its) as these:
        came = these.fire(60, size=1000)
        packets = these.packets()
        full = [packet for packet in packets if packet.fate is Fate.QUEUE]
        assert len(came) == 60 - len(full) < 60
        passed = sorted(packet.out_ns for packet in packets if packet.out_ns)
        # 1000 bytes take a millisecond; of the burst some 21 fit.
        assert passed[-1] - passed[0] >= (len(passed) - 1) * 1_000_000 - 500_000
        assert len(passed) >= 20


def test_a_queue_may_be_bounded_in_time(its):
    with its.wire.fault("forward", rate=8e6, queue_s=0.01), shots(its) as these:
        came = these.fire(60, size=1000)
        assert 10 <= len(came) < 60
        assert {packet.fate for packet in these.packets()} == {Fate.PASSED, Fate.QUEUE}


def test_policing_passes_a_burst_and_nothing_waits(its):
    with its.wire.fault("forward", police=1e6, police_bytes=10_000), shots(its) as these:
        came = these.fire(100, size=1000)
        # What the bucket holds comes at once; what it gains meanwhile depends on the machine.
        assert came[:10] == list(range(10))
        packets = these.packets()
        span_s = (max(p.in_ns for p in packets) - min(p.in_ns for p in packets)) / 1e9
        assert len(came) <= 10 + span_s * 125 + 1
        assert len(numbers(packets, Fate.POLICED)) == 100 - len(came) > 0


@pytest.mark.parametrize("way", WAYS)
def test_a_black_hole_swallows_large_packets_in_silence(its, way):
    with its.wire.fault(way, mtu=1000), shots(its, way) as these:
        log = Log(its)
        assert these.fire(5, size=1000) == [0, 1, 2, 3, 4]
        assert these.fire(5, size=1001) == []
        assert len(log.packets(way, fate=Fate.TOO_BIG, size=1001)) == 5
        assert log.packets(fate=Fate.FORGED) == []


@pytest.mark.parametrize("way", WAYS)
def test_a_router_says_what_fits(its, way):
    with connected(its) as ends, its.wire.fault(way, mtu=1200, icmp=1):
        source, target = ends if way == "forward" else reversed(ends)
        log, data = Log(its), os.urandom(100_000)
        assert carry(source, target, data) == data
        assert path_mtu(source) == 1200
        assert log.packets(fate=Fate.TOO_BIG)
        assert {packet.protocol for packet in log.packets(fate=Fate.FORGED)} == {1}
    for namespace in (its.client, its.server):
        namespace.ip("route flush cache")


@pytest.mark.parametrize("way", WAYS)
def test_a_blackout_is_total(its, way):
    with its.wire.fault(way, blackout=1), shots(its, way) as these:
        assert these.fire(50) == []
        assert {packet.fate for packet in these.packets()} == {Fate.BLACKOUT}


@pytest.mark.parametrize(
    ("way", "setting", "fate", "flags"),
    [("forward", "syn_loss", Fate.SYN, SYN), ("reverse", "syn_ack_loss", Fate.SYN_ACK, SYN | ACK)],
)
def test_handshakes_can_be_lost_and_nothing_else(its, way, setting, fate, flags):
    with connected(its) as (near, far), listening(its) as listener:
        log = Log(its)
        with its.wire.fault(way, **{setting: 1}):
            with pytest.raises(TimeoutError):
                dial(its, listener, wait_s=0.2)
            assert carry(near, far, b"data") == b"data"
            assert carry(far, near, b"data") == b"data"
        dropped = log.packets(fate=fate)
        assert dropped
        assert all((packet.flags, packet.direction) == (flags, way) for packet in dropped)
        assert len(dropped) == sum(not packet.fate.arrived for packet in log.packets())


@pytest.mark.parametrize("way", WAYS)
def test_some_source_ports_do_not_get_through(its, way):
    with listening(its) as listener, its.wire.fault(way, port_loss=1, port_mask=3, port_value=1):
        for port in range(42_000, 42_008):
            if port % 4 == 1:
                with pytest.raises(TimeoutError):
                    dial(its, listener, port, wait_s=0.1)
            else:
                dial(its, listener, port).close()


def test_new_connections_are_limited_and_old_ones_are_not(able):
    with scene(Base()) as its:
        log = Log(its)
        its.wire.set("forward", connections=2)
        with connected(its) as (near, far), connected(its):
            with listening(its) as listener, pytest.raises(TimeoutError):
                dial(its, listener, wait_s=0.1)
            assert carry(near, far, b"data") == b"data"
        assert {packet.flags for packet in log.packets(fate=Fate.NEW_CONNECTION)} == {SYN}
        # Both are closed, and forgotten at once; or not, if the box takes its time.
        with connected(its):
            pass
        its.wire.set("forward", linger_s=60)
        with listening(its) as listener, pytest.raises(TimeoutError):
            dial(its, listener, wait_s=0.1)


@pytest.mark.parametrize("mode", ["silent", "reset"])
def test_an_idle_connection_is_forgotten(its, mode):
    idle = {"idle_s": 0.1, "idle_reset": float(mode == "reset")}
    with connected(its) as (near, far), its.wire.fault("both", **idle):
        log = Log(its)
        assert carry(near, far, b"data") == b"data"
        time.sleep(0.2)
        near.send(b"after the silence")
        until(lambda: bool(log.packets(fate=Fate.IDLE if mode == "silent" else Fate.RESET)), "drop")
        if mode == "silent":
            assert not select.select([far], [], [], 0.05)[0]
            assert log.packets(fate=Fate.FORGED) == []
        else:
            for end in (near, far):
                end.settimeout(5)
                with pytest.raises(ConnectionResetError):
                    end.recv(100)
            assert len(log.packets(fate=Fate.FORGED, flags=4 | ACK)) == 2
        # A fresh one works at once.
        with connected(its) as (near, far):
            assert carry(near, far, b"data") == b"data"


@pytest.mark.parametrize("way", WAYS)
def test_a_reset_comes_to_both_ends_and_from_neither(its, way):
    hosts = (its.client, its.server)
    before = [counter(host, "snmp", "Tcp", "OutRsts") for host in hosts]
    with connected(its) as ends, its.wire.fault(way, reset=1):
        source, _ = ends if way == "forward" else reversed(ends)
        source.send(b"something")
        for end in ends:
            end.settimeout(5)
            with pytest.raises(ConnectionResetError):
                end.recv(100)
    assert [counter(host, "snmp", "Tcp", "OutRsts") for host in hosts] == before


def test_lone_acknowledgements_are_lost_and_nothing_else(its):
    with connected(its) as (near, far), its.wire.fault("reverse", ack_loss=0.5):
        log, data = Log(its), os.urandom(200_000)
        assert carry(near, far, data) == data
        assert carry(far, near, data) == data
        lost = log.packets(fate=Fate.ACK)
        assert lost
        assert all((packet.payload, packet.flags) == (0, ACK) for packet in lost)
        assert {p.direction for p in log.packets() if not p.fate.arrived} == {"reverse"}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("option", "left"), [("timestamps", 6), ("sack", 5), ("wscale", 3)])
def test_an_option_is_taken_out(its, way, option, left):
    with its.wire.fault(way, **{f"strip_{option}": 1}), connected(its) as (near, far):
        # Who sent the SYN-ACK does not learn that it lost an option.
        assert (options(near) & 7, options(far) & 7) == (left, left if way == "forward" else 7)
        assert carry(near, far, b"data") == b"data"


def test_without_an_mss_option_the_default_of_the_rfc_is_used(its):
    with its.wire.fault("forward", strip_mss=1), connected(its) as (near, far):
        assert send_mss(far) == 536 - 12  # RFC 9293, 3.7.1; timestamps take twelve
        assert carry(far, near, bytes(5000)) == bytes(5000)


def test_a_fault_leaves_everything_as_it_was(its):
    before = its.wire.setting("forward", "loss")
    with its.wire.fault("both", loss=1), its.wire.fault("forward", loss=0.5, mtu=100):
        assert its.wire.setting("forward", "loss") == 0.5
        assert its.wire.setting("reverse", "loss") == 1
    assert (its.wire.setting("forward", "loss"), its.wire.setting("reverse", "loss")) == (0, 0)
    assert before == 0
    with shots(its) as these:
        assert these.fire(50) == list(range(50))


def test_the_program_knows_every_setting_and_no_other(its):
    its.wire.set("both", **dict.fromkeys(SETTINGS, 0.0))
    with pytest.raises(ValueError, match="no setting los"):
        its.wire.set("both", los=1)
    with pytest.raises(LabError, match="no such setting"):
        its.wire.apply("forward", {}, {"los": 1})
    with pytest.raises(LabError, match="no such value"):
        its.wire.set("forward", loss=-1)


def test_twenty_thousand_packets_at_once_all_have_their_fate(its):
    with shots(its) as these:
        for _ in range(10):
            these.fire(2000)
            these._numbers()
        assert len(numbers(these.packets(), Fate.PASSED)) == 20_000


def test_a_seed_gives_the_same_losses_again(able):
    lost = []
    for seed in (1, 1, 2):
        with scene(Base(loss=0.3), seed=seed) as its, shots(its) as these:
            these.fire(100)
            lost.append(numbers(these.packets(), Fate.LOST))
    assert lost[0] == lost[1] != lost[2]


def test_who_has_no_compiler_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compiled.cache_clear()
    try:
        with pytest.raises(LabError, match="install gcc"):
            compiled()
    finally:
        compiled.cache_clear()


def test_the_base_path_is_what_was_asked_for(able):
    with scene(Base(0.01, 0.2, 0.01)) as its:
        for way in WAYS:
            assert its.wire.setting(way, "delay_s") == 0.005
            assert its.wire.setting(way, "jitter_s") == pytest.approx(0.001)
            assert its.wire.setting(way, "loss") == 0.01
