import socket
import struct
import sys

import pytest

from twocans_core.kernel.stamps import (
    RECORD_TX,
    RX_FLAGS,
    SO_TIMESTAMPING_NEW,
    TX_FLAGS,
    TX_FLAGS_BEFORE_6_2,
    TxStamp,
    parse_rx,
    parse_tx,
)

SOL_IPV6 = 41
IPV6_RECVERR = 25
IP_RECVERR = 11


def stamp(seconds: int, nanoseconds: int) -> tuple[int, int, bytes]:
    """SCM_TIMESTAMPING_NEW: three times of two 64-bit numbers, the software's first."""
    return socket.SOL_SOCKET, 65, struct.pack("=6q", seconds, nanoseconds, 0, 0, 0, 0)


def identifier(
    offset: int, *, v6: bool = False, origin: int = 4, info: int = 0
) -> tuple[int, int, bytes]:
    """struct sock_extended_err: errno ENOMSG, origin, type, code, padding, info, data."""
    level = (SOL_IPV6, IPV6_RECVERR) if v6 else (socket.SOL_IP, IP_RECVERR)
    return *level, struct.pack("=IBBBBII", 42, origin, 0, 0, 0, info, offset) + bytes(16)


TTL = (socket.SOL_IP, socket.IP_TTL, struct.pack("=i", 64))


def test_the_flags_are_those_of_net_tstamp_h():
    # TX_SOFTWARE 2, RX_SOFTWARE 8, SOFTWARE 16, OPT_ID 128, TX_SCHED 256, OPT_TSONLY 2048,
    # OPT_ID_TCP 65536.
    assert SO_TIMESTAMPING_NEW == 65
    assert RX_FLAGS == 16 + 8
    assert TX_FLAGS_BEFORE_6_2 == 16 + 8 + 128 + 2048
    assert TX_FLAGS == TX_FLAGS_BEFORE_6_2 + 65536
    assert RECORD_TX[False] == [(socket.SOL_SOCKET, 37, (2).to_bytes(4, sys.byteorder))]
    assert RECORD_TX[True] == [(socket.SOL_SOCKET, 37, (2 + 256).to_bytes(4, sys.byteorder))]


def test_a_receive_stamp_is_nanoseconds_of_realtime():
    assert parse_rx([stamp(1_700_000_000, 5)]) == 1_700_000_000_000_000_005


def test_a_receive_stamp_is_found_among_other_messages():
    assert parse_rx([TTL, stamp(1, 2)]) == 1_000_000_002


@pytest.mark.parametrize("ancillary", [[], [TTL], [stamp(0, 0)]])
def test_no_stamp_or_a_zero_one_is_none(ancillary):
    assert parse_rx(ancillary) is None


def test_the_hardwares_stamp_is_not_taken_for_the_softwares():
    hardware = (socket.SOL_SOCKET, 65, struct.pack("=6q", 0, 0, 0, 0, 9, 9))
    assert parse_rx([hardware]) is None


@pytest.mark.parametrize("v6", [False, True])
@pytest.mark.parametrize("order", [1, -1])
def test_a_transmit_stamp_has_the_offset_of_its_last_byte(v6, order):
    entry = [stamp(1, 2), identifier(0xFFFF_FFFF, v6=v6)][::order]
    assert parse_tx(entry) == TxStamp(0xFFFF_FFFF, 1_000_000_002)


def test_a_stamp_of_the_queue_is_told_apart():
    entry = [stamp(1, 2), identifier(7, info=1)]  # SCM_TSTAMP_SCHED
    assert parse_tx(entry) == TxStamp(7, 1_000_000_002, queued=True)


@pytest.mark.parametrize(
    "entry",
    [
        [],
        [stamp(1, 2)],
        [identifier(3)],
        [stamp(0, 0), identifier(3)],
        [stamp(1, 2), identifier(3, info=2)],  # SCM_TSTAMP_ACK
        [stamp(1, 2), identifier(3, origin=2)],  # an ICMP message
    ],
)
def test_what_is_no_transmit_stamp_is_none(entry):
    assert parse_tx(entry) is None
