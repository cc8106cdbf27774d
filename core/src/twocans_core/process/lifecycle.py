"""Start and stop: the frame in which both programs run, and what they do when a signal comes."""

import asyncio
import contextlib
import errno
import gc
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from twocans_core import __version__
from twocans_core.errors import ConfigError, OutputError
from twocans_core.host.procfs import raise_descriptor_limit
from twocans_core.net.listener import ListenError

from .jsonlog import LogPipe, configure, install_excepthooks
from .output import complain

__all__ = ["run_service", "stop_signal"]

log = logging.getLogger(__name__)

# The loop waits for the GIL at most this long while a scrape is rendered in a thread.
_SWITCH_INTERVAL_S = 0.0001
# New objects after which the cycle collector looks at them. A probe makes hundreds and leaves no
# cycle, so Python's 700 is once a probe or two.
_GARBAGE = 20_000
# Nobody has a use for these, and by default they end a process.
_UNUSED = (signal.SIGUSR1, signal.SIGUSR2)


@contextlib.asynccontextmanager
async def stop_signal(
    reload: Callable[[], None] | None = None, leaving: str = ""
) -> AsyncIterator[asyncio.Event]:
    """Yield an event that SIGTERM or SIGINT sets. A second one exits at once.

    As PID 1 of a container there is no default action for either, so both are handled here.
    The second one exits with 128 plus the signal's number.

    Args:
        reload: What SIGHUP does. Of a process that was started on a terminal SIGHUP says that
            the terminal is gone, and stops it as SIGTERM does; so it does without ``reload``.
        leaving: What is waited for after the first signal, to be shown after Ctrl-C.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def on_stop(number: signal.Signals) -> None:
        if stop.is_set():
            # Not sys.exit(): what is registered with atexit would wait, up to 2 s for a log that
            # nobody reads.
            os._exit(128 + number)  # the operator has asked twice
        log.info("stopping", extra={"twocans.signal": number.name})
        stop.set()
        if number is signal.SIGINT and leaving:
            complain(f"{leaving}; Ctrl-C again ends it at once")

    def on_unused(number: signal.Signals) -> None:
        log.info("signal_ignored", extra={"twocans.signal": number.name})

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_stop, number)
    if reload is None or any(map(os.isatty, (0, 1, 2))):
        loop.add_signal_handler(signal.SIGHUP, on_stop, signal.SIGHUP)
    else:
        loop.add_signal_handler(signal.SIGHUP, reload)
    for number in _UNUSED:
        # ``entry.become_service`` has set SIG_IGN. Any other handler was somebody's wish.
        if signal.getsignal(number) in (signal.SIG_DFL, signal.SIG_IGN):
            loop.add_signal_handler(number, on_unused, number)
    try:
        yield stop
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, *_UNUSED):
            loop.remove_signal_handler(number)


def run_service(
    work: Callable[[asyncio.Event, LogPipe], Awaitable[int]],
    *,
    prog: str,
    level: Callable[[], str],
    port_flags: str,
    leaving: str,
    fd: int = 1,
    file: str = "",
    reloads: Sequence[Callable[[], None]] = (),
) -> int:
    """Run a process until it is done, with its logs and signals set up; returns its exit code.

    Args:
        work: Given the event that says stop, and the logs; returns the exit code.
        prog: The command's name.
        level: Reads the lowest level that is logged; again at each SIGHUP.
        port_flags: The flags that choose the ports, for when one is taken.
        leaving: What is waited for when it is to stop.
        fd: Where log lines go.
        file: Path of a file that they are appended to instead; opened anew at each SIGHUP.
        reloads: What else a SIGHUP does. Read at each, so the work may add to it.

    Returns:
        What the work returned; 1 when it could not listen, or crashed: both were said.

    Raises:
        ConfigError: The log's file cannot be opened.
        OutputError: Of the work.
    """
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    gc.set_threshold(_GARBAGE)
    raise_descriptor_limit()
    logs = configure(level(), service=prog, version=__version__, fd=fd, file=file)

    def reload() -> None:
        try:
            # First: it may fail, and then nothing has been changed.
            logs.reopen()
            logging.getLogger().setLevel(level().upper())
        except ConfigError as error:
            log.error("reload_failed", extra={"error.message": str(error)})
        else:
            for act in reloads:
                act()
            log.info("reloaded")

    async def serve() -> int:
        install_excepthooks(asyncio.get_running_loop())
        async with stop_signal(reload, f"{prog}: {leaving}") as stop:
            return await work(stop, logs)

    try:
        return asyncio.run(serve())
    except ListenError as error:
        complain(f"{prog}: {error.strerror}")
        if error.errno == errno.EADDRINUSE:
            complain(f"{prog}: choose another with {port_flags}, or 0 for any")
        return 1
    except OutputError:
        raise
    except Exception as error:  # the last one: whatever it is goes to the log
        sys.excepthook(type(error), error, error.__traceback__)
        complain(f"{prog}: crashed: {error!r}; the log has the rest")
        return 1
    finally:
        logs.close()
