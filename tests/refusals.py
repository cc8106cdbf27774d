"""Have this process's kernel refuse calls, as an old one, gVisor or a sandbox does (seccomp)."""

import ctypes
import platform
import struct

import pytest

__all__ = ["needs_seccomp", "refuse"]

_CALLS = {
    "x86_64": {"sendmsg": 46, "recvmsg": 47, "setsockopt": 54, "getsockopt": 55, "accept4": 288},
    "aarch64": {
        **{"sendmsg": 211, "recvmsg": 212, "setsockopt": 208, "getsockopt": 209},
        "accept4": 242,
    },
}
needs_seccomp = pytest.mark.skipif(
    platform.machine() not in _CALLS, reason="the numbers of its calls are not known here"
)

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _MODE_FILTER = 22, 38, 2
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ERRNO, _ALLOW = 0x0005_0000, 0x7FFF_0000


def refuse(call: str, error: int, **arguments: int) -> None:
    """Refuse a system call from now on, for good, in this process and what it starts.

    Args:
        call: Its name.
        error: The errno that it ends with.
        arguments: Which of them: the value of an argument, by its place ("a1" is the second).
    """
    wanted = [(0, _CALLS[platform.machine()][call])]
    wanted += [(16 + 8 * int(place[1:]), value) for place, value in arguments.items()]
    program = b""
    for number, (offset, value) in enumerate(wanted):
        otherwise = 2 * (len(wanted) - number) - 1
        program += struct.pack("=HBBI", _LOAD, 0, 0, offset)
        program += struct.pack("=HBBI", _JUMP_IF_EQUAL, 0, otherwise, value)
    program += struct.pack("=HBBI", _RETURN, 0, 0, _ERRNO | error)
    program += struct.pack("=HBBI", _RETURN, 0, 0, _ALLOW)
    libc = ctypes.CDLL(None, use_errno=True)
    code = ctypes.create_string_buffer(program, len(program))
    fprog = struct.pack("HP", len(program) // 8, ctypes.addressof(code))
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        _PR_SET_SECCOMP, _MODE_FILTER, fprog, 0, 0
    ):
        raise OSError(ctypes.get_errno(), "no seccomp filter can be set")
