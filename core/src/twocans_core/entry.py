"""The first moments of a process, before anything slow is imported."""

import signal
import sys

__all__ = ["leave_on_sigterm"]


def leave_on_sigterm(code: int = 0) -> None:
    """Let SIGTERM end the process with this code until a service takes over its signals.

    As PID 1 of a container a process has no default action: a SIGTERM that comes while it
    still imports would be lost, and its orchestrator would wait and then kill it.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(code))
