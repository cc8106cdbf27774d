import errno

import pytest

from twocans_client.evidence.blame import (
    LEAVING,
    after_silence,
    excuse,
    is_self_stall,
    own_fault,
    reason_of,
)
from twocans_client.evidence.results import OUTCOMES, Outcome, ProbeResult, Reason
from twocans_core.host.stalls import NEVER, STALL_NS, Cause, Stalled

MS = 1_000_000
S = 1_000 * MS
FAILURES = [reason for reason in Reason if OUTCOMES[reason] is Outcome.FAIL]
PROOF = {Reason.REFUSED, Reason.WRONG_BYTES, Reason.DAMAGED}
IMPATIENCE = {Reason.PROTOCOL_ERROR, Reason.CLOSED_EARLY, Reason.RESET}

SILENCE = {reason for reason in FAILURES if reason.endswith("_timeout")} - {Reason.DNS_TIMEOUT}


def result_of(reason: Reason, *, draining: bool = False) -> ProbeResult:
    return ProbeResult(
        intended_ns=0, started_ns=0, started_real_ns=0, reason=reason, draining=draining
    )


def stalled(ns: int, cause: Cause = Cause.STOPPED) -> Stalled:
    return Stalled(ns, ns, cause)


@pytest.mark.parametrize("reason", FAILURES)
def test_a_failure_is_ours_from_a_quarter_of_the_time_out_on_unless_it_is_proof(reason):
    for ns, ours in ((S // 4 - 1, False), (S // 4, reason not in PROOF)):
        result = result_of(reason)
        excuse(result, S, stalled(ns))
        assert (result.reason is Reason.SELF_STALL) == ours
        assert result.worst_lag_ns == ns


@pytest.mark.parametrize("reason", FAILURES)
def test_a_server_loses_patience_after_a_second_of_ours_however_long_we_would_wait(reason):
    for ns, ours in ((S - 1, False), (S, reason in IMPATIENCE)):
        assert is_self_stall(reason, 60 * S, stalled(ns)) == ours


@pytest.mark.parametrize("reason", FAILURES)
def test_what_our_kernel_sent_again_in_vain_no_stall_of_ours_explains(reason):
    for in_vain in (0, 1, 2, 5):
        result = result_of(reason)
        result.sent_in_vain = in_vain
        excuse(result, S, stalled(S))
        proved = reason in PROOF or (reason in SILENCE and in_vain >= 2)
        assert (result.reason is reason) == proved


@pytest.mark.parametrize("reason", FAILURES)
@pytest.mark.parametrize("waiting_for", [*SILENCE, Reason.OK])
def test_an_end_after_a_long_silence_is_the_silence(reason, waiting_for):
    for in_vain, silent_ns in ((2, S), (1, 60 * S), (5, S - 1)):
        found, detail = after_silence(reason, "why", waiting_for, in_vain, silent_ns)
        if reason in IMPATIENCE and waiting_for in SILENCE and in_vain == 2:
            assert (found, detail) == (waiting_for, f"{reason} after 1.000 s of silence")
        else:
            assert (found, detail) == (reason, "why")


def test_many_small_stalls_count_as_much_as_a_long_one():
    result = result_of(Reason.REPLY_TIMEOUT)
    excuse(result, 10 * S, Stalled(3 * S, 90 * MS, Cause.THROTTLED))
    assert result.reason is Reason.SELF_STALL
    assert result.detail == "reply_timeout after we stood still for 3.000 s, throttled"


def test_what_has_no_cause_is_said_without_one():
    result = result_of(Reason.REPLY_TIMEOUT)
    excuse(result, S, Stalled(S, 19 * MS, None))
    assert result.detail == "reply_timeout after we stood still for 1.000 s"


@pytest.mark.parametrize("reason", [reason for reason in Reason if OUTCOMES[reason] != "fail"])
def test_what_is_good_or_void_keeps_its_reason(reason):
    result = result_of(reason, draining=True)
    excuse(result, S, stalled(60 * S))
    assert result.reason is reason


@pytest.mark.parametrize("cause", Cause)
def test_a_good_probe_in_whose_time_we_stood_still_is_tainted_with_the_cause(cause):
    result = result_of(Reason.OK)
    excuse(result, 60 * S, stalled(STALL_NS, cause))
    assert result.tainted == cause


@pytest.mark.parametrize("own", [NEVER, Stalled(500 * MS, STALL_NS - 1, None)])
def test_a_good_probe_without_a_stall_is_not_tainted(own):
    result = result_of(Reason.OK)
    excuse(result, 60 * S, own)
    assert result.tainted == ""


def test_a_failure_in_whose_time_we_stood_still_is_tainted_too():
    result = result_of(Reason.REPLY_TIMEOUT)
    excuse(result, 60 * S, stalled(S))
    assert (result.reason, result.tainted) == (Reason.REPLY_TIMEOUT, "stopped")


@pytest.mark.parametrize("reason", FAILURES)
def test_a_server_that_said_goodbye_is_excused_only_for_being_gone(reason):
    result = result_of(reason, draining=True)
    excuse(result, S, NEVER)
    assert (result.reason is Reason.DRAINING) == (reason in LEAVING)
    result = result_of(reason)
    excuse(result, S, NEVER)
    assert result.reason is reason


def test_our_own_stall_comes_before_the_servers_goodbye():
    result = result_of(Reason.REPLY_TIMEOUT, draining=True)
    excuse(result, S, stalled(S))
    assert result.reason is Reason.SELF_STALL


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ECONNREFUSED, Reason.REFUSED),
        (errno.ECONNRESET, Reason.RESET),
        (errno.EHOSTUNREACH, Reason.UNREACHABLE),
        (errno.EMFILE, Reason.NO_DESCRIPTORS),
        (errno.ETIMEDOUT, Reason.REPLY_TIMEOUT),
        (errno.EBADF, Reason.INTERNAL_ERROR),
    ],
)
def test_an_errno_means(number, reason):
    assert reason_of(OSError(number, ""), Reason.REPLY_TIMEOUT) is reason


def test_only_what_this_machine_lacks_is_its_own_fault():
    assert own_fault(OSError(errno.ENOMEM, "")) is Reason.NO_MEMORY
    assert own_fault(OSError(errno.ECONNRESET, "")) is None
    assert own_fault(ValueError()) is None
