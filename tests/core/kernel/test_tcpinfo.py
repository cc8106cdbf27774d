import json
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twocans_core.kernel.tcpinfo import (
    COUNTERS,
    LIMITED,
    NO_COUNTERS,
    TCP_INFO_SIZE,
    AcceptQueue,
    Counters,
    Limited,
)

# Field of Counters: its name in struct tcp_info.
KERNEL_NAMES = {name: f"tcpi_{name}" for name in COUNTERS} | {
    "rtt_us": "tcpi_rtt",
    "min_rtt_us": "tcpi_min_rtt",
}
LIMITED_NAMES = {
    "busy_us": "tcpi_busy_time",
    "rwnd_limited_us": "tcpi_rwnd_limited",
    "sndbuf_limited_us": "tcpi_sndbuf_limited",
}
HEADER = Path("/usr/include/linux/tcp.h")
# What a real kernel returned, cut to what each release returns; README.md there says how.
RECORDED = sorted((Path(__file__).parent / "tcp_info").glob("linux-*.json"))

# Those that no event makes smaller, and that are not 0 below.
GROWING = {
    "total_retrans", "segs_out", "segs_in", "data_segs_out", "data_segs_in",
    "rcv_ooopack", "dsack_dups",
}  # fmt: skip

# Bytes that kernels returned: struct tcp_info only ever grew.
BEFORE_4_2 = 104
SINCE_4_6 = 160
SINCE_4_19 = 224
SINCE_5_4 = 232


def raw_info(**fields: int) -> bytes:
    """A struct tcp_info with these fields, and all others zero."""
    raw = bytearray(TCP_INFO_SIZE)
    for name, value in fields.items():
        offset, size = COUNTERS[name]
        raw[offset : offset + size] = struct.pack("=I" if size == 4 else "=B", value)
    return bytes(raw)


DISTINCT = {name: number for number, name in enumerate(COUNTERS, start=1)}


@pytest.mark.skipif(not shutil.which("gcc"), reason="no gcc to read linux/tcp.h with")
@pytest.mark.skipif(not HEADER.exists(), reason="no linux/tcp.h here")
def test_the_offsets_are_the_kernels_own(tmp_path):
    lines = [
        f'printf("{name} %zu %zu\\n", offsetof(struct tcp_info, {kernel}), '
        f"sizeof(((struct tcp_info *)0)->{kernel}));"
        for name, kernel in (KERNEL_NAMES | LIMITED_NAMES).items()
        if name != "options"
    ]
    source = tmp_path / "offsets.c"
    source.write_text(
        "#include <linux/tcp.h>\n#include <stddef.h>\n#include <stdio.h>\n"
        f"int main(void) {{ {''.join(lines)}\n"
        'printf("options %zu 1\\n", offsetof(struct tcp_info, tcpi_options));\n'
        'printf("unacked %zu 4\\n", offsetof(struct tcp_info, tcpi_unacked));\n'
        'printf("sacked %zu 4\\n", offsetof(struct tcp_info, tcpi_sacked)); }\n'
    )
    program = tmp_path / "offsets"
    subprocess.run(["gcc", "-o", program, source], check=True)
    printed = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    rows = [line.split() for line in printed.splitlines()]
    offsets = {name: (int(offset), int(size)) for name, offset, size in rows}
    assert (offsets.pop("unacked"), offsets.pop("sacked")) == ((24, 4), (28, 4))
    assert offsets == COUNTERS | {name: (offset, 8) for name, offset in LIMITED.items()}


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_every_release_since_4_18_is_read_as_ss_reads_it(path):
    fixture = json.loads(path.read_text())
    raw = bytes.fromhex(fixture["bytes"])
    assert Counters.parse(raw)._asdict() == fixture["counters"]
    assert Limited.parse(raw)._asdict() == fixture["limited"]
    assert None not in fixture["limited"].values()
    assert 0 not in fixture["counters"].values()


def test_there_is_a_recording_of_every_length():
    lengths = [len(json.loads(path.read_text())["bytes"]) // 2 for path in RECORDED]
    assert sorted(lengths) == [200, 224, 232, 240, 248, 280]


@given(st.integers(0, 300).flatmap(lambda size: st.binary(min_size=size, max_size=size)))
def test_whatever_a_kernel_returns_a_field_is_its_bytes_or_nothing(raw):
    read = Counters.parse(raw)._asdict() | Limited.parse(raw)._asdict()
    places = COUNTERS | {name: (offset, 8) for name, offset in LIMITED.items()}
    assert read.keys() == places.keys()
    nothing = {"rtt_us": (0,), "min_rtt_us": (0, 0xFFFF_FFFF)}  # no sample yet
    for name, (offset, size) in places.items():
        value = int.from_bytes(raw[offset : offset + size], sys.byteorder)
        if len(raw) < offset + size or value in nothing.get(name, ()):
            assert read[name] is None
        elif any(raw[136:144]) or len(raw) < 144:
            assert read[name] == value
        else:
            assert read[name] in (None, value)


def test_every_counter_is_read_from_its_own_place():
    assert Counters.parse(raw_info(**DISTINCT))._asdict() == DISTINCT


def test_a_kernel_that_is_just_new_enough_gives_every_counter():
    assert Counters.parse(raw_info(**DISTINCT)[:SINCE_5_4])._asdict() == DISTINCT
    assert Counters.parse(raw_info(**DISTINCT)[:228])._asdict() == DISTINCT


@pytest.mark.parametrize(
    ("size", "absent"),
    [
        (SINCE_4_19, {"rcv_ooopack"}),
        (SINCE_4_6, {"rcv_ooopack", "reord_seen", "dsack_dups"}),
        (
            BEFORE_4_2,
            {"rcv_ooopack", "reord_seen", "dsack_dups", "min_rtt_us"}
            | {"segs_out", "segs_in", "data_segs_out", "data_segs_in"},
        ),
        (0, set(COUNTERS)),
    ],
)
def test_what_an_old_kernel_does_not_count_is_not_measured(size, absent):
    expected = {name: None if name in absent else value for name, value in DISTINCT.items()}
    assert Counters.parse(raw_info(**DISTINCT)[:size])._asdict() == expected


def test_a_field_that_is_cut_in_its_middle_is_not_measured():
    raw = raw_info(**DISTINCT)
    for size in range(TCP_INFO_SIZE):
        for name, value in Counters.parse(raw[:size])._asdict().items():
            offset, length = COUNTERS[name]
            assert value == (DISTINCT[name] if offset + length <= size else None)


def test_a_newer_kernel_may_return_more():
    assert Counters.parse(raw_info(**DISTINCT) + b"\xff" * 100)._asdict() == DISTINCT


@pytest.mark.parametrize("size", [SINCE_4_6, TCP_INFO_SIZE])
def test_a_round_trip_that_has_no_sample_yet_is_not_measured(size):
    counters = Counters.parse(raw_info(rtt_us=0, min_rtt_us=0xFFFF_FFFF, segs_in=3)[:size])
    assert (counters.rtt_us, counters.min_rtt_us, counters.segs_in) == (None, None, 3)


def test_a_smallest_round_trip_of_zero_is_one_that_no_kernel_measures():
    counters = Counters.parse(raw_info(rtt_us=1, min_rtt_us=0, segs_in=3))
    assert (counters.rtt_us, counters.min_rtt_us) == (1, None)


def test_a_structure_that_is_there_and_not_filled_in_is_not_measured():
    """As gVisor gives it: every byte of it, with a round trip and a segment size."""
    raw = raw_info(rtt_us=700, snd_mss=1448)
    assert Counters.parse(raw) == NO_COUNTERS._replace(rtt_us=700, snd_mss=1448)
    assert Counters.parse(bytes(TCP_INFO_SIZE)) == NO_COUNTERS
    assert Limited.parse(raw) == Limited(None, None, None)
    assert AcceptQueue.parse(raw) == AcceptQueue(None, None)


@pytest.mark.parametrize("counted", [{"segs_out": 1}, {"segs_in": 1}])
def test_a_connection_that_has_only_just_begun_has_counted(counted):
    """The client's SYN is out and nothing came; the server has the SYN and has said nothing."""
    counters = Counters.parse(raw_info(**counted))
    assert counters.total_retrans == counters.data_segs_out == 0
    assert Limited.parse(raw_info(**counted)) == Limited(0, 0, 0)


HONEST = Counters(2, 11, 12, 5, 6, 50, 40, 1, 0, 1, 1448, 7)


def test_counters_that_grow_can_follow_each_other():
    assert HONEST.can_follow(None, 100)
    assert HONEST.can_follow(HONEST, 100)
    assert HONEST._replace(segs_in=13, data_segs_in=7, rtt_us=3).can_follow(HONEST, 100)
    assert HONEST._replace(total_retrans=None).can_follow(HONEST, 100)
    assert NO_COUNTERS.can_follow(HONEST, 0)
    assert HONEST.can_follow(NO_COUNTERS, 100)


@pytest.mark.parametrize(
    "lie",
    [
        *({name: value - 1} for name, value in HONEST._asdict().items() if name in GROWING),
        {"total_retrans": 2 + 0x0200_0000},
        {"data_segs_out": 12},
        {"data_segs_in": 13},
        {"data_segs_in": 5_000, "segs_in": 5_000},
        {"data_segs_out": 5_000, "segs_out": 5_000},
        {"dsack_dups": 0x0200_0000},
        {"rcv_ooopack": 13},
    ],
    ids=str,
)
def test_counters_that_no_connection_can_have_do_not_follow(lie):
    assert not HONEST._replace(**lie).can_follow(HONEST, 100)


def test_nothing_measured_is_nothing_but_none():
    assert set(NO_COUNTERS) == {None}


def test_the_accept_queue_is_what_a_listener_has_instead():
    raw = bytearray(TCP_INFO_SIZE)
    raw[24:32] = struct.pack("=II", 3, 128)
    assert AcceptQueue.parse(bytes(raw)) == AcceptQueue(3, 128)
    assert AcceptQueue.parse(bytes(raw[:28])) == AcceptQueue(None, None)
    assert AcceptQueue.parse(b"") == AcceptQueue(None, None)


def test_this_kernel_fills_the_fields_in():
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as sock,
        listener.accept()[0] as accepted,
    ):
        sock.sendall(b"x")
        accepted.recv(1)
        raw = sock.getsockopt(socket.SOL_TCP, socket.TCP_INFO, TCP_INFO_SIZE)
        counters = Counters.parse(raw)
    assert counters.total_retrans == 0
    assert counters.rtt_us is not None
    assert counters.snd_mss is not None
    assert counters.snd_mss > 500
    if len(raw) >= SINCE_4_6:
        assert counters.data_segs_out == 1
        assert counters.data_segs_in == 0
