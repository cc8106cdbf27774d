import pytest

from client.far_end import FarEnd, good_script, probe_over
from twocans_client.evidence.results import Outcome, Reason
from twocans_client.probes.connect import ConnectAttempt
from twocans_client.probes.paced import Pace, paced
from twocans_client.probes.probe import MOST_SIZED_BYTES, Plan
from twocans_core.protocol.messages import Goodbye, Request

MS = 1_000_000
PLAN = Plan(5_000 * MS, payload_bytes=0, sized=True)


def sizes_heard(far: FarEnd) -> list[int]:
    return [len(message.payload) for message in far.heard if isinstance(message, Request)]


def test_exchanges_go_on_in_their_pace_until_their_time_is_over():
    far = FarEnd()

    def answer(sent: bytes) -> bytes:
        said_goodbye = any(isinstance(message, Goodbye) for message in far.heard)
        return b"" if said_goodbye else far(sent)

    pace = Pace(64, 10 * MS, 45 * MS)
    result = probe_over(*[answer] * 20, plan=PLAN, attempt_type=paced(pace))
    assert result.reason is Reason.OK, result.detail
    sizes = sizes_heard(far)
    assert sizes == [64] * len(sizes)
    assert 1 <= len(sizes) <= 5  # fewer, if this machine is slow
    assert len(result.exchanges) == len(sizes)
    assert not result.is_sized


@pytest.mark.parametrize("limit", [1_000, 65_536])
def test_no_request_is_larger_than_the_server_takes(limit):
    far = FarEnd(max_payload=limit)
    pace = Pace(MOST_SIZED_BYTES, 0, 1)
    result = probe_over(*good_script(far, 1), plan=PLAN, attempt_type=paced(pace))
    assert result.reason is Reason.OK, result.detail
    assert sizes_heard(far) == [limit]
    assert result.payload_bytes == limit


def test_a_connection_that_says_nothing_is_good_whoever_is_there():
    result = probe_over(plan=PLAN, attempt_type=ConnectAttempt)
    assert result.outcome is Outcome.OK
    assert result.connect_ns is not None
    assert result.bytes_sent == 0
    assert result.server is None
    assert result.exchanges == []
