import errno

import pytest

from client.far_end import PLAN, make_probe
from fakes import FakeClock, MemoryStream
from twocans_client.evidence.results import Reason
from twocans_client.probes.plain import PlainAttempt
from twocans_core.net.channel import Received
from twocans_core.net.streams import DeadlineExceeded


def echo_plain(*script, text=b"Hello", clock=None, step_ns=0):
    stream = MemoryStream(*script, clock=clock, step_ns=step_ns)
    plan = PLAN._replace(payload=text)
    result = make_probe(stream, plan, attempt_type=PlainAttempt, clock=clock)
    assert stream.closed
    return result, stream


def test_an_echo_is_ok_and_exactly_the_text_was_sent():
    result, stream = echo_plain(b"He", b"llo", b"")
    assert (result.reason, result.reply) == (Reason.OK, b"Hello")
    assert stream.sent == b"Hello"
    assert stream.output_ended
    assert (result.bytes_sent, result.bytes_received) == (5, 5)


def test_its_phases_end_when_the_bytes_were_read():
    result, _ = echo_plain(b"He", b"llo", b"", clock=FakeClock(), step_ns=3)
    assert [exchange.duration_ns for exchange in result.exchanges] == [6]
    assert result.close_ns == 3
    assert result.exchanges[0].split is None, "nothing is known of the far end"


def test_the_kernels_stamps_of_our_end_are_kept():
    stream = MemoryStream(lambda sent: stream.tx_ns.update({5: 11}) or Received(sent, 22), b"")
    result = make_probe(stream, PLAN._replace(payload=b"Hello"), attempt_type=PlainAttempt)
    assert (result.exchanges[0].stamps.t1k, result.exchanges[0].stamps.t4k) == (11, 22)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ([], Reason.REPLY_TIMEOUT),
        ([b"Hell"], Reason.REPLY_TIMEOUT),
        ([b"Hello"], Reason.CLOSE_TIMEOUT),
        ([b"Hell", b""], Reason.CLOSED_EARLY),
        ([b""], Reason.CLOSED_EARLY),
        ([b"Hellp"], Reason.WRONG_BYTES),
        ([b"Hello!"], Reason.WRONG_BYTES),
        ([b"Hello", b"!"], Reason.WRONG_BYTES),
        ([ConnectionResetError(errno.ECONNRESET, "")], Reason.RESET),
        ([b"Hello", ConnectionResetError(errno.ECONNRESET, "")], Reason.RESET),
        ([DeadlineExceeded()], Reason.REPLY_TIMEOUT),
    ],
)
def test_every_way_to_end_has_its_reason(script, reason):
    result, _ = echo_plain(*script)
    assert result.reason is reason
    assert result.close_ns is None


def test_a_server_that_sends_more_is_not_read_for_ever():
    result, stream = echo_plain(*[b"x" * 65_536] * 10)
    assert result.reason is Reason.WRONG_BYTES
    assert len(stream.script) == 9


def test_what_came_is_counted_even_if_it_was_not_all():
    assert echo_plain(b"Hell", b"")[0].bytes_received == 4


def test_a_late_end_is_ok_and_late():
    result, _ = echo_plain(b"Hello", Received(b"", None, late=True))
    assert (result.reason, result.late) == (Reason.OK, True)


def test_no_text_makes_no_exchange():
    result, _ = echo_plain(b"", text=b"")
    assert (result.reason, result.exchanges) == (Reason.OK, [])
