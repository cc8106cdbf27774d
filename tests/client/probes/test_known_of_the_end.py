"""What a probe takes from its own kernel at the end, and when it asks for it."""

import errno
import os

import pytest

from client.far_end import PLAN, FarEnd, ended, good_script, make_probe, probe_over
from core.kernel.test_standing import standing
from fakes import COUNTERS, MemoryStream
from twocans_client.evidence.results import Reason
from twocans_core.kernel.errqueue import Icmp
from twocans_core.kernel.stamps import Transmit
from twocans_core.kernel.standing import Standing
from twocans_core.net.streams import DeadlineExceeded, Unconnected

STOOD = standing(retransmits=2, total_retrans=2, unacked=1, segs_out=5)
NO = Icmp(3, 13, "192.0.2.9")


def error_of(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def test_what_is_known_of_a_connection_that_never_came_to_be_is_in_the_result():
    result = make_probe(error_of(errno.EHOSTUNREACH), unconnected=Unconnected(STOOD, NO))
    assert (result.reason, result.errno) == (Reason.UNREACHABLE, errno.EHOSTUNREACH)
    assert (result.standing, result.icmp) == (STOOD, NO)
    assert result.detail == "EHOSTUNREACH, 192.0.2.9 says administratively prohibited"
    assert (result.retrans, result.syns_resent, result.sent_in_vain) == (2, 2, 2)
    assert (result.synacks_resent, result.request_left) == (None, None)


def test_a_syn_that_nobody_answered_has_no_errno_and_counts():
    result = make_probe(DeadlineExceeded(), unconnected=Unconnected(STOOD, None))
    assert (result.reason, result.errno, result.icmp) == (Reason.CONNECT_TIMEOUT, None, None)
    assert result.segments is not None
    assert result.segments.forward.unanswered == 3


@pytest.mark.parametrize(
    ("sender", "local", "is_own"),
    [
        ("192.0.2.1", ("192.0.2.1", 1), True),
        ("192.0.2.9", ("192.0.2.1", 1), False),
        ("fe80::1", ("fe80::1%eth0", 1), True),
        ("192.0.2.1", None, False),
    ],
)
def test_an_icmp_message_from_our_own_address_is_our_own_kernels_word(sender, local, is_own):
    result = ended(Reason.UNREACHABLE, icmp=Icmp(3, 1, sender), local=local)
    assert result.is_own_word is is_own
    assert not ended(Reason.UNREACHABLE, local=local).is_own_word


class Asked(MemoryStream):
    """Counts how often it is asked how it stands."""

    asked = 0

    def standing(self) -> Standing:
        self.asked += 1
        return STOOD


@pytest.mark.parametrize(
    ("kernel", "payload_bytes", "count"),
    [
        ({}, 64, 0),
        ({}, 1449, 1),
        ({"snd_mss": 100}, 64, 1),
        ({"snd_mss": None}, 1449, 0),
        ({"total_retrans": 1}, 64, 1),
        ({"total_retrans": None}, 64, 0),
    ],
)
def test_of_good_probes_only_those_that_lost_or_are_large_are_asked(kernel, payload_bytes, count):
    stream = Asked(*good_script(FarEnd()))
    stream.kernel = COUNTERS._replace(**kernel)
    result = make_probe(stream, PLAN._replace(payload_bytes=payload_bytes))
    assert result.reason is Reason.OK
    assert (stream.asked, result.standing) == (count, STOOD if count else None)
    assert result.soft_error is None
    assert (result.syns_resent, result.synacks_resent) == (stream.kernel.total_retrans, 0)


@pytest.mark.parametrize("answers", [0, 1, 3])
def test_of_a_failed_probe_is_known_how_it_stood_and_whether_its_request_left(answers):
    stream = Asked(*good_script(FarEnd())[:answers])
    stream.soft_error = errno.EHOSTUNREACH
    result = make_probe(stream)
    assert (result.standing, result.soft_error) == (STOOD, errno.EHOSTUNREACH)
    assert result.sent_in_vain == 2
    asked = answers == 1
    assert result.request_left == (Transmit(None, None) if asked else None)


def test_when_the_unanswered_request_left_is_taken_from_the_kernel():
    class Stamped(MemoryStream):
        def take_transmit(self, end: int) -> Transmit:
            return Transmit(5, 9) if end == self.sent_bytes else Transmit(None, None)

    result = make_probe(Stamped(*good_script(FarEnd())[:1]))
    assert (result.reason, result.request_left) == (Reason.REPLY_TIMEOUT, Transmit(5, 9))


def test_what_a_broken_connection_ended_with_is_its_errno():
    result = probe_over(*good_script(FarEnd())[:1], error_of(errno.ECONNRESET))
    assert (result.reason, result.errno) == (Reason.RESET, errno.ECONNRESET)
