import json
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.kernel.test_tcpinfo import HEADER, RECORDED
from twocans_core.kernel.standing import NO_STANDING, STANDING, Standing
from twocans_core.kernel.tcpinfo import TCP_INFO_SIZE

NAMES = {
    "rto_us": "rto",
    "last_data_sent_ms": "last_data_sent",
    "last_data_recv_ms": "last_data_recv",
    "last_ack_recv_ms": "last_ack_recv",
    "min_rtt_us": "min_rtt",
    "total_rto_time_ms": "total_rto_time",
}
LATER_THAN_5_4 = {"total_rto", "total_rto_time_ms"}  # than the header of Debian 12
SAID = (Path(__file__).parent / "tcp_info" / "ss.txt").read_text()
SS_LATER_MS = 24  # than the reading: all three of its ages are older by that
DISTINCT = {name: number for number, name in enumerate(STANDING, start=1)}


def raw_info(**fields: int) -> bytes:
    """A struct tcp_info with these fields of Standing, and all others zero."""
    raw = bytearray(TCP_INFO_SIZE)
    for name, value in fields.items():
        offset, size = STANDING[name]
        raw[offset : offset + size] = value.to_bytes(size, sys.byteorder)
    return bytes(raw)


def standing(**fields: int) -> Standing:
    return Standing.parse(raw_info(**{"segs_out": 1} | fields))


def said(pattern: str) -> int:
    found = re.search(rf"\b{pattern}", SAID)
    assert found is not None
    return int(found[1])


@pytest.mark.skipif(
    shutil.which("gcc") is None or not HEADER.exists(), reason="needs gcc and linux/tcp.h"
)
def test_offsets_are_those_of_the_kernels_header(tmp_path):
    names = [name for name in STANDING if name not in LATER_THAN_5_4]
    lines = [
        f'printf("%zu %zu\\n", offsetof(struct tcp_info, tcpi_{NAMES.get(name, name)}),'
        f" sizeof(((struct tcp_info *)0)->tcpi_{NAMES.get(name, name)}));"
        for name in names
    ]
    source, program = tmp_path / "offsets.c", tmp_path / "offsets"
    source.write_text(
        "#include <linux/tcp.h>\n#include <stddef.h>\n#include <stdio.h>\n"
        f"int main(void) {{ {''.join(lines)} }}\n"
    )
    subprocess.run(["gcc", "-o", program, source], check=True)
    printed = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    rows = [tuple(map(int, line.split())) for line in printed.splitlines()]
    assert dict(zip(names, rows, strict=True)) == {name: STANDING[name] for name in names}


def test_the_table_is_in_the_order_of_the_fields_and_of_the_structure():
    assert tuple(STANDING) == Standing._fields
    assert list(STANDING.values()) == sorted(STANDING.values())


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_every_release_since_4_18_is_read_as_ss_reads_it(path):
    raw = bytes.fromhex(json.loads(path.read_text())["bytes"])
    expected = {
        "state": 1,
        "ca_state": 0,
        "retransmits": 0,
        "probes": 0,
        "backoff": 0,
        "rto_us": said(r"rto:(\d+)") * 1000,
        "snd_mss": said(r"mss:(\d+)"),
        "rcv_mss": said(r"rcvmss:(\d+)"),
        "unacked": 0,
        "sacked": 0,
        "lost": 0,
        "retrans": said(r"retrans:(\d+)/"),
        "last_data_sent_ms": said(r"lastsnd:(\d+)") - SS_LATER_MS,
        "last_data_recv_ms": said(r"lastrcv:(\d+)") - SS_LATER_MS,
        "last_ack_recv_ms": said(r"lastack:(\d+)") - SS_LATER_MS,
        "pmtu": said(r"pmtu:(\d+)"),
        "total_retrans": said(r"retrans:\d+/(\d+)"),
        "bytes_acked": said(r"bytes_acked:(\d+)"),
        "segs_out": said(r"segs_out:(\d+)"),
        "segs_in": said(r"segs_in:(\d+)"),
        "notsent_bytes": 0,
        "min_rtt_us": 78,  # minrtt:0.078
        "data_segs_in": said(r"data_segs_in:(\d+)"),
        "data_segs_out": said(r"data_segs_out:(\d+)"),
        "bytes_sent": said(r"bytes_sent:(\d+)"),
        "bytes_retrans": said(r"bytes_retrans:(\d+)"),
        "snd_wnd": said(r"snd_wnd:(\d+)"),
        "total_rto": 1,  # ss does not say; nor how long it took
        "total_rto_time_ms": 1,
    }
    known = {name for name, (offset, size) in STANDING.items() if offset + size <= len(raw)}
    found = Standing.parse(raw)._asdict()
    assert found == {name: expected[name] if name in known else None for name in expected}


def test_every_field_is_read_from_its_own_place():
    assert Standing.parse(raw_info(**DISTINCT))._asdict() == DISTINCT


def test_a_field_that_is_cut_in_its_middle_is_not_measured():
    raw = raw_info(**DISTINCT)
    for size in range(TCP_INFO_SIZE):
        for name, value in Standing.parse(raw[:size])._asdict().items():
            offset, length = STANDING[name]
            assert value == (DISTINCT[name] if offset + length <= size else None)


@given(st.binary(max_size=300))
def test_whatever_a_kernel_returns_can_be_read(raw):
    found = Standing.parse(raw)
    assert found.is_dropped_here in (True, False)
    assert found.is_waiting_here in (True, False)


def test_what_never_happened_was_not_some_time_ago():
    fresh = standing(last_data_sent_ms=9, last_data_recv_ms=9, min_rtt_us=0xFFFF_FFFF)
    assert (fresh.last_data_sent_ms, fresh.last_data_recv_ms, fresh.min_rtt_us) == (None,) * 3
    heard = standing(last_data_recv_ms=9, data_segs_in=1)
    assert (heard.last_data_sent_ms, heard.last_data_recv_ms) == (None, 9)


def test_a_structure_that_is_there_and_not_filled_in_is_not_measured():
    assert Standing.parse(bytes(TCP_INFO_SIZE)) == NO_STANDING
    assert Standing.parse(raw_info(state=1, snd_mss=1448)) == NO_STANDING
    assert Standing.parse(b"") == NO_STANDING


def test_what_was_sent_in_vain_is_retransmits_or_probes():
    found = [standing(retransmits=a, probes=b).sent_in_vain for a, b in ((0, 0), (3, 0), (0, 2))]
    assert found == [0, 3, 2]
    assert Standing.parse(b"\4\0\3").sent_in_vain is None


@pytest.mark.parametrize(
    ("fields", "is_here"),
    [
        # As Linux 6.18 had them: tests/integration/test_who_said_no.py makes them again.
        ({"retransmits": 3, "unacked": 1, "total_retrans": 3}, True),
        ({"retransmits": 3, "unacked": 1, "total_retrans": 3, "retrans": 1}, False),
        ({"probes": 3, "notsent_bytes": 100, "snd_wnd": 65_536}, True),
        ({"notsent_bytes": 100, "snd_wnd": 65_536}, False),  # its timer has not run yet
        ({"probes": 3, "notsent_bytes": 100, "snd_wnd": 0}, False),  # a receiver that is full
        ({"retransmits": 4, "unacked": 6, "sacked": 1, "total_retrans": 5, "retrans": 1}, False),
        ({"retransmits": 3, "unacked": 0, "total_retrans": 0}, False),  # a dead neighbour
        ({}, False),
    ],
)  # fmt: skip
def test_what_our_own_host_dropped_is_told_from_what_the_path_lost(fields, is_here):
    assert standing(**fields).is_dropped_here is is_here


def test_a_syn_that_waits_in_this_host_is_not_sent_again():
    assert standing(retransmits=3).is_waiting_here
    assert not standing(retransmits=3, total_retrans=3).is_waiting_here
    assert not standing().is_waiting_here


def test_this_kernel_fills_the_fields_in():
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as sock,
        listener.accept()[0] as accepted,
    ):
        sock.sendall(b"x")
        accepted.recv(1)
        found = Standing.parse(sock.getsockopt(socket.SOL_TCP, socket.TCP_INFO, TCP_INFO_SIZE))
    assert (found.state, found.retransmits, found.unacked) == (1, 0, 0)
    assert found.last_data_recv_ms is None
    assert found.last_data_sent_ms is not None
    assert found.pmtu is not None
    assert found.snd_mss is not None
    assert found.pmtu > found.snd_mss
