import pytest

from client.far_end import ended
from twocans_client.evidence.results import OUTCOMES, Exchange, Outcome, Reason
from twocans_client.evidence.split import Refusal, Stamps

STAMPS = Stamps(1_000, 1_004, 1_010, 5_000, 5_003, 5_006, None, 1_079, 1_090)


def test_an_exchange_has_its_split_when_the_last_stamp_has_come():
    exchange = Exchange.of(1, 90, STAMPS)
    assert (exchange.split, exchange.refusal) == (None, Refusal.UNSTAMPED)
    whole = exchange.completed(5_009, resent=False)
    assert whole.refusal is None
    assert whole.split is not None
    assert (whole.split.network_ns, whole.split.server_ns, whole.split.client_ns) == (60, 9, 21)
    assert not whole.resent


@pytest.mark.parametrize(("before", "after"), [(True, False), (False, True), (True, True)])
def test_what_was_sent_again_stays_so(before, after):
    exchange = Exchange.of(1, 90, STAMPS, resent=before)
    assert exchange.completed(5_009, resent=after).resent


def test_by_the_programs_clocks_wake_ups_are_the_networks():
    assert Exchange.of(1, 90, STAMPS).user_split == (87, 3)


@pytest.mark.parametrize("theirs", [{"t2u": None}, {"t3u": None}, {"t3u": 5_000}, {"t2u": 0}])
def test_a_server_that_says_nothing_of_use_makes_no_split(theirs):
    assert Exchange.of(1, 90, STAMPS._replace(**theirs)).user_split is None


def test_every_reason_has_one_outcome():
    assert OUTCOMES.keys() == set(Reason)
    fails = {reason for reason, outcome in OUTCOMES.items() if outcome is Outcome.FAIL}
    assert {reason for reason, outcome in OUTCOMES.items() if outcome is Outcome.OK} == {Reason.OK}
    assert fails == {
        *(Reason.DNS_FAILURE, Reason.DNS_TIMEOUT, Reason.REFUSED, Reason.UNREACHABLE),
        *(Reason.CONNECT_TIMEOUT, Reason.GREETING_TIMEOUT, Reason.REPLY_TIMEOUT),
        *(Reason.CLOSE_TIMEOUT, Reason.RESET, Reason.CLOSED_EARLY, Reason.WRONG_BYTES),
        *(Reason.DAMAGED, Reason.PROTOCOL_ERROR, Reason.BUSY),
    }


def test_the_response_is_measured_from_the_intended_start():
    result = ended(Reason.OK, 5_000)
    result.intended_ns = 2_000
    assert (result.total_ns, result.response_ns) == (1_000_000, 1_003_000)


def test_what_was_not_measured_is_no_phase_and_zero_is_one():
    assert list(ended(Reason.OK).phases()) == []
    assert list(ended(Reason.OK, connect_ns=0).phases()) == [("connect", "user", 0)]
