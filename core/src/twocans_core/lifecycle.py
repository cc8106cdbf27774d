"""Start and stop: the frame in which both cans run, and what they do when a signal comes."""

import asyncio
import contextlib
import errno
import gc
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable

from . import __version__
from .jsonlog import LogPipe, configure, install_excepthooks
from .poller import run_loop
from .sockets import ListenError

__all__ = ["run_service", "stop_signal"]

log = logging.getLogger(__name__)

# The loop waits for the GIL at most this long while a scrape is rendered in a thread.
_SWITCH_INTERVAL_S = 0.0001
# New objects after which the cycle collector looks at them. A probe makes hundreds and leaves no
# cycle, so Python's 700 is once a probe or two.
_GARBAGE = 20_000
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextlib.asynccontextmanager
async def stop_signal() -> AsyncIterator[asyncio.Event]:
    """Yield an event that SIGTERM or SIGINT sets. A second signal exits at once.

    As PID 1 of a container there is no default action for either, so both are handled here.
    The second one exits with 128 plus the signal's number.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def on_signal(number: signal.Signals) -> None:
        if stop.is_set():
            os._exit(128 + number)  # the operator has asked twice
        log.info("stopping", extra={"twocans.signal": number.name})
        stop.set()

    for number in _SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield stop
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


def run_service(
    work: Callable[[asyncio.Event, LogPipe], Awaitable[int]],
    *,
    prog: str,
    level: str,
    port_flags: str,
    fd: int = 1,
) -> int:
    """Run a can until it is done, with its logs and signals set up; returns its exit code.

    Args:
        work: Given the event that says stop, and the logs; returns the exit code.
        prog: The command's name.
        level: Lowest level that is logged.
        port_flags: The flags that choose the ports, for when one is taken.
        fd: Where log lines go.

    Returns:
        What the work returned; 1 when it could not listen, or crashed: both were said.
    """
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    gc.set_threshold(_GARBAGE)
    logs = configure(level, service=prog, version=__version__, fd=fd)

    async def serve() -> int:
        install_excepthooks(asyncio.get_running_loop())
        async with stop_signal() as stop:
            return await work(stop, logs)

    try:
        return run_loop(serve())
    except ListenError as error:
        sys.stderr.write(f"{prog}: {error.strerror}\n")
        if error.errno == errno.EADDRINUSE:
            sys.stderr.write(f"{prog}: choose another with {port_flags}, or 0 for any\n")
        return 1
    except Exception as error:  # the last one: whatever it is goes to the log
        sys.excepthook(type(error), error, error.__traceback__)
        sys.stderr.write(f"{prog}: crashed: {error!r}; the log has the rest\n")
        return 1
    finally:
        logs.close()
