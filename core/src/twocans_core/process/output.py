"""What a process says on its standard streams: whole, or the caller knows that it is not.

One place for all that a stream may be: closed, full, slow, left by its reader, made non-blocking
by a process that shares it, or of an encoding that lacks a character. Python's own text streams
lose output on some of these, or end the process.
"""

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable

from twocans_core.errors import OutputError

__all__ = ["complain", "run_main", "say", "secure_streams", "write_some"]

OUTPUT_EXIT = 3
"""As of wrong usage: what monitoring plugins call UNKNOWN."""

# What a pipe takes at once when poll() says that it takes anything.
_PIPE_BUF = 4_096
_COMPLAIN_S = 0.5


def secure_streams() -> None:
    """Open what is closed of descriptors 0 to 2: no file or socket of ours may become one.

    What replaces stdout cannot be written to: that nobody gets our output must not look good.
    """
    for fd, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(fd)
        except OSError:
            with contextlib.suppress(OSError):
                os.open(os.devnull, flags)  # becomes the lowest that is free: this one


def run_main(prog: str, main: Callable[[], int]) -> int:
    """Run a command; returns its exit code.

    When its output could not be written, that is 3; or 141, without a word, when its reader
    has gone, as if SIGPIPE had ended us.
    """
    try:
        return main()
    except OutputError as error:
        if isinstance(error.__cause__, BrokenPipeError):
            return 128 + signal.SIGPIPE
        complain(f"{prog}: {error}")
        return OUTPUT_EXIT
    except KeyboardInterrupt:  # Python has its own handler back once a service has ended
        return 128 + signal.SIGINT


def say(text: str) -> None:
    """Write a text and a line feed to stdout.

    Raises:
        OutputError: Not all of it was written.
    """
    rest = _encode(text, sys.stdout)
    try:
        while rest:
            rest = rest[write_some(1, rest) :]
    except OSError as error:
        raise OutputError(f"cannot write to stdout: {error.strerror}") from error


def complain(text: str) -> None:
    """Write a text and a line feed to stderr, or what it takes in half a second. Never raises."""
    rest = _encode(text, sys.stderr)
    deadline = time.monotonic() + _COMPLAIN_S
    with contextlib.suppress(OSError):
        while rest and _wait(2, deadline - time.monotonic()):
            # Between poll() and write() another process that shares the pipe may have filled it.
            with contextlib.suppress(BlockingIOError):
                rest = rest[os.write(2, rest[:_PIPE_BUF]) :]


def write_some(fd: int, data: bytes) -> int:
    """Write, as ``os.write``, but wait where a non-blocking descriptor takes nothing now."""
    while True:
        try:
            return os.write(fd, data)
        except BlockingIOError:
            _wait(fd, None)


def _wait(fd: int, seconds: float | None) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(None if seconds is None else max(0.0, seconds) * 1e3))


def _encode(text: str, stream: object) -> bytes:
    # There is no stream at all where Python found the descriptor closed.
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return f"{text}\n".encode(encoding, "backslashreplace")
