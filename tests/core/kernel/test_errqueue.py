import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twocans_core.kernel.errqueue import EXTENDED_ERROR, RECVERR, Icmp, parse_icmp

# What Linux 6.18 put there: a router's "administratively prohibited", and an IPv6 one's.
PROHIBITED = bytes.fromhex("7100000002030d000000000000000000020000000a4d00020000000000000000")
ROUTER6 = "2001:db8::2"


def entry(
    icmp_type: int, code: int, sender: str, *, origin: int | None = None, errno: int = 111
) -> tuple[int, int, bytes]:
    """An entry of the error queue as ip_icmp_error and ipv6_icmp_error make it."""
    is_v6 = ":" in sender
    head = EXTENDED_ERROR.pack(errno, origin or (3 if is_v6 else 2), icmp_type, code, 0, 0, 0)
    if is_v6:
        address = socket.inet_pton(socket.AF_INET6, sender)
        return *RECVERR["6"], head + struct.pack("=HHI16sI", socket.AF_INET6, 0, 0, address, 0)
    address = socket.inet_pton(socket.AF_INET, sender)
    return *RECVERR["4"], head + struct.pack("=HH4s8x", socket.AF_INET, 0, address)


def test_the_options_are_those_of_in_h():
    assert RECVERR == {"4": (socket.SOL_IP, 11), "6": (socket.IPPROTO_IPV6, 25)}


def test_what_a_kernel_gave_says_who_said_what():
    found = parse_icmp([(socket.SOL_IP, 11, PROHIBITED)])
    assert found == Icmp(3, 13, "10.77.0.2")
    assert (found.family, str(found)) == ("4", "10.77.0.2 says administratively prohibited")


@pytest.mark.parametrize("sender", ["192.0.2.1", ROUTER6, "fe80::1"])
def test_type_code_and_sender_are_read_of_both_families(sender):
    ttl = (socket.SOL_IP, socket.IP_TTL, struct.pack("=i", 64))
    assert parse_icmp([ttl, entry(1, 4, sender)]) == Icmp(1, 4, sender)


@pytest.mark.parametrize(
    ("icmp", "said"),
    [
        (Icmp(3, 3, "192.0.2.1"), "192.0.2.1 says port unreachable"),
        (Icmp(1, 4, ROUTER6), "2001:db8::2 says port unreachable"),
        (Icmp(12, 2, "192.0.2.1"), "192.0.2.1 says ICMP type 12 code 2"),
        (Icmp(3, 3, ROUTER6), "2001:db8::2 says ICMP type 3 code 3"),
    ],
)
def test_it_is_put_in_words_by_family(icmp, said):
    assert str(icmp) == said


@pytest.mark.parametrize(
    "ancillary",
    [
        [],
        [(socket.SOL_SOCKET, 11, PROHIBITED)],
        [entry(0, 0, "192.0.2.1", origin=1)],  # SO_EE_ORIGIN_LOCAL
        [entry(0, 0, "192.0.2.1", origin=4)],  # a transmit timestamp
        [(socket.SOL_IP, 11, PROHIBITED[:16] + bytes(16))],  # without a sender
        [(socket.SOL_IP, 11, PROHIBITED[:22])],
        [(socket.SOL_IP, 11, PROHIBITED[:10])],
    ],
)
def test_what_is_no_icmp_message_is_none(ancillary):
    assert parse_icmp(ancillary) is None


@given(st.sampled_from(sorted(RECVERR.values())), st.binary(max_size=60))
def test_whatever_a_kernel_gives_is_read_or_left(kind, data):
    found = parse_icmp([(*kind, data)])
    assert found is None or found.sender in str(found)
