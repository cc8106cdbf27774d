"""Whose doing it was, where the first look may deceive. No I/O."""

import errno

from .results import Outcome, ProbeResult, Reason

__all__ = ["LEAVING", "excuse", "own_fault", "reason_of"]

_OWN = {
    errno.EADDRNOTAVAIL: Reason.NO_PORTS,
    errno.EMFILE: Reason.NO_DESCRIPTORS,
    errno.ENFILE: Reason.NO_DESCRIPTORS,
    errno.ENOBUFS: Reason.NO_MEMORY,
    errno.ENOMEM: Reason.NO_MEMORY,
    errno.ENOSPC: Reason.NO_MEMORY,
    errno.EPERM: Reason.DENIED,
    errno.EACCES: Reason.DENIED,
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
    errno.ENOPROTOOPT: Reason.UNREACHABLE,
    errno.EPROTO: Reason.UNREACHABLE,
    errno.EOPNOTSUPP: Reason.UNREACHABLE,
    errno.EINVAL: Reason.UNREACHABLE,
    errno.EAFNOSUPPORT: Reason.UNREACHABLE,
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
_PROOF = frozenset({Reason.REFUSED, Reason.WRONG_BYTES})


def reason_of(error: OSError, otherwise: Reason) -> Reason:
    """Return what an error of a socket means.

    ``otherwise`` for the kernel's own time-out; what no path can cause is a bug of ours.
    """
    if error.errno == errno.ETIMEDOUT:
        return otherwise
    return _ERRNOS.get(error.errno or 0, Reason.INTERNAL_ERROR)


def own_fault(error: Exception) -> Reason | None:
    """Return what this machine lacked, or None if it was not that."""
    number = error.errno if isinstance(error, OSError) else None
    return _OWN.get(number or 0)


def excuse(result: ProbeResult, timeout_ns: int) -> None:
    """Take back the blame where the fault may be ours, or was announced."""
    was = result.reason
    if result.outcome is not Outcome.FAIL:
        return
    if was not in _PROOF and result.worst_lag_ns >= timeout_ns // 4:
        result.reason = Reason.SELF_STALL
        result.detail = f"{was} after our loop stood still for {result.worst_lag_ns / 1e9:.3f} s"
    elif result.draining and was in LEAVING:
        result.reason = Reason.DRAINING
        result.detail = f"{was} after the server's GOODBYE"
