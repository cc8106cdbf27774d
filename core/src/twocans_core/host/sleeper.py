"""A second opinion on how late this process is, from outside the event loop."""

import threading
import time
from pathlib import Path

from .procfs import RunDelay

__all__ = ["Sleeper"]

# Often enough to tell of a stop of 100 ms, and under a thousandth of a CPU.
_NAP_NS = 50_000_000


class Sleeper:
    """A thread that sleeps 50 ms at a time and adds up how late it woke."""

    def __init__(self) -> None:
        # What it has added up, and when it is to wake next: one attribute, so that both are
        # of the same moment for a reader in another thread.
        self._said = (0, time.monotonic_ns() + _NAP_NS)
        self._over = False
        self._run_delay: RunDelay | None = None

    def start(self) -> None:
        """Begin to sleep."""
        thread = threading.Thread(target=self._watch, name="sleeper", daemon=True)
        thread.start()
        self._run_delay = RunDelay(Path(f"/proc/self/task/{thread.native_id}/schedstat"))

    def stop(self) -> None:
        """Let the thread end at its next waking."""
        self._over = True
        if self._run_delay is not None:
            self._run_delay.close()

    def late_ns(self) -> int:
        """Return how late it woke in sum, the waking included that is overdue now."""
        late_ns, due_ns = self._said
        return late_ns + max(0, time.monotonic_ns() - due_ns)

    def run_delay_ns(self) -> int:
        """Return how long its thread has waited for a CPU; 0 where the kernel does not say."""
        delay = self._run_delay
        return (delay.read_ns() or 0) if delay is not None else 0

    def _watch(self) -> None:
        # The clock is read once a round: a stop is in the sum, wherever in a round it came.
        now_ns, late_ns = time.monotonic_ns(), 0
        while not self._over:
            due_ns = now_ns + _NAP_NS
            self._said = (late_ns, due_ns)
            time.sleep(_NAP_NS / 1e9)
            now_ns = time.monotonic_ns()
            late_ns += max(0, now_ns - due_ns)
