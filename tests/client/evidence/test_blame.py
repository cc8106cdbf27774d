import errno

import pytest

from client.far_end import ended
from twocans_client.evidence.blame import (
    LEAVING,
    Circumstances,
    judge,
    judge_probe,
    own_fault,
    reason_of,
)
from twocans_client.evidence.results import OUTCOMES, Outcome, Reason, Silence
from twocans_core.host.stalls import NEVER, STALL_NS, Cause, Stalled

MS = 1_000_000
S = 1_000 * MS
FAILURES = {reason for reason in Reason if OUTCOMES[reason] is Outcome.FAIL}
PROOF = {Reason.REFUSED, Reason.WRONG_BYTES, Reason.DAMAGED}
IMPATIENCE = {Reason.PROTOCOL_ERROR, Reason.CLOSED_EARLY, Reason.RESET}
SILENCE = {reason for reason in FAILURES if reason.endswith("_timeout")} - {Reason.DNS_TIMEOUT}


def known(stalled_ns: int = 0, patience_ns: int | None = S, **others) -> Circumstances:
    cause = Cause.STOPPED if stalled_ns else None
    return Circumstances(Stalled(stalled_ns, stalled_ns, cause), patience_ns, **others)


def silent(waiting_for: Reason, ns: int = S, sent_in_vain: int = 2, **others) -> Circumstances:
    silence = Silence(waiting_for, ns)
    return known(sent_in_vain=sent_in_vain, silence=silence, **others)


def become(reasons, found, detail="why"):
    return dict.fromkeys(reasons, (found, detail))


def ours(reasons, stood_s):
    return become(reasons, Reason.SELF_STALL, f"{{}} after we stood still for {stood_s} s, stopped")


def leaving(reasons):
    return become(reasons, Reason.DRAINING, "{} after the server's GOODBYE")


# What is known, and what the reasons become that do not stay what they look like.
CASES = {
    "nothing": (known(), {}),
    "nothing, nor was anything waited for": (known(S, None), {}),
    "we stood still for a quarter of our patience": (
        known(250 * MS),
        ours(FAILURES - PROOF, "0.250"),
    ),
    "nearly a quarter": (known(250 * MS - 1), {}),
    "our kernel sent again in vain once": (
        known(S, sent_in_vain=1),
        ours(FAILURES - PROOF, "1.000"),
    ),
    "twice, which no stall of ours explains": (
        known(S, sent_in_vain=2),
        ours(FAILURES - PROOF - SILENCE, "1.000"),
    ),
    "a second of ours, at which a server may lose its patience": (
        known(S, 60 * S),
        ours(IMPATIENCE, "1.000"),
    ),
    "nearly a second": (known(S - 1, 60 * S), {}),
    "as long as this server is content not to hear us": (
        known(2 * S, 60 * S, keepalive_ns=2 * S),
        ours(FAILURES - PROOF, "2.000"),
    ),
    "nearly so long": (known(2 * S - 1, 60 * S, keepalive_ns=2 * S), {}),
    "a quarter, of a server that is content for longer": (
        known(3 * S, 12 * S, keepalive_ns=60 * S),
        ours(FAILURES - PROOF, "3.000"),
    ),
    "nearly a quarter, though longer than a second": (
        known(3 * S - 1, 12 * S, keepalive_ns=60 * S),
        {},
    ),
    "the server said GOODBYE": (known(said_goodbye=True), leaving(LEAVING)),
    "it did, and we stood still": (
        known(S, said_goodbye=True),
        {**leaving(LEAVING), **ours(FAILURES - PROOF, "1.000")},
    ),
    "our clock was stepped": (
        known(stepped=True),
        become(set(Reason) - {Reason.SHUTDOWN}, Reason.CLOCK_STEP),
    ),
    "it was, for our host slept": (
        known(S, stepped=True),
        become(set(Reason) - {Reason.SHUTDOWN}, Reason.CLOCK_STEP)
        | become(FAILURES - PROOF, Reason.CLOCK_STEP, ours([""], "1.000")[""][1]),
    ),
    **{
        f"a long silence, {waiting_for} to come": (
            silent(waiting_for),
            become(IMPATIENCE, waiting_for, "{} after 1.000 s of silence"),
        )
        for waiting_for in sorted(SILENCE)
    },
    "a long silence in which we stood still": (
        silent(Reason.REPLY_TIMEOUT, stalled_ns=S),
        ours(FAILURES - PROOF - SILENCE, "1.000")
        | become(IMPATIENCE, Reason.REPLY_TIMEOUT, "{} after 1.000 s of silence"),
    ),
    "a long silence of a server that said GOODBYE": (
        silent(Reason.REPLY_TIMEOUT, said_goodbye=True),
        leaving(LEAVING - IMPATIENCE)
        | become(IMPATIENCE, Reason.DRAINING, "reply_timeout after the server's GOODBYE"),
    ),
    "a short silence": (silent(Reason.REPLY_TIMEOUT, S - 1, 5), {}),
    "a long silence in which we had sent hardly anything": (
        silent(Reason.REPLY_TIMEOUT, 60 * S, 1),
        {},
    ),
    "a long silence in which nothing was due": (silent(Reason.OK), {}),
}


@pytest.mark.parametrize("name", CASES)
def test_of_every_reason_it_is_decided_whose_doing_it_was(name):
    circumstances, becomes = CASES[name]
    for reason in Reason:
        found, detail = becomes.get(reason, (reason, "why"))
        assert judge(reason, "why", circumstances) == (found, detail.format(reason)), reason


def test_many_small_stalls_count_as_much_as_a_long_one():
    stalled = Stalled(3 * S, 90 * MS, Cause.THROTTLED)
    found = judge(Reason.REPLY_TIMEOUT, "", Circumstances(stalled, 10 * S))
    assert found == (Reason.SELF_STALL, "reply_timeout after we stood still for 3.000 s, throttled")


def test_a_probe_is_judged_by_what_it_holds_and_what_its_caller_knows():
    for fields, knows, reason in (
        ({"timeout_ns": S}, {}, Reason.RESET),
        ({"timeout_ns": S, "stalled": Stalled(S, S, None)}, {}, Reason.SELF_STALL),
        ({"stalled": Stalled(S, S, None)}, {}, Reason.RESET),
        (
            {"sent_in_vain": 2, "silence": Silence(Reason.REPLY_TIMEOUT, S)},
            {},
            Reason.REPLY_TIMEOUT,
        ),
        ({"draining": True}, {}, Reason.DRAINING),
        ({}, {"said_goodbye": True}, Reason.DRAINING),
        ({}, {"stepped": True}, Reason.CLOCK_STEP),
    ):
        result = ended(Reason.RESET, **fields)
        judge_probe(result, **knows)
        assert result.reason is reason


@pytest.mark.parametrize("cause", Cause)
@pytest.mark.parametrize("reason", [Reason.OK, Reason.REPLY_TIMEOUT])
def test_a_probe_in_whose_time_we_stood_still_is_tainted_with_the_cause(cause, reason):
    result = ended(reason, stalled=Stalled(STALL_NS, STALL_NS, cause), timeout_ns=60 * S)
    judge_probe(result)
    assert (result.reason, result.tainted, result.worst_lag_ns) == (reason, cause, STALL_NS)


@pytest.mark.parametrize("own", [NEVER, Stalled(500 * MS, STALL_NS - 1, None)])
def test_a_probe_without_a_stall_is_not_tainted(own):
    assert ended(Reason.OK, stalled=own).tainted == ""


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ECONNREFUSED, Reason.REFUSED),
        (errno.ECONNRESET, Reason.RESET),
        (errno.ECONNABORTED, Reason.RESET),
        (errno.EPIPE, Reason.RESET),
        (errno.EHOSTUNREACH, Reason.UNREACHABLE),
        (errno.ENETUNREACH, Reason.UNREACHABLE),
        (errno.ENOPROTOOPT, Reason.UNREACHABLE),
        (errno.EPROTO, Reason.UNREACHABLE),
        (errno.EOPNOTSUPP, Reason.UNREACHABLE),
        (errno.EINVAL, Reason.INTERNAL_ERROR),
        (errno.EBADF, Reason.INTERNAL_ERROR),
        (errno.EAFNOSUPPORT, Reason.NO_ADDRESS),
        (errno.ETIMEDOUT, Reason.CONNECT_TIMEOUT),
        (errno.EADDRNOTAVAIL, Reason.NO_PORTS),
        (errno.EMFILE, Reason.NO_DESCRIPTORS),
        (errno.ENFILE, Reason.NO_DESCRIPTORS),
        (errno.ENOBUFS, Reason.NO_MEMORY),
        (errno.ENOMEM, Reason.NO_MEMORY),
        (errno.EPERM, Reason.DENIED),
        (errno.EACCES, Reason.DENIED),
    ],
)
def test_an_errno_means(number, reason):
    assert reason_of(OSError(number, ""), Reason.CONNECT_TIMEOUT) is reason


@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES])
@pytest.mark.parametrize("due", [Reason.GREETING_TIMEOUT, Reason.REPLY_TIMEOUT])
def test_what_prohibits_a_connection_that_lived_is_on_the_way(number, due):
    assert reason_of(OSError(number, ""), due) is Reason.UNREACHABLE
    assert OUTCOMES[Reason.UNREACHABLE] is Outcome.FAIL


def test_only_what_this_machine_lacks_is_its_own_fault():
    assert own_fault(OSError(errno.ENOMEM, "")) is Reason.NO_MEMORY
    assert own_fault(OSError(errno.ECONNRESET, "")) is None
    assert own_fault(ValueError()) is None
