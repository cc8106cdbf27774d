"""The first moments of a process, before anything slow is imported. It imports next to nothing."""

import os
import signal

__all__ = ["become_service", "begin"]


def begin() -> None:
    """Let SIGINT and SIGTERM end the process quietly, and make its standard streams safe.

    As PID 1 of a container a process has no default action: a SIGTERM that comes while it
    still imports would be lost, and its orchestrator would wait and then kill it.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        # No SystemExit: one that is raised in a callback of the import machinery is lost.
        signal.signal(number, lambda number, _: os._exit(128 + number))
    from .output import secure_streams

    secure_streams()


def become_service() -> None:
    """Let SIGTERM be a good end, and ignore what must not end a service, until its loop runs."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.SIG_IGN)
