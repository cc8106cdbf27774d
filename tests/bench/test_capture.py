import struct
from pathlib import Path

import pytest
from bench.accuracy.capture import Connection, Segment, connections, read_pcap, turns

FOLDER = Path(__file__).parent / "captures"
NEAR = (FOLDER / "client.pcap").read_bytes()
FAR = (FOLDER / "server.pcap").read_bytes()

CLIENT, SERVER = ("10.91.0.1", 62008), ("10.91.0.2", 5000)
# "tcpdump -tt" prints 1795459955.882203549 for the first.
SECOND = 1795459955_000000000
SYN, ACK = 0x02, 0x10


def the_only(data: bytes | list[Segment]) -> Connection:
    segments = read_pcap(data) if isinstance(data, bytes) else data
    (connection,) = connections(segments).values()
    return connection


def test_every_segment_is_read_with_its_stamp():
    segments = list(read_pcap(NEAR))

    assert len(segments) == 14
    assert segments[0] == Segment(SECOND + 882203549, CLIENT, SERVER, 1757493898, 0, SYN, 0)
    assert segments[7].ns == SECOND + 882880987
    sizes = [segment.size for segment in segments]
    assert sizes == [0, 0, 0, 53, 0, 163, 0, 168, 168, 21, 93, 0, 0, 0]


def test_a_capture_of_the_other_byte_order_reads_the_same():
    swapped = bytearray(struct.pack(">IHHiIII", *struct.unpack_from("<IHHiIII", NEAR)))
    at = 24
    while at < len(NEAR):
        record = struct.unpack_from("<IIII", NEAR, at)
        swapped += struct.pack(">IIII", *record) + NEAR[at + 16 : at + 16 + record[2]]
        at += 16 + record[2]

    assert list(read_pcap(bytes(swapped))) == list(read_pcap(NEAR))


def test_a_record_that_its_end_cuts_short_is_left_out():
    whole = list(read_pcap(NEAR))
    assert list(read_pcap(NEAR[:-1])) == whole[:-1]
    # In the last record's header; it has 66 bytes after that.
    assert list(read_pcap(NEAR[: -66 - 3])) == whole[:-1]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        struct.pack("<I", 0xA1B2C3D4) + NEAR[4:],  # microseconds
        struct.pack("<I", 0x0A0D0D0A) + NEAR[4:],  # pcapng
        NEAR[:20] + struct.pack("<I", 113) + NEAR[24:],  # Linux "cooked"
    ],
    ids=["empty", "microseconds", "pcapng", "cooked"],
)
def test_what_is_no_such_capture_is_refused(data):
    with pytest.raises(ValueError, match=r"nanosecond|Ethernet"):
        list(read_pcap(data))


def packet(
    *, protocol: int = 6, options: bytes = b"", data: bytes = b"", padding: int = 0
) -> bytes:
    tcp = struct.pack("!HHIIBBHHH", 1, 2, 3, 4, 5 << 4, ACK, 0, 0, 0)
    size = 20 + len(options) + len(tcp) + len(data)
    first = 0x40 | (20 + len(options)) // 4
    ip = struct.pack("!BBHHHBBH4s4s", first, 0, size, 0, 0, 64, protocol, 0, bytes(4), bytes(4))
    return bytes(12) + b"\x08\x00" + ip + options + tcp + data + bytes(padding)


def capture_of(*packets: bytes) -> bytes:
    records = (struct.pack("<IIII", 1, 2, len(data), len(data)) + data for data in packets)
    return NEAR[:24] + b"".join(records)


def test_the_size_is_of_the_data_alone():
    packets = packet(data=b"abc"), packet(padding=6), packet(options=bytes(8), data=b"ab")
    sizes = [segment.size for segment in read_pcap(capture_of(*packets))]
    assert sizes == [3, 0, 2]


def test_a_segment_that_was_captured_in_part_has_its_whole_size():
    data = packet(data=bytes(500))[:128]
    (segment,) = read_pcap(capture_of(data))
    assert segment.size == 500


def test_what_is_not_tcp_over_ipv4_is_left_out():
    ipv6 = packet()[:12] + b"\x86\xdd" + packet()[14:]
    short = packet()[:20], packet()[:40], packet(options=bytes(8))[:55]
    assert list(read_pcap(capture_of(ipv6, packet(protocol=17), *short))) == []


def test_the_handshake_is_from_the_syn_to_its_answer():
    assert the_only(NEAR).handshake_ns == 882220705 - 882203549
    assert the_only(FAR).handshake_ns == 882219042 - 882208937


def test_a_handshake_with_anything_sent_twice_is_none():
    segments = list(read_pcap(NEAR))
    assert the_only([segments[0], *segments]).handshake_ns is None
    assert the_only([*segments[:2], *segments[1:]]).handshake_ns is None
    assert the_only(segments[:1]).handshake_ns is None


def test_a_port_that_is_used_again_is_another_connection():
    segments = list(read_pcap(NEAR))
    later = [
        segment._replace(
            sequence=segment.sequence + 7 * (segment.source == CLIENT),
            acknowledged=segment.acknowledged + 7 * (segment.source == SERVER),
        )
        for segment in segments
    ]
    first, second = connections(segments + later).values()
    assert first == the_only(segments)
    assert second == the_only(later)
    assert len(first.forward) == len(second.forward) == 3


def test_segments_without_their_syn_are_left_out():
    assert connections(list(read_pcap(NEAR))[2:]) == {}


# Greeting, exchange and goodbye. Of the exchange, by hand: at the client's end
# .883016689 - .882880987 = 135702, at the server's .883014135 - .882883611 = 130524.
NETWORK_NS = [5879, 5178, 3966]


def test_a_turn_has_both_ends_times_of_a_request_and_its_reply():
    found = turns(the_only(NEAR), the_only(FAR))

    assert [turn and turn.network_ns for turn in found] == NETWORK_NS
    assert found[1] is not None
    assert [ns - SECOND for ns in found[1]] == [882880987, 882883611, 883014135, 883016689]


def with_network(near: list[Segment], far: list[Segment]) -> list[int | None]:
    return [turn and turn.network_ns for turn in turns(the_only(near), the_only(far))]


# Places in both captures: the request of the exchange, and its reply.
REQUEST, REPLY = 7, 8


@pytest.mark.parametrize("at", [REQUEST, REPLY])
@pytest.mark.parametrize("end", ["near", "far"])
def test_a_turn_with_a_segment_sent_twice_is_none_and_the_others_are_not(at, end):
    near, far = list(read_pcap(NEAR)), list(read_pcap(FAR))
    changed = near if end == "near" else far
    changed.append(changed[at]._replace(ns=changed[at].ns + 200_000_000))
    assert with_network(near, far) == [NETWORK_NS[0], None, NETWORK_NS[2]]


@pytest.mark.parametrize("at", [REQUEST, REPLY])
def test_a_turn_with_a_segment_that_did_not_arrive_is_none(at):
    near, far = list(read_pcap(NEAR)), list(read_pcap(FAR))
    del (far if at == REQUEST else near)[at]
    assert with_network(near, far) == [NETWORK_NS[0], None, NETWORK_NS[2]]


def test_a_turn_whose_segment_changed_its_size_on_the_way_is_none():
    near, far = list(read_pcap(NEAR)), list(read_pcap(FAR))
    far[REQUEST] = far[REQUEST]._replace(size=100)
    assert with_network(near, far) == [NETWORK_NS[0], None, NETWORK_NS[2]]


def test_a_reply_that_left_before_the_request_was_whole_is_no_reply():
    near, far = list(read_pcap(NEAR)), list(read_pcap(FAR))
    for segments in (near, far):
        reply = segments[REPLY]
        segments[REPLY] = reply._replace(acknowledged=reply.acknowledged - 1)
    assert with_network(near, far) == [NETWORK_NS[0], None, NETWORK_NS[2]]


def test_the_first_of_two_segments_is_the_reply():
    near, far = list(read_pcap(NEAR)), list(read_pcap(FAR))
    for segments, later_ns in ((near, 1_000), (far, 3_000)):
        # The sequence numbers go round between the two.
        reply = segments[REPLY]._replace(sequence=2**32 - 100, size=100)
        rest = reply._replace(sequence=0, ns=reply.ns + later_ns, size=68)
        segments[REPLY : REPLY + 1] = [reply, rest]
    assert with_network(near, far) == NETWORK_NS


@pytest.mark.parametrize("side", [CLIENT, SERVER])
def test_sequence_numbers_may_go_round(side):
    # So that the request, or the reply, ends exactly at 2**32, and the next begins at 0.
    at = REQUEST if side == CLIENT else REPLY
    segments = list(read_pcap(NEAR))
    shift = -(segments[at].sequence + segments[at].size)

    def moved(segment: Segment) -> Segment:
        sequence, acknowledged = segment.sequence, segment.acknowledged
        if segment.source == side:
            sequence = (sequence + shift) % 2**32
        else:
            acknowledged = (acknowledged + shift) % 2**32
        return segment._replace(sequence=sequence, acknowledged=acknowledged)

    near, far = ([moved(one) for one in read_pcap(data)] for data in (NEAR, FAR))
    assert with_network(near, far) == NETWORK_NS
