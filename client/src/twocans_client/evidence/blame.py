"""Whose doing it was, where the first look may deceive. No I/O."""

import errno

from twocans_core.host.stalls import Stalled
from twocans_core.net.sockets import HostError

from .results import Outcome, ProbeResult, Reason

__all__ = ["LEAVING", "after_silence", "excuse", "is_self_stall", "own_fault", "reason_of"]

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
# How a server treats a client that kept it waiting: ``too_slow``, ``idle``, or a reset, where
# we wrote before we read that.
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
# Our kernel had sent the same again so often, and nothing had answered: it is not lost once, and
# kernels answer whether or not a program runs. So it is the path's silence, or the far host's.
_IN_VAIN = 2
_SILENT_NS = 1_000_000_000
# The least that a server's patience may be set to and still serve a healthy client.
_PATIENCE_NS = 1_000_000_000


def reason_of(error: OSError, otherwise: Reason) -> Reason:
    """Return what an error of a socket means.

    ``otherwise`` for the kernel's own time-out; what no path can cause is a bug of ours.
    """
    if isinstance(error, HostError):
        is_address = error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
        return Reason.NO_ADDRESS if is_address else Reason.INTERNAL_ERROR
    if error.errno == errno.ETIMEDOUT:
        return otherwise
    return _ERRNOS.get(error.errno or 0, Reason.INTERNAL_ERROR)


def own_fault(error: Exception) -> Reason | None:
    """Return what this machine lacked, or None if it was not that."""
    number = error.errno if isinstance(error, OSError) else None
    return _OWN.get(number or 0)


def after_silence(
    reason: Reason, detail: str, waiting_for: Reason, sent_in_vain: int, silent_ns: int
) -> tuple[Reason, str]:
    """Return reason and detail, where the far end ended what the path had long cut.

    A server that does not hear us any more closes, or its kernel does, and that may still reach us.

    Args:
        reason: How it looks.
        detail: More about it.
        waiting_for: What silence would have meant.
        sent_in_vain: As in ``ProbeResult``.
        silent_ns: How long an answer has been waited for.
    """
    is_cut = reason in _IMPATIENCE and waiting_for in _SILENCE
    if not is_cut or sent_in_vain < _IN_VAIN or silent_ns < _SILENT_NS:
        return reason, detail
    return waiting_for, f"{reason} after {silent_ns / 1e9:.3f} s of silence"


def is_self_stall(reason: Reason, timeout_ns: int, stalled: Stalled, sent_in_vain: int = 0) -> bool:
    """Whether a failure may come of our own standing still while we waited.

    Args:
        reason: How it looks.
        timeout_ns: How long we were ready to wait.
        stalled: How we stood still meanwhile.
        sent_in_vain: As in ``ProbeResult``.
    """
    if reason in _PROOF or (reason in _SILENCE and sent_in_vain >= _IN_VAIN):
        return False
    if reason in _IMPATIENCE and stalled.total_ns >= _PATIENCE_NS:
        return True
    return stalled.total_ns >= timeout_ns // 4


def excuse(result: ProbeResult, timeout_ns: int, stalled: Stalled) -> None:
    """Take back the blame where the fault may be ours, or was announced.

    A good probe is marked ``tainted`` when we stood still in its time.
    """
    was = result.reason
    result.worst_lag_ns = stalled.worst_ns
    result.tainted = stalled.cause or ""
    if result.outcome is not Outcome.FAIL:
        return
    if is_self_stall(was, timeout_ns, stalled, result.sent_in_vain):
        why = f", {stalled.cause}" if stalled.cause else ""
        result.reason = Reason.SELF_STALL
        result.detail = f"{was} after we stood still for {stalled.total_ns / 1e9:.3f} s{why}"
    elif result.draining and was in LEAVING:
        result.reason = Reason.DRAINING
        result.detail = f"{was} after the server's GOODBYE"
