import pytest
from lab.counts import counted_by_pair, counts_of, lost_on_wire
from lab.wire import Fate, Packet

PAGE = """\
# HELP twocans_client_path_segments_total Segments
twocans_client_path_segments_total{direction="forward",fate="sent",target="x"} 90.0
twocans_client_path_segments_total{direction="forward",fate="lost",target="x"} 3.0
twocans_client_path_segments_total{direction="forward",fate="lost",target="y"} 1.0
twocans_client_path_segments_total{direction="reverse",fate="lost",target="x"} 2.0
twocans_client_segments_total{direction="reverse",fate="damaged",zone="",target_zone=""} 4.0
twocans_client_probes_total{outcome="ok",target="x"} 200.0
twocans_client_probes_total{outcome="fail",target="x"} 0.0
"""
FIN, SYN, ACK = 1, 2, 16
CLIENT, SERVER = "10.0.0.1", "10.0.0.2"


def packet(fate=Fate.LOST, way="forward", **more):
    ends = [(CLIENT, more.pop("port", 40_000)), (SERVER, 5000)]
    source, destination = ends if way == "forward" else ends[::-1]
    fields = {"in_ns": 0, "size": 92, "flags": ACK, "payload": 40, "seq": 1, "ack": 1, **more}
    return Packet(
        number=1,
        direction=way,
        out_ns=None,
        source=source[0],
        source_port=source[1],
        destination=destination[0],
        destination_port=destination[1],
        protocol=fields.pop("protocol", 6),
        fate=fate,
        **fields,
    )


def end(**more):
    return packet(Fate.PASSED, flags=FIN | ACK, payload=0, **more)


def test_the_page_is_added_up_over_paths():
    assert counted_by_pair(PAGE) == {"forward": 4.0, "reverse": 6.0}


@pytest.mark.parametrize(
    ("one", "lost"),
    [
        (packet(), 1),
        (packet(Fate.PASSED), 0),
        (packet(Fate.DAMAGED), 1),  # the other kernel drops it
        (packet(Fate.CORRUPTED), 0),  # it does not notice
        (packet(flags=SYN, payload=0), 1),
        (packet(payload=0), 0),  # nobody counts what acknowledges only
        (packet(protocol=1), 0),
        (packet(Fate.BLACKOUT), 1),
    ],
)
def test_segments_with_data_or_syn_count(one, lost):
    assert lost_on_wire([one, end()], 5000) == {"forward": lost, "reverse": 0}


def test_other_ports_are_not_ours():
    assert lost_on_wire([packet(), end()], 5001) == {"forward": 0, "reverse": 0}


def test_the_last_that_a_server_sent_is_left_out_however_often_it_was_lost():
    packets = [
        packet(way="reverse", seq=100),
        packet(way="reverse", seq=200),
        packet(way="reverse", seq=200),
        end(),
    ]
    assert lost_on_wire(packets, 5000) == {"forward": 0, "reverse": 1}


def test_sequence_numbers_wrap():
    packets = [packet(way="reverse", seq=2**32 - 10), packet(way="reverse", seq=20), end()]
    assert lost_on_wire(packets, 5000) == {"forward": 0, "reverse": 1}


def test_what_an_open_connection_lost_is_not_settled():
    assert lost_on_wire([packet()], 5000) is None


def connection(port, length, *, lost=0):
    """A greeting of 59 bytes and a message of so many, whose first copies are lost."""
    message = {"port": port, "seq": 60, "payload": length}
    return [
        packet(Fate.PASSED, port=port, seq=1, payload=59),
        *[packet(Fate.LOST, **message)] * lost,
        packet(Fate.PASSED, **message),
        end(port=port),
    ]


def test_a_connection_that_asks_the_witness_is_no_probe():
    probes = [one for port in (1, 2, 3) for one in connection(port, 172, lost=1)]
    assert lost_on_wire([*probes, *connection(4, 788, lost=2)], 5000) == {
        "forward": 3,
        "reverse": 0,
    }


def test_messages_are_told_by_their_place_and_not_by_their_order():
    again = packet(Fate.PASSED, port=1, seq=1, payload=59)  # the greeting was sent twice
    probes = [again, *connection(1, 172, lost=1), *connection(2, 172)]
    assert lost_on_wire(probes, 5000) == {"forward": 1, "reverse": 0}


def test_two_connections_do_not_share_an_end():
    assert lost_on_wire([packet(port=1), end(port=2)], 5000) is None


def test_counts_stand_beside_each_other():
    packets = [*[packet()] * 4, end()]
    assert counts_of(PAGE, packets, 5000) == {
        "lost_forward": (4.0, 4.0),
        "lost_reverse": (6.0, 0.0),
    }


def test_nothing_is_compared_when_a_probe_failed():
    page = PAGE.replace('outcome="fail",target="x"} 0.0', 'outcome="fail"} 1.0')
    assert counts_of(page, [], 5000) == {}


def test_nothing_is_compared_where_nothing_is_counted():
    assert counts_of("", [], 5000) == {}


def test_a_connection_that_lived_long_is_no_probe():
    last = packet(Fate.IDLE, port=9, seq=500, in_ns=9_000_000_000)
    held = [*connection(9, 172), last]
    probes = [*connection(1, 172, lost=1), *connection(2, 172)]
    assert lost_on_wire([*probes, *held], 5000) == {"forward": 1, "reverse": 0}
