"""Run a can whose loop can be blocked from outside.

    python stallable.py python -m twocans_client run --target=server:5000

SIGUSR1 blocks its loop for half a second in a call that waits; SIGUSR2 in code that holds the
interpreter, as a garbage collection does. A handler runs on the main thread, which is the loop's.
"""

import runpy
import signal
import sys
import time

BLOCKED_S = 0.5


def wait(*_: object) -> None:
    """Wait, as a slow disk or resolver makes us."""
    time.sleep(BLOCKED_S)


def work(*_: object) -> None:
    """Work, and let no other thread of this process run."""
    end = time.monotonic() + BLOCKED_S
    interval = sys.getswitchinterval()
    sys.setswitchinterval(10 * BLOCKED_S)
    while time.monotonic() < end:
        pass
    sys.setswitchinterval(interval)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, wait)
    signal.signal(signal.SIGUSR2, work)
    module, *sys.argv[1:] = sys.argv[3:]
    sys.argv[0] = module
    runpy.run_module(module, run_name="__main__")
