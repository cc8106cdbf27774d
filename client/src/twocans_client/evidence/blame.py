"""Whose doing a failure was. No I/O.

Other modules report how a failure looks, and what else was seen. What it was is decided here and
nowhere else: for a probe, a held connection and a look-up by the same rules, in the same order.
"""

import errno
from typing import NamedTuple

from twocans_core.host.stalls import NEVER, Stalled
from twocans_core.net.sockets import HostError

from .results import OUTCOMES, Outcome, ProbeResult, Reason, Silence

__all__ = ["LEAVING", "Circumstances", "judge", "judge_probe", "own_fault", "reason_of"]

_OWN = {
    errno.EADDRNOTAVAIL: Reason.NO_PORTS,
    errno.EMFILE: Reason.NO_DESCRIPTORS,
    errno.ENFILE: Reason.NO_DESCRIPTORS,
    errno.ENOBUFS: Reason.NO_MEMORY,
    errno.ENOMEM: Reason.NO_MEMORY,
    errno.ENOSPC: Reason.NO_MEMORY,
    errno.EPERM: Reason.DENIED,
    errno.EACCES: Reason.DENIED,
    errno.EAFNOSUPPORT: Reason.NO_ADDRESS,
}
_PROHIBITED = frozenset({errno.EPERM, errno.EACCES})
_ERRNOS = {
    **_OWN,
    errno.ECONNREFUSED: Reason.REFUSED,
    errno.ECONNRESET: Reason.RESET,
    errno.ECONNABORTED: Reason.RESET,
    errno.EPIPE: Reason.RESET,
    errno.ENOTCONN: Reason.RESET,
    # What our own routes say, and what the kernel makes of ICMP messages.
    errno.EHOSTUNREACH: Reason.UNREACHABLE,
    errno.ENETUNREACH: Reason.UNREACHABLE,
    errno.EHOSTDOWN: Reason.UNREACHABLE,
    errno.ENETDOWN: Reason.UNREACHABLE,
    errno.ENONET: Reason.UNREACHABLE,
    # Likewise, but only as what a connection ended with (icmp_err_convert, icmpv6_err_convert).
    errno.ENOPROTOOPT: Reason.UNREACHABLE,
    errno.EPROTO: Reason.UNREACHABLE,
    errno.EOPNOTSUPP: Reason.UNREACHABLE,
    errno.ENODEV: Reason.UNREACHABLE,
}

# What a server that said GOODBYE may do without failing the path.
LEAVING = frozenset(
    {
        Reason.REFUSED,
        Reason.UNREACHABLE,
        Reason.CONNECT_TIMEOUT,
        Reason.GREETING_TIMEOUT,
        Reason.REPLY_TIMEOUT,
        Reason.CLOSE_TIMEOUT,
        Reason.RESET,
        Reason.CLOSED_EARLY,
    }
)
# No stall of ours makes a server refuse, or change bytes.
_PROOF = frozenset({Reason.REFUSED, Reason.WRONG_BYTES, Reason.DAMAGED})
# How a server treats a client that kept it waiting: an ERROR ``too_slow``, a GOODBYE ``idle``, or
# a reset where we wrote before we had read those.
_IMPATIENCE = frozenset({Reason.PROTOCOL_ERROR, Reason.CLOSED_EARLY, Reason.RESET})
# How it looks when nothing came.
_SILENCE = frozenset(
    {
        Reason.CONNECT_TIMEOUT,
        Reason.GREETING_TIMEOUT,
        Reason.REPLY_TIMEOUT,
        Reason.CLOSE_TIMEOUT,
    }
)
# From so many retransmissions in a row on, silence is proof: one may be lost by chance, and kernels
# acknowledge whether or not a program runs. So it is the path that is silent, or the far host.
_IN_VAIN = 2
_SILENT_NS = 1_000_000_000
# The shortest patience with which a server can still serve a healthy client.
_SERVERS_PATIENCE_NS = 1_000_000_000


def reason_of(error: OSError, otherwise: Reason) -> Reason:
    """Return what an error of a socket means; what no path can cause is a bug of ours.

    Args:
        error: It.
        otherwise: For the kernel's own time-out. CONNECT_TIMEOUT until we are connected.
    """
    if isinstance(error, HostError):
        # Else EADDRNOTAVAIL is of connect(), and means that no port is left: ``sockets`` has found
        # out which.
        is_address = error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
        return Reason.NO_ADDRESS if is_address else Reason.INTERNAL_ERROR
    # From connect() after tcp_syn_retries, later by TCP_USER_TIMEOUT or keepalive (tcp(7)).
    if error.errno == errno.ETIMEDOUT:
        return otherwise
    # A rule of ours has connect() fail. A connection that lived ends so when it is given up, after
    # ICMPv6 had said "prohibited" of it (tcp_write_err, icmpv6_err_convert).
    if error.errno in _PROHIBITED and otherwise is not Reason.CONNECT_TIMEOUT:
        return Reason.UNREACHABLE
    return _ERRNOS.get(error.errno or 0, Reason.INTERNAL_ERROR)


def own_fault(error: Exception) -> Reason | None:
    """Return what this machine lacked, or None if it was not that."""
    number = error.errno if isinstance(error, OSError) else None
    return _OWN.get(number or 0)


class Circumstances(NamedTuple):
    """What is known of a failure besides how it looks.

    Attributes:
        stalled: How we stood still meanwhile.
        patience_ns: How long we were ready to wait; None where nothing was waited for.
        keepalive_ns: How often the server must hear from us, where it told us. None elsewhere:
            then it is taken for as impatient as a server can be.
        sent_in_vain: As in ``ProbeResult``.
        silence: What was waited for when it failed; None where nothing was due.
        said_goodbye: The server had announced that it leaves.
        stepped: Our clock was stepped, or our host suspended, meanwhile.
    """

    stalled: Stalled = NEVER
    patience_ns: int | None = None
    keepalive_ns: int | None = None
    sent_in_vain: int = 0
    silence: Silence | None = None
    said_goodbye: bool = False
    stepped: bool = False


def judge(reason: Reason, detail: str, known: Circumstances) -> tuple[Reason, str]:
    """Return whose doing it was, as the reason, and more about it, for people.

    Args:
        reason: How it looks.
        detail: More about that.
        known: What else is known.
    """
    # The silence first: it is what a stall of ours, or a GOODBYE, then has to explain.
    silence = known.silence
    if silence is not None and _is_cut(reason, silence, known.sent_in_vain):
        detail = f"{reason} after {silence.ns / 1e9:.3f} s of silence"
        reason = silence.waiting_for
    if OUTCOMES[reason] is Outcome.FAIL:
        if _is_self_stall(reason, known):
            stalled = known.stalled
            why = f", {stalled.cause}" if stalled.cause else ""
            detail = f"{reason} after we stood still for {stalled.total_ns / 1e9:.3f} s{why}"
            reason = Reason.SELF_STALL
        elif known.said_goodbye and reason in LEAVING:
            detail = f"{reason} after the server's GOODBYE"
            reason = Reason.DRAINING
    # Last, for it spoils good probes too; what was found so far stays as the detail.
    if known.stepped and reason is not Reason.SHUTDOWN:
        reason = Reason.CLOCK_STEP
    return reason, detail


def judge_probe(result: ProbeResult, *, said_goodbye: bool = False, stepped: bool = False) -> None:
    """Judge a probe that has ended, once: nothing else changes the reason that it ended with.

    Args:
        result: All that ``probe`` found.
        said_goodbye: Its server had announced before, to another probe, that it leaves.
        stepped: As in ``Circumstances``.
    """
    known = Circumstances(
        result.stalled,
        result.timeout_ns,
        sent_in_vain=result.sent_in_vain,
        silence=result.silence,
        said_goodbye=said_goodbye or result.draining,
        stepped=stepped,
    )
    result.reason, result.detail = judge(result.reason, result.detail, known)


def _is_cut(reason: Reason, silence: Silence, sent_in_vain: int) -> bool:
    """Whether the far end ended what the path had cut long before.

    A server that does not hear us any more closes, or its kernel does, and that may still reach us.
    """
    if reason not in _IMPATIENCE or silence.waiting_for not in _SILENCE:
        return False
    return sent_in_vain >= _IN_VAIN and silence.ns >= _SILENT_NS


def _is_self_stall(reason: Reason, known: Circumstances) -> bool:
    """Whether a failure may come of our own standing still while we waited."""
    if reason in _PROOF or (reason in _SILENCE and known.sent_in_vain >= _IN_VAIN):
        return False
    if known.patience_ns is None:
        return False
    # A choice: shorter stalls leave the far end three quarters of its time, and so the blame.
    enough_ns = known.patience_ns // 4
    if known.keepalive_ns is not None:
        # The server ends clients that are silent for too long. And while our host sleeps, kernels
        # give up: so for every reason.
        enough_ns = min(enough_ns, known.keepalive_ns)
    elif reason in _IMPATIENCE:
        enough_ns = min(enough_ns, _SERVERS_PATIENCE_NS)
    return known.stalled.total_ns >= enough_ns
